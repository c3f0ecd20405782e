//! OpenAI's sparse_autoencoder: a torch file of a state_dict that also holds the activation function.
//!
//! ```text
//! encoder.weight [d_sae, d_in]   latent_bias [d_sae]   decoder.weight [d_in, d_sae]   pre_bias [d_in]
//! activation `TopK`: each token is normalized to mean 0 and standard deviation 1, and back after decoding; `ReLU`: not
//! f = activation((x' - pre_bias) encoder.weight^T + latent_bias);  x_hat' = f decoder.weight^T + pre_bias
//! ```
//!
//! The tool's own loader decides the same way that only `TopK` normalizes.

use std::path::Path;

use harvester::{HookPoint, Site};

use super::{
    find::only_pt,
    fits::Fits,
    format::SaeFormat,
    json::refuse,
    pickle::Value,
    torch_file::{self, Item, TorchFile},
    transpose::transposed,
};
use crate::{
    Error, Result,
    sae::{Architecture, HookPoints, Nonlinearity, Sae, SaeConfig, SaeWeights, input_norm::InputNorm},
};

/// Added to the standard deviation by the tool.
const EPS: f32 = 1e-5;
const FILE: &str = "autoencoder.pt";
/// Statistics of the training, which do not affect activations.
const STATISTICS: [&str; 3] = ["stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"];

pub(super) fn load(path: &Path) -> Result<(SaeConfig, SaeWeights)> {
    let path = &only_pt(path)?;
    let TorchFile { mut tensors, mut others } = TorchFile::read(path)?;
    let (d_sae, d_in) = tensors.matrix("encoder.weight")?;
    let activation = others.remove("activation");
    let state = others.remove("activation_state_dict").unwrap_or(Value::Dict(vec![]));
    if let Some(name) = others.keys().next() {
        let expected = "tensors, activation and activation_state_dict";
        return Err(Error::malformed(path, expected, format!("also {name}"), "It belongs to another tool"));
    }
    // Before the name was stored, ReLU was the only activation.
    let (nonlinearity, input_norm) = match activation.as_ref().map_or(Some("ReLU"), Value::text) {
        Some("ReLU") => (Nonlinearity::Standard, InputNorm::None),
        Some("TopK") => (Nonlinearity::TopK { k: k(&state, path)? }, InputNorm::LayerNorm { eps: EPS }),
        other => return refuse(path, "activation", "`TopK` or `ReLU`", other.unwrap_or("no name")),
    };
    let weights = SaeWeights {
        w_enc: tensors.take_f32("encoder.weight", &[d_sae, d_in])?,
        b_enc: tensors.take_f32("latent_bias", &[d_sae])?,
        nonlinearity,
        w_dec: transposed(&tensors.take_f32("decoder.weight", &[d_in, d_sae])?, d_in, d_sae),
        b_dec: tensors.take_f32("pre_bias", &[d_in])?,
        w_skip: None,
    };
    STATISTICS.iter().for_each(|name| tensors.pass_over(name));
    tensors.end()?;
    let hook_points = HookPoints::Autoencoder(hook_point(path));
    Ok((SaeConfig { input_norm, hook_points, ..SaeConfig::new(d_in, d_sae) }, weights))
}

/// `{"k": 32, "postact_fn": "ReLU"}`
fn k(state: &Value, path: &Path) -> Result<usize> {
    let postact_fn = state.field("postact_fn").and_then(Value::text).unwrap_or("none");
    if postact_fn != "ReLU" {
        return refuse(path, "activation_state_dict.postact_fn", "`ReLU`", postact_fn);
    }
    let k = state.field("k");
    match k.and_then(Value::size) {
        Some(k) => Ok(k),
        None => refuse(path, "activation_state_dict.k", "a number from 0", k.map_or("none", Value::kind)),
    }
}

/// The release has the SAEs of GPT-2 at `.../LOCATION_v5_32k/autoencoders/LAYER.pt`.
fn hook_point(path: &Path) -> Option<HookPoint> {
    let layer = path.file_stem()?.to_str()?.parse().ok()?;
    let location = |name: &str| {
        let starts = |start: &str| name.starts_with(start);
        [
            ("resid_post_mlp", Site::ResidPost),
            ("resid_post_attn", Site::ResidMid),
            ("resid_delta_mlp", Site::MlpOut),
            ("resid_delta_attn", Site::AttnOut),
            ("mlp_post_act", Site::MlpPost),
        ]
        .into_iter()
        .find(|(start, _)| starts(start))
    };
    let (_, site) = path.iter().filter_map(|name| name.to_str()).find_map(location)?;
    Some(HookPoint::Block { layer, site })
}

pub(super) fn save(sae: &Sae, dir: &Path) -> Result<()> {
    let fits = Fits {
        format: SaeFormat::OpenAi,
        architectures: &[Architecture::TopK, Architecture::Standard],
        transcoder: false,
        skip: false,
    };
    fits.check(sae)?;
    let SaeConfig { d_in, d_sae, input_norm, .. } = *sae.config();
    let architecture = sae.architecture();
    let expected = if architecture == Architecture::TopK { InputNorm::LayerNorm { eps: EPS } } else { InputNorm::None };
    if input_norm != expected {
        let place = format!("a {architecture} SAE with the input norm `{expected}`, which its loader assumes");
        return fits.refuse(place, format!("`{input_norm}`"));
    }
    let sae = sae.applying_b_dec(true);
    let SaeWeights { w_enc, b_enc, nonlinearity, w_dec, b_dec, .. } = sae.weights();
    let (w_dec, k) = (transposed(w_dec, d_sae, d_in), nonlinearity.k());
    let zeros = vec![0.0; d_sae];
    let mut items = vec![
        ("pre_bias", Item::Floats(vec![d_in], b_dec)),
        ("latent_bias", Item::Floats(vec![d_sae], b_enc)),
        ("encoder.weight", Item::Floats(vec![d_sae, d_in], w_enc)),
        ("decoder.weight", Item::Floats(vec![d_in, d_sae], &w_dec)),
        ("stats_last_nonzero", Item::Longs(vec![d_sae], vec![0; d_sae])),
        ("latents_activation_frequency", Item::Floats(vec![d_sae], &zeros)),
        ("latents_mean_square", Item::Floats(vec![d_sae], &zeros)),
        ("activation", Item::Text(if k.is_some() { "TopK" } else { "ReLU" })),
    ];
    if let Some(k) = k {
        let state = vec![("k", Item::Int(k as i64)), ("postact_fn", Item::Text("ReLU"))];
        items.push(("activation_state_dict", Item::Dict(state)));
    }
    torch_file::write(&dir.join(FILE), items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_the_release_name_the_hook_point() {
        let found = |path: &str| hook_point(Path::new(path));
        let of = |site| Some(HookPoint::Block { layer: 8, site });
        assert_eq!(found("gpt2-small/resid_post_mlp_v5_32k/autoencoders/8.pt"), of(Site::ResidPost));
        assert_eq!(found("resid_delta_attn_v5_128k/autoencoders/8.pt"), of(Site::AttnOut));
        assert_eq!((found("autoencoder.pt"), found("8.pt")), (None, None));
    }
}
