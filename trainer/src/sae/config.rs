//! [`SaeConfig`]: the properties of a finished SAE, apart from its weights. Every format is read into it and written
//! from it, so that the rest of refract handles only one kind of SAE.

use crate::sae::{hook_points::HookPoints, input_norm::InputNorm};

/// The properties of an SAE, apart from its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct SaeConfig {
    /// Width of the activations that it reads.
    pub d_in: usize,
    /// Width of its reconstructions, and so of `W_dec`'s rows and of `b_dec`. Equal to `d_in` except for transcoders.
    pub d_out: usize,
    /// Number of latents.
    pub d_sae: usize,
    /// True if `b_dec` is subtracted before encoding. Always true for our autoencoders, never for transcoders.
    pub apply_b_dec_to_input: bool,
    /// Normalization of each token's activations before encoding, undone after decoding.
    pub input_norm: InputNorm,
    /// The hook points that it reads and reconstructs.
    pub hook_points: HookPoints,
    /// The model's name, as in its manifest.
    pub model_name: String,
    /// Tokens per context in training.
    pub ctx_len: Option<usize>,
    /// True if contexts began with a beginning-of-sequence token; `None`: unknown.
    pub prepend_bos: Option<bool>,
    /// The text that it was trained on.
    pub dataset: String,
    /// Settings of its training that refract neither computes nor checks, in words. Loading warns about each.
    pub notes: Vec<String>,
}

impl SaeConfig {
    /// An autoencoder of raw activations, with all other properties unknown.
    pub fn new(d_in: usize, d_sae: usize) -> Self {
        Self {
            d_in,
            d_out: d_in,
            d_sae,
            apply_b_dec_to_input: true,
            input_norm: InputNorm::None,
            hook_points: HookPoints::Autoencoder(None),
            model_name: String::new(),
            ctx_len: None,
            prepend_bos: None,
            dataset: String::new(),
            notes: vec![],
        }
    }

    /// The facts about its origin that `written`, the same SAE in another format, has lost.
    pub(crate) fn lost_in(&self, written: &Self) -> Vec<&'static str> {
        let (read, (_, to)) = (self.hook_points.reads(), self.hook_points.ends());
        let same_or_unknown = [
            ("hook point", read.is_empty() || read == written.hook_points.reads()),
            ("reconstructed hook point", to.is_none() || to == written.hook_points.ends().1),
            ("model name", self.model_name.is_empty() || self.model_name == written.model_name),
            ("context length", self.ctx_len.is_none() || self.ctx_len == written.ctx_len),
            ("prepend_bos", self.prepend_bos.is_none() || self.prepend_bos == written.prepend_bos),
            ("dataset", self.dataset.is_empty() || self.dataset == written.dataset),
            ("notes on its training", self.notes.is_empty() || self.notes == written.notes),
        ];
        same_or_unknown.into_iter().filter(|(_, kept)| !kept).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use harvester::HookPoint;

    use super::*;

    #[test]
    fn what_a_format_has_no_room_for_is_named() {
        let config = SaeConfig::new(8, 20);
        let point = HookPoint::resid_post(1);
        let placed =
            SaeConfig { hook_points: HookPoints::Autoencoder(Some(point)), ctx_len: Some(64), ..config.clone() };
        assert_eq!((placed.lost_in(&config), config.lost_in(&placed)), (vec!["hook point", "context length"], vec![]));
        let hook_points = HookPoints::Transcoder { from: None, to: Some(point) };
        assert_eq!(SaeConfig { hook_points, ..config.clone() }.lost_in(&config), ["reconstructed hook point"]);
    }
}
