//! The dictionary_learning package: `ae.pt`, a torch state_dict, and `config.json`, whose `trainer.dict_class` gives
//! the class.
//!
//! ```text
//! AutoEncoder              relu((x - bias) encoder.weight^T + encoder.bias) decoder.weight^T + bias
//! AutoEncoderNew           the same without `bias` in the encoder, and decoder.bias for it in the decoder
//! AutoEncoderTopK          the k largest of relu((x - b_dec) encoder.weight^T + encoder.bias), `threshold` unused
//! BatchTopKSAE             those above `threshold`
//! MatryoshkaBatchTopKSAE   the same as W_enc, b_enc, W_dec, group_sizes
//! JumpReluAutoEncoder      x W_enc + b_enc if it exceeds threshold, one per latent
//! GatedAutoEncoder         gate_bias, r_mag and mag_bias over (x - decoder_bias) encoder.weight^T
//!
//! encoder.weight [d_sae, d_in]   decoder.weight [d_in, d_sae]   W_enc [d_in, d_sae]   W_dec [d_sae, d_in]
//! ```
//!
//! `AutoEncoder` is loaded with decoder rows of norm 1, as by the package's own loader.
//!
//! Older files: before July 2024 `config.json` has neither class nor sizes, which the tensors show; before December
//! 2024 an AutoEncoderTopK has `k` in `config.json` only, and a BatchTopKSAE no threshold, so that what it computes for
//! a token depends on the rest of its batch.

use std::path::Path;

use harvester::HookPoint;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    find::folder_of,
    fits::Fits,
    format::SaeFormat,
    json::{self, refuse, refuse_zero},
    named_tensors::NamedTensors,
    settings::{DICTIONARY_LEARNING_BUFFER, said, unknown},
    torch_file::{self, Item, TorchFile},
    transpose::transposed,
};
use crate::{
    Error, Result,
    kernels::simd::sum_of_squares,
    sae::{Architecture, HookPoints, Nonlinearity, Sae, SaeConfig, SaeWeights, input_norm::InputNorm},
};

const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "ae.pt";

/// The keys of `config.json` that are read; the others record the training.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a JSON object")]
struct Config {
    trainer: Trainer,
    #[serde(default)]
    buffer: Map<String, Value>,
}

/// The keys of the buffer that are read; the others are in `settings`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a JSON object")]
struct Buffer {
    ctx_len: Option<usize>,
    io: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a JSON object")]
struct Trainer {
    #[serde(default)]
    dict_class: Option<String>,
    #[serde(default)]
    activation_dim: Option<usize>,
    #[serde(default)]
    dict_size: Option<usize>,
    #[serde(default)]
    k: Option<usize>,
    #[serde(default)]
    lm_name: Option<String>,
    #[serde(default)]
    submodule_name: Option<String>,
}

/// The package's classes of dictionaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Class {
    AutoEncoder,
    AutoEncoderNew,
    AutoEncoderTopK,
    BatchTopKSAE,
    MatryoshkaBatchTopKSAE,
    JumpReluAutoEncoder,
    GatedAutoEncoder,
}

pub(super) fn load(path: &Path) -> Result<(SaeConfig, SaeWeights)> {
    let dir = folder_of(path);
    let config_path = dir.join(CONFIG_FILE);
    let what = "the config.json of dictionary_learning";
    let Config { trainer, buffer } = json::read(&config_path, what)?;
    let notes = [said, unknown].iter().flat_map(|of| of(&buffer, DICTIONARY_LEARNING_BUFFER)).collect();
    let Buffer { ctx_len, io } = json::parse(&Value::Object(buffer), &config_path, what)?;
    let weights_path = dir.join(WEIGHTS_FILE);
    let TorchFile { mut tensors, others } = TorchFile::read(&weights_path)?;
    if let Some(name) = others.keys().next() {
        let hint = match others.contains_key("optimizer") {
            true => "It is the backup of a training that has not ended: finish it, or save its `ae` alone",
            false => "It belongs to another tool",
        };
        return Err(Error::malformed(&weights_path, "only tensors", name.clone(), hint));
    }
    let class = match &trainer.dict_class {
        Some(name) => Class::named(name, &config_path)?,
        None => Class::of(&tensors, &weights_path)?,
    };
    let (rows, columns) = tensors.matrix(class.encoder())?;
    let (d_in, d_sae) = if class.is_linear() { (columns, rows) } else { (rows, columns) };
    let (d_in, d_sae) = (trainer.activation_dim.unwrap_or(d_in), trainer.dict_size.unwrap_or(d_sae));
    refuse_zero(&config_path, "trainer.activation_dim and trainer.dict_size", [d_in, d_sae])?;
    let mut weights = weights(class, &mut tensors, d_in, d_sae)?;
    weights.nonlinearity = nonlinearity(class, &mut tensors, d_sae, (trainer.k, &weights_path))?;
    tensors.end()?;
    if class == Class::AutoEncoder {
        weights = with_unit_decoder(weights);
    }
    let config = SaeConfig {
        apply_b_dec_to_input: !matches!(class, Class::AutoEncoderNew | Class::JumpReluAutoEncoder),
        hook_points: HookPoints::Autoencoder(place(&trainer, io.as_deref(), &config_path)?),
        model_name: trainer.lm_name.unwrap_or_default(),
        ctx_len,
        notes,
        ..SaeConfig::new(d_in, d_sae)
    };
    Ok((config, weights))
}

