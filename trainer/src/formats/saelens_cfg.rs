//! [`Cfg`]: SAELens' `cfg.json` and its meaning here. `saelens` reads and writes the tensors.
//!
//! `architecture` combines three facts in one word: the nonlinearity, whether it is a transcoder, and whether it has a
//! skip connection. Examples: `jumprelu`, `transcoder` (standard), `jumprelu_skip_transcoder`. We form
//! `topk_transcoder` and others by the same rule; SAELens does not have them and refuses their names. `crosscoder`,
//! which only we have, stores its nonlinearity under `activation` and its hook points under `columns`.

use std::path::Path;

use harvester::{HookPoint, Site};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    fits::Fits,
    format::SaeFormat,
    json::{self, refuse, refuse_zero},
    saelens_legacy::{self, SAE_LENS_VERSION},
    settings::{MODEL_KWARGS, Rule, SAELENS, rule, said, unknown},
};
use crate::{
    Error, Result,
    sae::{Architecture, HookPoints, Sae, SaeConfig, input_norm::InputNorm},
    tensors::SAE_HINT,
};

/// Added to the standard deviation by SAELens' `layer_norm`.
const LAYER_NORM_EPS: f32 = 1e-5;

/// `cfg.json`, with the keys in SAELens' order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(super) struct Cfg {
    d_in: usize,
    d_sae: usize,
    #[serde(default = "float32")]
    dtype: String,
    #[serde(default = "cpu")]
    device: String,
    #[serde(default = "yes")]
    apply_b_dec_to_input: bool,
    #[serde(default = "none")]
    pub(super) normalize_activations: String,
    #[serde(default = "none")]
    reshape_activations: String,
    metadata: Metadata,
    architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    k: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rescale_acts_by_decoder_norm: Option<bool>,
    /// Transcoders only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d_out: Option<usize>,
    /// Crosscoders only, which only we have: their architecture if they read one hook point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activation: Option<String>,
    /// Crosscoders only: the hook points whose activations make up an input, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<Column>,
}

/// The settings of a `cfg.json` that refract neither computes nor checks, in words. Settings of unknown meaning are
/// refused in version 6; in the flat configs before it, which held those of the whole training, they are named here.
pub(super) fn notes(cfg: &Value) -> Vec<String> {
    let levels = [Some(cfg), cfg.get("metadata")].into_iter().flatten().filter_map(Value::as_object);
    let mut notes: Vec<_> = levels.flat_map(|level| said(level, SAELENS)).collect();
    if let Some(flat) = cfg.as_object().filter(|_| saelens_legacy::is_legacy(cfg)) {
        notes.extend(unknown(flat, SAELENS));
        notes.extend(saelens_legacy::centered_by_default(flat));
    }
    notes
}

/// The config without null values and without records of the training, for [`Cfg`] to refuse what is left over.
pub(super) fn without_records(mut cfg: Value) -> Value {
    if let Value::Object(keys) = &mut cfg {
        keys.retain(|key, value| !value.is_null() && rule(SAELENS, key) != Some(Rule::Record));
    }
    cfg
}

/// A hook point that a crosscoder reads.
#[derive(Debug, Serialize, Deserialize)]
#[serde(expecting = "a JSON object")]
struct Column {
    hook_name: String,
    d_in: usize,
}

/// SAELens' records about the origin. It allows any key; unused ones are ignored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(expecting = "a JSON object")]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hook_head_index_out: Option<usize>,
    #[serde(default)]
    context_size: Option<usize>,
    #[serde(default)]
    seqpos_slice: Option<Value>,
    #[serde(default)]
    model_from_pretrained_kwargs: Option<Map<String, Value>>,
    #[serde(default)]
    prepend_bos: Option<bool>,
    #[serde(default)]
    exclude_special_tokens: Option<Value>,
    #[serde(default)]
    sequence_separator_token: Option<Value>,
    #[serde(default)]
    disable_concat_sequences: Option<bool>,
}

/// The keys of `model_from_pretrained_kwargs` that change activations.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a JSON object")]
struct Changes {
    center_writing_weights: Option<bool>,
    fold_ln: Option<bool>,
    fold_value_biases: Option<bool>,
    refactor_factored_attn_matrices: Option<bool>,
}

