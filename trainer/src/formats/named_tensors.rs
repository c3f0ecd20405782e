//! [`NamedTensors`]: the arrays of a torch file or an .npz file, taken out one by one. As in `TensorFile` for
//! safetensors, each must have the name and shape that the reader expects, and an unexpected array is refused.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use half::{bf16, f16};

use crate::{
    Error, Result,
    tensors::{SAE_HINT, not_finite},
};

/// Type of the stored values of an array, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    Bool,
}

impl Stored {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Bool => 1,
        }
    }

    /// The values in `bytes`, whose length is a multiple of a value's size.
    pub(crate) fn numbers(self, bytes: &[u8]) -> Numbers {
        let (two, four, eight) = (bytes.as_chunks::<2>().0, bytes.as_chunks::<4>().0, bytes.as_chunks::<8>().0);
        match self {
            Self::F64 => Numbers::Float(eight.iter().map(|b| f64::from_le_bytes(*b) as f32).collect()),
            Self::F32 => Numbers::Float(four.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            Self::F16 => Numbers::Float(two.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()),
            Self::Bf16 => Numbers::Float(two.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()),
            Self::I64 => Numbers::Int(eight.iter().map(|b| i64::from_le_bytes(*b)).collect()),
            Self::I32 => Numbers::Int(four.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect()),
            Self::Bool => Numbers::Int(bytes.iter().map(|b| i64::from(*b)).collect()),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Numbers {
    Float(Vec<f32>),
    Int(Vec<i64>),
}

/// Values with their shape, row-major.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) numbers: Numbers,
}

/// The arrays of one file.
#[derive(Debug)]
pub(crate) struct NamedTensors {
    path: PathBuf,
    arrays: BTreeMap<String, Array>,
    taken: Vec<String>,
    /// The names of everything in the file, for messages.
    all: Vec<String>,
}

impl NamedTensors {
    /// `others`: the entries of the file that are not arrays.
    pub(crate) fn new(path: &Path, arrays: BTreeMap<String, Array>, others: Vec<String>) -> Self {
        let all = arrays.keys().cloned().chain(others).collect();
        Self { path: path.to_path_buf(), arrays, taken: vec![], all }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.arrays.contains_key(name)
    }

    /// Both sizes of a matrix: if no config gives an SAE's sizes, its weights do.
    pub(crate) fn matrix(&self, name: &str) -> Result<(usize, usize)> {
        match self.get(name)?.shape[..] {
            [rows, columns] => Ok((rows, columns)),
            ref shape => Err(self.wrong(format!("{name}, a matrix"), format!("{shape:?}"))),
        }
    }

    /// Takes an array of floats, which must all be finite. They are checked here, under the name they have in the file,
    /// before a reader folds one array into another.
    pub(crate) fn take_f32(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match self.take(name, shape)? {
            Numbers::Float(values) => match not_finite(&values) {
                Some(found) => Err(self.wrong(format!("finite numbers in {name}"), found)),
                None => Ok(values),
            },
            Numbers::Int(_) => Err(self.wrong(format!("floating-point numbers in {name}"), "integers".into())),
        }
    }

    /// Takes an array of integers.
    pub(crate) fn take_int(&mut self, name: &str, shape: &[usize]) -> Result<Vec<i64>> {
        match self.take(name, shape)? {
            Numbers::Int(values) => Ok(values),
            Numbers::Float(_) => Err(self.wrong(format!("integers in {name}"), "floating-point numbers".into())),
        }
    }

    /// Ignores an array that does not hold weights, if it exists.
    pub(crate) fn pass_over(&mut self, name: &str) {
        if self.arrays.remove(name).is_some() {
            self.taken.push(name.into());
        }
    }

    /// Checks that every array of the file was taken.
    pub(crate) fn end(self) -> Result<()> {
        if self.arrays.is_empty() {
            return Ok(());
        }
        let left: Vec<_> = self.arrays.keys().map(String::as_str).collect();
        Err(self.wrong(format!("only {}", self.taken.join(", ")), format!("also {}", left.join(", "))))
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Numbers> {
        let found = &self.get(name)?.shape;
        if found != shape {
            return Err(self.wrong(format!("{name} of shape {shape:?}"), format!("{found:?}")));
        }
        self.taken.push(name.into());
        let taken = self.arrays.remove(name).expect("looked up above");
        Ok(taken.numbers)
    }

    fn get(&self, name: &str) -> Result<&Array> {
        self.arrays.get(name).ok_or_else(|| {
            let found = if self.all.is_empty() { "nothing".into() } else { format!("only {}", self.all.join(", ")) };
            self.wrong(format!("an array {name}"), found)
        })
    }

    fn wrong(&self, expected: String, found: String) -> Error {
        Error::malformed(&self.path, expected, found, SAE_HINT)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_type_are_read() {
        // The bits of 1.5 = 1.1b and -2 = -10b, worked out by hand: sign, exponent, mantissa.
        for (stored, bits) in [
            (Stored::F64, &[0x3ff8_0000_0000_0000_u64, 0xc000_0000_0000_0000][..]),
            (Stored::F32, &[0x3fc0_0000, 0xc000_0000]),
            (Stored::F16, &[0x3e00, 0xc000]),
            (Stored::Bf16, &[0x3fc0, 0xc000]),
        ] {
            assert_eq!(stored.numbers(&little_endian(bits, stored)), Numbers::Float(vec![1.5, -2.0]), "{stored:?}");
        }
        for stored in [Stored::I64, Stored::I32] {
            let bits = [3, -2i64 as u64];
            assert_eq!(stored.numbers(&little_endian(&bits, stored)), Numbers::Int(vec![3, -2]), "{stored:?}");
        }
        assert_eq!(Stored::Bool.numbers(&[1, 0]), Numbers::Int(vec![1, 0]));
    }

    fn little_endian(bits: &[u64], stored: Stored) -> Vec<u8> {
        bits.iter().flat_map(|bits| bits.to_le_bytes()[..stored.bytes()].to_vec()).collect()
    }

    #[test]
    fn an_array_is_taken_once_in_the_shape_that_it_has() {
        let array = |numbers| Array { shape: vec![2], numbers };
        let arrays = [("w", array(Numbers::Float(vec![1.5, -2.0]))), ("k", array(Numbers::Int(vec![3, -2])))];
        let arrays = arrays.map(|(name, array)| (name.to_string(), array));
        let mut tensors = NamedTensors::new(Path::new("x.pt"), BTreeMap::from(arrays), vec!["x (a string)".into()]);
        let message = |result: Result<Vec<f32>>| result.unwrap_err().to_string();
        assert!(message(tensors.take_f32("w", &[1, 2])).contains("w of shape [1, 2], found [2]"));
        assert_eq!(tensors.take_f32("w", &[2]).unwrap(), [1.5, -2.0]);
        assert!(message(tensors.take_f32("w", &[2])).contains("an array w, found only k, w, x (a string)"));
        assert!(tensors.end().unwrap_err().to_string().contains("only w, found also k"));
    }
}
