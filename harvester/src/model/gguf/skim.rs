//! [`skim`]: walks through a GGUF header before it is parsed, and refuses sizes that no real model has. candle checks
//! lengths against the file, but it divides by the alignment and multiplies dimensions unchecked, and takes 32 bytes
//! for each element of a list, even for lists of single bytes.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use crate::{Error, Result, source::stand_in};

/// Next step for a file that is whole and wrong.
pub(super) const MEND: &str = "The file is damaged, or has a newer format: get it again, or another file of the model";
/// Next step for a file that ends too early.
pub(super) const CUT: &str = "Download it again: it may have been cut short";

/// Longest list in a header: four times the largest existing vocabulary, 128 MiB in memory.
const MAX_ELEMENTS: u64 = 1 << 22;
/// Depth of lists of lists; no key of any model is deeper than one.
const MAX_DEPTH: usize = 2;
const MAX_DIMENSIONS: u32 = 4;

// The value types of the GGUF specification that are not numbers of a fixed size.
const STRING: u32 = 8;
const LIST: u32 = 9;

/// ggml's tensor types by number (`enum ggml_type`), and whether candle reads them.
const TYPES: [(u32, &str, bool); 37] = [
    (0, "F32", true),
    (1, "F16", true),
    (2, "Q4_0", true),
    (3, "Q4_1", true),
    (6, "Q5_0", true),
    (7, "Q5_1", true),
    (8, "Q8_0", true),
    (9, "Q8_1", false),
    (10, "Q2_K", true),
    (11, "Q3_K", true),
    (12, "Q4_K", true),
    (13, "Q5_K", true),
    (14, "Q6_K", true),
    (15, "Q8_K", false),
    (16, "IQ2_XXS", false),
    (17, "IQ2_XS", false),
    (18, "IQ3_XXS", false),
    (19, "IQ1_S", false),
    (20, "IQ4_NL", false),
    (21, "IQ3_S", false),
    (22, "IQ2_S", false),
    (23, "IQ4_XS", false),
    (24, "I8", false),
    (25, "I16", false),
    (26, "I32", false),
    (27, "I64", false),
    (28, "F64", false),
    (29, "IQ1_M", false),
    (30, "BF16", true),
    (31, "Q4_0_4_4", false),
    (32, "Q4_0_4_8", false),
    (33, "Q4_0_8_8", false),
    (34, "TQ1_0", false),
    (35, "TQ2_0", false),
    (39, "MXFP4", false),
    (40, "NVFP4", false),
    (41, "Q1_0", false),
];

/// Checks the header of `file`. The file must be at its start, and is again afterwards.
///
/// # Errors
/// The header is damaged, or the file is of a kind that is not read.
pub(super) fn skim(path: &Path, file: &mut File) -> Result<()> {
    let len = file.metadata().map_err(Error::io("read", path))?.len();
    let mut skimmer = Skimmer { len, reader: BufReader::new(&mut *file), at: 0, length_bytes: 8 };
    let outcome = skimmer.header();
    drop(skimmer);
    file.seek(SeekFrom::Start(0)).map_err(Error::io("read", path))?;
    outcome.map_err(|refusal| {
        let (found, hint) = match stand_in(path) {
            Some((found, hint)) => (found.to_owned(), hint),
            None => (refusal.found, refusal.hint),
        };
        Error::malformed(path, refusal.expected, found, hint)
    })
}

/// Why a header is refused.
struct Refusal {
    expected: String,
    found: String,
    hint: &'static str,
}

impl Refusal {
    fn new(found: impl Into<String>, hint: &'static str) -> Self {
        Self { expected: "a GGUF header".into(), found: found.into(), hint }
    }
}

/// A header that no writer makes.
impl From<String> for Refusal {
    fn from(found: String) -> Self {
        Self::new(found, MEND)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string(), "Try again; the file could not be read")
    }
}

type Skimmed<T = ()> = Result<T, Refusal>;

struct Skimmer<'a> {
    len: u64,
    reader: BufReader<&'a mut File>,
    at: u64,
    /// Bytes of a count; in the first version of the format, 4.
    length_bytes: usize,
}

