//! Safetensors files, written whole and checked when read: every tensor must have the name, shape and type that the
//! reader expects, and an unexpected tensor is refused.

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

/// Hint for a wrong file of a finished SAE.
pub(crate) const SAE_HINT: &str = "The file is damaged, or belongs to another SAE";

/// A named tensor to write.
pub(crate) struct Tensor<'a> {
    name: String,
    shape: Vec<usize>,
    data: Data<'a>,
}

enum Data<'a> {
    F32(&'a [f32]),
    U64(&'a [u64]),
}

impl<'a> Tensor<'a> {
    pub(crate) fn f32(name: &str, shape: &[usize], data: &'a [f32]) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), data: Data::F32(data) }
    }

    pub(crate) fn u64(name: &str, data: &'a [u64]) -> Self {
        Self { name: name.into(), shape: vec![data.len()], data: Data::U64(data) }
    }

    /// The values as little-endian bytes.
    fn bytes(&self) -> Cow<'_, [u8]> {
        match self.data {
            Data::F32(data) => le_bytes(data, f32::to_le_bytes).into(),
            Data::U64(data) => le_bytes(data, u64::to_le_bytes).into(),
        }
    }
}

impl View for &Tensor<'_> {
    fn dtype(&self) -> Dtype {
        match self.data {
            Data::F32(_) => Dtype::F32,
            Data::U64(_) => Dtype::U64,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Called once per tensor, so only one tensor's bytes exist at a time beside the file's.
    fn data(&self) -> Cow<'_, [u8]> {
        self.bytes()
    }

    fn data_len(&self) -> usize {
        match self.data {
            Data::F32(data) => size_of_val(data),
            Data::U64(data) => size_of_val(data),
        }
    }
}

pub(crate) fn le_bytes<T: Copy, const N: usize>(data: &[T], bytes_of: fn(T) -> [u8; N]) -> Vec<u8> {
    let mut bytes = vec![0; data.len() * N];
    bytes.as_chunks_mut::<N>().0.iter_mut().zip(data).for_each(|(bytes, value)| *bytes = bytes_of(*value));
    bytes
}

/// Replaces the file at `path`; `note` is kept in its header.
pub(crate) fn write_tensors(path: &Path, tensors: Vec<Tensor<'_>>, note: Option<(&str, String)>) -> Result<()> {
    let header = note.map(|(key, text)| HashMap::from([(key.to_owned(), text)]));
    let bytes = safetensors::serialize(tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)), header)
        .map_err(|error| Error::io("write", path)(std::io::Error::other(error)))?;
    write_atomically(path, &bytes)?;
    Ok(())
}

/// SHA-256 of `note` and then of the name, type, shape and bytes of each tensor, sorted by name.
pub(crate) fn sha256_of(note: &str, tensors: &[Tensor<'_>]) -> String {
    let mut tensors: Vec<_> = tensors.iter().collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let kind = |tensor: &Tensor<'_>| kind_of(&tensor.name, View::dtype(&tensor), &tensor.shape);
    let of_tensor = |tensor| [Cow::from(kind(tensor)), Tensor::bytes(tensor)];
    harvester::sha256_bytes(std::iter::once(note.as_bytes().into()).chain(tensors.into_iter().flat_map(of_tensor)))
}

fn kind_of(name: &str, dtype: Dtype, shape: &[usize]) -> Vec<u8> {
    format!("{name} {dtype} {shape:?}").into_bytes()
}

/// The first value that is not finite and its index, for a message.
pub(crate) fn not_finite(values: &[f32]) -> Option<String> {
    let at = values.iter().position(|value| !value.is_finite())?;
    Some(format!("{} at index {at}", values[at]))
}

/// A file whose tensors are taken out one by one.
pub(crate) struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
    taken: Vec<String>,
    /// Next step for the user if the file is wrong.
    hint: &'static str,
}

impl TensorFile {
    /// Opens the file; `hint` tells the user what to do if it is wrong.
    pub(crate) fn read(path: &Path, hint: &'static str) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let file = Self { path: path.to_path_buf(), bytes, taken: Vec::new(), hint };
        file.parsed()?;
        Ok(file)
    }

    /// The text stored in the header under `key`.
    pub(crate) fn note(&self, key: &str) -> Result<String> {
        let header = SafeTensors::read_metadata(&self.bytes).map_err(|error| self.damaged(&error))?.1;
        let found = header.metadata().as_ref().and_then(|notes| notes.get(key));
        found.cloned().ok_or_else(|| self.wrong(format!("`{key}` in the header"), "none"))
    }

    /// [`sha256_of`] `note` and the tensors of this file.
    pub(crate) fn sha256(&self, note: &str) -> Result<String> {
        let tensors = self.parsed()?;
        let mut tensors = tensors.tensors();
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        let of_tensor = |(name, tensor): &(String, TensorView<'_>)| {
            [Cow::from(kind_of(name, tensor.dtype(), tensor.shape())), Cow::from(tensor.data().to_vec())]
        };
        let note = std::iter::once(Cow::from(note.as_bytes().to_vec()));
        Ok(harvester::sha256_bytes(note.chain(tensors.iter().flat_map(of_tensor))))
    }

