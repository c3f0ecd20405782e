//! [`Transformer`]: the weights of a model and its forward pass.

use candle_core::{Device, Tensor};

use super::{
    Checkpoint, Compute, Head, KvCache, ModelConfig, attention::AttentionContext, block::Pass, families,
    rotary::Rotary, weights::Weights,
};
use crate::{Error, Hook, HookPoint, Result, Site};

/// A decoder-only transformer with hooks.
#[derive(Debug, Clone)]
pub struct Transformer {
    config: ModelConfig,
    weights: Weights,
    rotary: Option<Rotary>,
    /// Of local layers, where those have their own.
    local_rotary: Option<Rotary>,
    device: Device,
}

impl Transformer {
    /// Loads the weights as f32.
    ///
    /// # Errors
    /// A missing, surplus or wrongly shaped tensor; an unreadable file.
    pub fn load(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        Self::load_for(checkpoint, device, Compute::F32)
    }

    /// Loads the weights as `compute` needs them.
    ///
    /// # Errors
    /// As [`Transformer::load`]; `compute` is not for this device.
    pub fn load_for(checkpoint: &Checkpoint, device: &Device, compute: Compute) -> Result<Self> {
        let config = checkpoint.config().clone();
        let weights = families::load_weights(checkpoint.config(), checkpoint.tensors(), device, compute)?;
        let (rotary, local_rotary) = (Rotary::of(&config), Rotary::of_local_layers(&config));
        Ok(Self { config, weights, rotary, local_rotary, device: device.clone() })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs the model as far as the last point that `hook` wants, and no further. No logits are computed.
    ///
    /// # Shapes
    /// `tokens`: `[batch, pos]`, u32
    ///
    /// # Errors
    /// A hook point that the model lacks, more tokens than its context holds, or whatever `hook` raises.
    pub fn run(&self, tokens: &Tensor, hook: &mut dyn Hook) -> Result<()> {
        let Some(last) = self.last_wanted(hook) else { return Ok(()) };
        self.pass(tokens, None, &mut Pass { hook, last: Some(last) }).map(drop)
    }

    /// The residual stream after the last block: what [`Head::unembed`] turns into logits.
    ///
    /// With a `cache`, `tokens` continue the text it holds, and are added to it.
    ///
    /// # Shapes
    /// `tokens`: `[batch, pos]`, u32 -> `[batch, pos, d_model]` (a hook may have made `batch` grow)
    ///
    /// # Errors
    /// As [`Transformer::run`]; or a full cache.
    pub fn resid_final(&self, tokens: &Tensor, cache: Option<&mut KvCache>, hook: &mut dyn Hook) -> Result<Tensor> {
        let resid = self.pass(tokens, cache, &mut Pass { hook, last: None })?;
        Ok(resid.expect("a pass without a last point runs to the end"))
    }

    /// What turns the last residual stream into logits.
    pub fn head(&self) -> &Head {
        &self.weights.head
    }

    /// How many blocks [`Transformer::run`] enters for `hook`.
    pub fn n_layers_run(&self, hook: &dyn Hook) -> usize {
        self.last_wanted(hook).map_or(0, HookPoint::layers_needed)
    }

    /// The point wanted by `hook` that a pass reaches last.
    fn last_wanted(&self, hook: &dyn Hook) -> Option<HookPoint> {
        let sites = |layer| Site::ALL.into_iter().rev().map(move |site| HookPoint::Block { layer, site });
        let backwards = (0..self.config.n_layers).rev().flat_map(sites).chain([HookPoint::Embed]);
        backwards.filter(|point| point.check(&self.config).is_ok()).find(|point| hook.wants(*point))
    }

    fn pass(&self, tokens: &Tensor, cache: Option<&mut KvCache>, pass: &mut Pass<'_>) -> Result<Option<Tensor>> {
        let (_, pos) = tokens.dims2()?;
        let start = cache.as_ref().map_or(0, |cache| cache.len());
        if let Some(cache) = &cache {
            cache.check_room(pos)?;
        }
        let rotation = |rotary: &Option<Rotary>| rotary.as_ref().map(|rotary| rotary.at(start, pos)).transpose();
        let (rotation, local_rotation) = (rotation(&self.rotary)?, rotation(&self.local_rotary)?);
        let context = AttentionContext { config: &self.config, rotation, local_rotation, start };
        let Some(resid) = pass.see(HookPoint::Embed, self.embed(tokens)?)? else { return Ok(None) };
        let mut resid = self.add_positions(resid, start)?;
        for (layer, block) in self.weights.blocks.iter().enumerate() {
            let layer_cache = cache.as_ref().map(|cache| cache.layer(layer));
            match block.forward(resid, layer, &context, layer_cache, pass)? {
                Some(next) => resid = next,
                None => return Ok(None),
            }
        }
        if let Some(cache) = cache {
            cache.advance(pos);
        }
        Ok(Some(resid))
    }

    /// `[batch, pos]` -> `[batch, pos, d_model]`
    fn embed(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, pos) = tokens.dims2()?;
        let ids: Vec<u32> = tokens.flatten_all()?.to_vec1()?;
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.config.d_vocab) {
            let expected = format!("below {}, the rows of the model's embedding", self.config.d_vocab);
            return Err(Error::invalid("token id", expected, id.to_string()));
        }
        let embedded = match &self.weights.embed {
            Some(embed) => embed.index_select(&tokens.flatten_all()?, 0)?,
            None => self.weights.head.w_unembed(&ids)?,
        };
        let embedded = embedded.reshape((batch, pos, ()))?;
        match self.config.embed_scale {
            Some(scale) => Ok((embedded * scale)?),
            None => Ok(embedded),
        }
    }

    fn add_positions(&self, resid: Tensor, start: usize) -> Result<Tensor> {
        let pos = resid.dim(1)?;
        if start + pos > self.config.ctx_len {
            let expected = format!("at most {}, the model's context length", self.config.ctx_len);
            return Err(Error::invalid("tokens in one context", expected, (start + pos).to_string()));
        }
        match &self.weights.pos_embed {
            Some(pos_embed) => Ok(resid.broadcast_add(&pos_embed.narrow(0, start, pos)?)?),
            None => Ok(resid),
        }
    }
}
