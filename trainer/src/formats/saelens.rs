//! SAELens' folder, which is also ours: `cfg.json`, `sae_weights.safetensors` and `sparsity.safetensors`.
//!
//! ```text
//! W_enc [d_in, d_sae]   b_enc [d_sae]   W_dec [d_sae, d_out]   b_dec [d_out]   threshold [d_sae] (jumprelu)
//! b_gate, r_mag, b_mag [d_sae] (gated, without b_enc)   W_skip [d_out, d_in]
//! sparsity [d_sae] = log10(frequency + 1e-10)
//! ```
//!
//! `metadata.sae_lens_version` must be 6 or more, or SAELens reads `cfg.json` as its older, flat layout
//! (`saelens_legacy`). A tensor that we do not know is refused.

use std::path::Path;

use super::{
    json,
    saelens_cfg::{Cfg, FITS, Named, without_records},
    saelens_legacy,
    transpose::transposed,
};
use crate::{
    Result,
    sae::{Architecture, Gate, Sae, SaeConfig},
    tensors::{Tensor, TensorFile, write_tensors},
};

const CFG_FILE: &str = "cfg.json";
pub(crate) const WEIGHTS_FILE: &str = "sae_weights.safetensors";
pub(crate) const SPARSITY_FILE: &str = "sparsity.safetensors";
/// What an SAE folder of ours has beside the weights.
pub(crate) const OTHER_FILES: [&str; 2] = [CFG_FILE, SPARSITY_FILE];
pub(crate) fn save(sae: &Sae, dir: &Path) -> Result<()> {
    if sae.w_skip.is_some() && sae.config.apply_b_dec_to_input {
        // With a skip connection SAELens' words are those of transcoders, which subtract nothing.
        return save(&sae.applying_b_dec(false), dir);
    }
    if sae.w_skip.is_some() && !sae.config.is_transcoder() {
        // SAELens has a word for it only as a transcoder to the same place.
        sae.config.place()?;
    }
    if sae.config.columns.is_empty() {
        FITS.check(sae)?;
    } else if sae.w_skip.is_some() {
        return FITS.refuse("a crosscoder without a skip connection".into(), "one with W_skip".into());
    }
    let SaeConfig { d_in, d_out, d_sae, .. } = sae.config;
    let w_enc = transposed(&sae.w_enc, d_sae, d_in);
    let bias = if sae.gate.is_some() { "b_gate" } else { "b_enc" };
    let mut tensors = vec![
        Tensor::f32("W_enc", &[d_in, d_sae], &w_enc),
        Tensor::f32(bias, &[d_sae], &sae.b_enc),
        Tensor::f32("W_dec", &[d_sae, d_out], &sae.w_dec),
        Tensor::f32("b_dec", &[d_out], &sae.b_dec),
    ];
    tensors.extend(sae.threshold.as_ref().map(|threshold| Tensor::f32("threshold", &[d_sae], threshold)));
    if let Some(Gate { r_mag, b_mag }) = &sae.gate {
        tensors.extend([Tensor::f32("r_mag", &[d_sae], r_mag), Tensor::f32("b_mag", &[d_sae], b_mag)]);
    }
    tensors.extend(sae.w_skip.as_ref().map(|w_skip| Tensor::f32("W_skip", &[d_out, d_in], w_skip)));
    let cfg = Cfg::of(sae)?;
    write_tensors(&dir.join(WEIGHTS_FILE), tensors, None)?;
    json::write(&dir.join(CFG_FILE), &cfg)
}

/// Writes how often each latent is active, as a share of tokens. `[d_sae]`
pub(crate) fn save_sparsity(frequency: &[f32], dir: &Path) -> Result<()> {
    let sparsity: Vec<f32> = frequency.iter().map(|share| (share + 1e-10).log10()).collect();
    write_tensors(&dir.join(SPARSITY_FILE), vec![Tensor::f32("sparsity", &[sparsity.len()], &sparsity)], None)
}

