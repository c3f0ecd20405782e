//! [`Transformer`]: the weights of a model and its forward pass.

use candle_core::{Device, Tensor};

use super::{
    Batch, Checkpoint, Compute, Head, Hook, HookPoint, KvCache, ModelConfig, Rows, Site, attention::AttentionContext,
    batch::Span, block::Pass, families, kv_cache::KeysValues, residual, rotary::Rotary, weights::Weights,
};
use crate::{Error, Result};

/// Rows of a pass that is one task of the thread pool: those of generated tokens.
const FEW_ROWS: usize = 32;

/// A decoder-only transformer with hooks.
#[derive(Debug, Clone)]
pub(crate) struct Transformer {
    config: ModelConfig,
    weights: Weights,
    rotary: Option<Rotary>,
    /// Rotary positions of local layers, if they have their own.
    local_rotary: Option<Rotary>,
}

impl Transformer {
    /// Loads the weights as f32.
    #[cfg(test)]
    pub(crate) fn load(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        Self::load_for(checkpoint, device, Compute::F32)
    }

    /// Loads the weights in the form that `compute` needs.
    ///
    /// # Errors
    /// A missing, surplus or wrongly shaped tensor; an unreadable file; or `compute` is not for this device.
    pub(crate) fn load_for(checkpoint: &Checkpoint, device: &Device, compute: Compute) -> Result<Self> {
        let config = checkpoint.config().clone();
        let weights = families::load_weights(checkpoint.config(), checkpoint.tensors(), device, compute)?;
        let (rotary, local_rotary) = (Rotary::of(&config), Rotary::of_local_layers(&config));
        Ok(Self { config, weights, rotary, local_rotary })
    }

    /// The model's shape.
    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// [`crate::LanguageModel::run`].
    pub(crate) fn run(&self, batch: &Batch, hook: &mut dyn Hook) -> Result<()> {
        let Some(last) = self.last_wanted(hook) else { return Ok(()) };
        self.pass(batch, None, hook, Some(last)).map(drop)
    }

    /// [`crate::LanguageModel::resid_final`].
    pub(crate) fn resid_final(
        &self,
        batch: &Batch,
        cache: Option<&mut KvCache>,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        let resid = self.pass(batch, cache, hook, None)?;
        Ok(resid.expect("a pass without a last point runs to the end"))
    }

    /// The head, which turns the last residual stream into logits.
    pub(crate) fn head(&self) -> &Head {
        &self.weights.head
    }

    /// The last point of the pass that `hook` wants.
    pub(super) fn last_wanted(&self, hook: &dyn Hook) -> Option<HookPoint> {
        let sites = |layer| Site::ALL.into_iter().rev().map(move |site| HookPoint::Block { layer, site });
        let backwards = (0..self.config.n_layers).rev().flat_map(sites).chain([HookPoint::Embed]);
        backwards.filter(|point| point.check(&self.config).is_ok()).find(|point| hook.wants(*point))
    }

    /// A pass of few rows takes milliseconds in hundreds of small parallel pieces. The calling thread would sleep and be
    /// woken around each of them; as one task of the thread pool it only shares its pieces with the other threads.
    fn pass(
        &self,
        batch: &Batch,
        cache: Option<&mut KvCache>,
        hook: &mut dyn Hook,
        last: Option<HookPoint>,
    ) -> Result<Option<Tensor>> {
        if batch.n_rows() > FEW_ROWS {
            return self.pass_from_here(batch, cache, hook, last);
        }
        rayon::scope(|_| self.pass_from_here(batch, cache, hook, last))
    }

    fn pass_from_here(
        &self,
        batch: &Batch,
        mut cache: Option<&mut KvCache>,
        hook: &mut dyn Hook,
        last: Option<HookPoint>,
    ) -> Result<Option<Tensor>> {
        if batch.n_rows() == 0 || batch.spans().any(|rows| rows.is_empty()) {
            return Err(Error::invalid("batch", "at least one token of each sequence", "none"));
        }
        let starts = match &cache {
            Some(cache) => cache.starts(batch)?,
            None => vec![0; batch.sequences().len()],
        };
        let spans: Vec<Span> = batch.spans().zip(&starts).map(|(rows, &start)| Span { rows, start }).collect();
        let rotation = |rotary: &Option<Rotary>| rotary.as_ref().map(|rotary| rotary.at(&spans)).transpose();
        let (rotation, local_rotation) = (rotation(&self.rotary)?, rotation(&self.local_rotary)?);
        let rows = Rows::of(batch, &starts);
        let mut pass = Pass { hook, last, rows, is_forked: false };
        let Some(resid) = pass.see(HookPoint::Embed, self.embed(batch)?)? else { return Ok(None) };
        let mut resid = self.add_positions(resid, &spans)?;
        let context =
            AttentionContext { config: &self.config, rotation, local_rotation, spans, n_rows: batch.n_rows() };
        let mut keys_values = match &mut cache {
            Some(cache) => KeysValues::Cache(cache, batch),
            None => KeysValues::OneLayer(vec![]),
        };
        for (layer, block) in self.weights.blocks.iter().enumerate() {
            match block.forward(resid, layer, &context, &mut keys_values, &mut pass)? {
                Some(next) => resid = next,
                None => return Ok(None),
            }
        }
        // The cache has one past of each sequence, and variants are several.
        if let Some(cache) = cache.filter(|_| !pass.is_forked) {
            cache.advance(batch);
        }
        Ok(Some(resid))
    }

    /// -> `[rows, d_model]`
    fn embed(&self, batch: &Batch) -> Result<Tensor> {
        let tokens = batch.tokens();
        if let Some(id) = tokens.iter().find(|id| **id as usize >= self.config.d_vocab) {
            let expected = format!("below {}, the rows of the model's embedding", self.config.d_vocab);
            return Err(Error::invalid("token id", expected, id.to_string()));
        }
        let embedded = match &self.weights.embed {
            Some(embed) => embed.index_select(&Tensor::new(tokens, embed.device())?, 0)?,
            None => self.weights.head.w_unembed(tokens)?,
        };
        match self.config.embed_scale {
            Some(scale) => Ok((embedded * scale)?),
            None => Ok(embedded),
        }
    }

    /// `resid`: `[rows, d_model]`, repeated for each variant -> the same
    fn add_positions(&self, resid: Tensor, spans: &[Span]) -> Result<Tensor> {
        if let Some(span) = spans.iter().find(|span| span.end() > self.config.ctx_len) {
            let expected = format!("at most {}, the model's context length", self.config.ctx_len);
            return Err(Error::invalid("tokens in one context", expected, span.end().to_string()));
        }
        let Some(pos_embed) = &self.weights.pos_embed else { return Ok(resid) };
        let positions: Vec<u32> = spans.iter().flat_map(|span| span.start as u32..span.end() as u32).collect();
        let positions = Tensor::from_slice(&positions, positions.len(), pos_embed.device())?;
        residual::add(&resid, &pos_embed.index_select(&positions, 0)?)
    }
}
