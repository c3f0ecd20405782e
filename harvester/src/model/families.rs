//! One file per family: how its `config.json` or GGUF header is read, and how its weights are named. To add a family,
//! write its file, name it in [`Family`], [`JsonConfig`] and the `match`es below, and make a fixture (CONTRIBUTING says
//! how).

mod defaults;
mod gated;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod header;
mod llama;
mod mistral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod rope;

use std::{cell::RefCell, collections::BTreeSet, path::Path};

use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::{Map, Value};

use self::{gated::RowOrder, header::Header};
use super::{
    Compute, Family, GgufMetadata, Head, ModelConfig, NormKind, Positions, RopeScaling,
    block::Block,
    linear::Linear,
    norm::Norm,
    tensor_file::{TensorFile, UNQUANTIZED},
    weights::Weights,
};
use crate::{Error, Result, store::python_json};

/// `config.json`, completed; `model_type` selects the family.
#[derive(Deserialize)]
#[serde(tag = "model_type", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one lives for the length of a parse")]
enum JsonConfig {
    Llama(gated::Json),
    Mistral(mistral::Json),
    Qwen2(qwen2::Json),
    Qwen3(qwen2::Json),
    Gemma(gemma::Json),
    Gemma2(gemma2::Json),
    #[serde(rename = "gemma3_text")]
    Gemma3(gemma3::Json),
    Gpt2(gpt2::Json),
    GptNeox(gpt_neox::Json),
    Phi3(phi3::Json),
    Olmo2(gated::Json),
}

/// Names of the families in `config.json`, for messages.
const FAMILIES: &str = "llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3_text, gemma3, gpt2, gpt_neox, phi3, olmo2";
/// Names of the families in GGUF headers, for messages.
const ARCHITECTURES: &str = "llama, qwen2, qwen3, gemma, gemma2, gemma3, gpt2, gptneox, phi3, olmo2";

pub(crate) fn config_from_json(path: &Path) -> Result<ModelConfig> {
    config_from_keys(path, keys_of(path)?)
}

fn keys_of(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    python_json::<Map<String, Value>>(&text).map_err(|error| {
        let hint = if error.is_eof() { "Download it again: it has been cut short" } else { "Mend it, or get it again" };
        Error::malformed(path, "a JSON object", error.to_string(), hint)
    })
}

/// Refuses biases in the weights that the config does not ask for: transformers leaves them out of the model.
pub(crate) fn refuse_biases(path: &Path, config: &ModelConfig, tensors: &TensorFile) -> Result<()> {
    let (attention, mlp): (&[&str], &[&str]) = match config.family {
        Family::Gpt2 | Family::GptNeox => return Ok(()),
        Family::Qwen2 => (&["o_proj.bias"], &["gate_proj.bias", "up_proj.bias", "down_proj.bias"]),
        _ => {
            let attention = &["q_proj.bias", "k_proj.bias", "v_proj.bias", "qkv_proj.bias", "o_proj.bias"];
            (attention, &["gate_proj.bias", "up_proj.bias", "gate_up_proj.bias", "down_proj.bias"])
        }
    };
    let keys = text_model(keys_of(path)?);
    for (key, of_key) in [("attention_bias", attention), ("mlp_bias", mlp)] {
        let found = tensors.names().into_iter().find(|name| of_key.iter().any(|bias| name.ends_with(bias)));
        if let Some(name) = found.filter(|_| keys.get(key) != Some(&Value::Bool(true))) {
            let expected = format!("`{key}`: true, because the weights have `{name}`");
            let found = keys.get(key).map_or("no such key".to_string(), |value| format!("`{key}`: {value}"));
            let hint = "transformers leaves biases out that its config does not ask for: set the key if the model was \
                        trained with them, or remove them from the weights";
            return Err(Error::malformed(path, expected, found, hint));
        }
    }
    Ok(())
}

