//! [`skim`]: walks through a GGUF header before it is parsed, and refuses sizes that no real model has. candle checks
//! lengths against the file, but it divides by the alignment and multiplies dimensions unchecked, and takes 32 bytes
//! for each element of a list, even for lists of single bytes.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
};

/// Longest list in a header: four times the largest existing vocabulary, 128 MiB in memory.
const MAX_ELEMENTS: u64 = 1 << 22;
/// Depth of lists of lists; no key of any model is deeper than one.
const MAX_DEPTH: usize = 2;
const MAX_DIMENSIONS: u32 = 4;

// The value types of the GGUF specification that are not numbers of a fixed size.
const STRING: u32 = 8;
const LIST: u32 = 9;

/// Checks the header of `file`; the error says what is wrong. The file must be at its start, and is again afterwards.
pub(super) fn skim(file: &mut File) -> Result<(), String> {
    let broken = |error: std::io::Error| error.to_string();
    let len = file.metadata().map_err(broken)?.len();
    let mut skimmer = Skimmer { len, reader: BufReader::new(&mut *file), at: 0, length_bytes: 8 };
    let outcome = skimmer.header();
    drop(skimmer);
    file.seek(SeekFrom::Start(0)).map_err(broken)?;
    outcome
}

struct Skimmer<'a> {
    len: u64,
    reader: BufReader<&'a mut File>,
    at: u64,
    /// Bytes of a count; in the first version of the format, 4.
    length_bytes: usize,
}

impl Skimmer<'_> {
    fn header(&mut self) -> Result<(), String> {
        if &self.bytes::<4>()? != b"GGUF" {
            return Err("a file of another kind".to_string());
        }
        match u32::from_le_bytes(self.bytes()?) {
            1 => self.length_bytes = 4,
            2 | 3 => {}
            version => return Err(format!("version {version} of the format")),
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

    fn alignment(&mut self, kind: u32) -> Result<(), String> {
        if kind != 4 {
            return Err(format!("an alignment of type {kind} instead of 4, a u32"));
        }
        let alignment = u32::from_le_bytes(self.bytes()?);
        if !alignment.is_power_of_two() || alignment > 1 << 16 {
            return Err(format!("an alignment of {alignment}"));
        }
        Ok(())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<(), String> {
        match kind {
            STRING => {
                let len = self.length()?;
                self.skip(len)
            }
            LIST => self.list(depth),
            _ => self.skip(size_of(kind)?),
        }
    }

    fn list(&mut self, depth: usize) -> Result<(), String> {
        let kind = u32::from_le_bytes(self.bytes()?);
        let n = self.length()?;
        if n > MAX_ELEMENTS || depth >= MAX_DEPTH {
            return Err(format!("a list of {n} elements at depth {depth}"));
        }
        match kind {
            STRING | LIST => (0..n).try_for_each(|_| self.value(kind, depth + 1)),
            _ => self.skip(size_of(kind)? * n),
        }
    }

    fn tensor(&mut self) -> Result<(), String> {
        self.key()?;
        let n = u32::from_le_bytes(self.bytes()?);
        if n > MAX_DIMENSIONS {
            return Err(format!("a tensor of {n} dimensions"));
        }
        let mut elements: u64 = 1;
        for _ in 0..n {
            let dimension = self.length()?;
            // No tensor type stores more than 32 elements per byte.
            elements = elements
                .checked_mul(dimension)
                .filter(|n| *n <= self.len.saturating_mul(32))
                .ok_or_else(|| format!("a tensor larger than the file, dimension {dimension}"))?;
        }
        self.skip(4 + 8) // type and offset
    }

    fn key(&mut self) -> Result<Vec<u8>, String> {
        let len = self.length()?;
        if len > 1 << 16 {
            return Err(format!("a name of {len} bytes"));
        }
        self.check_left(len)?;
        let mut key = vec![0; len as usize];
        self.read(&mut key)?;
        Ok(key)
    }

    fn length(&mut self) -> Result<u64, String> {
        if self.length_bytes == 4 {
            return Ok(u64::from(u32::from_le_bytes(self.bytes()?)));
        }
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), String> {
        self.check_left(into.len() as u64)?;
        self.at += into.len() as u64;
        self.reader.read_exact(into).map_err(|error| error.to_string())
    }

    fn skip(&mut self, n: u64) -> Result<(), String> {
        self.check_left(n)?;
        self.at += n;
        let n = i64::try_from(n).map_err(|error| error.to_string())?;
        self.reader.seek_relative(n).map_err(|error| error.to_string())
    }

    fn check_left(&self, n: u64) -> Result<(), String> {
        if n > self.len - self.at {
            return Err(format!("a length of {n} bytes with {} bytes left", self.len - self.at));
        }
        Ok(())
    }
}

/// Bytes of a number or a Boolean.
fn size_of(kind: u32) -> Result<u64, String> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(format!("a value of type {kind}")),
    }
}
