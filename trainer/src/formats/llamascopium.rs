//! OpenMOSS' Language-Model-SAEs, now Llamascopium: `config.json` and `sae_weights.safetensors`.
//!
//! ```text
//! W_E [d_in, d_sae]   b_E [d_sae]   W_D [d_sae, d_in]   b_D [d_in]
//! activation_function.log_jumprelu_threshold [d_sae]
//! p = s_in x W_E + b_E;  f = p if g(p |W_D|) is not zero;  y = (f W_D + b_D) / s_out
//! s = sqrt(d_in)/dataset_average_activation_norm.HOOK (`dataset-wise`), 1 (`inference`), sqrt(d_in)/|x| (`token-wise`)
//! ```
//!
//! Until summer 2025 the tool was Language-Model-SAEs, and the tensors were `encoder.weight [d_sae, d_in]`,
//! `encoder.bias`, `decoder.weight [d_in, d_sae]` and `decoder.bias`; at the beginning of that year, a jumprelu had one
//! `jump_relu_threshold` in its config. With `apply_decoder_bias_to_pre_encoder`, p is of `s_in x - b_D`.
//!
//! `|W_D|` is used only with `sparsity_include_decoder_norm`. The scales are folded here so that activations are in the
//! units of raw input: `f / s_in`. For `topk` with that option they are `f |W_D| / s_in`, because our topk selects by
//! the activations.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    find::folder_of,
    fits::Fits,
    format::SaeFormat,
    json::{self, refuse, refuse_zero},
    settings::{LLAMASCOPIUM, unknown},
    transpose::transposed,
};
use crate::{
    Error, Result,
    kernels::simd::{multiply, sum_of_squares},
    sae::{Architecture, HookPoints, Nonlinearity, Sae, SaeConfig, SaeWeights, input_norm::InputNorm},
    tensors::{SAE_HINT, Tensor, TensorFile, write_tensors},
};

const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "sae_weights.safetensors";
const LOG_THRESHOLD: &str = "activation_function.log_jumprelu_threshold";
const AVERAGE_NORM: &str = "dataset_average_activation_norm.";

/// The keys of `config.json` that are read, with the tool's defaults; the others record the training.
#[derive(Debug, Serialize, Deserialize)]
#[serde(expecting = "a JSON object")]
struct Config {
    sae_type: String,
    d_model: usize,
    expansion_factor: f64,
    #[serde(default = "yes")]
    use_decoder_bias: bool,
    #[serde(default = "relu")]
    act_fn: String,
    #[serde(default = "dataset_wise")]
    norm_activation: String,
    #[serde(default = "yes")]
    sparsity_include_decoder_norm: bool,
    #[serde(default = "fifty")]
    top_k: usize,
    hook_point_in: String,
    /// `None`: the same as `hook_point_in`.
    #[serde(default)]
    hook_point_out: Option<String>,
    #[serde(default)]
    use_glu_encoder: bool,
    #[serde(default, skip_serializing)]
    apply_decoder_bias_to_pre_encoder: bool,
    /// At the beginning of 2025, when every key was written, also those with the tool's default.
    #[serde(default, skip_serializing)]
    jump_relu_threshold: Option<f32>,
}

fn yes() -> bool {
    true
}

fn relu() -> String {
    "relu".into()
}

fn dataset_wise() -> String {
    DATASET_WISE.into()
}

fn fifty() -> usize {
    50
}

const DATASET_WISE: &str = "dataset-wise";
const TOKEN_WISE: &str = "token-wise";
const INFERENCE: &str = "inference";

