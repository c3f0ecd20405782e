//! [`Block`]: one layer of the residual stream, and [`Pass`], which carries the hook through it.

use candle_core::Tensor;

use super::{
    Compute, attention::Attention, attention::AttentionContext, kv_cache::LayerCache, linear::Linear, mlp::Mlp,
    norm::Norm, residual,
};
use crate::{Error, Hook, HookPoint, Result, Site};

/// One layer. Which norms there are, the config's `norm_places` says.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) ln1: Option<Norm>,
    pub(crate) attention: Attention,
    /// Of what attention adds.
    pub(crate) ln1_post: Option<Norm>,
    pub(crate) ln2: Option<Norm>,
    pub(crate) mlp: Mlp,
    /// Of what the MLP adds.
    pub(crate) ln2_post: Option<Norm>,
}

/// The hook of a running pass, and the point after which nobody needs the rest.
pub(crate) struct Pass<'a> {
    pub(crate) hook: &'a mut dyn Hook,
    /// `None`: run to the end.
    pub(crate) last: Option<HookPoint>,
}

impl Pass<'_> {
    fn wants(&self, point: HookPoint) -> bool {
        self.last == Some(point) || self.hook.wants(point)
    }

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
        if replaced.dims().get(1..) != activation.dims().get(1..) {
            let expected = format!("an activation of shape [batch, {:?}]", &activation.dims()[1..]);
            return Err(Error::invalid(format!("hook at {point}"), expected, format!("{:?}", replaced.dims())));
        }
        Ok(Some(replaced))
    }
}

impl Block {
    /// Lays the matrices out for `compute`.
    pub(crate) fn pack(&mut self, compute: Compute) -> Result<()> {
        self.attention.qkv.pack(compute)?;
        self.attention.out.pack(compute)?;
        self.mlp.pack(compute)
    }

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
        let Some(x) = normed(self.ln1.as_ref(), &resid, at(Site::Ln1Normalized), pass)? else { return Ok(None) };
        let Some(z) = pass.see(at(Site::AttnZ), self.attention.z(&x, layer, context, cache)?)? else { return Ok(None) };
        let attention = Adder { linear: &self.attention.out, norm: self.ln1_post.as_ref(), point: at(Site::AttnOut) };
        let Some(mid) = attention.add_to(&resid, &z, pass)? else { return Ok(None) };
        let (mlp_input, mid) = if context.config.parallel_residual {
            (resid, mid) // the MLP reads what attention read
        } else {
            let Some(mid) = pass.see(at(Site::ResidMid), mid)? else { return Ok(None) };
            (mid.clone(), mid)
        };
        let Some(x) = normed(self.ln2.as_ref(), &mlp_input, at(Site::Ln2Normalized), pass)? else { return Ok(None) };
        let Some(post) = pass.see(at(Site::MlpPost), self.mlp.post(&x)?)? else { return Ok(None) };
        let mlp = Adder { linear: &self.mlp.out, norm: self.ln2_post.as_ref(), point: at(Site::MlpOut) };
        let Some(resid) = mlp.add_to(&mid, &post, pass)? else { return Ok(None) };
        pass.see(at(Site::ResidPost), resid)
    }
}

/// What attention or the MLP reads. Without a norm before it there is nothing to hook: it reads the stream itself.
fn normed(norm: Option<&Norm>, resid: &Tensor, point: HookPoint, pass: &mut Pass<'_>) -> Result<Option<Tensor>> {
    match norm {
        Some(norm) => pass.see(point, norm.forward(resid)?),
        None => Ok(Some(resid.clone())),
    }
}

/// The last step of attention or of the MLP: what it adds to the stream.
struct Adder<'a> {
    linear: &'a Linear,
    norm: Option<&'a Norm>,
    /// Where the hook sees what is added.
    point: HookPoint,
}

impl Adder<'_> {
    /// `resid + norm(x W^T + b)`; where nobody looks at what is added, it is added inside the product, to the same
    /// bits.
    fn add_to(&self, resid: &Tensor, x: &Tensor, pass: &mut Pass<'_>) -> Result<Option<Tensor>> {
        if self.norm.is_none() && !pass.wants(self.point) {
            return self.linear.forward_onto(resid, x).map(Some);
        }
        let out = self.linear.forward(x)?;
        let out = self.norm.map_or(Ok(out.clone()), |norm| norm.forward(&out))?;
        let Some(out) = pass.see(self.point, out)? else { return Ok(None) };
        residual::add(resid, &out).map(Some)
    }
}
