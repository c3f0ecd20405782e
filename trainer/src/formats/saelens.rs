//! SAELens' folder, which is also ours: `cfg.json`, `sae_weights.safetensors` and `sparsity.safetensors`.
//!
//! ```text
//! W_enc [d_in, d_sae]   b_enc [d_sae]   W_dec [d_sae, d_out]   b_dec [d_out]   threshold [d_sae] (jumprelu)
//! b_gate, r_mag, b_mag [d_sae] (gated, without b_enc)   W_skip [d_out, d_in]
//! sparsity [d_sae] = log10(frequency + 1e-10)
//! ```
//!
//! `metadata.sae_lens_version` must be 6 or more; otherwise SAELens reads `cfg.json` as its older, flat layout
//! (`saelens_legacy`). An unknown tensor is refused.

use std::path::Path;

use super::{
    find::folder_of,
    json,
    saelens_cfg::{Cfg, EXPECTED_AVERAGE, FITS, notes, without_records},
    saelens_legacy,
    transpose::transposed,
};
use crate::{
    Error, Result,
    kernels::simd::multiply,
    sae::{Architecture, Nonlinearity, Sae, SaeConfig, SaeWeights},
    tensors::{SAE_HINT, Tensor, TensorFile, write_tensors},
};

const CFG_FILE: &str = "cfg.json";
/// The scale of activations in a checkpoint of SAELens 6, and of 5.
const SCALER_FILE: &str = "activation_scaler.json";
const STORE_STATE_FILE: &str = "activations_store_state.safetensors";
const SCALING_FACTOR: &str = "estimated_norm_scaling_factor";
pub(crate) const WEIGHTS_FILE: &str = "sae_weights.safetensors";
pub(crate) const SPARSITY_FILE: &str = "sparsity.safetensors";
/// The files of our SAE folder beside the weights.
pub(crate) const OTHER_FILES: [&str; 2] = [CFG_FILE, SPARSITY_FILE];

pub(super) fn save(sae: &Sae, dir: &Path) -> Result<()> {
    if sae.has_skip() && sae.config().apply_b_dec_to_input {
        // With a skip connection, SAELens has only transcoders, which do not subtract b_dec.
        return save(&sae.applying_b_dec(false), dir);
    }
    let hook_points = &sae.config().hook_points;
    if sae.has_skip() && !hook_points.is_transcoder() {
        // SAELens can express it only as a transcoder to the same hook point.
        hook_points.first_read()?;
    }
    if !hook_points.is_crosscoder() {
        FITS.check(sae)?;
    } else if sae.has_skip() {
        return FITS.refuse("a crosscoder without a skip connection".into(), "one with W_skip".into());
    }
    let SaeConfig { d_in, d_out, d_sae, .. } = *sae.config();
    let SaeWeights { w_enc, b_enc, nonlinearity, w_dec, b_dec, w_skip } = sae.weights();
    let w_enc = transposed(w_enc, d_sae, d_in);
    let mut tensors = vec![
        Tensor::f32("W_enc", &[d_in, d_sae], &w_enc),
        Tensor::f32(name_of_b_enc(sae.architecture()), &[d_sae], b_enc),
        Tensor::f32("W_dec", &[d_sae, d_out], w_dec),
        Tensor::f32("b_dec", &[d_out], b_dec),
    ];
    match nonlinearity {
        Nonlinearity::JumpRelu { threshold } => tensors.push(Tensor::f32("threshold", &[d_sae], threshold)),
        Nonlinearity::Gated { r_mag, b_mag } => {
            tensors.extend([Tensor::f32("r_mag", &[d_sae], r_mag), Tensor::f32("b_mag", &[d_sae], b_mag)]);
        }
        Nonlinearity::Standard | Nonlinearity::TopK { .. } | Nonlinearity::Dense => {}
    }
    tensors.extend(w_skip.as_ref().map(|w_skip| Tensor::f32("W_skip", &[d_out, d_in], w_skip)));
    let cfg = Cfg::of(sae)?;
    write_tensors(&dir.join(WEIGHTS_FILE), tensors, None)?;
    json::write(&dir.join(CFG_FILE), &cfg)
}

