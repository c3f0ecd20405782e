//! SAELens' folder, which is also ours: `cfg.json`, `sae_weights.safetensors` and `sparsity.safetensors`.
//!
//! ```text
//! W_enc [d_in, d_sae]   b_enc [d_sae]   W_dec [d_sae, d_out]   b_dec [d_out]   threshold [d_sae] (jumprelu)
//! b_gate, r_mag, b_mag [d_sae] (gated, without b_enc)   W_skip [d_out, d_in]
//! sparsity [d_sae] = log10(frequency + 1e-10)
//! ```
//!
//! `metadata.sae_lens_version` must be 6 or more, or SAELens reads `cfg.json` as its older, flat layout
//! (`saelens_legacy`). Of what SAELens has no word for, the architecture has a name of ours, which it refuses: `dense`,
//! `topk_transcoder` and the like, `crosscoder`. A tensor that we do not know is refused.

use std::path::Path;

use harvester::HookPoint;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    fits::Fits,
    json::{self, refuse},
    saelens_legacy,
    transpose::transposed,
};
use crate::{
    Result,
    formats::SaeFormat,
    input_norm::InputNorm,
    sae::{Architecture, Gate, Sae, SaeConfig},
    tensors::{Tensor, TensorFile, write_tensors},
};

const CFG_FILE: &str = "cfg.json";
pub(crate) const WEIGHTS_FILE: &str = "sae_weights.safetensors";
const SPARSITY_FILE: &str = "sparsity.safetensors";
/// The layout that we write is that of this version.
pub(super) const SAE_LENS_VERSION: &str = "6.0.0";
/// What SAELens' `layer_norm` adds to the standard deviation.
const LAYER_NORM_EPS: f32 = 1e-5;

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
    /// Of transcoders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d_out: Option<usize>,
    /// Of crosscoders, ours: what would be their architecture if they read one place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activation: Option<String>,
    /// Of crosscoders, ours: what is one after the other in an input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<Column>,
}