fn config_from_keys(path: &Path, keys: Map<String, Value>) -> Result<ModelConfig> {
    let mut keys = text_model(keys);
    refuse_quantized(path, &keys)?;
    if keys.get("is_causal") == Some(&Value::Bool(false)) {
        return Err(refused(path, &Unsupported::new("causal attention", "`is_causal` false")));
    }
    let model_type = keys.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
    defaults::complete(path, &model_type, &mut keys)?;
    let malformed = |error: serde_json::Error| {
        let (found, hint) = (error.to_string(), "CONTRIBUTING.md shows how to add a family");
        if found.contains("model_type") || found.contains("unknown variant") {
            return Error::malformed(path, format!("a supported model_type ({FAMILIES})"), found, hint);
        }
        let expected = format!("keys of a {model_type} with values of the right type");
        Error::malformed(path, expected, found, "Mend it, or get it again from the source of the model")
    };
    let config = match serde_json::from_value(Value::Object(keys)).map_err(malformed)? {
        JsonConfig::Llama(json) => llama::config(json),
        JsonConfig::Mistral(json) => json.config(),
        JsonConfig::Qwen2(json) => json.config(Family::Qwen2),
        JsonConfig::Qwen3(json) => qwen3::config(json),
        JsonConfig::Gemma(json) => json.config(Family::Gemma),
        JsonConfig::Gemma2(json) => json.config(),
        JsonConfig::Gemma3(json) => json.config(),
        JsonConfig::Gpt2(json) => json.config(),
        JsonConfig::GptNeox(json) => json.config(),
        JsonConfig::Phi3(json) => json.config(),
        JsonConfig::Olmo2(json) => olmo2::config(json),
    };
    check(config.map_err(|problem| refused(path, &problem))?, path)
}

/// The keys of the text model, if the file describes a multimodal one; no other part of that is read.
fn text_model(mut keys: Map<String, Value>) -> Map<String, Value> {
    if keys.get("model_type").and_then(Value::as_str) != Some("gemma3") {
        return keys;
    }
    let mut text = match keys.remove("text_config") {
        Some(Value::Object(text)) => text,
        _ => Map::new(),
    };
    text.insert("model_type".into(), "gemma3_text".into());
    // These two hold for the whole model.
    let whole = ["quantization_config", "tie_word_embeddings"];
    text.extend(whole.into_iter().filter_map(|key| Some((key.to_owned(), keys.remove(key)?))));
    text
}

/// Quantized weights have other names, types and scales. bitsandbytes quantizes while it loads: its key also stands
/// beside plain weights, which are read as they are; stored ones are refused by their type.
fn refuse_quantized(path: &Path, keys: &Map<String, Value>) -> Result<()> {
    let Some(Value::Object(quantization)) = keys.get("quantization_config") else { return Ok(()) };
    let method = quantization.get("quant_method").and_then(Value::as_str).unwrap_or("bitsandbytes");
    if method == "bitsandbytes" {
        let path = path.display();
        tracing::warn!(
            "{path}: `quantization_config` asks transformers to quantize the weights while it loads them; here they are \
             used as they are stored, so the numbers differ a little from those of transformers"
        );
        return Ok(());
    }
    let found = format!("weights quantized by {method} (quantization_config)");
    Err(Error::malformed(path, "weights in float32, float16 or bfloat16", found, UNQUANTIZED))
}

pub(crate) fn config_from_gguf(metadata: &GgufMetadata) -> Result<ModelConfig> {
    if let Some(kind) = metadata.string("general.type").ok().filter(|kind| *kind != "model") {
        let hint = "Name the model itself; llama-export-lora merges an adapter into its model";
        return Err(Error::malformed(metadata.path(), "general.type model", format!("`{kind}`"), hint));
    }
    let architecture = metadata.string("general.architecture")?;
    let header = Header { metadata, architecture };
    let config = match architecture {
        "llama" => llama::config_from_gguf(&header)?,
        "qwen2" => qwen2::config_from_gguf(&header)?,
        "qwen3" => qwen3::config_from_gguf(&header)?,
        "gemma" => gemma::config_from_gguf(&header, Family::Gemma)?,
        "gemma2" => gemma2::config_from_gguf(&header)?,
        "gemma3" => gemma3::config_from_gguf(&header)?,
        "gpt2" => gpt2::config_from_gguf(&header)?,
        "gptneox" => gpt_neox::config_from_gguf(&header)?,
        "phi3" => phi3::config_from_gguf(&header)?,
        "olmo2" => olmo2::config_from_gguf(&header)?,
        other => {
            let hint = "CONTRIBUTING.md shows how to add a family; a safetensors folder may be supported already";
            let expected = format!("a supported general.architecture ({ARCHITECTURES})");
            return Err(Error::malformed(metadata.path(), expected, format!("`{other}`"), hint));
        }
    };
    check(config, metadata.path())
}

/// Reads the block of a layer.
type ReadBlock = dyn Fn(&Reader<'_>, usize) -> Result<Block>;

/// Names of a checkpoint's tensors outside the blocks, and the function that reads a block.
struct Plan {
    embed: String,
    /// If positions are learned.
    pos_embed: Option<String>,
    /// Without `.weight` and `.bias`.
    ln_final: String,
    /// Not used if the model ties the head to the embedding, even if the file has it.
    unembed: String,
    /// Gemma's norms multiply by the stored weight plus 1.
    norms_less_one: bool,
    block: Box<ReadBlock>,
    /// Name endings of tensors that hold nothing new: masks, rotary frequencies.
    harmless: &'static [&'static str],
}