pub(super) fn load(path: &Path) -> Result<(SaeConfig, SaeWeights)> {
    let dir = folder_of(path);
    let config_path = dir.join(CONFIG_FILE);
    let what = "the config.json of a Llamascopium SAE";
    let value = json::read_value(&config_path, what)?;
    let config: Config = json::parse(&value, &config_path, what)?;
    let (mut sae_config, architecture) = config.read(&config_path)?;
    sae_config.notes.extend(value.as_object().into_iter().flat_map(|keys| unknown(keys, LLAMASCOPIUM)));
    let weights_path = dir.join(WEIGHTS_FILE);
    let mut tensors = TensorFile::read(&weights_path, SAE_HINT)?;
    let SaeConfig { d_in, d_sae, .. } = sae_config;
    let names = if tensors.has("W_E")? { Names::OF_PARAMETERS } else { Names::OF_LINEAR };
    let nonlinearity = match architecture {
        Architecture::JumpRelu if names.linear && !tensors.has(LOG_THRESHOLD)? => {
            let threshold = config.jump_relu_threshold.ok_or_else(|| {
                let expected = format!("`{LOG_THRESHOLD}`, or `jump_relu_threshold` in {CONFIG_FILE}");
                Error::malformed(&weights_path, expected, "neither", "Add the threshold that it was trained with")
            })?;
            Nonlinearity::JumpRelu { threshold: vec![threshold; d_sae] }
        }
        Architecture::JumpRelu => {
            let log = tensors.take_weights(LOG_THRESHOLD, &[d_sae])?;
            Nonlinearity::JumpRelu { threshold: log.iter().map(|log| log.exp()).collect() }
        }
        Architecture::TopK => Nonlinearity::TopK { k: config.top_k },
        _ => Nonlinearity::Standard,
    };
    let mut weights = SaeWeights {
        w_enc: names.matrix(&mut tensors, names.w_enc, [d_sae, d_in])?,
        b_enc: tensors.take_weights(names.b_enc, &[d_sae])?,
        w_dec: names.matrix(&mut tensors, names.w_dec, [d_in, d_sae])?,
        // After the encoder, whose length confirms d_in: otherwise a config could request any number of zeros.
        b_dec: if config.use_decoder_bias { tensors.take_weights(names.b_dec, &[d_in])? } else { vec![0.0; d_in] },
        nonlinearity,
        w_skip: None,
    };
    let norms = average_norms(&mut tensors)?;
    tensors.end()?;
    if config.sparsity_include_decoder_norm {
        weights = selecting_by_decoder_norm(weights);
    }
    if config.norm_activation == DATASET_WISE {
        let scale = |hook: &str| {
            let norm = norms.iter().find(|(name, _)| name == hook).map(|(_, norm)| *norm);
            let norm = norm.filter(|norm| norm.is_finite() && *norm > 0.0).ok_or_else(|| {
                let expected = format!("{AVERAGE_NORM}{hook} above 0, as norm_activation `dataset-wise` needs");
                Error::malformed(
                    &weights_path,
                    expected,
                    norm.map_or("none".into(), |norm| norm.to_string()),
                    "Save the SAE after its training",
                )
            })?;
            Ok::<f32, Error>((d_in as f32).sqrt() / norm)
        };
        let (scale_in, scale_out) = (scale(&config.hook_point_in)?, scale(config.hook_point_out())?);
        of_raw_activations(&mut weights, scale_in, scale_out);
        if let Nonlinearity::JumpRelu { threshold } = &mut weights.nonlinearity {
            threshold.iter_mut().for_each(|t| *t /= scale_in);
        }
    }
    Ok((sae_config, weights))
}

/// The names of the tensors, and how the matrices lie.
struct Names {
    /// True if they are those of `torch.nn.Linear`, `[out, in]`; false if they are `[in, out]`.
    linear: bool,
    w_enc: &'static str,
    b_enc: &'static str,
    w_dec: &'static str,
    b_dec: &'static str,
}

impl Names {
    const OF_PARAMETERS: Self = Self { linear: false, w_enc: "W_E", b_enc: "b_E", w_dec: "W_D", b_dec: "b_D" };
    const OF_LINEAR: Self = Self {
        linear: true,
        w_enc: "encoder.weight",
        b_enc: "encoder.bias",
        w_dec: "decoder.weight",
        b_dec: "decoder.bias",
    };

