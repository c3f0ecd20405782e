//! [`export`]: turns the weights of a run, in training units, into an [`Sae`] of raw activations. The scales are folded
//! into weights and biases, so that a user of the SAE does not need to know how it was trained. With x' = s x in
//! training:
//!
//! ```text
//! one hook point s x ~ f(s x) W_dec + b_dec   =>   x ~ (f / s) W_dec + b_dec / s
//!                f(s x) / s = select((x - b_dec / s) W_enc^T + b_enc / s)        gated: b_mag / s too; thresholds / s
//!
//! transcoder     hidden_pre = (s_in x - b_in) W_enc^T + b_enc,   s_out y ~ f W_dec + b_dec + (s_in x - b_in) W_skip^T
//!                W_enc s_in / s_out    (b_enc - W_enc b_in) / s_out     W_dec    thresholds / s_out
//!                W_skip s_in / s_out   (b_dec - W_skip b_in) / s_out
//!
//! crosscoder     hidden_pre = sum_l (s_l x^l - b_dec^l) W_enc^l^T + b_enc,   s_l x^l ~ f W_dec^l + b_dec^l
//!                W_enc^l s_l    b_enc    W_dec^l / s_l    b_dec^l / s_l    thresholds unchanged
//! ```
//!
//! Selection and decoder are homogeneous, so the first two cases can divide activations by the scale: decoder rows stay
//! at norm 1, and an activation is a length in the units of the reconstruction. A crosscoder's latent writes to several
//! hook points with different scales, so its activation stays in training units.

use crate::{
    Result,
    config::Resolved,
    data::{standardize::Standard, training_data::Label},
    kernels::simd::multiply,
    run::units::{add_product, scale_columns},
    sae::{Nonlinearity, Sae, SaeConfig, SaeWeights},
    step::{
        architecture::TrainArchitecture,
        weights::{B_MAG, R_MAG, THRESHOLD, W_SKIP, Weights},
    },
};

/// An SAE trained as BatchTopK has no threshold yet: `calibrate` sets it.
pub(crate) fn export(mut weights: Weights, standard: &Standard, resolved: &Resolved, label: Label) -> Result<Sae> {
    let config = config_of(&weights, resolved, label);
    let nonlinearity = nonlinearity_of(&mut weights, resolved);
    let w_skip = weights.take_extra(W_SKIP);
    let Weights { w_enc, b_enc, w_dec, b_dec, b_in, .. } = weights;
    let mut weights = SaeWeights { w_enc, b_enc, nonlinearity, w_dec, b_dec, w_skip };
    match (resolved.config.architecture, &standard.scales[..]) {
        (TrainArchitecture::Transcoder, &[s_in, s_out]) => {
            fold_b_in(&mut weights, &b_in.unwrap_or_default());
            multiply(&mut weights.w_enc, s_in / s_out);
            weights.w_skip.iter_mut().for_each(|w_skip| multiply(w_skip, s_in / s_out));
            divide_outputs(&mut weights, s_out);
        }
        (TrainArchitecture::Crosscoder, scales) => {
            let SaeWeights { w_enc, w_dec, b_dec, .. } = &mut weights;
            scale_columns(&resolved.widths, scales, &mut [w_enc], &mut [w_dec, b_dec]);
        }
        (_, scales) => divide_outputs(&mut weights, scales[0]),
    }
    Sae::new(config, weights)
}

fn nonlinearity_of(weights: &mut Weights, resolved: &Resolved) -> Nonlinearity {
    let d_sae = weights.d_sae;
    let mut own = |name| weights.take_extra(name).expect("a parameter that every run of this architecture has");
    match resolved.config.architecture {
        TrainArchitecture::TopK => Nonlinearity::TopK { k: resolved.config.k },
        TrainArchitecture::Relu => Nonlinearity::Standard,
        TrainArchitecture::Gated => Nonlinearity::Gated { r_mag: own(R_MAG), b_mag: own(B_MAG) },
        TrainArchitecture::Dense => Nonlinearity::Dense,
        TrainArchitecture::JumpRelu => Nonlinearity::JumpRelu { threshold: own(THRESHOLD) },
        TrainArchitecture::BatchTopK
        | TrainArchitecture::Matryoshka
        | TrainArchitecture::Transcoder
        | TrainArchitecture::Crosscoder => Nonlinearity::JumpRelu { threshold: vec![0.0; d_sae] },
    }
}

fn config_of(weights: &Weights, resolved: &Resolved, label: Label) -> SaeConfig {
    SaeConfig {
        d_out: weights.d_out,
        apply_b_dec_to_input: resolved.config.architecture != TrainArchitecture::Transcoder,
        hook_points: resolved.hook_points.clone(),
        model_name: label.model_name,
        ctx_len: label.ctx_len,
        prepend_bos: Some(label.prepend_bos),
        dataset: label.dataset,
        ..SaeConfig::new(weights.d_in, weights.d_sae)
    }
}

/// Divides activations and reconstructions by `scale`.
fn divide_outputs(weights: &mut SaeWeights, scale: f32) {
    let SaeWeights { b_enc, b_dec, nonlinearity, .. } = weights;
    let biases = [Some(b_enc), Some(b_dec), nonlinearity.in_activation_units()];
    biases.into_iter().flatten().for_each(|bias| bias.iter_mut().for_each(|b| *b /= scale));
}

/// Folds the `b_in` that is subtracted from the input into the biases: `(x - b_in) W^T + b = x W^T + (b - W b_in)`.
fn fold_b_in(weights: &mut SaeWeights, b_in: &[f32]) {
    add_product(&mut weights.b_enc, &weights.w_enc, b_in, -1.0);
    if let Some(w_skip) = &weights.w_skip {
        add_product(&mut weights.b_dec, w_skip, b_in, -1.0);
    }
}

#[cfg(test)]
pub(crate) mod tests;