fn name_of_b_enc(architecture: Architecture) -> &'static str {
    if architecture == Architecture::Gated { "b_gate" } else { "b_enc" }
}

/// Writes the share of tokens on which each latent is active. `[d_sae]`
pub(crate) fn save_sparsity(frequency: &[f32], dir: &Path) -> Result<()> {
    let sparsity: Vec<f32> = frequency.iter().map(|share| (share + 1e-10).log10()).collect();
    write_tensors(&dir.join(SPARSITY_FILE), vec![Tensor::f32("sparsity", &[sparsity.len()], &sparsity)], None)
}

pub(super) fn load(path: &Path) -> Result<(SaeConfig, SaeWeights)> {
    let dir = folder_of(path);
    let cfg_path = dir.join(CFG_FILE);
    let (cfg, notes) = read_cfg(&cfg_path)?;
    let (mut config, named) = cfg.read(&cfg_path)?;
    config.notes.extend(notes);
    let path = dir.join(WEIGHTS_FILE);
    let mut tensors = TensorFile::read(&path, SAE_HINT)?;
    let SaeConfig { d_in, d_out, d_sae, .. } = config;
    let w_enc = transposed(&tensors.take_weights("W_enc", &[d_in, d_sae])?, d_in, d_sae);
    let mut of_latents = |name: &str| tensors.take_weights(name, &[d_sae]);
    let mut weights = SaeWeights {
        w_enc,
        b_enc: of_latents(name_of_b_enc(named.architecture))?,
        nonlinearity: match named.architecture {
            Architecture::Standard => Nonlinearity::Standard,
            Architecture::TopK => Nonlinearity::TopK { k: cfg.k(&cfg_path)? },
            Architecture::JumpRelu => Nonlinearity::JumpRelu { threshold: of_latents("threshold")? },
            Architecture::Gated => Nonlinearity::Gated { r_mag: of_latents("r_mag")?, b_mag: of_latents("b_mag")? },
            Architecture::Dense => Nonlinearity::Dense,
        },
        w_dec: tensors.take_weights("W_dec", &[d_sae, d_out])?,
        b_dec: tensors.take_weights("b_dec", &[d_out])?,
        w_skip: if named.skip { Some(tensors.take_weights("W_skip", &[d_out, d_in])?) } else { None },
    };
    if tensors.has("scaling_factor")? {
        saelens_legacy::check_scaling_factor(&tensors.take_f32("scaling_factor", &[d_sae])?, &path)?;
    }
    tensors.end()?;
    if cfg.normalize_activations == EXPECTED_AVERAGE {
        fold_average_norm(&mut weights, average_norm_factor(&dir)?);
    }
    // For other architectures SAELens does not have this key, and ignores it.
    if cfg.rescale_acts_by_decoder_norm == Some(true) && named.architecture == Architecture::TopK {
        weights = weights.with_unit_decoder();
    }
    Ok((config, weights))
}

/// The factor of `expected_average_only_in`, which SAELens folds into the weights at the end of a training: before it,
/// the factor is in a file of the checkpoint.
fn average_norm_factor(dir: &Path) -> Result<f32> {
    let (of_6, of_5) = (dir.join(SCALER_FILE), dir.join(STORE_STATE_FILE));
    let factor = if of_6.is_file() {
        let scaler = json::read_value(&of_6, "the activation scaler of SAELens")?;
        scaler.get("scaling_factor").and_then(serde_json::Value::as_f64).map(|factor| factor as f32)
    } else if of_5.is_file() {
        let mut tensors = TensorFile::read(&of_5, SAE_HINT)?;
        let has_one = tensors.has(SCALING_FACTOR)?;
        if has_one { Some(tensors.take_f32(SCALING_FACTOR, &[])?[0]) } else { None }
    } else {
        None
    };
    factor.filter(|factor| factor.is_finite() && *factor > 0.0).ok_or_else(|| {
        let expected = format!(
            "a factor above 0 in {SCALER_FILE} or {STORE_STATE_FILE}, since normalize_activations is `{EXPECTED_AVERAGE}`"
        );
        Error::malformed(dir, expected, "none", "Copy the whole checkpoint, or save the SAE with its norm folded")
    })
}

