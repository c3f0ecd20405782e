//! [`Block`]: one layer of the residual stream, and [`Pass`], which carries the hook through it.

use candle_core::Tensor;

use super::{attention::Attention, attention::AttentionContext, kv_cache::LayerCache, mlp::Mlp, norm::Norm};
use crate::{Error, Hook, HookPoint, Result, Site};

/// One layer.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) ln1: Norm,
    pub(crate) attention: Attention,
    pub(crate) ln2: Norm,
    pub(crate) mlp: Mlp,
}

/// The hook of a running pass, and the point after which nobody needs the rest.
pub(crate) struct Pass<'a> {
    pub(crate) hook: &'a mut dyn Hook,
    /// `None`: run to the end.
    pub(crate) last: Option<HookPoint>,
}

impl Pass<'_> {
    /// Shows `activation` to the hook; returns what the pass goes on with, or `None` where it ends.
    ///
    /// # Shapes
    /// `activation`: `[batch, pos, width]`
    pub(crate) fn see(&mut self, point: HookPoint, activation: Tensor) -> Result<Option<Tensor>> {
        let replaced = if self.hook.wants(point) { self.hook.apply(point, &activation)? } else { None };
        if self.last == Some(point) {
            return Ok(None);
        }
        let Some(replaced) = replaced else { return Ok(Some(activation)) };
        if replaced.dims()[1..] != activation.dims()[1..] {
            let expected = format!("an activation of shape [batch, {:?}]", &activation.dims()[1..]);
            return Err(Error::invalid(format!("hook at {point}"), expected, format!("{:?}", replaced.dims())));
        }
        Ok(Some(replaced))
    }
}

impl Block {
    /// The residual stream after this layer; `None` where the pass ends inside it.
    ///
    /// # Shapes
    /// `resid`: `[batch, pos, d_model]` -> the same
    pub(crate) fn forward(
        &self,
        resid: Tensor,
        layer: usize,
        context: &AttentionContext<'_>,
        cache: Option<&LayerCache>,
        pass: &mut Pass<'_>,
    ) -> Result<Option<Tensor>> {
        let at = |site| HookPoint::Block { layer, site };
        let Some(resid) = pass.see(at(Site::ResidPre), resid)? else { return Ok(None) };
        let Some(x) = pass.see(at(Site::Ln1Normalized), self.ln1.forward(&resid)?)? else { return Ok(None) };
        let Some(z) = pass.see(at(Site::AttnZ), self.attention.z(&x, context, cache)?)? else { return Ok(None) };
        let Some(attn_out) = pass.see(at(Site::AttnOut), self.attention.project(&z)?)? else { return Ok(None) };
        let mid = (&resid + attn_out)?;
        let (mlp_input, mid) = if context.config.parallel_residual {
            (resid, mid) // the MLP reads what attention read
        } else {
            let Some(mid) = pass.see(at(Site::ResidMid), mid)? else { return Ok(None) };
            (mid.clone(), mid)
        };
        let Some(x) = pass.see(at(Site::Ln2Normalized), self.ln2.forward(&mlp_input)?)? else { return Ok(None) };
        let Some(post) = pass.see(at(Site::MlpPost), self.mlp.post(&x)?)? else { return Ok(None) };
        let Some(mlp_out) = pass.see(at(Site::MlpOut), self.mlp.project(&post)?)? else { return Ok(None) };
        pass.see(at(Site::ResidPost), (mid + mlp_out)?)
    }
}
