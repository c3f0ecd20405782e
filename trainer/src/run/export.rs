//! [`export`]: the weights of a run in training units as an [`Sae`] of raw activations. The scales go into weights and
//! biases, so that whoever uses an SAE needs to know nothing of how it was trained. With x' = s x in training:
//!
//! ```text
//! one place      s x ~ f(s x) W_dec + b_dec   =>   x ~ (f / s) W_dec + b_dec / s
//!                f(s x) / s = select((x - b_dec / s) W_enc^T + b_enc / s)        gated: b_mag / s too; thresholds / s
//!
//! transcoder     hidden_pre = (s_in x - b_in) W_enc^T + b_enc,   s_out y ~ f W_dec + b_dec + (s_in x - b_in) W_skip^T
//!                W_enc s_in / s_out    (b_enc - W_enc b_in) / s_out     W_dec    thresholds / s_out
//!                W_skip s_in / s_out   (b_dec - W_skip b_in) / s_out
//!
//! crosscoder     hidden_pre = sum_l (s_l x^l - b_dec^l) W_enc^l^T + b_enc,   s_l x^l ~ f W_dec^l + b_dec^l
//!                W_enc^l s_l    b_enc    W_dec^l / s_l    b_dec^l / s_l    thresholds as they are
//! ```
//!
//! Selection and decoder are homogeneous, which is why the first two may divide activations by the scale: decoder rows
//! stay at norm 1, and an activation is a length where it is written. A crosscoder's latent writes to several places of
//! several scales, so its activation stays in training units.

use crate::{
    config::Resolved,
    data::{standardize::Standard, training_data::Label},
    kernels::simd::multiply,
    run::units::{add_product, scale_columns},
    sae::{Architecture, Gate, Sae, SaeConfig},
    step::{
        architecture::TrainArchitecture,
        weights::{B_MAG, R_MAG, THRESHOLD, W_SKIP, Weights},
    },
};

/// What is trained as BatchTopK has no threshold yet: `calibrate` sets it.
pub(crate) fn export(weights: Weights, standard: &Standard, resolved: &Resolved, label: Label) -> Sae {
    let extra = |name: &str| weights.extra(name).map(<[f32]>::to_vec);
    let gate = extra(R_MAG).zip(extra(B_MAG)).map(|(r_mag, b_mag)| Gate { r_mag, b_mag });
    let (threshold, w_skip) = (extra(THRESHOLD), extra(W_SKIP));
    let config = config_of(&weights, resolved, label);
    let Weights { w_enc, b_enc, w_dec, b_dec, b_in, .. } = weights;
    let mut sae = Sae { config, w_enc, b_enc, w_dec, b_dec, threshold, gate, w_skip };
    match (resolved.config.architecture, &standard.scales[..]) {
        (TrainArchitecture::Transcoder, &[s_in, s_out]) => {
            fold_b_in(&mut sae, &b_in.unwrap_or_default());
            multiply(&mut sae.w_enc, s_in / s_out);
            sae.w_skip.iter_mut().for_each(|w_skip| multiply(w_skip, s_in / s_out));
            divide_outputs(&mut sae, s_out);
        }
        (TrainArchitecture::Crosscoder, scales) => {
            let Sae { w_enc, w_dec, b_dec, .. } = &mut sae;
            scale_columns(&resolved.widths, scales, &mut [w_enc], &mut [w_dec, b_dec]);
        }
        (_, scales) => divide_outputs(&mut sae, scales[0]),
    }
    sae
}

fn config_of(weights: &Weights, resolved: &Resolved, label: Label) -> SaeConfig {
    let trained = resolved.config.architecture;
    let architecture = match trained {
        TrainArchitecture::TopK => Architecture::TopK,
        TrainArchitecture::Relu => Architecture::Standard,
        TrainArchitecture::Gated => Architecture::Gated,
        TrainArchitecture::Dense => Architecture::Dense,
        TrainArchitecture::JumpRelu
        | TrainArchitecture::BatchTopK
        | TrainArchitecture::Matryoshka
        | TrainArchitecture::Transcoder
        | TrainArchitecture::Crosscoder => Architecture::JumpRelu,
    };
    let places = resolved.columns.inputs.iter().copied().zip(resolved.widths.iter().copied());
    SaeConfig {
        d_out: weights.d_out,
        k: (trained == TrainArchitecture::TopK).then_some(resolved.config.k),
        apply_b_dec_to_input: trained != TrainArchitecture::Transcoder,
        hook_point: label.hook_point,
        hook_point_out: resolved.columns.target,
        columns: if trained == TrainArchitecture::Crosscoder { places.collect() } else { vec![] },
        model_name: label.model_name,
        ctx_len: label.ctx_len,
        prepend_bos: label.prepend_bos,
        dataset: label.dataset,
        ..SaeConfig::new(architecture, weights.d_in, weights.d_sae)
    }
}

/// Divides activations and what they rebuild by `scale`.
fn divide_outputs(sae: &mut Sae, scale: f32) {
    let biases = [Some(&mut sae.b_enc), Some(&mut sae.b_dec), sae.threshold.as_mut()];
    let of_gate = sae.gate.as_mut().map(|gate| &mut gate.b_mag);
    biases.into_iter().chain([of_gate]).flatten().for_each(|bias| bias.iter_mut().for_each(|b| *b /= scale));
}

/// Folds what is subtracted from the input into the biases: `(x - b_in) W^T + b = x W^T + (b - W b_in)`.
fn fold_b_in(sae: &mut Sae, b_in: &[f32]) {
    add_product(&mut sae.b_enc, &sae.w_enc, b_in, -1.0);
    if let Some(w_skip) = &sae.w_skip {
        add_product(&mut sae.b_dec, w_skip, b_in, -1.0);
    }
}

#[cfg(test)]
pub(crate) mod tests;