impl Class {
    fn named(name: &str, path: &Path) -> Result<Self> {
        serde_json::from_value(json!(name)).or_else(|_| {
            let known = "AutoEncoder, AutoEncoderNew, AutoEncoderTopK, BatchTopKSAE, MatryoshkaBatchTopKSAE, \
                         JumpReluAutoEncoder or GatedAutoEncoder";
            refuse(path, "trainer.dict_class", known, name)
        })
    }

    /// The class that has these tensors. When `config.json` did not name it, there was no BatchTopKSAE.
    fn of(tensors: &NamedTensors, path: &Path) -> Result<Self> {
        let has = |name: &str| tensors.has(name);
        match () {
            () if has("bias") => Ok(Self::AutoEncoder),
            () if has("decoder_bias") => Ok(Self::GatedAutoEncoder),
            () if has("W_enc") => Ok(Self::JumpReluAutoEncoder),
            () if has("decoder.bias") => Ok(Self::AutoEncoderNew),
            () if has("b_dec") => Ok(Self::AutoEncoderTopK),
            () => {
                let expected = "the tensors of a dictionary, since config.json names no trainer.dict_class";
                Err(Error::malformed(path, expected, "none that tells its class", "Add trainer.dict_class"))
            }
        }
    }

    /// True if the matrices are those of `torch.nn.Linear`, `[out, in]`.
    fn is_linear(self) -> bool {
        !matches!(self, Self::MatryoshkaBatchTopKSAE | Self::JumpReluAutoEncoder)
    }

    fn encoder(self) -> &'static str {
        if self.is_linear() { "encoder.weight" } else { "W_enc" }
    }
}

/// The weights of a class, without its nonlinearity.
fn weights(class: Class, tensors: &mut NamedTensors, d_in: usize, d_sae: usize) -> Result<SaeWeights> {
    let (nonlinearity, w_skip) = (Nonlinearity::Standard, None);
    if !class.is_linear() {
        return Ok(SaeWeights {
            w_enc: transposed(&tensors.take_f32("W_enc", &[d_in, d_sae])?, d_in, d_sae),
            b_enc: tensors.take_f32("b_enc", &[d_sae])?,
            w_dec: tensors.take_f32("W_dec", &[d_sae, d_in])?,
            b_dec: tensors.take_f32("b_dec", &[d_in])?,
            nonlinearity,
            w_skip,
        });
    }
    let (b_enc, b_dec) = match class {
        Class::AutoEncoder => ("encoder.bias", "bias"),
        Class::AutoEncoderNew => ("encoder.bias", "decoder.bias"),
        Class::GatedAutoEncoder => ("gate_bias", "decoder_bias"),
        _ => ("encoder.bias", "b_dec"),
    };
    Ok(SaeWeights {
        w_enc: tensors.take_f32("encoder.weight", &[d_sae, d_in])?,
        b_enc: tensors.take_f32(b_enc, &[d_sae])?,
        w_dec: transposed(&tensors.take_f32("decoder.weight", &[d_in, d_sae])?, d_in, d_sae),
        b_dec: tensors.take_f32(b_dec, &[d_in])?,
        nonlinearity,
        w_skip,
    })
}

