//! EleutherAI's sparsify: `cfg.json` and `sae.safetensors` in a folder named after the hook point, such as `layers.10`.
//!
//! ```text
//! encoder.weight [d_sae, d_in]   encoder.bias [d_sae]   W_dec [d_sae, d_in]   b_dec [d_in]   W_skip [d_in, d_in]
//! f = the k largest of relu((x - b_dec) encoder.weight^T + encoder.bias)          without b_dec if `transcode`
//! y = f W_dec + b_dec + x W_skip^T
//! ```
//!
//! Before February 2025, only the config of the run, in the folder above, said `transcode`, and transcoders subtracted
//! b_dec from their input as well.

use std::path::Path;

use harvester::{HookPoint, Site};
use serde::{Deserialize, Serialize};

use super::{
    find::folder_of,
    fits::{Fits, Said},
    format::SaeFormat,
    json::{self, refuse},
};
use crate::{
    Error, Result,
    kernels::simd::dot,
    sae::{Architecture, HookPoints, Nonlinearity, Sae, SaeConfig, SaeWeights, input_norm::InputNorm},
    tensors::{SAE_HINT, Tensor, TensorFile, write_tensors},
};

const CFG_FILE: &str = "cfg.json";
const WEIGHTS_FILE: &str = "sae.safetensors";
const RUN_FILE: &str = "config.json";
/// Folder names that stand for a hook point, for `Fits::check_folder`.
const FOLDERS: [&str; 2] = ["layers.LAYER", "layers.LAYER.mlp"];

/// `cfg.json`. Sparsify has only these keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
struct Cfg {
    #[serde(default = "topk")]
    activation: String,
    #[serde(default = "thirty_two")]
    expansion_factor: usize,
    #[serde(default = "yes")]
    normalize_decoder: bool,
    /// 0: `expansion_factor * d_in`.
    #[serde(default)]
    num_latents: usize,
    /// If it is missing, sparsify uses 32, even if the SAE was trained with another k.
    k: Option<usize>,
    #[serde(default)]
    multi_topk: bool,
    #[serde(default)]
    skip_connection: bool,
    #[serde(default)]
    transcode: Option<bool>,
    d_in: usize,
    /// In older versions: true if the k largest are selected by absolute value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    signed: bool,
}

fn topk() -> String {
    "topk".into()
}

fn thirty_two() -> usize {
    32
}

fn yes() -> bool {
    true
}

pub(super) fn load(path: &Path) -> Result<(SaeConfig, SaeWeights)> {
    let dir = folder_of(path);
    let cfg_path = dir.join(CFG_FILE);
    let cfg: Cfg = json::read(&cfg_path, "the cfg.json of sparsify")?;
    if cfg.activation != "topk" {
        return refuse(&cfg_path, "activation", "`topk`", &cfg.activation);
    }
    if cfg.signed {
        return refuse(&cfg_path, "signed", "`false`", "true");
    }
    let Some(k) = cfg.k else {
        let hint = "Add the `k` that the SAE was trained with, such as \"k\": 32";
        return Err(Error::malformed(&cfg_path, "`k`, the active latents per token", "no such key", hint));
    };
    let of_run = cfg.transcode.is_none() && run_transcodes(&dir)?;
    let transcode = cfg.transcode.unwrap_or(of_run);
    let (from, to) = hook_points(&dir, transcode)?;
    let d_in = cfg.d_in;
    let d_sae = if cfg.num_latents == 0 { d_in.saturating_mul(cfg.expansion_factor) } else { cfg.num_latents };
    let mut tensors = TensorFile::read(&dir.join(WEIGHTS_FILE), SAE_HINT)?;
    let mut weights = SaeWeights {
        w_enc: tensors.take_weights("encoder.weight", &[d_sae, d_in])?,
        b_enc: tensors.take_weights("encoder.bias", &[d_sae])?,
        nonlinearity: Nonlinearity::TopK { k },
        w_dec: tensors.take_weights("W_dec", &[d_sae, d_in])?,
        b_dec: tensors.take_weights("b_dec", &[d_in])?,
        w_skip: if cfg.skip_connection { Some(tensors.take_weights("W_skip", &[d_in, d_in])?) } else { None },
    };
    tensors.end()?;
    if of_run {
        let SaeWeights { w_enc, b_enc, b_dec, .. } = &mut weights;
        b_enc.iter_mut().zip(w_enc.chunks_exact(d_in)).for_each(|(b, w_enc)| *b -= dot(b_dec, w_enc));
    }
    let config = SaeConfig {
        apply_b_dec_to_input: !transcode,
        hook_points: HookPoints::between(from, to, [d_in, d_in]),
        ..SaeConfig::new(d_in, d_sae)
    };
    Ok((config, weights))
}

