//! NumPy's `.npz`: a zip file of `.npy` files. Each has a header with type and shape, followed by the values.

use std::{collections::BTreeMap, fs::File, io::BufReader, path::Path};

use harvester::write_atomically;
use zip::ZipArchive;

use super::{
    named_tensors::{Array, NamedTensors, Numbers, Stored},
    transpose::transposed,
    zip_file::{unpacked, zipped},
};
use crate::{Error, Result};

const HINT: &str = "Use a file in which numpy.savez saved an SAE's arrays";
const MAGIC: &[u8] = b"\x93NUMPY";
/// Trained weights hardly compress. A file whose members are together more than this many times larger than the file
/// itself (after the first bytes) is a zip bomb.
const LARGEST_RATIO: u64 = 20;
const FREE_BYTES: u64 = 1 << 20;

/// Reads every array of the file.
pub(super) fn read(path: &Path) -> Result<NamedTensors> {
    let wrong = |expected: &str, found: String| Error::malformed(path, expected, found, HINT);
    let file = File::open(path).map_err(Error::io("open", path))?;
    let len = file.metadata().map_err(Error::io("read", path))?.len();
    let mut left = len.saturating_mul(LARGEST_RATIO).saturating_add(FREE_BYTES);
    let mut zip = ZipArchive::new(BufReader::new(file))
        .map_err(|error| wrong("a complete .npz file, which is a zip file", error.to_string()))?;
    let mut arrays = BTreeMap::new();
    for index in 0..zip.len() {
        let member = zip.by_index(index).map_err(|error| wrong("a complete .npz file", error.to_string()))?;
        let file_name = member.name().map(|name| name.into_owned()).unwrap_or_default();
        let name = file_name.strip_suffix(".npy").ok_or_else(|| wrong("only .npy files in it", file_name.clone()))?;
        let expected = format!("a complete {name}, at most {LARGEST_RATIO} times the size of the file");
        let bytes = unpacked(member, left).map_err(|found| wrong(&expected, found))?;
        left -= bytes.len() as u64;
        let array = npy(&bytes).map_err(|found| wrong(&format!("{name} in the .npy format"), found))?;
        if arrays.insert(name.to_string(), array).is_some() {
            return Err(wrong("each array once", format!("{name} twice")));
        }
    }
    Ok(NamedTensors::new(path, arrays, vec![]))
}

/// Parses a .npy file: magic, version, length of the header, header as a Python dictionary, values.
fn npy(bytes: &[u8]) -> std::result::Result<Array, String> {
    let (Some(version), true) = (bytes.get(MAGIC.len()), bytes.starts_with(MAGIC)) else {
        return Err("other first bytes".into());
    };
    let begin = MAGIC.len() + 2 + if *version == 1 { 2 } else { 4 };
    let length = bytes.get(MAGIC.len() + 2..begin).ok_or("the end of the file")?;
    let length = length.iter().rev().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
    let end = begin.checked_add(length).filter(|&end| end <= bytes.len()).ok_or("the end of the file")?;
    let header = std::str::from_utf8(&bytes[begin..end]).map_err(|error| error.to_string())?;
    let stored = match field(header, "descr").map(|text| text.trim_matches(['\'', '"'])) {
        Some("<f4") => Stored::F32,
        Some("<f8") => Stored::F64,
        Some("<f2") => Stored::F16,
        Some("<i8") => Stored::I64,
        Some("<i4") => Stored::I32,
        other => return Err(format!("the type {}", other.unwrap_or("none"))),
    };
    let shape = shape(header).ok_or_else(|| format!("the header {header}"))?;
    let len = shape.iter().try_fold(stored.bytes(), |len, &size| len.checked_mul(size));
    if len != Some(bytes.len() - end) {
        return Err(format!("{} bytes of values for shape {shape:?}", bytes.len() - end));
    }
    let numbers = stored.numbers(&bytes[end..]);
    match (field(header, "fortran_order"), &shape[..], numbers) {
        // Stored column by column: these are the rows of the transpose.
        (Some("True"), &[rows, columns], Numbers::Float(values)) => {
            Ok(Array { numbers: Numbers::Float(transposed(&values, columns, rows)), shape })
        }
        (Some("False"), _, numbers) => Ok(Array { shape, numbers }),
        (Some("True"), [] | [_], numbers) => Ok(Array { shape, numbers }),
        (order, ..) => Err(format!("fortran_order {}", order.unwrap_or("none"))),
    }
}

/// The text after `'name':` up to the next comma.
fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let rest = header.split_once(&format!("'{name}':"))?.1;
    Some(rest.split([',', '}']).next()?.trim())
}

fn shape(header: &str) -> Option<Vec<usize>> {
    let rest = header.split_once("'shape':")?.1.trim_start().strip_prefix('(')?;
    let sizes = rest.split_once(')')?.0;
    sizes.split(',').map(str::trim).filter(|size| !size.is_empty()).map(|size| size.parse().ok()).collect()
}

/// Writes arrays of 32-bit floats.
pub(super) fn write(path: &Path, arrays: &[(&str, &[usize], &[f32])]) -> Result<()> {
    let members = arrays.iter().map(|(name, shape, values)| (format!("{name}.npy"), npy_bytes(shape, values)));
    let zip = zipped(members.collect(), "").map_err(|error| Error::io("write", path)(std::io::Error::other(error)))?;
    write_atomically(path, &zip)?;
    Ok(())
}

/// The header is padded so that the values begin at a multiple of 64.
fn npy_bytes(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", sizes.trim_end());
    let begin = MAGIC.len() + 4;
    let padding = (begin + header.len() + 1).next_multiple_of(64) - begin - header.len() - 1;
    let header = format!("{header}{}\n", " ".repeat(padding));
    let mut bytes = [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let array = npy(&npy_bytes(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])).unwrap();
        let numbers = Numbers::Float(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(array, Array { shape: vec![2, 3], numbers });
        assert_eq!(npy(&npy_bytes(&[4], &[0.5; 4])).unwrap().shape, [4]);
        assert_eq!(npy_bytes(&[4], &[0.5; 4]).len() % 64, 16);
    }

    #[test]
    fn columns_one_after_the_other_are_turned() {
        let bytes = npy_bytes(&[2, 3], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        let text = b"'fortran_order': False";
        let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
        let mut turned = bytes.clone();
        turned.splice(at..at + text.len(), b"'fortran_order': True ".iter().copied());
        assert_eq!(npy(&turned).unwrap().numbers, Numbers::Float(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    }

    #[test]
    fn broken_arrays_are_errors() {
        let good = npy_bytes(&[2, 3], &[0.0; 6]);
        for len in [0, 5, 7, 9, 40, good.len() - 1] {
            assert!(npy(&good[..len]).is_err(), "{len} bytes");
        }
        let mut other = good.clone();
        let at = good.windows(3).position(|window| window == b"<f4").unwrap();
        other[at] = b'>';
        assert!(npy(&other).unwrap_err().contains(">f4"));
    }
}