/// A place that a crosscoder reads.
#[derive(Debug, Serialize, Deserialize)]
struct Column {
    hook_name: String,
    d_in: usize,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hook_name_out: Option<String>,
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

/// What the word under `architecture` says.
struct Named {
    architecture: Architecture,
    transcoder: bool,
    skip: bool,
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

const FITS: Fits = Fits { format: SaeFormat::SaeLens, architectures: &Architecture::ALL, transcoder: true, skip: true };

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
    let mut tensors = TensorFile::read(&path)?;
    let SaeConfig { architecture, d_in, d_out, d_sae, .. } = config;
    let gated = architecture == Architecture::Gated;
    let w_enc = transposed(&tensors.take_f32("W_enc", &[d_in, d_sae])?, d_in, d_sae);
    let of_latents = |tensors: &mut TensorFile, name: &str| tensors.take_f32(name, &[d_sae]);
    let mut sae = Sae {
        w_enc,
        b_enc: of_latents(&mut tensors, if gated { "b_gate" } else { "b_enc" })?,
        w_dec: tensors.take_f32("W_dec", &[d_sae, d_out])?,
        b_dec: tensors.take_f32("b_dec", &[d_out])?,
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
        w_skip: if skip { Some(tensors.take_f32("W_skip", &[d_out, d_in])?) } else { None },
        config,
    };
    if tensors.has("scaling_factor")? {
        // What older versions wrote; anything but ones was a finetuned scale that no longer has a meaning.
        let factors = tensors.take_f32("scaling_factor", &[d_sae])?;
        if let Some(found) = factors.iter().find(|factor| (**factor - 1.0).abs() > 1e-5) {
            return refuse(&path, "scaling_factor", "of ones", found.to_string());
        }
    }
    tensors.end()?;
    sae.check(&path)?;
    if cfg.rescale_acts_by_decoder_norm == Some(true) {
        sae = sae.with_unit_decoder();
    }
    Ok(sae)
}

fn read_cfg(path: &Path) -> Result<Cfg> {
    let hint = "An SAE folder of SAELens or of refract has one";
    let mut value: Value = json::read(path, "the cfg.json of an SAE", hint)?;
    if saelens_legacy::is_legacy(&value) {
        value = saelens_legacy::upgraded(value, path)?;
    }
    serde_json::from_value(value)
        .map_err(|error| crate::Error::malformed(path, "the cfg.json of an SAE", error.to_string(), hint))
}

impl Cfg {
    fn of(sae: &Sae) -> Result<Self> {
        let config = &sae.config;
        let normalize_activations = match config.input_norm {
            InputNorm::None => "none",
            InputNorm::LayerNorm { eps } if eps == LAYER_NORM_EPS => "layer_norm",
            InputNorm::LayerNorm { eps } => {
                return FITS.refuse(format!("a layer norm with eps {LAYER_NORM_EPS:e}"), format!("eps {eps:e}"));
            }
            InputNorm::ConstantNorm => "constant_norm_rescale",
        };
        let crosscoder = !config.columns.is_empty();
        let column = |(point, d_in): &(HookPoint, usize)| Column { hook_name: point.to_string(), d_in: *d_in };
        let named =
            Named { architecture: config.architecture, transcoder: config.is_transcoder(), skip: sae.w_skip.is_some() };
        Ok(Self {
            d_in: config.d_in,
            d_sae: config.d_sae,
            dtype: float32(),
            device: cpu(),
            apply_b_dec_to_input: config.apply_b_dec_to_input,
            normalize_activations: normalize_activations.into(),
            reshape_activations: none(),
            metadata: Metadata::of(config, config.hook_point.filter(|_| named.skip)),
            architecture: if crosscoder { CROSSCODER.into() } else { named.word() },
            k: config.k,
            rescale_acts_by_decoder_norm: config.k.map(|_| false),
            d_out: (named.transcoder || named.skip).then_some(config.d_out),
            activation: crosscoder.then(|| config.architecture.to_string()),
            columns: config.columns.iter().map(column).collect(),
        })
    }

    fn read(&self, path: &Path) -> Result<(SaeConfig, Named)> {
        let named = self.named(path)?;
        // Heads are flat in harvested activations already, which is all that `hook_z` asks for.
        if !["none", "hook_z"].contains(&self.reshape_activations.as_str()) {
            return refuse(path, "reshape_activations", "`none` or `hook_z`", &self.reshape_activations);
        }
        if self.d_in == 0 || self.d_sae == 0 {
            return refuse(path, "d_in and d_sae", "of 1 or more", "0");
        }
        let parsed = |name: &Option<String>| name.as_deref().and_then(|name| name.parse().ok());
        let metadata = &self.metadata;
        let hook_point_out: Option<HookPoint> = parsed(&metadata.hook_name_out);
        let d_out = self.d_out.filter(|_| named.transcoder).unwrap_or(self.d_in);
        if named.transcoder && hook_point_out.is_none() && d_out == self.d_in {
            // Without it nothing would tell it from an autoencoder.
            let found = metadata.hook_name_out.as_deref().unwrap_or("none");
            return refuse(path, "metadata.hook_name_out", "such as blocks.14.hook_mlp_out", found);
        }
        let config = SaeConfig {
            d_out,
            k: self.k.filter(|_| named.architecture == Architecture::TopK),
            apply_b_dec_to_input: self.apply_b_dec_to_input,
            input_norm: self.input_norm(path)?,
            hook_point: parsed(&metadata.hook_name),
            hook_point_out: hook_point_out.filter(|out| Some(*out) != parsed(&metadata.hook_name)),
            columns: self.columns(path)?,
            model_name: metadata.model_name.clone().unwrap_or_default(),
            ctx_len: metadata.context_size,
            prepend_bos: metadata.prepend_bos.unwrap_or(false),
            dataset: metadata.dataset_path.clone().unwrap_or_default(),
            ..SaeConfig::new(named.architecture, self.d_in, self.d_sae)
        };
        Ok((config, named))
    }