/// `transcode` of the run's config in the folder above, which holds for all its SAEs.
fn run_transcodes(dir: &Path) -> Result<bool> {
    let path = dir.join("..").join(RUN_FILE);
    if !path.is_file() {
        return Ok(false);
    }
    let run = json::read_value(&path, "the config.json of a run of sparsify")?;
    Ok(run.get("transcode") == Some(&serde_json::Value::Bool(true)))
}

/// `layers.10` is the output of block 10; a transcoder of `layers.10.mlp` reads the input of its MLP and reconstructs
/// the output. The outputs of other modules differ from TransformerLens' hook points by norms in some families (as the
/// MLP's own does in Gemma 2, Gemma 3 and OLMo 2), so they are left to the user.
fn hook_points(dir: &Path, transcode: bool) -> Result<Said> {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let layer = name.strip_prefix("model.").unwrap_or(name).strip_prefix("layers.");
    if !transcode {
        return Ok((layer.and_then(|layer| layer.parse().ok()).map(HookPoint::resid_post), None));
    }
    let Some(layer) = layer.and_then(|layer| layer.strip_suffix(".mlp")).and_then(|layer| layer.parse().ok()) else {
        let hint = "Name the folder after the module, as sparsify does";
        return Err(Error::malformed(dir, "a transcoder in a folder such as layers.10.mlp", name, hint));
    };
    let of = |site| Some(HookPoint::Block { layer, site });
    Ok((of(Site::Ln2Normalized), of(Site::MlpOut)))
}

pub(super) fn save(sae: &Sae, dir: &Path) -> Result<()> {
    let fits = Fits { format: SaeFormat::Sparsify, architectures: &[Architecture::TopK], transcoder: true, skip: true };
    fits.check(sae)?;
    let SaeConfig { d_in, d_out, d_sae, input_norm, ref hook_points, .. } = *sae.config();
    if input_norm != InputNorm::None {
        return fits.refuse("an SAE of raw activations".into(), input_norm.to_string());
    }
    if d_in != d_out {
        return fits.refuse("a transcoder between equal widths".into(), format!("{d_in} and {d_out}"));
    }
    let transcode = hook_points.is_transcoder();
    fits.check_folder(hook_points, dir, |dir| self::hook_points(dir, transcode), &FOLDERS)?;
    let sae = sae.applying_b_dec(!transcode);
    let SaeWeights { w_enc, b_enc, nonlinearity, w_dec, b_dec, w_skip } = sae.weights();
    let mut tensors = vec![
        Tensor::f32("encoder.weight", &[d_sae, d_in], w_enc),
        Tensor::f32("encoder.bias", &[d_sae], b_enc),
        Tensor::f32("W_dec", &[d_sae, d_in], w_dec),
        Tensor::f32("b_dec", &[d_in], b_dec),
    ];
    tensors.extend(w_skip.as_ref().map(|w_skip| Tensor::f32("W_skip", &[d_in, d_in], w_skip)));
    write_tensors(&dir.join(WEIGHTS_FILE), tensors, None)?;
    let cfg = Cfg {
        activation: topk(),
        expansion_factor: d_sae.div_ceil(d_in),
        // Used only in training.
        normalize_decoder: true,
        num_latents: d_sae,
        k: nonlinearity.k(),
        multi_topk: false,
        skip_connection: w_skip.is_some(),
        transcode: Some(transcode),
        d_in,
        signed: false,
    };
    json::write(&dir.join(CFG_FILE), &cfg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_after_modules() {
        let found = |name: &str, transcode| hook_points(Path::new(name), transcode).ok();
        assert_eq!(found("runs/layers.10", false), Some((Some(HookPoint::resid_post(10)), None)));
        assert_eq!(found("layers.10.mlp", false), Some((None, None)));
        let of = |site| Some(HookPoint::Block { layer: 10, site });
        assert_eq!(found("model.layers.10.mlp", true), Some((of(Site::Ln2Normalized), of(Site::MlpOut))));
        assert_eq!(found("layers.10", true), None);
    }
}