impl Skimmer<'_> {
    fn header(&mut self) -> Skimmed {
        match &self.bytes::<4>()? {
            b"GGUF" => {}
            b"ggjt" | b"lmgg" | b"fmgg" | b"tjgg" => {
                let hint = "Convert the original model again with llama.cpp's convert_hf_to_gguf.py";
                return Err(Refusal::new("a GGML file, the format before GGUF", hint));
            }
            _ => return Err(Refusal::new("a file of another kind", "Name a .gguf file, or a folder with config.json")),
        }
        match u32::from_le_bytes(self.bytes()?) {
            1 => self.length_bytes = 4,
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 1..=3) => {
                let hint = "Turn it with gguf_convert_endian.py of llama.cpp, or get the little-endian file";
                return Err(Refusal::new("a big-endian file", hint));
            }
            version => return Err(format!("version {version} of the format").into()),
        }
        let (n_tensors, n_values) = (self.length()?, self.length()?);
        for _ in 0..n_values {
            let key = self.key()?;
            let kind = u32::from_le_bytes(self.bytes()?);
            if key == b"general.alignment" {
                self.alignment(kind)?;
            } else {
                self.value(kind, 0)?;
            }
        }
        (0..n_tensors).try_for_each(|_| self.tensor())
    }

    fn alignment(&mut self, kind: u32) -> Skimmed {
        if kind != 4 {
            return Err(format!("an alignment of type {kind} instead of 4, a u32").into());
        }
        let alignment = u32::from_le_bytes(self.bytes()?);
        if !alignment.is_power_of_two() || alignment > 1 << 16 {
            return Err(format!("an alignment of {alignment}").into());
        }
        Ok(())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Skimmed {
        match kind {
            STRING => {
                let len = self.length()?;
                self.skip(len)
            }
            LIST => self.list(depth),
            _ => self.skip(size_of(kind)?),
        }
    }

    fn list(&mut self, depth: usize) -> Skimmed {
        let kind = u32::from_le_bytes(self.bytes()?);
        let n = self.length()?;
        if n > MAX_ELEMENTS || depth >= MAX_DEPTH {
            return Err(format!("a list of {n} elements at depth {depth}").into());
        }
        match kind {
            STRING | LIST => (0..n).try_for_each(|_| self.value(kind, depth + 1)),
            _ => self.skip(size_of(kind)? * n),
        }
    }

    fn tensor(&mut self) -> Skimmed {
        let name = self.key()?;
        let n = u32::from_le_bytes(self.bytes()?);
        if n > MAX_DIMENSIONS {
            return Err(format!("a tensor of {n} dimensions").into());
        }
        let mut elements: u64 = 1;
        for _ in 0..n {
            let dimension = self.length()?;
            // No tensor type stores more than 32 elements per byte.
            elements = elements
                .checked_mul(dimension)
                .filter(|n| *n <= self.len.saturating_mul(32))
                .ok_or_else(|| Refusal::new(format!("a tensor larger than the file, dimension {dimension}"), CUT))?;
        }
        let kind = u32::from_le_bytes(self.bytes()?);
        self.skip(8)?; // offset
        check_type(&String::from_utf8_lossy(&name), kind)
    }

    fn key(&mut self) -> Skimmed<Vec<u8>> {
        let len = self.length()?;
        if len > 1 << 16 {
            return Err(format!("a name of {len} bytes").into());
        }
        self.check_left(len)?;
        let mut key = vec![0; len as usize];
        self.read(&mut key)?;
        Ok(key)
    }

    fn length(&mut self) -> Skimmed<u64> {
        if self.length_bytes == 4 {
            return Ok(u64::from(u32::from_le_bytes(self.bytes()?)));
        }
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn bytes<const N: usize>(&mut self) -> Skimmed<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn read(&mut self, into: &mut [u8]) -> Skimmed {
        self.check_left(into.len() as u64)?;
        self.at += into.len() as u64;
        Ok(self.reader.read_exact(into)?)
    }

    fn skip(&mut self, n: u64) -> Skimmed {
        self.check_left(n)?;
        self.at += n;
        // Lengths of files fit in an i64.
        Ok(self.reader.seek_relative(n as i64)?)
    }

    fn check_left(&self, n: u64) -> Skimmed {
        let left = self.len - self.at;
        if n > left {
            return Err(Refusal::new(format!("a length of {n} bytes with {left} bytes left"), CUT));
        }
        Ok(())
    }
}

/// Refuses a tensor of a type that is not read, by the type's name.
fn check_type(tensor: &str, kind: u32) -> Skimmed {
    let name = TYPES.iter().find(|(number, ..)| *number == kind);
    if matches!(name, Some((.., true))) {
        return Ok(());
    }
    let read: Vec<_> = TYPES.iter().filter(|(.., is_read)| *is_read).map(|(_, name, _)| *name).collect();
    Err(Refusal {
        expected: format!("tensor `{tensor}` to have one of the types {}", read.join(", ")),
        found: name.map_or_else(|| format!("type {kind}"), |(_, name, _)| (*name).to_owned()),
        hint: "Get a file of the model in one of these types, or make one with llama-quantize",
    })
}

/// Bytes of a number or a Boolean.
fn size_of(kind: u32) -> Skimmed<u64> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(format!("a value of type {kind}").into()),
    }
}