pub(crate) fn load(path: &Path) -> Result<Sae> {
    let dir = super::folder_of(path);
    let cfg_path = dir.join(CFG_FILE);
    let cfg = read_cfg(&cfg_path)?;
    let (config, Named { skip, .. }) = cfg.read(&cfg_path)?;
    let path = dir.join(WEIGHTS_FILE);
    let mut tensors = TensorFile::read(&path, crate::tensors::SAE_HINT)?;
    let SaeConfig { architecture, d_in, d_out, d_sae, .. } = config;
    let gated = architecture == Architecture::Gated;
    let w_enc = transposed(&tensors.take_weights("W_enc", &[d_in, d_sae])?, d_in, d_sae);
    let of_latents = |tensors: &mut TensorFile, name: &str| tensors.take_weights(name, &[d_sae]);
    let mut sae = Sae {
        w_enc,
        b_enc: of_latents(&mut tensors, if gated { "b_gate" } else { "b_enc" })?,
        w_dec: tensors.take_weights("W_dec", &[d_sae, d_out])?,
        b_dec: tensors.take_weights("b_dec", &[d_out])?,
        threshold: match architecture {
            Architecture::JumpRelu => Some(of_latents(&mut tensors, "threshold")?),
            _ => None,
        },
        gate: match architecture {
            Architecture::Gated => {
                Some(Gate { r_mag: of_latents(&mut tensors, "r_mag")?, b_mag: of_latents(&mut tensors, "b_mag")? })
            }
            _ => None,
        },
        w_skip: if skip { Some(tensors.take_weights("W_skip", &[d_out, d_in])?) } else { None },
        config,
    };
    if tensors.has("scaling_factor")? {
        saelens_legacy::check_scaling_factor(&tensors.take_f32("scaling_factor", &[d_sae])?, &path)?;
    }
    tensors.end()?;
    // Of other architectures SAELens has no such key, and passes over one that is there.
    if cfg.rescale_acts_by_decoder_norm == Some(true) && architecture == Architecture::TopK {
        sae = sae.with_unit_decoder();
    }
    Ok(sae)
}

fn read_cfg(path: &Path) -> Result<Cfg> {
    let what = "the cfg.json of an SAE";
    let mut value = json::read_value(path, what)?;
    if saelens_legacy::is_legacy(&value) {
        value = saelens_legacy::upgraded(value, path)?;
    }
    json::parse(&without_records(value), path, what)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use harvester::HookPoint;

    use super::*;
    use crate::{kernels::simd::sum_of_squares, sae::tests::example};

    #[test]
    fn what_is_saved_is_loaded() {
        for architecture in Architecture::ALL {
            let dir = tempfile::tempdir().unwrap();
            let sae = example(architecture, 24, 100);
            sae.save(dir.path()).unwrap();
            assert_eq!(Sae::load(dir.path()).unwrap(), sae);
        }
    }

    #[test]
    fn transcoders_and_crosscoders_are_loaded_as_they_were_saved() {
        let saved_and_loaded = |sae: &Sae| {
            let dir = tempfile::tempdir().unwrap();
            sae.save(dir.path()).unwrap();
            let text = fs::read_to_string(dir.path().join(CFG_FILE)).unwrap();
            (Sae::load(dir.path()).unwrap(), text)
        };
        for (architecture, word) in [
            (Architecture::Standard, "\"skip_transcoder\""),
            (Architecture::JumpRelu, "\"jumprelu_skip_transcoder\""),
            (Architecture::TopK, "\"topk_skip_transcoder\""),
        ] {
            let mut sae = example(architecture, 24, 100);
            sae.config.d_out = 7;
            sae.config.hook_point_out = Some(HookPoint::resid_post(5));
            sae.config.apply_b_dec_to_input = false;
            sae.w_dec.truncate(100 * 7);
            sae.b_dec.truncate(7);
            sae.w_skip = Some(sae.w_enc[..7 * 24].to_vec());
            let (loaded, cfg) = saved_and_loaded(&sae);
            assert_eq!(loaded, sae);
            assert!(cfg.contains(word), "{cfg}");
        }
        let mut crosscoder = example(Architecture::JumpRelu, 24, 100);
        crosscoder.config.hook_point = None;
        crosscoder.config.columns = vec![(HookPoint::resid_post(0), 10), (HookPoint::resid_post(1), 14)];
        let (loaded, cfg) = saved_and_loaded(&crosscoder);
        assert_eq!(loaded, crosscoder);
        assert!(cfg.contains("\"crosscoder\"") && cfg.contains("\"activation\": \"jumprelu\""), "{cfg}");
        crosscoder.config.columns[0].1 = 9;
        let dir = tempfile::tempdir().unwrap();
        assert!(crosscoder.save(dir.path()).unwrap_err().to_string().contains("columns of d_in = 24"));
    }

    /// What `Sae::load` says about a saved SAE after `damage`.
    fn refused(architecture: Architecture, damage: impl FnOnce(&Path)) -> String {
        let dir = tempfile::tempdir().unwrap();
        example(architecture, 4, 10).save(dir.path()).unwrap();
        damage(dir.path());
        Sae::load(dir.path()).unwrap_err().to_string()
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
        let folded = Sae::load(dir.path()).unwrap();
        let norm = sum_of_squares(sae.decoder_row(3)).sqrt();
        assert!((sum_of_squares(folded.decoder_row(3)) - 1.0).abs() < 1e-5);
        assert!((folded.b_enc[3] - sae.b_enc[3] * norm).abs() < 1e-6);
    }
}