    pub(crate) fn has(&self, name: &str) -> Result<bool> {
        Ok(self.parsed()?.tensor(name).is_ok())
    }

    /// The tensor names that begin with `prefix`, sorted.
    pub(crate) fn names_with(&self, prefix: &str) -> Result<Vec<String>> {
        let tensors = self.parsed()?;
        let names = tensors.names().into_iter().filter(|name| name.starts_with(prefix));
        let mut names: Vec<String> = names.map(Into::into).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Both sizes of a matrix: if no config gives an SAE's sizes, its weights do.
    pub(crate) fn matrix(&self, name: &str) -> Result<(usize, usize)> {
        match self.named(&self.parsed()?, name)?.shape() {
            &[rows, columns] => Ok((rows, columns)),
            shape => Err(self.wrong(format!("{name}, a matrix"), &format!("{shape:?}"))),
        }
    }

    /// Takes a tensor of floats, as f32.
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
            other => {
                let hint = "Save it again with F32 tensors (`.float()` in PyTorch)";
                let expected = format!("{name} in F32, F16 or BF16");
                Err(Error::malformed(&self.path, expected, other.to_string(), hint))
            }
        }
    }

    /// Takes weights of a finished SAE, which must all be finite. They are checked here, under the name they have in
    /// the file, before a reader folds one tensor into another.
    pub(crate) fn take_weights(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.take_f32(name, shape)?;
        match not_finite(&values) {
            Some(found) => Err(self.wrong(format!("finite numbers in {name}"), &found)),
            None => Ok(values),
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

    /// Checks that every tensor of the file was taken.
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
        self.wrong("a complete safetensors file".into(), &error.to_string())
    }

    fn wrong(&self, expected: String, found: &str) -> Error {
        Error::malformed(&self.path, expected, found, self.hint)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn written(tensors: Vec<Tensor<'_>>) -> (tempfile::TempDir, TensorFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.safetensors");
        write_tensors(&path, tensors, Some(("note", "kept".into()))).unwrap();
        let file = TensorFile::read(&path, "Ask again").unwrap();
        (dir, file)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (values, counts) = ([1.5, -2.0, f32::MIN_POSITIVE, 0.0, f32::INFINITY, 3.0], [0, u64::MAX, 7]);
        let (_dir, mut file) = written(vec![Tensor::f32("w", &[2, 3], &values), Tensor::u64("n", &counts)]);
        assert_eq!((file.note("note").unwrap().as_str(), file.matrix("w").unwrap()), ("kept", (2, 3)));
        assert_eq!(file.take_f32("w", &[2, 3]).unwrap(), values);
        assert_eq!(file.take_u64("n", 3).unwrap(), counts);
        file.end().unwrap();
    }

    #[test]
    fn half_precision_becomes_f32() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("half.safetensors");
        // The bits of 1.5 and -2 in both types, worked out by hand: sign, exponent, fraction.
        let bytes = |bits: [u16; 2]| bits.map(u16::to_le_bytes).concat();
        let (half, brain) = (bytes([0x3e00, 0xc000]), bytes([0x3fc0, 0xc000]));
        let tensor = |dtype, data| TensorView::new(dtype, vec![2], data).unwrap();
        let tensors = [("half", tensor(Dtype::F16, &half)), ("brain", tensor(Dtype::BF16, &brain))];
        fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        let mut file = TensorFile::read(&path, "").unwrap();
        assert_eq!(["half", "brain"].map(|name| file.take_f32(name, &[2]).unwrap()), [[1.5, -2.0]; 2]);
    }

    #[test]
    fn another_shape_type_or_tensor_is_refused_with_the_hint() {
        let (_dir, mut file) = written(vec![Tensor::f32("w", &[2], &[1.0, 2.0]), Tensor::u64("n", &[7])]);
        let shape = file.take_f32("w", &[3]).unwrap_err().to_string();
        assert!(shape.contains("some.safetensors: expected w of shape [3], found [2]. Ask again"), "{shape}");
        let dtype = file.take_u64("w", 2).unwrap_err().to_string();
        assert!(dtype.contains("expected w in U64, found F32. Ask again"), "{dtype}");
        let dtype = file.take_f32("n", &[1]).unwrap_err().to_string();
        assert!(dtype.contains("expected n in F32, F16 or BF16, found U64"), "{dtype}");
        let absent = file.take_f32("b", &[1]).unwrap_err().to_string();
        assert!(absent.contains("expected a tensor b, found only n, w"), "{absent}");
        let (_dir, mut file) = written(vec![Tensor::f32("w", &[1], &[1.0]), Tensor::f32("b", &[1], &[2.0])]);
        file.take_f32("w", &[1]).unwrap();
        let left = file.end().unwrap_err().to_string();
        assert!(left.contains("expected only w, found also b. Ask again"), "{left}");
    }
}