/// Name beginnings of tensors that belong to something else in the same file: the heads of transformers' classes for
/// other tasks, trl's value head, the other parts of a multimodal model, llama.cpp's classification head.
const BESIDE: [&str; 10] = [
    "score.",
    "classifier.",
    "qa_outputs.",
    "multiple_choice_head.",
    "v_head.",
    "vision_tower.",
    "model.vision_tower.",
    "multi_modal_projector.",
    "model.multi_modal_projector.",
    "cls.",
];

/// Part of the names before `embed`: nothing in the file of a bare model, `model.` with a head, more if a wrapper was
/// saved (`_orig_mod.model.`); `usual` if no name or more than one ends with `embed`.
fn root(tensors: &TensorFile, embed: &str, usual: &str) -> String {
    let names = tensors.names();
    let roots = names.iter().filter_map(|name| name.strip_suffix(embed));
    let mut roots = roots.filter(|root| root.is_empty() || root.ends_with('.'));
    match (roots.next(), roots.next()) {
        (Some(only), None) => only.to_owned(),
        _ => usual.to_owned(),
    }
}

/// The whole name of the head's matrix.
fn unembed(tensors: &TensorFile, name: &str) -> String {
    root(tensors, name, "") + name
}

impl Plan {
    fn of(config: &ModelConfig, tensors: &TensorFile) -> Self {
        match (config.family, tensors.gguf_metadata().is_some()) {
            (Family::Llama, true) => llama::gguf_plan(tensors),
            (Family::Phi3, true) => phi3::gguf_plan(tensors),
            (Family::Gpt2, true) => gpt2::gguf_plan(config),
            (Family::GptNeox, true) => gpt_neox::gguf_plan(config),
            // In llama.cpp's files, every family except llama rotates halves, and Gemma's norm weights are stored with
            // the 1 added.
            (_, true) => gated::plan(tensors, gated::GGUF, RowOrder::Halves),
            (Family::Gemma, false) => gemma::plan(tensors),
            (Family::Gemma2 | Family::Gemma3, false) => gemma2::plan(tensors),
            (Family::Phi3, false) => phi3::plan(tensors),
            (Family::Gpt2, false) => gpt2::plan(tensors),
            (Family::GptNeox, false) => gpt_neox::plan(tensors),
            (_, false) => gated::plan(tensors, gated::HUGGING_FACE, RowOrder::Halves),
        }
    }
}

/// Reads the final norm and the unembedding, and nothing else.
pub(crate) fn load_head(config: &ModelConfig, tensors: &TensorFile, device: &Device, compute: Compute) -> Result<Head> {
    let plan = Plan::of(config, tensors);
    let reader = Reader::new(config, tensors, device, &plan);
    reader.head(&plan, compute)
}

/// Reads all weights. Each matrix is packed for `compute` before the next one is read.
pub(crate) fn load_weights(
    config: &ModelConfig,
    tensors: &TensorFile,
    device: &Device,
    compute: Compute,
) -> Result<Weights> {
    let plan = Plan::of(config, tensors);
    let reader = Reader::new(config, tensors, device, &plan);
    let matrix = |name: &str, rows| reader.tensor(name, &[rows, config.d_model]);
    let block = |layer| -> Result<Block> {
        let mut block = (plan.block)(&reader, layer)?;
        block.pack(compute)?;
        Ok(block)
    };
    let weights = Weights {
        head: reader.head(&plan, compute)?,
        embed: (!reader.tied).then(|| matrix(&plan.embed, config.d_vocab)).transpose()?,
        pos_embed: plan.pos_embed.as_ref().map(|name| matrix(name, config.ctx_len)).transpose()?,
        blocks: (0..config.n_layers).map(block).collect::<Result<_>>()?,
    };
    tensors.refuse_unread(config.family, &reader.read.borrow(), |name| {
        name == plan.unembed
            || plan.harmless.iter().any(|suffix| name.ends_with(suffix))
            || BESIDE.iter().any(|prefix| name.starts_with(prefix))
    })?;
    Ok(weights)
}

/// A setting of the file that the forward pass does not support.
struct Unsupported {
    expected: String,
    found: String,
}

impl Unsupported {
    fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { expected: expected.into(), found: found.into() }
    }
}

