//! [`GgufMetadata`]: the key-value header of a GGUF file, with checked types, and its tensors by name. A model that is
//! split over several files is read as one: the first part has the keys, each part its own tensors.

mod skim;

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{
    Device, Tensor,
    quantized::gguf_file::{Content, TensorInfo, Value},
};

use self::skim::{CUT, MEND, skim};
use crate::{Error, Result, source::gguf_parts};

/// The header of a GGUF file: metadata by key, and the positions of the tensors.
#[derive(Debug)]
pub(crate) struct GgufMetadata {
    path: PathBuf,
    values: HashMap<String, Value>,
    /// One, or the parts of a split model.
    files: Vec<PathBuf>,
    tensors: HashMap<String, StoredTensor>,
}

/// The place of a tensor.
#[derive(Debug)]
struct StoredTensor {
    /// Shared by the tensors of a file.
    file: Arc<Mutex<File>>,
    /// Start of the file's tensors.
    data_offset: u64,
    info: TensorInfo,
}

impl GgufMetadata {
    /// Reads the header; the tensors stay on disk.
    ///
    /// # Errors
    /// The file cannot be opened, is not a GGUF file, or ends too early; a part of a split model is missing.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut read = Self::of_file(path)?;
        let n_parts = read.get("split.count").map_or(Ok(1), |_| read.integer("split.count"))?;
        if n_parts > 1 {
            read.add_parts(n_parts)?;
        }
        Ok(read)
    }

    /// The header of one file.
    fn of_file(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        skim(path, &mut file)?;
        let content = Content::read(&mut BufReader::new(&file))
            .map_err(|error| Error::malformed(path, "a GGUF header", first_line(&error), MEND))?;
        let file = Arc::new(Mutex::new(file));
        let data_offset = content.tensor_data_offset;
        let stored = |info| StoredTensor { file: file.clone(), data_offset, info };
        let tensors = content.tensor_infos.into_iter().map(|(name, info)| (name, stored(info))).collect();
        Ok(Self { path: path.to_path_buf(), values: content.metadata, files: vec![path.to_path_buf()], tensors })
    }

    /// Adds the tensors of the other parts of a split model, whose files stand beside the first under the names that
    /// llama.cpp gives them.
    fn add_parts(&mut self, n_parts: usize) -> Result<()> {
        let number = self.integer("split.no")?.saturating_add(1);
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let parts = gguf_parts(name).filter(|parts| number == 1 && parts.len() == n_parts);
        let Some(parts) = parts else {
            let expected = format!("the first of {n_parts} parts, named like NAME-00001-of-{n_parts:05}.gguf");
            let hint = "Name that file, with the others beside it, or merge them with llama-gguf-split --merge";
            return Err(Error::malformed(&self.path, expected, format!("part {number}, `{name}`"), hint));
        };
        for (index, name) in parts.iter().enumerate().skip(1) {
            let path = self.path.with_file_name(name);
            if !path.exists() {
                let expected = format!("all {n_parts} parts of the model beside it");
                let hint = "Download that file too; llama-gguf-split --merge makes one file of all parts";
                return Err(Error::malformed(&self.path, expected, format!("no file `{name}`"), hint));
            }
            self.add(Self::of_file(&path)?, index, n_parts)?;
        }
        let n_tensors = self.integer("split.tensors.count")?;
        if self.tensors.len() != n_tensors {
            let expected = format!("{n_tensors} tensors in its {n_parts} parts");
            return Err(Error::malformed(&self.path, expected, self.tensors.len().to_string(), MIXED));
        }
        Ok(())
    }

    /// Adds the tensors of the part with this index, from 0.
    fn add(&mut self, part: Self, index: usize, n_parts: usize) -> Result<()> {
        let (number, of) = (part.integer("split.no")?, part.integer("split.count")?);
        if (number, of) != (index, n_parts) {
            let expected = format!("part {} of {n_parts}", index + 1);
            let found = format!("part {} of {of}", number.saturating_add(1));
            return Err(Error::malformed(&part.path, expected, found, MIXED));
        }
        for (name, tensor) in part.tensors {
            if self.tensors.contains_key(&name) {
                let found = format!("`{name}`, which an earlier part has");
                return Err(Error::malformed(&part.path, "tensors of its own", found, MIXED));
            }
            self.tensors.insert(name, tensor);
        }
        self.files.push(part.path);
        Ok(())
    }

    /// The file; of a split model, the first.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Every file, in the order of the parts.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// A value that may be absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// A string.
    ///
    /// # Errors
    /// Absent, or of another type.
    pub(crate) fn string(&self, key: &str) -> Result<&str> {
        match self.get(key) {
            Some(Value::String(text)) => Ok(text),
            other => Err(self.unexpected(key, "a string", other)),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// Absent, negative, or of another type.
    pub(crate) fn integer(&self, key: &str) -> Result<usize> {
        let value = self.get(key);
        let signed = |n: i64| u64::try_from(n).ok();
        let integer = value.and_then(|value| match *value {
            Value::U8(n) => Some(u64::from(n)),
            Value::U16(n) => Some(u64::from(n)),
            Value::U32(n) => Some(u64::from(n)),
            Value::U64(n) => Some(n),
            Value::I8(n) => signed(n.into()),
            Value::I16(n) => signed(n.into()),
            Value::I32(n) => signed(n.into()),
            Value::I64(n) => signed(n),
            _ => None,
        });
        let integer = integer.and_then(|n| usize::try_from(n).ok());
        integer.ok_or_else(|| self.unexpected(key, "a whole number", value))
    }

    /// A real number.
    ///
    /// # Errors
    /// Absent, or of another type.
    pub(crate) fn real(&self, key: &str) -> Result<f64> {
        match self.get(key) {
            Some(Value::F32(x)) => Ok(f64::from(*x)),
            Some(Value::F64(x)) => Ok(*x),
            other => Err(self.unexpected(key, "a real number", other)),
        }
    }

    /// Names of the tensors.
    pub(crate) fn tensor_names(&self) -> BTreeSet<String> {
        self.tensors.keys().cloned().collect()
    }

    /// Shape of a tensor that may be absent.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.info.shape.dims())
    }

    /// A tensor as f32.
    pub(crate) fn tensor(&self, name: &str, device: &Device) -> candle_core::Result<Tensor> {
        let Some(StoredTensor { file, data_offset, info }) = self.tensors.get(name) else {
            candle_core::bail!("no such tensor")
        };
        // Every read seeks first, so a read that panicked half-way does no harm.
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        info.read(&mut *file, *data_offset, device)?.dequantize(device)
    }

    /// A short tensor that in fact belongs to the header: rotary factors, `[len]`.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let wrong = |found: String, hint| Error::malformed(&self.path, format!("tensor `{name}` [{len}]"), found, hint);
        let shape = self.shape(name).ok_or_else(|| wrong("no such tensor".to_string(), MEND))?;
        if shape != [len] {
            return Err(wrong(format!("{shape:?}"), MEND));
        }
        let values = self.tensor(name, &Device::Cpu).and_then(|tensor| tensor.to_vec1());
        values.map_err(|error| wrong(first_line(&error), next_step(&error)))
    }

    fn unexpected(&self, key: &str, expected: &str, found: Option<&Value>) -> Error {
        let found = match found {
            Some(value) => format!("{:?}", value.value_type()),
            None => "no such key".to_string(),
        };
        let hint = "The file may have a newer format, or belong to a family that needs other keys";
        Error::malformed(&self.path, format!("metadata `{key}` to be {expected}"), found, hint)
    }
}

/// Next step for parts that are not of one model.
const MIXED: &str = "The parts are of different models, or one was renamed: download them all again";

/// The next step for weights that cannot be read. Words by which candle and safetensors say that a file is too short.
pub(super) fn next_step(error: &candle_core::Error) -> &'static str {
    let too_short =
        ["remaining in file", "file not fully covered", "header too small", "invalid header length", "memory map"];
    let message = error.to_string();
    if too_short.iter().any(|words| message.contains(words)) { CUT } else { MEND }
}

/// Only the message: candle appends a backtrace to it.
pub(crate) fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}
