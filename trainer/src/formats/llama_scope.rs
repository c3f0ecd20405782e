//! Llama Scope, as OpenMOSS released it in 2024: `hyperparams.json` and `checkpoints/final.safetensors`. Read only: the
//! same tool writes `llamascopium` today.
//!
//! ```text
//! encoder.weight [d_sae, d_in]   encoder.bias [d_sae]   decoder.weight [d_in, d_sae]   decoder.bias [d_in]
//! s = sqrt(d_in) / dataset_average_activation_norm
//! hidden_pre = (s_in x encoder.weight^T + encoder.bias) / s_in, times |W_dec| if `sparsity_include_decoder_norm`
//! f = hidden_pre if it exceeds jump_relu_threshold, one number for all latents
//! ```
//!
//! The order follows the tool's loader at the time (`SparseAutoEncoder.from_config`): the threshold is compared with
//! activations after folding. SAELens multiplies the threshold by s instead of dividing the activations, with the same
//! result.

use std::path::Path;

use serde::Deserialize;

use super::{
    find::folder_of,
    format::SaeFormat,
    json::{self, refuse, refuse_zero},
    llamascopium::of_raw_activations,
    settings::{LLAMASCOPIUM, unknown},
    transpose::transposed,
};
use crate::{
    Error, Result,
    sae::{HookPoints, Nonlinearity, Sae, SaeConfig, SaeWeights},
    tensors::{SAE_HINT, TensorFile},
};

const CONFIG_FILE: &str = "hyperparams.json";
const WEIGHTS_FILE: &str = "checkpoints/final.safetensors";

/// The keys of `hyperparams.json` that are read; the others record the training.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a JSON object")]
struct Config {
    d_model: usize,
    d_sae: usize,
    act_fn: String,
    #[serde(default)]
    jump_relu_threshold: f32,
    norm_activation: String,
    dataset_average_activation_norm: AverageNorm,
    #[serde(default)]
    sparsity_include_decoder_norm: bool,
    #[serde(default)]
    apply_decoder_bias_to_pre_encoder: bool,
    #[serde(default)]
    use_glu_encoder: bool,
    hook_point_in: String,
    hook_point_out: String,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a JSON object")]
struct AverageNorm {
    r#in: f32,
    out: f32,
}

pub(super) fn load(path: &Path) -> Result<(SaeConfig, SaeWeights)> {
    let dir = folder_of(path);
    let config_path = dir.join(CONFIG_FILE);
    let what = "the hyperparams.json of a Llama Scope SAE";
    let value = json::read_value(&config_path, what)?;
    let config: Config = json::parse(&value, &config_path, what)?;
    let mut sae_config = config.read(&config_path)?;
    sae_config.notes.extend(value.as_object().into_iter().flat_map(|keys| unknown(keys, LLAMASCOPIUM)));
    let mut tensors = TensorFile::read(&dir.join(WEIGHTS_FILE), SAE_HINT)?;
    let SaeConfig { d_in, d_sae, .. } = sae_config;
    let mut weights = SaeWeights {
        w_enc: tensors.take_weights("encoder.weight", &[d_sae, d_in])?,
        b_enc: tensors.take_weights("encoder.bias", &[d_sae])?,
        w_dec: transposed(&tensors.take_weights("decoder.weight", &[d_in, d_sae])?, d_in, d_sae),
        b_dec: tensors.take_weights("decoder.bias", &[d_in])?,
        nonlinearity: Nonlinearity::Standard,
        w_skip: None,
    };
    tensors.end()?;
    let norms = &config.dataset_average_activation_norm;
    let scale = |norm: f32| (d_in as f32).sqrt() / norm;
    of_raw_activations(&mut weights, scale(norms.r#in), scale(norms.out));
    if config.sparsity_include_decoder_norm {
        weights = weights.with_unit_decoder();
    }
    // Last, since it is compared with activations that are folded already.
    weights.nonlinearity = Nonlinearity::JumpRelu { threshold: vec![config.jump_relu_threshold; d_sae] };
    Ok((sae_config, weights))
}

impl Config {
    fn read(&self, path: &Path) -> Result<SaeConfig> {
        // An SAE trained with topk that has a threshold is used with the threshold.
        match self.act_fn.to_lowercase().as_str() {
            "jumprelu" => {}
            "topk" if self.jump_relu_threshold > 0.0 => {}
            _ => return refuse(path, "act_fn", "`jumprelu`, or `topk` with a jump_relu_threshold", &self.act_fn),
        }
        if self.norm_activation != "dataset-wise" {
            return refuse(path, "norm_activation", "`dataset-wise`", &self.norm_activation);
        }
        if self.use_glu_encoder {
            return refuse(path, "use_glu_encoder", "`false`", "true");
        }
        refuse_zero(path, "d_model and d_sae", [self.d_model, self.d_sae])?;
        let AverageNorm { r#in, out } = self.dataset_average_activation_norm;
        if ![r#in, out].iter().all(|norm| norm.is_finite() && *norm > 0.0) {
            return refuse(path, "dataset_average_activation_norm", "above 0", format!("{in} and {out}", in = r#in));
        }
        let Ok(to) = self.hook_point_out.parse() else {
            return refuse(path, "hook_point_out", "such as blocks.9.hook_mlp_out", &self.hook_point_out);
        };
        let from = self.hook_point_in.parse().ok();
        Ok(SaeConfig {
            apply_b_dec_to_input: self.apply_decoder_bias_to_pre_encoder,
            hook_points: HookPoints::between(from, Some(to), [self.d_model; 2]),
            ..SaeConfig::new(self.d_model, self.d_sae)
        })
    }
}

pub(super) fn save(_: &Sae, _: &Path) -> Result<()> {
    let what = format!("SAE to be written as {}", SaeFormat::LlamaScope);
    Err(Error::invalid(
        what,
        format!("the format {}, which the same tool reads today", SaeFormat::Llamascopium),
        "this one",
    ))
}