fn refused(path: &Path, problem: &Unsupported) -> Error {
    let hint = "This variant is not supported yet; running it anyway would give wrong numbers";
    Error::malformed(path, &problem.expected, &problem.found, hint)
}

/// More layers than any model has. Limits what is allocated per layer before the weights are read.
const MAX_LAYERS: usize = 4096;

/// Refuses shapes that no real model has, before anything is allocated for them.
fn check(config: ModelConfig, path: &Path) -> Result<ModelConfig> {
    let c = &config;
    if !(1..=MAX_LAYERS).contains(&c.n_layers) {
        let (expected, hint) = (format!("layers between 1 and {MAX_LAYERS}"), "The header is damaged");
        return Err(Error::malformed(path, expected, c.n_layers.to_string(), hint));
    }
    let sizes = [
        ("d_model", c.d_model),
        ("heads", c.n_heads),
        ("key-value heads", c.n_kv_heads),
        ("d_head", c.d_head),
        ("d_mlp", c.d_mlp),
        ("vocabulary", c.d_vocab),
        ("context length", c.ctx_len),
    ];
    let hint = "The header is damaged, or in another format";
    if let Some((name, size)) = sizes.into_iter().find(|(_, size)| !(1..=1 << 24).contains(size)) {
        return Err(Error::malformed(path, format!("{name} between 1 and {}", 1 << 24), size.to_string(), hint));
    }
    if !c.n_heads.is_multiple_of(c.n_kv_heads) {
        let found = format!("{} and {}", c.n_heads, c.n_kv_heads);
        return Err(Error::malformed(path, "query heads to be a multiple of key-value heads", found, hint));
    }
    let fused = matches!(c.family, Family::Gpt2 | Family::GptNeox);
    if fused && c.n_heads * c.d_head != c.d_model {
        let found = format!("{} and {}", c.d_model, c.n_heads);
        return Err(Error::malformed(path, "d_model to be a multiple of the number of heads", found, hint));
    }
    check_attention(c).map_err(|(expected, found)| Error::malformed(path, expected, found, hint))?;
    Ok(config)
}

/// Refuses values that would make the attention kernels divide by zero or index out of bounds.
fn check_attention(c: &ModelConfig) -> Result<(), (&'static str, String)> {
    let positive = |x: f64| x.is_finite() && x > 0.0;
    let factors = [Some(c.attn_scale), c.attn_softcap, c.logit_softcap, c.embed_scale, Some(c.norm_eps)];
    if let Some(found) = factors.into_iter().flatten().find(|x| !positive(*x)) {
        return Err(("scales, caps and the norms' epsilon to be over 0", found.to_string()));
    }
    if let Some(local) = &c.local {
        if local.layers.len() != c.n_layers || local.window == 0 {
            let found = format!("a window of {} in {} layers", local.window, local.layers.len());
            return Err(("a window over 0 and a kind for each layer", found));
        }
        if local.rotary_base.is_some_and(|base| !positive(base - 1.0)) {
            return Err(("a local rotary base over 1", format!("{:?}", local.rotary_base)));
        }
    }
    let Positions::Rotary { base, rotary_dim, scaling } = &c.positions else { return Ok(()) };
    if rotary_dim % 2 != 0 || *rotary_dim > c.d_head || *rotary_dim == 0 || !positive(base - 1.0) {
        let found = format!("{rotary_dim} rotated of {}, base {base}", c.d_head);
        return Err(("an even number of rotated dimensions, base over 1", found));
    }
    let (lists, numbers): (Vec<&[f32]>, Vec<f64>) = match scaling {
        RopeScaling::None => (vec![], vec![]),
        RopeScaling::Linear { factor } => (vec![], vec![*factor]),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, .. } => {
            (vec![], vec![*factor, high_freq_factor - low_freq_factor])
        }
        RopeScaling::Divisors(divisors) => (vec![divisors], vec![]),
        RopeScaling::LongRope { short, long, attention_factor, .. } => (vec![short, long], vec![*attention_factor]),
    };
    if let Some(list) = lists.iter().find(|list| list.len() != rotary_dim / 2) {
        return Err(("a rotary factor for each pair of dimensions", format!("{} for {rotary_dim}", list.len())));
    }
    let listed = lists.into_iter().flatten().map(|factor| f64::from(*factor));
    match listed.chain(numbers).find(|factor| !positive(*factor)) {
        Some(found) => Err(("rotary factors over 0", found.to_string())),
        None => Ok(()),
    }
}

