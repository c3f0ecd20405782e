//! A file a family: how its `config.json` or GGUF header reads, and what its weights are called. To add one, write its
//! file, name it in [`Family`], [`JsonConfig`] and the `match`es below, and make a fixture (CONTRIBUTING says how).

mod gpt2;
mod gpt_neox;
mod llama;

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::Deserialize;

use super::{
    Checkpoint, Family, GgufMetadata, ModelConfig, NormKind, linear::Linear, norm::Norm, transformer::Weights,
};
use crate::{Error, Result};

/// `config.json`, its family chosen by `model_type`.
#[derive(Deserialize)]
#[serde(tag = "model_type", rename_all = "snake_case")]
enum JsonConfig {
    Llama(llama::Json),
    Gpt2(gpt2::Json),
    GptNeox(gpt_neox::Json),
}

/// The families as `config.json` names them, for messages.
const FAMILIES: &str = "llama, gpt2, gpt_neox";

pub(crate) fn config_from_json(path: &Path) -> Result<ModelConfig> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let malformed = |error: serde_json::Error| {
        let (found, hint) = (error.to_string(), "CONTRIBUTING.md shows how to add a family");
        if found.contains("model_type") || found.contains("unknown variant") {
            return Error::malformed(path, format!("a model_type that is supported ({FAMILIES})"), found, hint);
        }
        Error::malformed(path, "the keys of its model_type, each of its type", found, "Download it again")
    };
    let config = match serde_json::from_str(&text).map_err(malformed)? {
        JsonConfig::Llama(json) => json.config(),
        JsonConfig::Gpt2(json) => json.config(),
        JsonConfig::GptNeox(json) => json.config(),
    };
    check(config.map_err(|problem| refused(path, &problem))?, path)
}

pub(crate) fn config_from_gguf(metadata: &GgufMetadata) -> Result<ModelConfig> {
    let config = match metadata.string("general.architecture")? {
        "llama" => llama::config_from_gguf(metadata)?,
        other => {
            let hint = "CONTRIBUTING.md shows how to add a family; a safetensors folder may be supported already";
            let expected = "general.architecture to be `llama`";
            return Err(Error::malformed(metadata.path(), expected, format!("`{other}`"), hint));
        }
    };
    check(config, metadata.path())
}

pub(crate) fn load_weights(checkpoint: &Checkpoint, device: &Device) -> Result<Weights> {
    let reader = Reader { checkpoint, device };
    match (checkpoint.config().family, checkpoint.gguf_metadata().is_some()) {
        (Family::Llama, true) => llama::gguf_weights(&reader),
        (Family::Llama, false) => llama::weights(&reader),
        (Family::Gpt2, _) => gpt2::weights(&reader),
        (Family::GptNeox, _) => gpt_neox::weights(&reader),
    }
}

/// A setting of the file that the forward pass does not have.
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

/// Refuses shapes that no model has, before anything is allocated for them.
fn check(config: ModelConfig, path: &Path) -> Result<ModelConfig> {
    let c = &config;
    let sizes = [
        ("layers", c.n_layers),
        ("d_model", c.d_model),
        ("heads", c.n_heads),
        ("key-value heads", c.n_kv_heads),
        ("d_head", c.d_head),
        ("d_mlp", c.d_mlp),
        ("vocabulary", c.d_vocab),
        ("context length", c.ctx_len),
    ];
    let hint = "The header is damaged, or of another format";
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
    if let super::Positions::Rotary { rotary_dim, base } = c.positions
        && (rotary_dim % 2 != 0 || rotary_dim > c.d_head || base.is_nan() || base <= 1.0)
    {
        let found = format!("{rotary_dim} rotated of {}, base {base}", c.d_head);
        return Err(Error::malformed(path, "an even number of rotated dimensions, base over 1", found, hint));
    }
    Ok(config)
}

/// Reads tensors by name and shape for a family's loader.
pub(crate) struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
}

impl Reader<'_> {
    fn config(&self) -> &ModelConfig {
        self.checkpoint.config()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.checkpoint.tensor(name, shape, self.device)
    }

    /// A tensor that some checkpoints of the family have.
    fn optional(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        self.checkpoint.contains(name).then(|| self.tensor(name, shape)).transpose()
    }

    /// `{prefix}.weight [d_out, d_in]` and, where the checkpoint has it, `{prefix}.bias [d_out]`.
    fn linear(&self, prefix: &str, d_out: usize, d_in: usize) -> Result<Linear> {
        let weight = self.tensor(&format!("{prefix}.weight"), &[d_out, d_in])?;
        Ok(Linear::new(weight, self.optional(&format!("{prefix}.bias"), &[d_out])?))
    }

    /// `{prefix}.weight [d_model]`, and `{prefix}.bias [d_model]` for a layer norm.
    fn norm(&self, prefix: &str) -> Result<Norm> {
        let (kind, width, eps) = (self.config().norm, self.config().d_model, self.config().norm_eps);
        let weight = self.tensor(&format!("{prefix}.weight"), &[width])?;
        let bias = match kind {
            NormKind::Rms => None,
            NormKind::Layer => Some(self.tensor(&format!("{prefix}.bias"), &[width])?),
        };
        Norm::new(kind, weight, bias, eps)
    }

    /// W_U. A checkpoint that ties it to the embedding needs none of its own, and one that it stores is not used.
    fn unembed(&self, name: &str, embed: &Tensor) -> Result<Tensor> {
        if self.config().tied_embeddings {
            return Ok(embed.clone());
        }
        self.tensor(name, &[self.config().d_vocab, self.config().d_model])
    }

    fn finish(&self, weights: Weights, harmless: impl Fn(&str) -> bool) -> Result<Weights> {
        self.checkpoint.refuse_unread(harmless)?;
        Ok(weights)
    }
}

/// Stacks matrices that read the same input, so that one product serves them all; those without a bias get zeros.
/// `[d_out_i, d_in]` and `[d_out_i]` each.
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
