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

/// Where a tensor is.
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
        let mut read =
            Self { path: path.to_path_buf(), values: HashMap::new(), files: vec![], tensors: HashMap::new() };
        read.values = read.add(path)?;
        let n_parts = read.get("split.count").map_or(Ok(1), |_| read.integer("split.count"))?;
        if n_parts > 1 {
            read.add_parts(n_parts)?;
        }
        Ok(read)
    }

    /// Adds a file's tensors; returns its keys.
    fn add(&mut self, path: &Path) -> Result<HashMap<String, Value>> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        skim(path, &mut file)?;
        let content = Content::read(&mut BufReader::new(&file))
            .map_err(|error| Error::malformed(path, "a GGUF header", first_line(&error), MEND))?;
        let file = Arc::new(Mutex::new(file));
        let data_offset = content.tensor_data_offset;
        let stored = |info| StoredTensor { file: file.clone(), data_offset, info };
        self.tensors.extend(content.tensor_infos.into_iter().map(|(name, info)| (name, stored(info))));
        self.files.push(path.to_path_buf());
        Ok(content.metadata)
    }

    /// Adds the tensors of the other parts of a split model, whose files stand beside the first under llama.cpp's names.
    fn add_parts(&mut self, n_parts: usize) -> Result<()> {
        let number = self.integer("split.no")? + 1;
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let parts = gguf_parts(name).filter(|parts| number == 1 && parts.len() == n_parts);
        let Some(parts) = parts else {
            let expected = format!("the first of {n_parts} parts, named like NAME-00001-of-{n_parts:05}.gguf");
            let hint = "Name that file, with the others beside it, or merge them with llama-gguf-split --merge";
            return Err(Error::malformed(&self.path, expected, format!("part {number}, `{name}`"), hint));
        };
        for name in &parts[1..] {
            let part = self.path.with_file_name(name);
            if !part.exists() {
                let expected = format!("all {n_parts} parts of the model beside it");
                let hint = "Download that file too; llama-gguf-split --merge makes one file of all parts";
                return Err(Error::malformed(&self.path, expected, format!("no file `{name}`"), hint));
            }
            self.add(&part)?;
        }
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

/// What to do about weights that cannot be read: candle and safetensors say it in these words if the file is too short.
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
