//! Safetensors files, written whole and read with distrust: every tensor has a name, a shape and a type that the reader
//! expects, and one that it does not expect is refused.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use harvester::write_atomically;
use safetensors::{Dtype, SafeTensors, View, tensor::TensorView};

use crate::{Error, Result};

const HINT: &str = "The file is damaged, or belongs to another SAE";

/// A named tensor to be written, little-endian.
pub(crate) struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    pub(crate) fn f32(name: &str, shape: &[usize], data: &[f32]) -> Self {
        let mut bytes = vec![0; data.len() * 4];
        let (quads, _) = bytes.as_chunks_mut::<4>();
        quads.iter_mut().zip(data).for_each(|(bytes, value)| *bytes = value.to_le_bytes());
        Self { name: name.into(), dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    pub(crate) fn u64(name: &str, data: &[u64]) -> Self {
        let bytes = data.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.into(), dtype: Dtype::U64, shape: vec![data.len()], bytes }
    }
}

impl View for &Tensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Replaces the file at `path`; `note` is kept in its header.
pub(crate) fn write_tensors(path: &Path, tensors: Vec<Tensor>, note: Option<(&str, String)>) -> Result<()> {
    let header = note.map(|(key, text)| HashMap::from([(key.to_owned(), text)]));
    let bytes = safetensors::serialize(tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)), header)
        .map_err(|error| Error::io("write", path)(std::io::Error::other(error)))?;
    drop(tensors);
    write_atomically(path, &bytes)?;
    Ok(())
}

/// A file whose tensors are taken out one by one.
pub(crate) struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
    taken: Vec<String>,
}

impl TensorFile {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let file = Self { path: path.to_path_buf(), bytes, taken: Vec::new() };
        file.parsed()?;
        Ok(file)
    }

    /// The text kept in the header under `key`.
    pub(crate) fn note(&self, key: &str) -> Result<String> {
        let header = SafeTensors::read_metadata(&self.bytes).map_err(|error| self.damaged(&error))?.1;
        let found = header.metadata().as_ref().and_then(|notes| notes.get(key));
        found.cloned().ok_or_else(|| self.wrong(format!("`{key}` in the header"), "none"))
    }

    pub(crate) fn has(&self, name: &str) -> Result<bool> {
        Ok(self.parsed()?.tensor(name).is_ok())
    }

    /// The names that begin with `prefix`, in order.
    pub(crate) fn names_with(&self, prefix: &str) -> Result<Vec<String>> {
        let tensors = self.parsed()?;
        let names = tensors.names().into_iter().filter(|name| name.starts_with(prefix));
        let mut names: Vec<String> = names.map(Into::into).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Both sizes of a matrix: where no config says how large an SAE is, its weights do.
    pub(crate) fn matrix(&self, name: &str) -> Result<(usize, usize)> {
        match self.named(&self.parsed()?, name)?.shape() {
            &[rows, columns] => Ok((rows, columns)),
            shape => Err(self.wrong(format!("{name}, a matrix"), &format!("{shape:?}"))),
        }
    }

    /// Takes a tensor of numbers, as f32.
    pub(crate) fn take_f32(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.taken.push(name.to_owned());
        let (dtype, bytes) = self.tensor(name, shape)?;
        match dtype {
            Dtype::F32 => Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
            Dtype::F16 => {
                Ok(bytes.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect())
            }
            Dtype::BF16 => {
                Ok(bytes.as_chunks::<2>().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect())
            }
            other => Err(self.wrong(format!("{name} in F32, F16 or BF16"), &other.to_string())),
        }
    }

    /// Takes a vector of counts.
    pub(crate) fn take_u64(&mut self, name: &str, len: usize) -> Result<Vec<u64>> {
        self.taken.push(name.to_owned());
        let (dtype, bytes) = self.tensor(name, &[len])?;
        if dtype != Dtype::U64 {
            return Err(self.wrong(format!("{name} in U64"), &dtype.to_string()));
        }
        Ok(bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect())
    }

    /// Checks that nothing is left.
    pub(crate) fn end(self) -> Result<()> {
        let tensors = self.parsed()?;
        let mut unknown: Vec<_> =
            tensors.names().into_iter().filter(|name| !self.taken.iter().any(|taken| taken == name)).collect();
        unknown.sort_unstable();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(self.wrong(format!("only {}", self.taken.join(", ")), &format!("also {}", unknown.join(", "))))
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<(Dtype, &[u8])> {
        let tensor = self.named(&self.parsed()?, name)?;
        if tensor.shape() != shape {
            return Err(self.wrong(format!("{name} of shape {shape:?}"), &format!("{:?}", tensor.shape())));
        }
        Ok((tensor.dtype(), tensor.data()))
    }

    fn named<'a>(&'a self, tensors: &SafeTensors<'a>, name: &str) -> Result<TensorView<'a>> {
        tensors.tensor(name).map_err(|_| {
            let mut names = tensors.names();
            names.sort_unstable();
            self.wrong(format!("a tensor {name}"), &format!("only {}", names.join(", ")))
        })
    }

    fn parsed(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.bytes).map_err(|error| self.damaged(&error))
    }

    fn damaged(&self, error: &safetensors::SafeTensorError) -> Error {
        self.wrong("a whole safetensors file".into(), &error.to_string())
    }

    fn wrong(&self, expected: String, found: &str) -> Error {
        Error::malformed(&self.path, expected, found, HINT)
    }
}