    /// The encoder `[d_sae, d_in]` or the decoder `[d_sae, d_in]`, given the shape `[out, in]` of the product.
    fn matrix(&self, tensors: &mut TensorFile, name: &str, [out, width]: [usize; 2]) -> Result<Vec<f32>> {
        let values = tensors.take_weights(name, &if self.linear { [out, width] } else { [width, out] })?;
        // Both are wanted with a latent per row: the encoder as [out, in], the decoder as [in, out].
        Ok(match (self.linear, name == self.w_enc) {
            (true, true) | (false, false) => values,
            (true, false) => transposed(&values, out, width),
            (false, true) => transposed(&values, width, out),
        })
    }
}

/// The mean norms stored with the weights; they have no meaning if the config does not use them.
fn average_norms(tensors: &mut TensorFile) -> Result<Vec<(String, f32)>> {
    let names = tensors.names_with(AVERAGE_NORM)?;
    let norm = |name: &String| Ok((name[AVERAGE_NORM.len()..].to_string(), tensors.take_f32(name, &[])?[0]));
    names.iter().map(norm).collect()
}

/// The same SAE for a tool that compares activations times `|W_D|`, with the threshold or with each other.
fn selecting_by_decoder_norm(mut weights: SaeWeights) -> SaeWeights {
    match &mut weights.nonlinearity {
        Nonlinearity::TopK { .. } => weights.with_unit_decoder(),
        Nonlinearity::JumpRelu { threshold } => {
            for (threshold, row) in threshold.iter_mut().zip(weights.w_dec.chunks_exact(weights.b_dec.len())) {
                // A latent whose decoder row is zero never exceeds a threshold. A threshold that is not finite is kept,
                // and refused later.
                if threshold.is_finite() {
                    *threshold = (*threshold / sum_of_squares(row).sqrt()).min(f32::MAX);
                }
            }
            weights
        }
        _ => weights,
    }
}

/// Converts weights for activations multiplied by `scale_in` and `scale_out` to weights for raw activations: `s_in x W
/// + b = s_in (x W + b / s_in)`. Thresholds are not changed.
pub(super) fn of_raw_activations(weights: &mut SaeWeights, scale_in: f32, scale_out: f32) {
    weights.b_enc.iter_mut().for_each(|b| *b /= scale_in);
    weights.b_dec.iter_mut().for_each(|b| *b /= scale_out);
    multiply(&mut weights.w_dec, scale_in / scale_out);
}

impl Config {
    fn hook_point_out(&self) -> &str {
        self.hook_point_out.as_deref().unwrap_or(&self.hook_point_in)
    }

    fn read(&self, path: &Path) -> Result<(SaeConfig, Architecture)> {
        if self.sae_type != "sae" {
            return refuse(path, "sae_type", "`sae`", &self.sae_type);
        }
        if self.use_glu_encoder {
            return refuse(path, "use_glu_encoder", "`false`", "true");
        }
        let architecture = match self.act_fn.to_lowercase().as_str() {
            "relu" => Architecture::Standard,
            "jumprelu" => Architecture::JumpRelu,
            "topk" => Architecture::TopK,
            _ => return refuse(path, "act_fn", "`relu`, `jumprelu` or `topk`", &self.act_fn),
        };
        let input_norm = match self.norm_activation.as_str() {
            DATASET_WISE | INFERENCE => InputNorm::None,
            TOKEN_WISE => InputNorm::ConstantNorm,
            other => {
                let known = format!("`{DATASET_WISE}`, `{INFERENCE}` or `{TOKEN_WISE}`");
                return refuse(path, "norm_activation", known, other);
            }
        };
        let (from, to) = (self.hook_point_in.parse().ok(), self.hook_point_out().parse().ok());
        if to.is_none() && self.hook_point_in != self.hook_point_out() {
            return refuse(path, "hook_point_out", "such as blocks.9.hook_mlp_out", self.hook_point_out());
        }
        let d_sae = (self.d_model as f64 * self.expansion_factor) as usize;
        refuse_zero(path, "d_model and d_model * expansion_factor", [self.d_model, d_sae])?;
        let config = SaeConfig {
            apply_b_dec_to_input: self.use_decoder_bias && self.apply_decoder_bias_to_pre_encoder,
            input_norm,
            hook_points: HookPoints::between(from, to, [self.d_model; 2]),
            ..SaeConfig::new(self.d_model, d_sae)
        };
        Ok((config, architecture))
    }
}