/// Reads the nonlinearity of a class.
fn nonlinearity(
    class: Class,
    tensors: &mut NamedTensors,
    d_sae: usize,
    (configured_k, path): (Option<usize>, &Path),
) -> Result<Nonlinearity> {
    match class {
        Class::AutoEncoder | Class::AutoEncoderNew => Ok(Nonlinearity::Standard),
        Class::JumpReluAutoEncoder => {
            Ok(Nonlinearity::JumpRelu { threshold: tensors.take_f32("threshold", &[d_sae])? })
        }
        Class::GatedAutoEncoder => Ok(Nonlinearity::Gated {
            r_mag: tensors.take_f32("r_mag", &[d_sae])?,
            b_mag: tensors.take_f32("mag_bias", &[d_sae])?,
        }),
        Class::AutoEncoderTopK => {
            let k = k(tensors, configured_k, path)?;
            // Only for `use_threshold=True`, which is not the default of this class.
            tensors.pass_over("threshold");
            Ok(Nonlinearity::TopK { k })
        }
        Class::BatchTopKSAE | Class::MatryoshkaBatchTopKSAE => {
            k(tensors, configured_k, path)?;
            if class == Class::MatryoshkaBatchTopKSAE {
                tensors.pass_over("group_sizes"); // nested prefixes: only used in training
            }
            if !tensors.has("threshold") {
                let expected = "a threshold, which BatchTopKSAE has since December 2024";
                let hint = "Without it, the activations of a token depend on its batch: train it again, or add the \
                            smallest activation that it should keep, as a number named threshold";
                return Err(Error::malformed(path, expected, "none", hint));
            }
            let threshold = tensors.take_f32("threshold", &[])?[0];
            if threshold < 0.0 {
                let hint = "Train it past threshold_start_step, or set the threshold";
                let found = format!("{threshold}: training never set it");
                return Err(Error::malformed(path, "a threshold of 0 or more", found, hint));
            }
            Ok(Nonlinearity::JumpRelu { threshold: vec![threshold; d_sae] })
        }
    }
}

/// The k stored with the weights, or else in the config, which must agree with it.
fn k(tensors: &mut NamedTensors, configured: Option<usize>, path: &Path) -> Result<usize> {
    if !tensors.has("k") {
        let missing = || Error::malformed(path, "k, or trainer.k in config.json", "neither", "Add trainer.k");
        return configured.ok_or_else(missing);
    }
    let stored = tensors.take_int("k", &[])?[0];
    let k = usize::try_from(stored).ok().filter(|k| *k > 0 && configured.is_none_or(|configured| configured == *k));
    k.ok_or_else(|| {
        let expected = configured.map_or("k of 1 or more".to_string(), |k| format!("k {k}, as config.json has it"));
        Error::malformed(path, expected, stored.to_string(), "The two files belong to different dictionaries")
    })
}

/// The hook point that a dictionary reads, if it has a name here.
fn place(trainer: &Trainer, io: Option<&str>, path: &Path) -> Result<Option<HookPoint>> {
    match io {
        None | Some("out") => Ok(trainer.submodule_name.as_deref().and_then(hook_point)),
        // The input of the named module, for which the package has no name.
        Some("in") => Ok(None),
        Some(other) => refuse(path, "buffer.io", "`in` or `out`", other),
    }
}

/// A hook point from the package's own name for the output of a block, or from one of TransformerLens' names, which we
/// write.
fn hook_point(submodule: &str) -> Option<HookPoint> {
    match submodule.strip_prefix("resid_post_layer_") {
        Some(layer) => Some(HookPoint::resid_post(layer.parse().ok()?)),
        None => submodule.parse().ok(),
    }
}

/// With decoder rows of norm 1, unless they are near enough for the package's loader to leave them.
fn with_unit_decoder(weights: SaeWeights) -> SaeWeights {
    let mut rows = weights.w_dec.chunks_exact(weights.b_dec.len());
    let is_unit = rows.all(|row| (sum_of_squares(row).sqrt() - 1.0).abs() <= 1e-5);
    if is_unit { weights } else { weights.with_unit_decoder() }
}