/// The meaning of the word under `architecture`.
pub(super) struct Named {
    pub(super) architecture: Architecture,
    transcoder: bool,
    pub(super) skip: bool,
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

pub(super) const FITS: Fits =
    Fits { format: SaeFormat::SaeLens, architectures: &Architecture::ALL, transcoder: true, skip: true };

impl Cfg {
    pub(super) fn of(sae: &Sae) -> Result<Self> {
        let config = sae.config();
        let normalize_activations = match config.input_norm {
            InputNorm::None | InputNorm::Centered => "none",
            InputNorm::LayerNorm { eps } if eps == LAYER_NORM_EPS => "layer_norm",
            InputNorm::LayerNorm { eps } => {
                return FITS.refuse(format!("a layer norm with eps {LAYER_NORM_EPS:e}"), format!("eps {eps:e}"));
            }
            InputNorm::ConstantNorm => "constant_norm_rescale",
        };
        let column = |(point, d_in): &(HookPoint, usize)| Column { hook_name: point.to_string(), d_in: *d_in };
        let columns = match &config.hook_points {
            HookPoints::Crosscoder(columns) => columns.iter().map(column).collect(),
            HookPoints::Autoencoder(_) | HookPoints::Transcoder { .. } => vec![],
        };
        let crosscoder = !columns.is_empty();
        let architecture = sae.architecture();
        let named = Named { architecture, transcoder: config.hook_points.is_transcoder(), skip: sae.has_skip() };
        let k = sae.nonlinearity().k();
        Ok(Self {
            d_in: config.d_in,
            d_sae: config.d_sae,
            dtype: float32(),
            device: cpu(),
            apply_b_dec_to_input: config.apply_b_dec_to_input,
            normalize_activations: normalize_activations.into(),
            reshape_activations: none(),
            metadata: Metadata::of(config, named.skip),
            architecture: if crosscoder { CROSSCODER.into() } else { named.word() },
            k,
            rescale_acts_by_decoder_norm: k.map(|_| false),
            d_out: (named.transcoder || named.skip).then_some(config.d_out),
            activation: crosscoder.then(|| architecture.to_string()),
            columns,
        })
    }

    /// The config without its notes, and the meaning of `architecture`.
    pub(super) fn read(&self, path: &Path) -> Result<(SaeConfig, Named)> {
        let named = self.named(path)?;
        // `hook_z` flattens the heads, which harvested activations have done already.
        if !["none", "hook_z"].contains(&self.reshape_activations.as_str()) {
            return refuse(path, "reshape_activations", "`none` or `hook_z`", &self.reshape_activations);
        }
        for (name, head) in [
            ("metadata.hook_head_index", self.metadata.hook_head_index),
            ("metadata.hook_head_index_out", self.metadata.hook_head_index_out),
        ] {
            if let Some(head) = head {
                return refuse(path, name, "`null`: all heads, as in harvested activations", head.to_string());
            }
        }
        refuse_zero(path, "d_in and d_sae", [self.d_in, self.d_sae])?;
        let d_out = self.d_out.filter(|_| named.transcoder).unwrap_or(self.d_in);
        let metadata = &self.metadata;
        let config = SaeConfig {
            d_out,
            apply_b_dec_to_input: self.apply_b_dec_to_input,
            input_norm: self.input_norm(path)?,
            hook_points: self.hook_points(path, &named, d_out)?,
            model_name: metadata.model_name.clone().unwrap_or_default(),
            ctx_len: metadata.context_size,
            prepend_bos: metadata.prepend_bos,
            dataset: metadata.dataset_path.clone().unwrap_or_default(),
            ..SaeConfig::new(self.d_in, self.d_sae)
        };
        Ok((self.of_its_model(config, path)?, named))
    }

    /// The SAE for the model as it was published, if `model_from_pretrained_kwargs` says that it was trained on a model
    /// that TransformerLens had changed.
    fn of_its_model(&self, mut config: SaeConfig, path: &Path) -> Result<SaeConfig> {
        let Some(kwargs) = &self.metadata.model_from_pretrained_kwargs else { return Ok(config) };
        config.notes.extend(said(kwargs, MODEL_KWARGS));
        config.notes.extend(unknown(kwargs, MODEL_KWARGS));
        let what = "`model_from_pretrained_kwargs` of a model's weights";
        let changes: Changes = json::parse(&Value::Object(kwargs.clone()), path, what)?;
        let at = |sites: &[Site]| {
            let is_one = |point: HookPoint| matches!(point, HookPoint::Block { site, .. } if sites.contains(&site));
            config.hook_points.columns().into_iter().any(is_one)
        };
        for (key, is_on, sites) in [
            ("fold_ln", changes.fold_ln, &[Site::Ln1Normalized, Site::Ln2Normalized][..]),
            ("fold_value_biases", changes.fold_value_biases, &[Site::AttnZ]),
            ("refactor_factored_attn_matrices", changes.refactor_factored_attn_matrices, &[Site::AttnZ]),
        ] {
            if is_on == Some(true) && at(sites) {
                return refuse(path, &of_kwargs(key), "`false` at this hook point, which it changes", "true");
            }
        }
        let centers = changes.center_writing_weights == Some(true);
        // Without a name, it is taken to be the residual stream, as for most SAEs.
        let is_centered = |point: Option<HookPoint>| point.is_none_or(HookPoint::writes_to_resid);
        let (from, to) = config.hook_points.ends();
        if centers && config.hook_points.is_transcoder() && is_centered(to) {
            return refuse(path, &of_kwargs(CENTER), "`false` for a transcoder to the residual stream", "true");
        }
        if centers && is_centered(from) {
            config.input_norm = match config.input_norm {
                // A layer norm takes the mean off as well.
                norm @ InputNorm::LayerNorm { .. } => norm,
                InputNorm::None | InputNorm::Centered => InputNorm::Centered,
                norm @ InputNorm::ConstantNorm => {
                    return refuse(path, &of_kwargs(CENTER), format!("`false` with the input norm `{norm}`"), "true");
                }
            };
        }
        Ok(config)
    }

