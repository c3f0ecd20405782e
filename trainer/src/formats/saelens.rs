//! SAELens' folder, which is also ours: `cfg.json`, `sae_weights.safetensors` and `sparsity.safetensors`.
//!
//! ```text
//! W_enc [d_in, d_sae]   b_enc [d_sae]   W_dec [d_sae, d_in]   b_dec [d_in]   threshold [d_sae] (jumprelu)
//! sparsity [d_sae] = log10(frequency + 1e-10)
//! ```
//!
//! `metadata.sae_lens_version` must be 6 or more, or SAELens reads `cfg.json` as its older, flat layout. A tensor that
//! we do not know is refused: silently dropped ones are how SAEs come out wrong in this field.

use std::{fs, path::Path};

use harvester::{HookPoint, write_atomically};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Error, Result,
    kernels::simd::sum_of_squares,
    sae::{Architecture, Sae, SaeConfig},
    tensors::{Tensor, TensorFile, write_tensors},
};

const CFG_FILE: &str = "cfg.json";
pub(crate) const WEIGHTS_FILE: &str = "sae_weights.safetensors";
const SPARSITY_FILE: &str = "sparsity.safetensors";
/// The layout that we write is that of this version.
const SAE_LENS_VERSION: &str = "6.0.0";
/// Rows and columns of the blocks in which a matrix is transposed: both sides of one fit the first-level cache.
const TRANSPOSE_BLOCK: usize = 32;

/// `cfg.json`, in SAELens' order.
#[derive(Debug, Serialize, Deserialize)]
struct Cfg {
    d_in: usize,
    d_sae: usize,
    #[serde(default = "float32")]
    dtype: String,
    #[serde(default = "cpu")]
    device: String,
    #[serde(default = "yes")]
    apply_b_dec_to_input: bool,
    #[serde(default = "none")]
    normalize_activations: String,
    #[serde(default = "none")]
    reshape_activations: String,
    metadata: Metadata,
    architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    k: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rescale_acts_by_decoder_norm: Option<bool>,
}

/// What SAELens records about the origin. It allows any key; those that we do not use are kept out of the way.
#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    sae_lens_version: String,
    #[serde(default)]
    sae_lens_training_version: Option<String>,
    #[serde(default)]
    dataset_path: Option<String>,
    #[serde(default)]
    hook_name: Option<String>,
    #[serde(default)]
    model_name: Option<String>,
    #[serde(default)]
    model_class_name: Option<String>,
    #[serde(default)]
    hook_head_index: Option<usize>,
    #[serde(default)]
    context_size: Option<usize>,
    #[serde(default)]
    seqpos_slice: Option<Value>,
    #[serde(default)]
    model_from_pretrained_kwargs: Option<Value>,
    #[serde(default)]
    prepend_bos: Option<bool>,
    #[serde(default)]
    exclude_special_tokens: Option<Value>,
    #[serde(default)]
    sequence_separator_token: Option<Value>,
    #[serde(default)]
    disable_concat_sequences: Option<bool>,
}

fn float32() -> String {
    "float32".into()
}

fn cpu() -> String {
    "cpu".into()
}

fn yes() -> bool {
    true
}

fn none() -> String {
    "none".into()
}

pub(crate) fn save(sae: &Sae, dir: &Path) -> Result<()> {
    let SaeConfig { d_in, d_sae, .. } = sae.config;
    let w_enc = transposed(&sae.w_enc, d_sae, d_in);
    let mut tensors = vec![
        Tensor::f32("W_enc", &[d_in, d_sae], &w_enc),
        Tensor::f32("b_enc", &[d_sae], &sae.b_enc),
        Tensor::f32("W_dec", &[d_sae, d_in], &sae.w_dec),
        Tensor::f32("b_dec", &[d_in], &sae.b_dec),
    ];
    tensors.extend(sae.threshold.as_ref().map(|threshold| Tensor::f32("threshold", &[d_sae], threshold)));
    write_tensors(&dir.join(WEIGHTS_FILE), tensors, None)?;
    let path = dir.join(CFG_FILE);
    let cfg =
        serde_json::to_vec_pretty(&Cfg::of(&sae.config)).map_err(|error| Error::io("write", &path)(error.into()))?;
    write_atomically(&path, &cfg)?;
    Ok(())
}

/// Writes how often each latent is active, as a share of tokens. `[d_sae]`
pub(crate) fn save_sparsity(frequency: &[f32], dir: &Path) -> Result<()> {
    let sparsity: Vec<f32> = frequency.iter().map(|share| (share + 1e-10).log10()).collect();
    write_tensors(&dir.join(SPARSITY_FILE), vec![Tensor::f32("sparsity", &[sparsity.len()], &sparsity)], None)
}

pub(crate) fn load(dir: &Path) -> Result<Sae> {
    let cfg_path = dir.join(CFG_FILE);
    let text = fs::read_to_string(&cfg_path).map_err(Error::io("read", &cfg_path))?;
    let cfg: Cfg = serde_json::from_str(&text).map_err(|error| {
        let hint = "An SAE folder of SAELens 6 or newer, or of refract, has one";
        Error::malformed(&cfg_path, "the cfg.json of an SAE", error.to_string(), hint)
    })?;
    let config = cfg.read(&cfg_path)?;
    let path = dir.join(WEIGHTS_FILE);
    let mut tensors = TensorFile::read(&path)?;
    let SaeConfig { d_in, d_sae, .. } = config;
    let w_enc = transposed(&tensors.take_f32("W_enc", &[d_in, d_sae])?, d_in, d_sae);
    let mut sae = Sae {
        w_enc,
        b_enc: tensors.take_f32("b_enc", &[d_sae])?,
        w_dec: tensors.take_f32("W_dec", &[d_sae, d_in])?,
        b_dec: tensors.take_f32("b_dec", &[d_in])?,
        threshold: match config.architecture {
            Architecture::JumpRelu => Some(tensors.take_f32("threshold", &[d_sae])?),
            _ => None,
        },
        config,
    };
    tensors.end()?;
    sae.check(&path)?;
    if cfg.rescale_acts_by_decoder_norm == Some(true) {
        fold_decoder_norm(&mut sae);
    }
    Ok(sae)
}

