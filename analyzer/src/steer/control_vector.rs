//! [`ControlVector`]: vectors that are added to the residual stream after some layers, in the GGUF file of llama.cpp and
//! repeng.
//!
//! ```text
//! general.architecture         "controlvector"
//! controlvector.model_hint     the model's family
//! controlvector.layer_count    number of vectors
//! direction.L                  F32 [d_model], L >= 1: added at blocks.L.hook_resid_post, on every token
//! ```
//! llama.cpp adds each `direction.L`, times the scale that it is given, to the output of block `L`, counted from 0. It has
//! no place for block 0, and no condition: it also edits position 0, attention sinks and special tokens.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, BufWriter, Write},
    path::Path,
};

use candle_core::{
    Device, Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Content, Value},
    },
};
use harvester::{Error as Harvester, HookPoint, Site};

use super::direction::SteerVector;
use crate::Result;

const ARCHITECTURE: &str = "general.architecture";
const CONTROL_VECTOR: &str = "controlvector";
const MODEL_HINT: &str = "controlvector.model_hint";
const LAYER_COUNT: &str = "controlvector.layer_count";
/// Names of tensors begin with this.
const DIRECTION: &str = "direction.";

/// Vectors that are added after some layers.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlVector {
    /// Family of the model, as in its config: `llama`, `gemma3`.
    pub model_hint: String,
    /// The vector of each layer, all of the same width.
    pub layers: BTreeMap<usize, Vec<f32>>,
}

impl ControlVector {
    /// One without vectors.
    pub fn new(model_hint: impl Into<String>) -> Self {
        Self { model_hint: model_hint.into(), layers: BTreeMap::new() }
    }

    /// Adds a vector at a hook point; at one that has a vector already, their sum.
    ///
    /// # Errors
    /// A hook point that the format has no place for.
    pub fn add(&mut self, point: HookPoint, vector: &[f32]) -> Result<()> {
        let layer = match point {
            HookPoint::Block { layer, site: Site::ResidPost } if layer > 0 => layer,
            _ => {
                let expected = "blocks.1.hook_resid_post or a later one: a control vector is added after a layer, and not after layer 0";
                return Err(Harvester::invalid("hook point of a control vector", expected, point.to_string()).into());
            }
        };
        let sum = self.layers.entry(layer).or_insert_with(|| vec![0.0; vector.len()]);
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
        Ok(())
    }

    /// The control vector of one direction, whose scale 1 adds it once. `model_hint`: as [`Self::new`].
    ///
    /// # Errors
    /// As [`Self::add`]; or a direction without a hook point.
    pub fn of(direction: &SteerVector, model_hint: impl Into<String>) -> Result<Self> {
        let Some(point) = direction.hook_point else {
            return Err(Harvester::invalid("direction", "one that names its hook point", "none").into());
        };
        let mut made = Self::new(model_hint);
        made.add(point, &direction.vector)?;
        Ok(made)
    }

    /// Each vector with its hook point.
    pub fn vectors(&self) -> impl Iterator<Item = (HookPoint, &[f32])> {
        self.layers.iter().map(|(layer, vector)| (HookPoint::resid_post(*layer), &vector[..]))
    }

    /// Writes a new file.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        if path.exists() {
            let hint = "Choose another name, or remove it";
            return Err(Harvester::malformed(path, "a new file", "one that exists", hint).into());
        }
        let tensors = self.layers.iter().map(|(layer, vector)| -> Result<_> {
            let tensor = Tensor::from_slice(vector, vector.len(), &Device::Cpu)?;
            Ok((format!("{DIRECTION}{layer}"), QTensor::quantize(&tensor, GgmlDType::F32)?))
        });
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (&**name, tensor)).collect();
        let values = [
            (ARCHITECTURE, Value::String(CONTROL_VECTOR.into())),
            (MODEL_HINT, Value::String(self.model_hint.clone())),
            (LAYER_COUNT, Value::U32(self.layers.len() as u32)),
        ];
        let values: Vec<(&str, &Value)> = values.iter().map(|(key, value)| (*key, value)).collect();
        let part = path.with_extension("gguf.tmp");
        let mut file = BufWriter::new(File::create(&part).map_err(Harvester::io("write", &part))?);
        gguf_file::write(&mut file, &values, &tensors)?;
        file.flush().map_err(Harvester::io("write", &part))?;
        Ok(std::fs::rename(&part, path).map_err(Harvester::io("write", path))?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read or is no control vector: without vectors, with vectors of different widths, or with
    /// numbers that are not finite.
    pub fn read(path: &Path) -> Result<Self> {
        let hint = "Name a control vector of llama.cpp, repeng or `refract direction`";
        let refuse = |expected: &str, found: String| Harvester::malformed(path, expected, found, hint);
        let mut file = BufReader::new(File::open(path).map_err(Harvester::io("read", path))?);
        let content = Content::read(&mut file).map_err(|error| refuse("a GGUF file", error.to_string()))?;
        let text = |key: &str| content.metadata.get(key).and_then(|value| value.to_string().ok()).cloned();
        // llama.cpp reads no key; some tools write none. Another architecture is a model.
        if let Some(architecture) = text(ARCHITECTURE).filter(|architecture| architecture != CONTROL_VECTOR) {
            return Err(refuse("a control vector", format!("a file of architecture `{architecture}`")).into());
        }
        let mut vector = Self::new(text(MODEL_HINT).unwrap_or_default());
        for name in content.tensor_infos.keys() {
            let layer = name.strip_prefix(DIRECTION).and_then(|layer| layer.parse().ok()).filter(|layer| *layer > 0);
            let layer = layer.ok_or_else(|| refuse("tensors direction.1, direction.2, ..", format!("`{name}`")))?;
            let tensor = content.tensor(&mut file, name, &Device::Cpu);
            let values = tensor.and_then(|tensor| tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>());
            let values = values.map_err(|error| refuse("its tensors", error.to_string()))?;
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(refuse("finite numbers", format!("{} at index {at} of {name}", values[at])).into());
            }
            vector.layers.insert(layer, values);
        }
        let widths: Vec<usize> = vector.layers.values().map(Vec::len).collect();
        match widths.first() {
            None => Err(refuse("vectors", "none".into()).into()),
            Some(first) if widths.iter().any(|width| width != first) => {
                Err(refuse("vectors of one width", format!("widths {widths:?}")).into())
            }
            Some(_) => Ok(vector),
        }
    }
}