pub(super) fn save(sae: &Sae, dir: &Path) -> Result<()> {
    let fits = Fits {
        format: SaeFormat::DictionaryLearning,
        architectures: &[Architecture::Standard, Architecture::TopK, Architecture::JumpRelu, Architecture::Gated],
        transcoder: false,
        skip: false,
    };
    fits.check(sae)?;
    if sae.config().input_norm != InputNorm::None {
        return fits.refuse("an SAE of raw activations".into(), sae.config().input_norm.to_string());
    }
    let class = match sae.architecture() {
        Architecture::TopK => Class::AutoEncoderTopK,
        Architecture::JumpRelu => Class::JumpReluAutoEncoder,
        Architecture::Gated => Class::GatedAutoEncoder,
        Architecture::Standard | Architecture::Dense => Class::AutoEncoder,
    };
    let (config, mut weights) = sae.applying_b_dec(class != Class::JumpReluAutoEncoder).into_owned().into_parts();
    if class == Class::AutoEncoder {
        weights = with_unit_decoder(weights);
    }
    torch_file::write(&dir.join(WEIGHTS_FILE), items(&weights, &turned(&weights, &config)))?;
    json::write(&dir.join(CONFIG_FILE), &config_of(class, &config, weights.nonlinearity.k()))
}

/// The one matrix that is transposed in the file: the encoder's or the decoder's.
fn turned(weights: &SaeWeights, config: &SaeConfig) -> Vec<f32> {
    let is_jumprelu = matches!(weights.nonlinearity, Nonlinearity::JumpRelu { .. });
    let matrix = if is_jumprelu { &weights.w_enc } else { &weights.w_dec };
    transposed(matrix, config.d_sae, config.d_in)
}

fn items<'a>(weights: &'a SaeWeights, turned: &'a [f32]) -> Vec<(&'static str, Item<'a>)> {
    let SaeWeights { w_enc, b_enc, nonlinearity, w_dec, b_dec, .. } = weights;
    let (d_in, d_sae) = (b_dec.len(), b_enc.len());
    let vector = |values: &'a [f32]| Item::Floats(vec![values.len()], values);
    let linear = |name_of_b_enc, name_of_b_dec| {
        vec![
            ("encoder.weight", Item::Floats(vec![d_sae, d_in], w_enc)),
            (name_of_b_enc, vector(b_enc)),
            ("decoder.weight", Item::Floats(vec![d_in, d_sae], turned)),
            (name_of_b_dec, vector(b_dec)),
        ]
    };
    match nonlinearity {
        Nonlinearity::JumpRelu { threshold } => vec![
            ("W_enc", Item::Floats(vec![d_in, d_sae], turned)),
            ("b_enc", vector(b_enc)),
            ("W_dec", Item::Floats(vec![d_sae, d_in], w_dec)),
            ("b_dec", vector(b_dec)),
            ("threshold", vector(threshold)),
        ],
        Nonlinearity::Gated { r_mag, b_mag } => {
            let mut items = linear("gate_bias", "decoder_bias");
            items.extend([("r_mag", vector(r_mag)), ("mag_bias", vector(b_mag))]);
            items
        }
        Nonlinearity::TopK { k } => {
            let mut items = linear("encoder.bias", "b_dec");
            items.extend([("k", Item::Int32(*k as i32)), ("threshold", Item::Floats(vec![], &[-1.0]))]);
            items
        }
        Nonlinearity::Standard | Nonlinearity::Dense => linear("encoder.bias", "bias"),
    }
}

fn config_of(class: Class, config: &SaeConfig, k: Option<usize>) -> serde_json::Value {
    let SaeConfig { d_in, d_sae, hook_points, model_name, ctx_len, .. } = config;
    let (point, _) = hook_points.ends();
    let layer = match point {
        Some(HookPoint::Block { layer, .. }) => Some(layer),
        _ => None,
    };
    let submodule = match (point, layer) {
        (Some(point), Some(layer)) if point == HookPoint::resid_post(layer) => {
            Some(format!("resid_post_layer_{layer}"))
        }
        (point, _) => point.map(|point| point.to_string()),
    };
    json!({
        "trainer": {
            "trainer_class": "refract",
            "dict_class": class,
            "activation_dim": d_in,
            "dict_size": d_sae,
            "k": k,
            "layer": layer,
            "lm_name": model_name,
            "submodule_name": submodule,
        },
        "buffer": { "d_submodule": d_in, "ctx_len": ctx_len },
    })
}
