//! [`Sae::new`]: the only way to make an SAE. It checks the length of every tensor against the config, that every
//! number is finite, and that the parts do not contradict each other.

use super::{HookPoints, Nonlinearity, Sae, SaeConfig, SaeWeights};
use crate::{Error, Result, sae::input_norm::InputNorm, tensors::not_finite};

/// An error in the parts of an SAE.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub(crate) part: Part,
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// The part with the error; for an SAE on disk, each part is a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Config,
    Weights,
}

impl Sae {
    /// Makes an SAE of these parts.
    ///
    /// # Errors
    /// When a tensor does not have the length that `config` requires, a number is not finite, or the parts contradict
    /// each other.
    pub fn new(config: SaeConfig, weights: SaeWeights) -> Result<Self> {
        Self::checked(config, weights).map_err(|Flaw { expected, found, .. }| Error::invalid("SAE", expected, found))
    }

    /// [`Sae::new`] for readers of files, whose error messages name the file with the flaw.
    pub(crate) fn checked(config: SaeConfig, weights: SaeWeights) -> Result<Self, Flaw> {
        check_tensors(&config, &weights)?;
        match contradiction(&config, &weights) {
            Some((expected, found)) => Err(Flaw { part: Part::Config, expected, found }),
            None => Ok(Self { config, weights }),
        }
    }
}

fn check_tensors(config: &SaeConfig, weights: &SaeWeights) -> Result<(), Flaw> {
    let wrong = |expected: String, found: String| Err(Flaw { part: Part::Weights, expected, found });
    let SaeConfig { d_in, d_out, d_sae, .. } = *config;
    // No tensor has confirmed these sizes yet, so their product may overflow.
    let times = usize::saturating_mul;
    let mut tensors = vec![
        ("W_enc", &weights.w_enc, times(d_sae, d_in)),
        ("b_enc", &weights.b_enc, d_sae),
        ("W_dec", &weights.w_dec, times(d_sae, d_out)),
        ("b_dec", &weights.b_dec, d_out),
    ];
    match &weights.nonlinearity {
        Nonlinearity::JumpRelu { threshold } => tensors.push(("threshold", threshold, d_sae)),
        Nonlinearity::Gated { r_mag, b_mag } => tensors.extend([("r_mag", r_mag, d_sae), ("b_mag", b_mag, d_sae)]),
        Nonlinearity::Standard | Nonlinearity::TopK { .. } | Nonlinearity::Dense => {}
    }
    tensors.extend(weights.w_skip.as_ref().map(|w_skip| ("W_skip", w_skip, times(d_out, d_in))));
    for (name, tensor, len) in tensors {
        if tensor.len() != len {
            return wrong(format!("{len} values of {name}"), tensor.len().to_string());
        }
        if let Some(found) = not_finite(tensor) {
            return wrong(format!("finite numbers in {name}"), found);
        }
    }
    Ok(())
}

/// Parts that contradict each other, as (expected, found).
fn contradiction(config: &SaeConfig, weights: &SaeWeights) -> Option<(String, String)> {
    let SaeConfig { d_in, d_out, d_sae, apply_b_dec_to_input, input_norm, hook_points, .. } = config;
    let is_transcoder = hook_points.is_transcoder();
    if [d_in, d_out, d_sae].contains(&&0) {
        return Some(("d_in, d_out and d_sae of 1 or more".into(), format!("{d_in}, {d_out} and {d_sae}")));
    }
    if let Nonlinearity::TopK { k } = weights.nonlinearity
        && !(1..=*d_sae).contains(&k)
    {
        return Some((format!("k from 1 to d_sae = {d_sae}"), format!("k = {k}")));
    }
    if d_in != d_out && !is_transcoder {
        return Some((format!("d_out = d_in = {d_in} of an SAE that is not a transcoder"), format!("d_out = {d_out}")));
    }
    if *apply_b_dec_to_input && is_transcoder {
        return Some(("a transcoder that does not subtract b_dec from its input".into(), "one that does".into()));
    }
    if *input_norm != InputNorm::None && (is_transcoder || weights.w_skip.is_some()) {
        return Some(("a transcoder or skip connection of raw activations".into(), input_norm.to_string()));
    }
    let HookPoints::Crosscoder(columns) = hook_points else { return None };
    let width: usize = columns.iter().map(|(_, width)| width).sum();
    (width != *d_in).then(|| (format!("columns of d_in = {d_in} values together"), width.to_string()))
}
