//! [`Block`]: one layer of the residual stream, and [`Pass`], which carries the hook through it.

use candle_core::Tensor;

use super::{
    Compute, Edit, Hook, HookPoint, Rows, Site, attention::Attention, attention::AttentionContext,
    kv_cache::KeysValues, linear::Linear, mlp::Mlp, norm::Norm, residual,
};
use crate::{Error, Result};

/// One layer. The config's `norm_places` determines which norms exist.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) ln1: Option<Norm>,
    pub(crate) attention: Attention,
    /// Norm of attention's output.
    pub(crate) ln1_post: Option<Norm>,
    pub(crate) ln2: Option<Norm>,
    pub(crate) mlp: Mlp,
    /// Norm of the MLP's output.
    pub(crate) ln2_post: Option<Norm>,
}

/// The hook of a running pass, and the last point that is needed.
pub(crate) struct Pass<'a> {
    pub(crate) hook: &'a mut dyn Hook,
    /// `None`: run to the end.
    pub(crate) last: Option<HookPoint>,
    /// Description of an activation's rows for the hook.
    pub(crate) rows: Rows,
    /// True once a hook has made variants.
    pub(crate) is_forked: bool,
}

impl Pass<'_> {
    fn wants(&self, point: HookPoint) -> bool {
        self.last == Some(point) || self.hook.wants(point)
    }

    /// Shows `activation` to the hook. Returns the activation with which the pass continues, or `None` if it ends here.
    ///
    /// # Shapes
    /// `activation`: `[rows, width]` -> the same, repeated for each variant that the hook makes
    pub(crate) fn see(&mut self, point: HookPoint, activation: Tensor) -> Result<Option<Tensor>> {
        let mut edit = Edit::Keep;
        if self.hook.wants(point) {
            self.rows.set_len(activation.dim(0)?);
            edit = self.hook.apply(point, &self.rows, &activation)?;
        }
        if self.last == Some(point) {
            return Ok(None);
        }
        let refuse = |expected: String, found: String| Err(Error::invalid(format!("hook at {point}"), expected, found));
        let variants = match edit {
            Edit::Keep => return Ok(Some(activation)),
            Edit::Replace(replacement) => vec![replacement],
            Edit::Variants(variants) => {
                self.is_forked = true;
                variants
            }
        };
        if let Some(other) = variants.iter().find(|variant| variant.dims() != activation.dims()) {
            return refuse(format!("an activation of shape {:?}", activation.dims()), format!("{:?}", other.dims()));
        }
        match &variants[..] {
            [] => refuse("at least one variant".into(), "none".into()),
            [one] => Ok(Some(one.clone())),
            several => Ok(Some(Tensor::cat(several, 0)?)),
        }
    }
}

impl Block {
    /// Packs the matrices for `compute`.
    pub(crate) fn pack(&mut self, compute: Compute) -> Result<()> {
        self.attention.qkv.pack(compute)?;
        self.attention.out.pack(compute)?;
        self.mlp.pack(compute)
    }

    /// The residual stream after this layer; `None` if the pass ends inside it.
    ///
    /// # Shapes
    /// `resid`: `[rows, d_model]` -> the same
    pub(crate) fn forward(
        &self,
        resid: Tensor,
        layer: usize,
        context: &AttentionContext<'_>,
        keys_values: &mut KeysValues<'_>,
        pass: &mut Pass<'_>,
    ) -> Result<Option<Tensor>> {
        let at = |site| HookPoint::Block { layer, site };
        let Some(resid) = pass.see(at(Site::ResidPre), resid)? else { return Ok(None) };
        let Some(x) = normed(self.ln1.as_ref(), &resid, at(Site::Ln1Normalized), pass)? else { return Ok(None) };
        let Some(z) = pass.see(at(Site::AttnZ), self.attention.z(&x, layer, context, keys_values)?)? else {
            return Ok(None);
        };
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

/// The input of attention or the MLP. Without a norm before it there is nothing to hook: the input is the stream
/// itself.
fn normed(norm: Option<&Norm>, resid: &Tensor, point: HookPoint, pass: &mut Pass<'_>) -> Result<Option<Tensor>> {
    match norm {
        Some(norm) => pass.see(point, norm.forward(resid)?),
        None => Ok(Some(resid.clone())),
    }
}

/// The last step of attention or the MLP, which computes their output.
struct Adder<'a> {
    linear: &'a Linear,
    norm: Option<&'a Norm>,
    /// The point at which the hook sees this output.
    point: HookPoint,
}

impl Adder<'_> {
    /// `resid + norm(x W^T + b)`. If no hook sees the output, it is added inside the product, with the same bits.
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