/// Reads tensors by name and shape.
pub(crate) struct Reader<'a> {
    config: &'a ModelConfig,
    tensors: &'a TensorFile,
    device: &'a Device,
    norms_less_one: bool,
    /// True if the embedding is also the head.
    tied: bool,
    /// Names that were read, to detect tensors that nobody read.
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Reader<'a> {
    /// As transformers does, a head that is in the file and differs from the embedding is believed rather than
    /// config.json, which says that they are one.
    fn new(config: &'a ModelConfig, tensors: &'a TensorFile, device: &'a Device, plan: &Plan) -> Self {
        let has_other_head = || tensors.contains(&plan.unembed) && !tensors.equal(&plan.embed, &plan.unembed);
        let tied = config.tied_embeddings && !has_other_head();
        Self { config, tensors, device, norms_less_one: plan.norms_less_one, tied, read: RefCell::default() }
    }

    fn config(&self) -> &'a ModelConfig {
        self.config
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.read.borrow_mut().insert(name.to_string());
        self.tensors.tensor(name, shape, self.device)
    }

    /// A tensor that only some checkpoints of the family have.
    fn optional(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        self.tensors.contains(name).then(|| self.tensor(name, shape)).transpose()
    }

    /// `{prefix}.weight [d_out, d_in]` and, if the checkpoint has it, `{prefix}.bias [d_out]`.
    fn linear(&self, prefix: &str, d_out: usize, d_in: usize) -> Result<Linear> {
        let weight = self.tensor(&format!("{prefix}.weight"), &[d_out, d_in])?;
        Ok(Linear::new(weight, self.optional(&format!("{prefix}.bias"), &[d_out])?))
    }

    /// `{prefix}.weight [d_model]`, and `{prefix}.bias [d_model]` for a layer norm.
    fn norm(&self, prefix: &str) -> Result<Norm> {
        let (kind, width, eps) = (self.config().norm, self.config().d_model, self.config().norm_eps);
        let weight = self.norm_weight(prefix, width)?;
        let bias = match kind {
            NormKind::Rms => None,
            NormKind::Layer => Some(self.tensor(&format!("{prefix}.bias"), &[width])?),
        };
        Norm::new(kind, weight, bias, eps)
    }

    /// `{prefix}.weight [width]`
    fn norm_weight(&self, prefix: &str, width: usize) -> Result<Tensor> {
        let weight = self.tensor(&format!("{prefix}.weight"), &[width])?;
        Ok(if self.norms_less_one { (weight + 1.0)? } else { weight })
    }

    fn head(&self, plan: &Plan, compute: Compute) -> Result<Head> {
        let c = self.config();
        let name = if self.tied { &plan.embed } else { &plan.unembed };
        // A bare model's file has no head; its activations are whole.
        let unembed = if self.tied || self.tensors.contains(name) {
            Ok(self.tensor(name, &[c.d_vocab, c.d_model])?)
        } else {
            Err(self.tensors.path().to_path_buf())
        };
        Head::new(self.norm(&plan.ln_final)?, unembed, c, compute)
    }
}

/// Stacks matrices that read the same input, so that one product computes all of them; those without a bias get zeros.
/// Inputs: `[d_out_i, d_in]` and `[d_out_i]`.
fn stack(parts: &[(Tensor, Option<Tensor>)]) -> Result<Linear> {
    let weights: Vec<_> = parts.iter().map(|(weight, _)| weight).collect();
    let bias = if parts.iter().any(|(_, bias)| bias.is_some()) {
        let zeros = |weight: &Tensor| Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device());
        let filled = parts.iter().map(|(weight, bias)| bias.clone().map_or_else(|| zeros(weight), Ok));
        Some(Tensor::cat(&filled.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
    } else {
        None
    };
    Ok(Linear::new(Tensor::cat(&weights, 0)?, bias))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Equal, but for the last bits of numbers that two programs computed.
    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => {
                let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
                (a - b).abs() <= 1e-14 * a.abs()
            }
            (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
            }
            _ => a == b,
        }
    }

    /// `tests/fixtures/config/make_config.py` asked transformers' classes.
    #[test]
    fn absent_and_null_keys_mean_what_they_mean_in_transformers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/config/config.json");
        let cases: Vec<Map<String, Value>> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(cases.len() > 90);
        for case in &cases {
            let keys = case["keys"].as_object().unwrap().clone();
            let config = config_from_keys(Path::new("config.json"), keys);
            let config = config.unwrap_or_else(|error| panic!("{}: {error}", case["keys"]));
            let means = serde_json::to_value(config).unwrap();
            assert!(same(&means, &case["means"]), "{}:\n{means}\ninstead of\n{}", case["keys"], case["means"]);
        }
    }
}