    fn named(&self, path: &Path) -> Result<Named> {
        let word = match (&self.activation, self.architecture.as_str()) {
            (Some(activation), CROSSCODER) => activation,
            _ => &self.architecture,
        };
        Named::parse(word).map_or_else(
            || {
                let known = Architecture::ALL.map(|name| name.to_string()).join(", ");
                refuse(path, "architecture", format!("one of {known}, also as transcoder or crosscoder"), word)
            },
            Ok,
        )
    }

    fn input_norm(&self, path: &Path) -> Result<InputNorm> {
        match self.normalize_activations.as_str() {
            "none" => Ok(InputNorm::None),
            "layer_norm" => Ok(InputNorm::LayerNorm { eps: LAYER_NORM_EPS }),
            "constant_norm_rescale" => Ok(InputNorm::ConstantNorm),
            other => {
                let expected = "`none` (folded into the weights), `layer_norm` or `constant_norm_rescale`";
                refuse(path, "normalize_activations", expected, other)
            }
        }
    }

    fn columns(&self, path: &Path) -> Result<Vec<(HookPoint, usize)>> {
        let column = |column: &Column| match column.hook_name.parse() {
            Ok(point) => Ok((point, column.d_in)),
            Err(_) => refuse(path, "hook_name of a column", "such as blocks.14.hook_resid_post", &column.hook_name),
        };
        if self.columns.is_empty() == (self.architecture == CROSSCODER) {
            return refuse(path, "columns", "of a crosscoder, and of nothing else", &self.architecture);
        }
        self.columns.iter().map(column).collect()
    }
}

const CROSSCODER: &str = "crosscoder";
const SKIP_TRANSCODER: &str = "skip_transcoder";
const TRANSCODER: &str = "transcoder";

impl Named {
    /// `jumprelu`, `transcoder`, `jumprelu_skip_transcoder`: a transcoder without a word before it is `standard`.
    fn word(&self) -> String {
        let kind = match (self.transcoder, self.skip) {
            (_, true) => SKIP_TRANSCODER,
            (true, false) => TRANSCODER,
            (false, false) => return self.architecture.to_string(),
        };
        match self.architecture {
            Architecture::Standard => kind.into(),
            other => format!("{other}_{kind}"),
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let (rest, transcoder, skip) = match (word.strip_suffix(SKIP_TRANSCODER), word.strip_suffix(TRANSCODER)) {
            (Some(rest), _) => (rest, true, true),
            (None, Some(rest)) => (rest, true, false),
            (None, None) => (word, false, false),
        };
        let architecture = match (rest, transcoder) {
            ("", true) => Architecture::Standard,
            (rest, true) => rest.strip_suffix('_')?.parse().ok().filter(|it| *it != Architecture::Standard)?,
            (rest, false) => rest.parse().ok()?,
        };
        Some(Self { architecture, transcoder, skip })
    }
}

impl Metadata {
    /// `skip_to`: the place of an autoencoder with a skip connection.
    fn of(config: &SaeConfig, skip_to: Option<HookPoint>) -> Self {
        Self {
            sae_lens_version: SAE_LENS_VERSION.into(),
            sae_lens_training_version: None,
            dataset_path: Some(config.dataset.clone()),
            hook_name: config.hook_point.map(|point| point.to_string()),
            hook_name_out: config.hook_point_out.or(skip_to).map(|point| point.to_string()),
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
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

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

    #[test]
    fn words_for_architectures_are_read_back() {
        for architecture in Architecture::ALL {
            for (transcoder, skip) in [(false, false), (true, false), (true, true)] {
                let word = Named { architecture, transcoder, skip }.word();
                let found = Named::parse(&word).unwrap();
                assert_eq!((found.architecture, found.transcoder, found.skip), (architecture, transcoder, skip));
            }
        }
        for word in ["", "standard_transcoder", "batchtopk", "topktranscoder", "crosscoder"] {
            assert!(Named::parse(word).is_none(), "{word}");
        }
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