/// As SAELens' `fold_activation_norm_scaling_factor`: `(s x - b_dec) W_enc = (x - b_dec / s) s W_enc`. Thresholds stay.
fn fold_average_norm(weights: &mut SaeWeights, factor: f32) {
    multiply(&mut weights.w_enc, factor);
    multiply(&mut weights.w_dec, 1.0 / factor);
    multiply(&mut weights.b_dec, 1.0 / factor);
}

/// The config, and what its settings ask for beyond it.
fn read_cfg(path: &Path) -> Result<(Cfg, Vec<String>)> {
    let what = "the cfg.json of an SAE";
    let mut value = json::read_value(path, what)?;
    let notes = notes(&value);
    if saelens_legacy::is_legacy(&value) {
        value = saelens_legacy::upgraded(value, path)?;
    }
    Ok((json::parse(&without_records(value), path, what)?, notes))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use harvester::HookPoint;

    use super::*;
    use crate::{
        formats::read,
        kernels::simd::sum_of_squares,
        sae::{
            HookPoints,
            tests::{changed, example},
        },
    };

    #[test]
    fn what_is_saved_is_loaded() {
        for architecture in Architecture::ALL {
            let dir = tempfile::tempdir().unwrap();
            let sae = example(architecture, 24, 100);
            sae.save(dir.path()).unwrap();
            assert_eq!(read(dir.path()).unwrap(), sae);
        }
    }

    #[test]
    fn transcoders_and_crosscoders_are_loaded_as_they_were_saved() {
        let saved_and_loaded = |sae: &Sae| {
            let dir = tempfile::tempdir().unwrap();
            sae.save(dir.path()).unwrap();
            let text = fs::read_to_string(dir.path().join(CFG_FILE)).unwrap();
            (read(dir.path()).unwrap(), text)
        };
        for (architecture, word) in [
            (Architecture::Standard, "\"skip_transcoder\""),
            (Architecture::JumpRelu, "\"jumprelu_skip_transcoder\""),
            (Architecture::TopK, "\"topk_skip_transcoder\""),
        ] {
            let sae = changed(&example(architecture, 24, 100), |config, weights| {
                config.d_out = 7;
                let [from, to] = [3, 5].map(|layer| Some(HookPoint::resid_post(layer)));
                config.hook_points = HookPoints::Transcoder { from, to };
                config.apply_b_dec_to_input = false;
                weights.w_dec.truncate(100 * 7);
                weights.b_dec.truncate(7);
                weights.w_skip = Some(weights.w_enc[..7 * 24].to_vec());
            });
            let sae = sae.unwrap();
            let (loaded, cfg) = saved_and_loaded(&sae);
            assert_eq!(loaded, sae);
            assert!(cfg.contains(word), "{cfg}");
        }
        let crosscoder = changed(&example(Architecture::JumpRelu, 24, 100), |config, _| {
            let columns = vec![(HookPoint::resid_post(0), 10), (HookPoint::resid_post(1), 14)];
            config.hook_points = HookPoints::Crosscoder(columns);
        });
        let crosscoder = crosscoder.unwrap();
        let (loaded, cfg) = saved_and_loaded(&crosscoder);
        assert_eq!(loaded, crosscoder);
        assert!(cfg.contains("\"crosscoder\"") && cfg.contains("\"activation\": \"jumprelu\""), "{cfg}");
    }

    /// The error of reading a saved SAE after `damage`.
    fn refused(architecture: Architecture, damage: impl FnOnce(&Path)) -> String {
        let dir = tempfile::tempdir().unwrap();
        example(architecture, 4, 10).save(dir.path()).unwrap();
        damage(dir.path());
        read(dir.path()).unwrap_err().to_string()
    }

    fn edit_cfg(from: &str, to: &str) -> impl FnOnce(&Path) {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |dir| {
            let text = fs::read_to_string(dir.join(CFG_FILE)).unwrap();
            assert!(text.contains(&from), "{text}");
            fs::write(dir.join(CFG_FILE), text.replace(&from, &to)).unwrap();
        }
    }

    fn rewrite(tensors: Vec<(&'static str, Vec<usize>, Vec<f32>)>) -> impl FnOnce(&Path) {
        move |dir| {
            let tensors = tensors.iter().map(|(name, shape, data)| Tensor::f32(name, shape, data)).collect();
            write_tensors(&dir.join(WEIGHTS_FILE), tensors, None).unwrap();
        }
    }

    #[test]
    fn other_tensors_than_expected_are_refused_by_name() {
        let good = || {
            vec![
                ("W_enc", vec![4, 10], vec![0.0; 40]),
                ("b_enc", vec![10], vec![0.0; 10]),
                ("W_dec", vec![10, 4], vec![0.0; 40]),
                ("b_dec", vec![4], vec![0.0; 4]),
            ]
        };
        let mut more = good();
        more.push(("W_skip", vec![4, 4], vec![0.0; 16]));
        let message = refused(Architecture::TopK, rewrite(more));
        assert!(message.contains("sae_weights.safetensors") && message.contains("W_skip"), "{message}");

        let message = refused(Architecture::JumpRelu, rewrite(good()));
        assert!(message.contains("threshold"), "{message}");

        let mut turned = good();
        turned[0].1 = vec![10, 4];
        let message = refused(Architecture::TopK, rewrite(turned));
        assert!(message.contains("W_enc") && message.contains("[4, 10]") && message.contains("[10, 4]"), "{message}");

        let mut infinite = good();
        infinite[3].2[2] = f32::INFINITY;
        let message = refused(Architecture::TopK, rewrite(infinite));
        assert!(message.contains("b_dec") && message.contains("inf at index 2"), "{message}");
    }

    #[test]
    fn configs_that_we_cannot_compute_are_refused() {
        let message = refused(Architecture::TopK, edit_cfg("\"topk\"", "\"temporal\""));
        assert!(
            message.contains("cfg.json") && message.contains("`temporal`") && message.contains("jumprelu"),
            "{message}"
        );
        let edit =
            edit_cfg("\"normalize_activations\": \"none\"", "\"normalize_activations\": \"covariance_whitening\"");
        assert!(refused(Architecture::TopK, edit).contains("`covariance_whitening`"));
        assert!(refused(Architecture::TopK, edit_cfg("\"k\": 4", "\"k\": 11")).contains("k = 11"));
        assert!(refused(Architecture::TopK, edit_cfg("\"k\": 4,", "")).contains("k of a topk SAE"));
    }

    #[test]
    fn truncated_files_are_refused() {
        let cut = |dir: &Path| {
            let bytes = fs::read(dir.join(WEIGHTS_FILE)).unwrap();
            fs::write(dir.join(WEIGHTS_FILE), &bytes[..bytes.len() - 3]).unwrap();
        };
        assert!(refused(Architecture::TopK, cut).contains("sae_weights.safetensors"));
        let remove = |dir: &Path| fs::remove_file(dir.join(CFG_FILE)).unwrap();
        assert!(refused(Architecture::TopK, remove).contains("cfg.json"));
    }

    #[test]
    fn decoder_norms_are_folded_where_the_config_asks_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let sae = example(Architecture::TopK, 4, 10);
        sae.save(dir.path()).unwrap();
        edit_cfg("\"rescale_acts_by_decoder_norm\": false", "\"rescale_acts_by_decoder_norm\": true")(dir.path());
        let folded = read(dir.path()).unwrap();
        let norm = sum_of_squares(sae.decoder_row(3)).sqrt();
        assert!((sum_of_squares(folded.decoder_row(3)) - 1.0).abs() < 1e-5);
        assert!((folded.weights().b_enc[3] - sae.weights().b_enc[3] * norm).abs() < 1e-6);
    }
}
