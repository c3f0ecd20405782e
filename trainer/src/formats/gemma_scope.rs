//! Gemma Scope, of Gemma 2: `params.npz` in a folder such as `gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82`.
//!
//! ```text
//! W_enc [d_in, d_sae]   b_enc [d_sae]   W_dec [d_sae, d_out]   b_dec [d_out]   threshold [d_sae]
//! f = p if p = x W_enc + b_enc exceeds threshold and zero;  x_hat = f W_dec + b_dec    (b_dec only in x_hat)
//! ```
//!
//! The file does not name its hook point. The names of the folders do, if they are those of the release.

use std::path::Path;

use harvester::{HookPoint, Site};

use super::{
    find::folder_of,
    fits::{Fits, Said},
    format::SaeFormat,
    npz,
    saelens_legacy::check_scaling_factor,
    transpose::transposed,
};
use crate::{
    Error, Result,
    sae::{Architecture, HookPoints, Nonlinearity, Sae, SaeConfig, SaeWeights, input_norm::InputNorm},
};

const FILE: &str = "params.npz";
/// Folder names that stand for a hook point, for `Fits::check_folder`.
const FOLDERS: [&str; 4] = [
    "gemma-scope-2b-pt-res/layer_LAYER",
    "gemma-scope-2b-pt-mlp/layer_LAYER",
    "gemma-scope-2b-pt-att/layer_LAYER",
    "gemma-scope-2b-pt-transcoders/layer_LAYER",
];

pub(super) fn load(path: &Path) -> Result<(SaeConfig, SaeWeights)> {
    let path = folder_of(path).join(FILE);
    let mut tensors = npz::read(&path)?;
    // In some files of the release, the names of the matrices are in lower case.
    let [w_enc, w_dec] = ["W_enc", "W_dec"].map(|name| {
        let lower = name.to_lowercase();
        if tensors.has(&lower) { lower } else { name.to_string() }
    });
    let ((d_in, d_sae), (_, d_out)) = (tensors.matrix(&w_enc)?, tensors.matrix(&w_dec)?);
    let (config, weights) =
        jumprelu([&w_enc, &w_dec], [d_in, d_sae, d_out], |name, shape| tensors.take_f32(name, shape))?;
    if tensors.has("scaling_factor") {
        check_scaling_factor(&tensors.take_f32("scaling_factor", &[d_sae])?, &path)?;
    }
    tensors.end()?;
    let (from, to) = hook_points(&path)?;
    Ok((SaeConfig { hook_points: HookPoints::between(from, to, [d_in, d_out]), ..config }, weights))
}

/// The SAE from the tensors of either release, without a hook point. The releases spell the names of the matrices
/// differently. `take` returns the tensor with a name and a shape.
pub(super) fn jumprelu(
    [w_enc, w_dec]: [&str; 2],
    [d_in, d_sae, d_out]: [usize; 3],
    mut take: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>,
) -> Result<(SaeConfig, SaeWeights)> {
    let config = SaeConfig {
        d_out,
        apply_b_dec_to_input: false,
        // Gemma was trained with a BOS token, and Gemma Scope on texts that begin with it.
        prepend_bos: Some(true),
        ..SaeConfig::new(d_in, d_sae)
    };
    let weights = SaeWeights {
        w_enc: transposed(&take(w_enc, &[d_in, d_sae])?, d_in, d_sae),
        b_enc: take("b_enc", &[d_sae])?,
        w_dec: take(w_dec, &[d_sae, d_out])?,
        b_dec: take("b_dec", &[d_out])?,
        nonlinearity: Nonlinearity::JumpRelu { threshold: take("threshold", &[d_sae])? },
        w_skip: None,
    };
    Ok((config, weights))
}

/// The hook point that it reads and, for a transcoder, the one that it reconstructs, from the names of the release and
/// the layer.
fn hook_points(path: &Path) -> Result<Said> {
    let names: Vec<_> = path.iter().filter_map(|name| name.to_str()).collect();
    let release = names.iter().rev().find(|name| name.starts_with("gemma-scope-"));
    if release.is_some() && names.contains(&"embedding") {
        let hint = "Use an SAE of a layer";
        return Err(Error::malformed(
            path,
            "an SAE of a layer",
            "one of unscaled token embeddings, which the model never has",
            hint,
        ));
    }
    let layer = names.iter().rev().find_map(|name| name.strip_prefix("layer_")?.parse().ok());
    let (Some(release), Some(layer)) = (release, layer) else { return Ok((None, None)) };
    let of = |site| Some(HookPoint::Block { layer, site });
    let release = release.strip_suffix("-canonical").unwrap_or(release);
    Ok(match release.rsplit('-').next() {
        Some("res") => (of(Site::ResidPost), None),
        Some("mlp") => (of(Site::MlpOut), None),
        Some("att") => (of(Site::AttnZ), None),
        Some("transcoders") => (of(Site::Ln2Normalized), of(Site::MlpOut)),
        _ => (None, None),
    })
}

pub(super) fn save(sae: &Sae, dir: &Path) -> Result<()> {
    let fits = Fits {
        format: SaeFormat::GemmaScope,
        architectures: &[Architecture::JumpRelu, Architecture::Standard],
        transcoder: true,
        skip: false,
    };
    fits.check(sae)?;
    let SaeConfig { d_in, d_out, d_sae, input_norm, ref hook_points, .. } = *sae.config();
    let Some(threshold) = sae.nonlinearity().thresholds(d_sae).filter(|_| input_norm == InputNorm::None) else {
        return fits.refuse("an SAE of raw activations".into(), input_norm.to_string());
    };
    fits.check_folder(hook_points, dir, self::hook_points, &FOLDERS)?;
    let sae = sae.applying_b_dec(false);
    let SaeWeights { w_enc, b_enc, w_dec, b_dec, .. } = sae.weights();
    let w_enc = transposed(w_enc, d_sae, d_in);
    npz::write(
        &dir.join(FILE),
        &[
            ("W_enc", &[d_in, d_sae], &w_enc),
            ("W_dec", &[d_sae, d_out], w_dec),
            ("b_enc", &[d_sae], b_enc),
            ("b_dec", &[d_out], b_dec),
            ("threshold", &[d_sae], &threshold),
        ],
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_the_release_name_the_hook_point() {
        let found = |path: &str| hook_points(Path::new(path)).unwrap();
        let of = |site| Some(HookPoint::Block { layer: 20, site });
        let file = "layer_20/width_16k/average_l0_71/params.npz";
        assert_eq!(found(&format!("/d/gemma-scope-2b-pt-res/{file}")), (of(Site::ResidPost), None));
        assert_eq!(found(&format!("gemma-scope-9b-pt-att-canonical/{file}")), (of(Site::AttnZ), None));
        assert_eq!(
            found(&format!("gemma-scope-2b-pt-transcoders/{file}")),
            (of(Site::Ln2Normalized), of(Site::MlpOut))
        );
        assert_eq!(found(file), (None, None));
        assert!(hook_points(Path::new("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6/params.npz")).is_err());
    }
}