    /// Active latents per token; a topk SAE must have them.
    pub(super) fn k(&self, path: &Path) -> Result<usize> {
        self.k.ok_or_else(|| Error::malformed(path, "k of a topk SAE", "none", SAE_HINT))
    }

    fn hook_points(&self, path: &Path, named: &Named, d_out: usize) -> Result<HookPoints> {
        let columns = self.columns(path)?;
        if !columns.is_empty() {
            return Ok(HookPoints::Crosscoder(columns));
        }
        let parsed = |name: &Option<String>| name.as_deref().and_then(|name| name.parse().ok());
        let Metadata { hook_name, hook_name_out, .. } = &self.metadata;
        let to = parsed(hook_name_out);
        if named.transcoder && to.is_none() && d_out == self.d_in {
            // Without it, it could not be distinguished from an autoencoder.
            let found = hook_name_out.as_deref().unwrap_or("none");
            return refuse(path, "metadata.hook_name_out", "such as blocks.14.hook_mlp_out", found);
        }
        Ok(HookPoints::between(parsed(hook_name), to, [self.d_in, d_out]))
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
            // The factor of the second is folded into the weights by `saelens`.
            "none" | EXPECTED_AVERAGE => Ok(InputNorm::None),
            "layer_norm" => Ok(InputNorm::LayerNorm { eps: LAYER_NORM_EPS }),
            "constant_norm_rescale" => Ok(InputNorm::ConstantNorm),
            other => {
                let expected = "`none`, `expected_average_only_in`, `layer_norm` or `constant_norm_rescale`";
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
            return refuse(path, "columns", "only for a crosscoder", &self.architecture);
        }
        self.columns.iter().map(column).collect()
    }
}

/// Activations are multiplied by one number, so that their mean norm is the root of d_in.
pub(super) const EXPECTED_AVERAGE: &str = "expected_average_only_in";
const CENTER: &str = "center_writing_weights";
const CROSSCODER: &str = "crosscoder";
const SKIP_TRANSCODER: &str = "skip_transcoder";
const TRANSCODER: &str = "transcoder";

/// The name of a key of `model_from_pretrained_kwargs`, for messages.
fn of_kwargs(key: &str) -> String {
    format!("model_from_pretrained_kwargs.{key}")
}

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
            (rest, true) => Architecture::named(rest.strip_suffix('_')?).filter(|it| *it != Architecture::Standard)?,
            (rest, false) => Architecture::named(rest)?,
        };
        Some(Self { architecture, transcoder, skip })
    }
}

impl Metadata {
    /// With a `skip` connection, an autoencoder also names the hook point that it reconstructs.
    fn of(config: &SaeConfig, skip: bool) -> Self {
        let (from, to) = config.hook_points.ends();
        Self {
            sae_lens_version: SAE_LENS_VERSION.into(),
            sae_lens_training_version: None,
            dataset_path: Some(config.dataset.clone()),
            hook_name: from.map(|point| point.to_string()),
            hook_name_out: to.or(from.filter(|_| skip)).map(|point| point.to_string()),
            model_name: Some(config.model_name.clone()),
            model_class_name: Some("HookedTransformer".into()),
            hook_head_index: None,
            hook_head_index_out: None,
            context_size: config.ctx_len,
            seqpos_slice: Some(serde_json::json!([null])),
            model_from_pretrained_kwargs: Some(match config.input_norm {
                InputNorm::Centered => Map::from_iter([(CENTER.to_string(), Value::Bool(true))]),
                _ => Map::new(),
            }),
            prepend_bos: config.prepend_bos,
            exclude_special_tokens: Some(Value::Bool(false)),
            sequence_separator_token: None,
            disable_concat_sequences: Some(false),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

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
}
