//! Whether an SAE is whole: every length against its config, every number finite, and what its architecture needs.
//! Reading ends here, whatever a format folds (`formats::read`), and writing begins here (`Sae::save_as`), so no format
//! lets a broken SAE through.

use std::path::Path;

use super::{Architecture, Sae, SaeConfig};
use crate::{
    Error, Result,
    sae::input_norm::InputNorm,
    tensors::{SAE_HINT, not_finite},
};

impl Sae {
    /// Messages about numbers name the file `weights`, those about what the SAE is `config`.
    pub(crate) fn check(&self, config: &Path, weights: &Path) -> Result<()> {
        let wrong = |expected: String, found: String| Err(Error::malformed(weights, expected, found, SAE_HINT));
        for (name, tensor, len) in self.tensors() {
            let Some(tensor) = tensor else { continue };
            if tensor.len() != len {
                return wrong(format!("{len} values of {name}"), format!("{}", tensor.len()));
            }
            if let Some(found) = not_finite(tensor) {
                return wrong(format!("finite numbers in {name}"), found);
            }
        }
        match self.contradiction() {
            Some((expected, found)) => Err(Error::malformed(config, expected, found, SAE_HINT)),
            None => Ok(()),
        }
    }

    /// Every tensor with its name and the length that it should have.
    fn tensors(&self) -> [(&'static str, Option<&Vec<f32>>, usize); 8] {
        let SaeConfig { d_in, d_out, d_sae, .. } = self.config;
        // Of sizes that no tensor has confirmed the product may be past any number.
        let times = usize::saturating_mul;
        [
            ("W_enc", Some(&self.w_enc), times(d_sae, d_in)),
            ("b_enc", Some(&self.b_enc), d_sae),
            ("W_dec", Some(&self.w_dec), times(d_sae, d_out)),
            ("b_dec", Some(&self.b_dec), d_out),
            ("threshold", self.threshold.as_ref(), d_sae),
            ("r_mag", self.gate.as_ref().map(|gate| &gate.r_mag), d_sae),
            ("b_mag", self.gate.as_ref().map(|gate| &gate.b_mag), d_sae),
            ("W_skip", self.w_skip.as_ref(), times(d_out, d_in)),
        ]
    }

    /// What cannot be true together: what was expected, and what is there.
    fn contradiction(&self) -> Option<(String, String)> {
        let SaeConfig { architecture, d_in, d_out, d_sae, k, .. } = self.config;
        let say = |expected: String, found: String| Some((expected, found));
        match (architecture, k) {
            _ if d_in == 0 || d_out == 0 || d_sae == 0 => {
                say("d_in, d_out and d_sae of 1 or more".into(), format!("{d_in}, {d_out} and {d_sae}"))
            }
            (Architecture::TopK, Some(k)) if k == 0 || k > d_sae => {
                say(format!("k from 1 to d_sae = {d_sae}"), format!("k = {k}"))
            }
            (Architecture::TopK, None) => say("k of a topk SAE".into(), "none".into()),
            (Architecture::JumpRelu, _) if self.threshold.is_none() => {
                say("the thresholds of a jumprelu SAE".into(), "none".into())
            }
            (Architecture::Gated, _) if self.gate.is_none() => {
                say("r_mag and b_mag of a gated SAE".into(), "none".into())
            }
            _ => self.contradiction_of_places(),
        }
    }

    fn contradiction_of_places(&self) -> Option<(String, String)> {
        let SaeConfig { d_in, d_out, apply_b_dec_to_input, input_norm, columns, .. } = &self.config;
        if *apply_b_dec_to_input && (d_in != d_out || self.config.is_transcoder()) {
            return Some(("a transcoder that does not subtract b_dec from its input".into(), "one that does".into()));
        }
        if *input_norm != InputNorm::None && (self.config.is_transcoder() || self.w_skip.is_some()) {
            return Some(("a transcoder or skip connection of raw activations".into(), input_norm.to_string()));
        }
        let width: usize = columns.iter().map(|(_, width)| width).sum();
        if !columns.is_empty() && width != *d_in {
            return Some((format!("columns of d_in = {d_in} values together"), width.to_string()));
        }
        None
    }
}