pub(super) fn save(sae: &Sae, dir: &Path) -> Result<()> {
    let fits = Fits {
        format: SaeFormat::Llamascopium,
        architectures: &[Architecture::Standard, Architecture::JumpRelu, Architecture::TopK],
        transcoder: true,
        skip: false,
    };
    fits.check(sae)?;
    let SaeConfig { d_in, d_out, d_sae, input_norm, ref hook_points, .. } = *sae.config();
    let architecture = sae.architecture();
    if d_in != d_out {
        return fits.refuse("a transcoder between equal widths".into(), format!("{d_in} and {d_out}"));
    }
    let norm_activation = match input_norm {
        InputNorm::None => INFERENCE,
        InputNorm::ConstantNorm => TOKEN_WISE,
        InputNorm::Centered | InputNorm::LayerNorm { .. } => {
            return fits.refuse("raw or constant-norm activations".into(), input_norm.to_string());
        }
    };
    let (from, (_, to)) = (hook_points.first_read()?, hook_points.ends());
    let config = Config {
        sae_type: "sae".into(),
        d_model: d_in,
        expansion_factor: exact_factor(d_sae, d_in),
        use_decoder_bias: true,
        act_fn: architecture.to_string().replace("standard", "relu"),
        norm_activation: norm_activation.into(),
        sparsity_include_decoder_norm: false,
        top_k: sae.nonlinearity().k().unwrap_or_else(fifty),
        hook_point_in: from.to_string(),
        hook_point_out: Some(to.unwrap_or(from).to_string()),
        use_glu_encoder: false,
        apply_decoder_bias_to_pre_encoder: false,
        jump_relu_threshold: None,
    };
    let sae = sae.applying_b_dec(false);
    let SaeWeights { w_enc, b_enc, nonlinearity, w_dec, b_dec, .. } = sae.weights();
    let w_enc = transposed(w_enc, d_sae, d_in);
    let mut tensors = vec![
        Tensor::f32("W_E", &[d_in, d_sae], &w_enc),
        Tensor::f32("b_E", &[d_sae], b_enc),
        Tensor::f32("W_D", &[d_sae, d_in], w_dec),
        Tensor::f32("b_D", &[d_in], b_dec),
    ];
    // It is stored as a logarithm, so the smallest positive number stands for zero: only positive values exceed either.
    let log = |threshold: Vec<f32>| threshold.iter().map(|t| t.max(f32::MIN_POSITIVE).ln()).collect::<Vec<f32>>();
    let threshold = nonlinearity.thresholds(d_sae).filter(|_| architecture == Architecture::JumpRelu).map(log);
    tensors.extend(threshold.as_ref().map(|log| Tensor::f32(LOG_THRESHOLD, &[d_sae], log)));
    write_tensors(&dir.join(WEIGHTS_FILE), tensors, None)?;
    json::write(&dir.join(CONFIG_FILE), &config)
}

/// A factor whose product with `d_in`, truncated to an integer as the tool does, is `d_sae`.
fn exact_factor(d_sae: usize, d_in: usize) -> f64 {
    let factor = d_sae as f64 / d_in as f64;
    if (factor * d_in as f64) as usize == d_sae { factor } else { factor.next_up() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expansion_factor_gives_back_the_number_of_latents() {
        for d_in in 1..60 {
            for d_sae in 1..400 {
                assert_eq!((exact_factor(d_sae, d_in) * d_in as f64) as usize, d_sae, "{d_sae} of {d_in}");
            }
        }
    }
}