impl Cfg {
    fn of(config: &SaeConfig) -> Self {
        Self {
            d_in: config.d_in,
            d_sae: config.d_sae,
            dtype: float32(),
            device: cpu(),
            apply_b_dec_to_input: config.apply_b_dec_to_input,
            normalize_activations: none(),
            reshape_activations: none(),
            metadata: Metadata {
                sae_lens_version: SAE_LENS_VERSION.into(),
                sae_lens_training_version: None,
                dataset_path: Some(config.dataset.clone()),
                hook_name: config.hook_point.map(|point| point.to_string()),
                model_name: Some(config.model_name.clone()),
                model_class_name: Some("HookedTransformer".into()),
                hook_head_index: None,
                context_size: config.ctx_len,
                seqpos_slice: Some(serde_json::json!([null])),
                model_from_pretrained_kwargs: Some(serde_json::json!({})),
                prepend_bos: Some(config.prepend_bos),
                exclude_special_tokens: Some(Value::Bool(false)),
                sequence_separator_token: None,
                disable_concat_sequences: Some(false),
            },
            architecture: config.architecture.to_string(),
            k: config.k,
            rescale_acts_by_decoder_norm: config.k.map(|_| false),
        }
    }

    fn read(&self, path: &Path) -> Result<SaeConfig> {
        let refuse = |field: &str, expected: String, found: &str| {
            let hint = "refract cannot compute what this SAE computes; convert it with its own tool first";
            Err(Error::malformed(path, format!("{field} {expected}"), format!("`{found}`"), hint))
        };
        let Ok(architecture) = self.architecture.parse() else {
            let known = Architecture::ALL.map(|name| name.to_string()).join(", ");
            return refuse("architecture", format!("one of {known}"), &self.architecture);
        };
        if self.normalize_activations != "none" {
            return refuse(
                "normalize_activations",
                "`none` (folded into the weights)".into(),
                &self.normalize_activations,
            );
        }
        if self.reshape_activations != "none" {
            return refuse("reshape_activations", "`none`".into(), &self.reshape_activations);
        }
        if self.d_in == 0 || self.d_sae == 0 {
            return refuse("d_in and d_sae", "of 1 or more".into(), "0");
        }
        let hook_name = self.metadata.hook_name.as_deref();
        let Ok(hook_point) = hook_name.map(str::parse::<HookPoint>).transpose() else {
            let found = hook_name.unwrap_or_default();
            return refuse("metadata.hook_name", "such as blocks.14.hook_resid_post".into(), found);
        };
        Ok(SaeConfig {
            architecture,
            d_in: self.d_in,
            d_sae: self.d_sae,
            k: self.k.filter(|_| architecture == Architecture::TopK),
            apply_b_dec_to_input: self.apply_b_dec_to_input,
            hook_point,
            model_name: self.metadata.model_name.clone().unwrap_or_default(),
            ctx_len: self.metadata.context_size,
            prepend_bos: self.metadata.prepend_bos.unwrap_or(false),
            dataset: self.metadata.dataset_path.clone().unwrap_or_default(),
        })
    }
}

/// `rescale_acts_by_decoder_norm` selects and decodes as if decoder rows had norm 1; this makes them so.
fn fold_decoder_norm(sae: &mut Sae) {
    let d_in = sae.d_in();
    let rows = sae.w_dec.chunks_exact_mut(d_in).zip(sae.w_enc.chunks_exact_mut(d_in)).zip(&mut sae.b_enc);
    for ((w_dec, w_enc), b_enc) in rows {
        let norm = sum_of_squares(w_dec).sqrt();
        if norm > 0.0 {
            w_dec.iter_mut().for_each(|w| *w /= norm);
            w_enc.iter_mut().for_each(|w| *w *= norm);
            *b_enc *= norm;
        }
    }
}

/// The transpose of a row-major `[rows, columns]` matrix.
fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut transpose = vec![0.0; matrix.len()];
    transpose.par_chunks_mut(TRANSPOSE_BLOCK * rows).enumerate().for_each(|(block, transpose)| {
        let first_column = block * TRANSPOSE_BLOCK;
        for first_row in (0..rows).step_by(TRANSPOSE_BLOCK) {
            for (i, transpose) in transpose.chunks_exact_mut(rows).enumerate() {
                for row in first_row..rows.min(first_row + TRANSPOSE_BLOCK) {
                    transpose[row] = matrix[row * columns + first_column + i];
                }
            }
        }
    });
    transpose
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::sae::tests::example;

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
    fn a_transpose_has_rows_and_columns_exchanged() {
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        let wide: Vec<f32> = (0..70 * 45).map(|i| i as f32).collect();
        assert_eq!(transposed(&transposed(&wide, 70, 45), 45, 70), wide);
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
        let message = refused(Architecture::TopK, edit_cfg("\"topk\"", "\"gated\""));
        assert!(
            message.contains("cfg.json") && message.contains("`gated`") && message.contains("jumprelu"),
            "{message}"
        );
        let edit = edit_cfg("\"normalize_activations\": \"none\"", "\"normalize_activations\": \"layer_norm\"");
        assert!(refused(Architecture::TopK, edit).contains("`layer_norm`"));
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
