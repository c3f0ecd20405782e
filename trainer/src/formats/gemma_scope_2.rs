//! Gemma Scope 2, of Gemma 3: `params.safetensors` and `config.json`, with the names of Hugging Face's modules.
//!
//! ```text
//! w_enc [d_in, d_sae]   b_enc [d_sae]   w_dec [d_sae, d_out]   b_dec [d_out]   threshold [d_sae]
//! affine_skip_connection [d_in, d_out]
//! f = p if p = x w_enc + b_enc exceeds threshold and zero;  y = f w_dec + b_dec + x affine_skip_connection
//! ```

use std::path::Path;

use harvester::{HookPoint, Site};
use serde::{Deserialize, Serialize};

use super::{
    find::folder_of,
    fits::Fits,
    format::SaeFormat,
    gemma_scope::jumprelu,
    json::{self, refuse},
    transpose::transposed,
};
use crate::{
    Result,
    sae::{Architecture, HookPoints, Sae, SaeConfig, SaeWeights, input_norm::InputNorm},
    tensors::{SAE_HINT, Tensor, TensorFile, write_tensors},
};

const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "params.safetensors";
const JUMP_RELU: &str = "jump_relu";
const SKIP: &str = "affine_skip_connection";

/// The keys of `config.json` that are read; the others record the training.
#[derive(Debug, Serialize, Deserialize)]
#[serde(expecting = "a JSON object")]
struct Config {
    architecture: String,
    #[serde(default)]
    model_name: String,
    hf_hook_point_in: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hf_hook_point_out: Option<String>,
    #[serde(default)]
    affine_connection: bool,
}

pub(super) fn load(path: &Path) -> Result<(SaeConfig, SaeWeights)> {
    let dir = folder_of(path);
    let config_path = dir.join(CONFIG_FILE);
    let config: Config = json::read(&config_path, "the config.json of a Gemma Scope 2 SAE")?;
    if config.architecture != JUMP_RELU {
        return refuse(&config_path, "architecture", "`jump_relu`", &config.architecture);
    }
    let from = hook_point(&config.hf_hook_point_in);
    let to = match &config.hf_hook_point_out {
        Some(out) if *out != config.hf_hook_point_in => match hook_point(out) {
            Some(point) => Some(point),
            None => return refuse(&config_path, "hf_hook_point_out", "such as model.layers.9.output", out),
        },
        _ => None,
    };
    let mut tensors = TensorFile::read(&dir.join(WEIGHTS_FILE), SAE_HINT)?;
    let ((d_in, d_sae), (_, d_out)) = (tensors.matrix("w_enc")?, tensors.matrix("w_dec")?);
    let (sae_config, mut weights) =
        jumprelu(["w_enc", "w_dec"], [d_in, d_sae, d_out], |name, shape| tensors.take_weights(name, shape))?;
    if config.affine_connection {
        weights.w_skip = Some(transposed(&tensors.take_weights(SKIP, &[d_in, d_out])?, d_in, d_out));
    }
    tensors.end()?;
    let hook_points = HookPoints::between(from, to, [d_in, d_out]);
    Ok((SaeConfig { hook_points, model_name: config.model_name, ..sae_config }, weights))
}

/// Hugging Face's modules of a Gemma 3 block and the matching hook points. The MLP's output is taken after its norm.
const MODULES: [(&str, Site); 4] = [
    ("output", Site::ResidPost),
    ("self_attn.o_proj.input", Site::AttnZ),
    ("post_feedforward_layernorm.output", Site::MlpOut),
    ("pre_feedforward_layernorm.output", Site::Ln2Normalized),
];

fn hook_point(name: &str) -> Option<HookPoint> {
    let (layer, module) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (_, site) = MODULES.into_iter().find(|(known, _)| *known == module)?;
    Some(HookPoint::Block { layer: layer.parse().ok()?, site })
}

fn module_of(point: HookPoint) -> Option<String> {
    let HookPoint::Block { layer, site } = point else { return None };
    let (module, _) = MODULES.into_iter().find(|(_, known)| *known == site)?;
    Some(format!("model.layers.{layer}.{module}"))
}

pub(super) fn save(sae: &Sae, dir: &Path) -> Result<()> {
    let fits = Fits {
        format: SaeFormat::GemmaScope2,
        architectures: &[Architecture::JumpRelu, Architecture::Standard],
        transcoder: true,
        skip: true,
    };
    fits.check(sae)?;
    let SaeConfig { d_in, d_out, d_sae, input_norm, ref hook_points, ref model_name, .. } = *sae.config();
    let Some(threshold) = sae.nonlinearity().thresholds(d_sae).filter(|_| input_norm == InputNorm::None) else {
        return fits.refuse("an SAE of raw activations".into(), input_norm.to_string());
    };
    let named = |point: HookPoint| match module_of(point) {
        Some(module) => Ok(module),
        None => fits.refuse("an output of a block, an MLP, its input, or heads".into(), point.to_string()),
    };
    let config = Config {
        architecture: JUMP_RELU.into(),
        model_name: model_name.clone(),
        hf_hook_point_in: named(hook_points.first_read()?)?,
        hf_hook_point_out: hook_points.ends().1.map(named).transpose()?,
        affine_connection: sae.has_skip(),
    };
    let sae = sae.applying_b_dec(false);
    let SaeWeights { w_enc, b_enc, w_dec, b_dec, w_skip, .. } = sae.weights();
    let w_enc = transposed(w_enc, d_sae, d_in);
    let mut tensors = vec![
        Tensor::f32("w_enc", &[d_in, d_sae], &w_enc),
        Tensor::f32("w_dec", &[d_sae, d_out], w_dec),
        Tensor::f32("b_enc", &[d_sae], b_enc),
        Tensor::f32("b_dec", &[d_out], b_dec),
        Tensor::f32("threshold", &[d_sae], &threshold),
    ];
    let skip = w_skip.as_ref().map(|skip| transposed(skip, d_out, d_in));
    tensors.extend(skip.as_ref().map(|skip| Tensor::f32(SKIP, &[d_in, d_out], skip)));
    write_tensors(&dir.join(WEIGHTS_FILE), tensors, None)?;
    json::write(&dir.join(CONFIG_FILE), &config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_hook_points_are_the_same_places() {
        for (module, site) in MODULES {
            let (name, point) = (format!("model.layers.7.{module}"), HookPoint::Block { layer: 7, site });
            assert_eq!((hook_point(&name), module_of(point)), (Some(point), Some(name)));
        }
        assert_eq!((hook_point("model.layers.x.output"), module_of(HookPoint::Embed)), (None, None));
    }
}
