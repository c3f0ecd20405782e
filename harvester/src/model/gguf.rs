//! [`GgufMetadata`]: the key-value header of a GGUF file, with checked types.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use candle_core::{
    Device,
    quantized::gguf_file::{Content, Value},
};

use super::gguf_skim::skim;
use crate::{Error, Result};

/// The header of a GGUF file: metadata by key, and the positions of the tensors.
#[derive(Debug)]
pub struct GgufMetadata {
    path: PathBuf,
    content: Content,
}

impl GgufMetadata {
    /// Reads the header; the tensors stay on disk.
    ///
    /// # Errors
    /// The file cannot be opened, is not a GGUF file, or ends too early.
    pub fn read(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let damaged = |found: String| {
            let hint = "Download it again: it may have been cut short";
            Error::malformed(path, "a GGUF header", found, hint)
        };
        skim(&mut file).map_err(damaged)?;
        let content = Content::read(&mut BufReader::new(file)).map_err(|error| damaged(first_line(&error)))?;
        Ok(Self { path: path.to_path_buf(), content })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// A value that may be absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(key)
    }

    /// A string.
    ///
    /// # Errors
    /// Absent, or of another type.
    pub fn string(&self, key: &str) -> Result<&str> {
        match self.get(key) {
            Some(Value::String(text)) => Ok(text),
            other => Err(self.unexpected(key, "a string", other)),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// Absent, negative, or of another type.
    pub fn integer(&self, key: &str) -> Result<usize> {
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
    pub fn real(&self, key: &str) -> Result<f64> {
        match self.get(key) {
            Some(Value::F32(x)) => Ok(f64::from(*x)),
            Some(Value::F64(x)) => Ok(*x),
            other => Err(self.unexpected(key, "a real number", other)),
        }
    }

    /// A short tensor that in fact belongs to the header: rotary factors, `[len]`.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let hint = "Download it again: it may have been cut short";
        let wrong = |found: String| Error::malformed(&self.path, format!("tensor `{name}` [{len}]"), found, hint);
        let info = self.content.tensor_infos.get(name).ok_or_else(|| wrong("no such tensor".to_string()))?;
        if info.shape.dims() != [len] {
            return Err(wrong(format!("{:?}", info.shape.dims())));
        }
        let mut file = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        let read = info.read(&mut file, self.content.tensor_data_offset, &Device::Cpu);
        let values = read.and_then(|tensor| tensor.dequantize(&Device::Cpu)?.to_vec1());
        values.map_err(|error| wrong(first_line(&error)))
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

/// Only the message: candle appends a backtrace to it.
pub(crate) fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}
