//! [`TorchFile`]: a dictionary saved by `torch.save`. It is a zip file with a pickle, which lists the tensors, and one
//! file of values per storage.
//!
//! ```text
//! NAME/data.pkl   NAME/data/0   NAME/data/1  ..   NAME/byteorder   NAME/version
//! ```
//!
//! No code in it is run (`pickle`). A storage must be uncompressed and exactly as long as the pickle says. A view must
//! stay within its storage and must not have more values than it. All views together may have at most [`MOST_SHARED`]
//! times the size of the file.

use std::{collections::BTreeMap, fs::File, io::BufReader, path::Path};

use harvester::write_atomically;
use zip::{CompressionMethod, ZipArchive};

use super::{
    named_tensors::{Array, NamedTensors, Numbers},
    pickle::{self, Value, View},
    zip_file::{unpacked, zipped},
};
use crate::{Error, Result};

/// The largest pickle that is read, in bytes. An SAE's has a few kilobytes.
const LARGEST_PICKLE: u64 = 1 << 20;

/// Tied weights are two tensors that share a storage. A file with a thousand tensors that share one storage would fill
/// the memory.
const MOST_SHARED: u64 = 4;

const HINT: &str = "Use a file in which torch.save saved an SAE's state_dict()";

/// A dictionary of tensors and plain values.
pub(super) struct TorchFile {
    pub(super) tensors: NamedTensors,
    pub(super) others: BTreeMap<String, Value>,
}

/// The zip file that is being read.
struct Archive<'a> {
    path: &'a Path,
    zip: ZipArchive<BufReader<File>>,
    /// The folder that contains every member.
    folder: String,
    /// Number of bytes of storages that may still be read.
    left: u64,
}

impl TorchFile {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut archive = Archive::open(path)?;
        let bytes = archive.member("data.pkl", LARGEST_PICKLE)?;
        let Value::Dict(entries) =
            pickle::read(&bytes).map_err(|found| archive.wrong("a dictionary of tensors", found))?
        else {
            return Err(archive.wrong("a dictionary of tensors", "another value"));
        };
        let (mut arrays, mut others) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in entries {
            match value {
                Value::Tensor(view) => drop(arrays.insert(name.to_string(), archive.array(&name, &view)?)),
                value => drop(others.insert(name.to_string(), value)),
            }
        }
        let kinds = others.iter().map(|(name, value)| format!("{name} ({})", value.kind()));
        Ok(Self { tensors: NamedTensors::new(path, arrays, kinds.collect()), others })
    }
}

impl<'a> Archive<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let left = file.metadata().map_err(Error::io("read", path))?.len().saturating_mul(MOST_SHARED);
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|error| {
            let hint = "The file is truncated, or PyTorch before 1.6 wrote it: torch.load and torch.save it again";
            Error::malformed(path, "a complete zip file, as torch.save writes it", error.to_string(), hint)
        })?;
        let pickle = zip.file_names().filter_map(|name| Some(name.ok()?.strip_suffix("data.pkl")?.to_string())).next();
        let folder = pickle.ok_or_else(|| Error::malformed(path, "data.pkl in the zip file", "none", HINT))?;
        let mut archive = Self { path, zip, folder, left };
        if archive.zip.by_name(&format!("{}byteorder", archive.folder)).is_ok() {
            let order = archive.member("byteorder", 16)?;
            if order.trim_ascii() != b"little" {
                let found = String::from_utf8_lossy(&order).into_owned();
                return Err(archive.wrong("numbers in the byte order `little`", format!("`{found}`")));
            }
        }
        Ok(archive)
    }

    fn array(&mut self, name: &str, view: &View) -> Result<Array> {
        let len = self.len_of(name, view)?;
        let View { storage, offset, shape, stride } = view;
        if len == 0 {
            return Ok(Array { shape: shape.clone(), numbers: storage.stored.numbers(&[]) });
        }
        let expected = (storage.len as u64).saturating_mul(storage.stored.bytes() as u64);
        self.left = self.left.checked_sub(expected).ok_or_else(|| {
            self.wrong(
                format!("tensors of at most {MOST_SHARED} times the size of the file"),
                format!("more, with {name}"),
            )
        })?;
        let bytes = self.member(&format!("data/{}", storage.key), expected)?;
        if bytes.len() as u64 != expected {
            return Err(self.wrong(format!("{expected} bytes of {name}"), format!("{}", bytes.len())));
        }
        let indices = indices(shape, stride, *offset, len);
        let numbers = match storage.stored.numbers(&bytes) {
            Numbers::Float(all) => Numbers::Float(gathered(all, indices, len)),
            Numbers::Int(all) => Numbers::Int(gathered(all, indices, len)),
        };
        Ok(Array { shape: shape.clone(), numbers })
    }

    /// Number of values of a view; checks that all of them are within its storage.
    fn len_of(&self, name: &str, View { storage, offset, shape, stride }: &View) -> Result<usize> {
        let len = shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size)).filter(|&len| len <= storage.len);
        let len = len.ok_or_else(|| {
            let expected = format!("{name} of at most the {} values of its storage", storage.len);
            self.wrong(expected, format!("shape {shape:?}"))
        })?;
        let last = shape
            .iter()
            .zip(stride)
            .try_fold(*offset, |last, (&size, &stride)| last.checked_add(size.saturating_sub(1).checked_mul(stride)?));
        if len > 0 && last.is_none_or(|last| last >= storage.len) {
            let expected = format!("{name} within the {} values of its storage", storage.len);
            return Err(self.wrong(expected, format!("shape {shape:?}, stride {stride:?}, offset {offset}")));
        }
        Ok(len)
    }

    /// The bytes of a member, at most `most`. torch does not compress members.
    fn member(&mut self, name: &str, most: u64) -> Result<Vec<u8>> {
        let full = format!("{}{name}", self.folder);
        let damaged = |found: String| Error::malformed(self.path, format!("{name} in the zip file"), found, HINT);
        let member = self.zip.by_name(&full).map_err(|error| damaged(error.to_string()))?;
        if member.compression() != CompressionMethod::Stored {
            return Err(damaged("a compressed one, which torch never writes".into()));
        }
        unpacked(member, most).map_err(damaged)
    }

    fn wrong(&self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::malformed(self.path, expected, found, HINT)
    }
}

/// For a view that is not empty: the index of each of its values in the storage, row-major. `None` if the view is the
/// first values of the storage, in order.
fn indices(shape: &[usize], stride: &[usize], offset: usize, len: usize) -> Option<Vec<usize>> {
    let mut contiguous = 1;
    let lies_in_order = shape.iter().zip(stride).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == contiguous;
        contiguous *= size;
        fits
    });
    if lies_in_order && offset == 0 {
        return None;
    }
    let mut indices = vec![offset];
    for (&size, &stride) in shape.iter().zip(stride) {
        indices = indices.iter().flat_map(|index| (0..size).map(move |at| index + at * stride)).collect();
    }
    indices.truncate(len);
    Some(indices)
}

fn gathered<T: Copy>(mut all: Vec<T>, indices: Option<Vec<usize>>, len: usize) -> Vec<T> {
    match indices {
        Some(indices) => indices.iter().map(|&index| all[index]).collect(),
        None => {
            all.truncate(len);
            all
        }
    }
}

/// A value to write.
pub(super) enum Item<'a> {
    Floats(Vec<usize>, &'a [f32]),
    Longs(Vec<usize>, Vec<i64>),
    /// A 32-bit tensor without dimensions.
    Int32(i32),
    Int(i64),
    Text(&'a str),
    Dict(Vec<(&'a str, Item<'a>)>),
}

/// Writes a dictionary as `torch.save` does.
pub(super) fn write(path: &Path, entries: Vec<(&str, Item<'_>)>) -> Result<()> {
    let mut pickle = b"\x80\x02".to_vec();
    let mut storages = vec![];
    Item::Dict(entries).pickle(&mut pickle, &mut storages);
    pickle.push(b'.');
    let mut members = vec![("data.pkl".to_string(), pickle), ("byteorder".to_string(), b"little".to_vec())];
    members.extend(storages.into_iter().enumerate().map(|(key, bytes)| (format!("data/{key}"), bytes)));
    members.push(("version".into(), b"3\n".to_vec()));
    let zip = zipped(members, "archive/").map_err(|error| Error::io("write", path)(std::io::Error::other(error)))?;
    write_atomically(path, &zip)?;
    Ok(())
}

impl Item<'_> {
    fn pickle(self, pickle: &mut Vec<u8>, storages: &mut Vec<Vec<u8>>) {
        match self {
            Self::Floats(shape, values) => {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                tensor(pickle, storages, ("FloatStorage", &shape, values.len()), bytes);
            }
            Self::Longs(shape, values) => {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                tensor(pickle, storages, ("LongStorage", &shape, values.len()), bytes);
            }
            Self::Int32(value) => tensor(pickle, storages, ("IntStorage", &[], 1), value.to_le_bytes().to_vec()),
            Self::Int(value) => int(pickle, value),
            Self::Text(value) => text(pickle, value),
            Self::Dict(entries) => {
                pickle.extend(b"}(");
                for (key, item) in entries {
                    text(pickle, key);
                    item.pickle(pickle, storages);
                }
                pickle.push(b'u');
            }
        }
    }
}

/// `_rebuild_tensor_v2(('storage', torch.X, key, 'cpu', len), 0, shape, stride, False, OrderedDict())`
fn tensor(
    pickle: &mut Vec<u8>,
    storages: &mut Vec<Vec<u8>>,
    (storage, shape, len): (&str, &[usize], usize),
    bytes: Vec<u8>,
) {
    pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(pickle, "storage");
    pickle.extend(format!("ctorch\n{storage}\n").bytes());
    text(pickle, &storages.len().to_string());
    text(pickle, "cpu");
    int(pickle, len as i64);
    pickle.extend(b"tQ");
    int(pickle, 0);
    let stride: Vec<usize> = (0..shape.len()).map(|at| shape[at + 1..].iter().product()).collect();
    for sizes in [shape, &stride] {
        pickle.push(b'(');
        sizes.iter().for_each(|&size| int(pickle, size as i64));
        pickle.push(b't');
    }
    pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    storages.push(bytes);
}

fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.bytes());
}

fn int(pickle: &mut Vec<u8>, value: i64) {
    match i32::try_from(value) {
        Ok(value) => {
            pickle.push(b'J');
            pickle.extend(value.to_le_bytes());
        }
        Err(_) => {
            pickle.extend(b"\x8a\x08");
            pickle.extend(value.to_le_bytes());
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn items() -> Vec<(&'static str, Item<'static>)> {
        let inner = Item::Dict(vec![("k", Item::Int(1 << 40)), ("name", Item::Text("ReLU"))]);
        vec![
            ("w", Item::Floats(vec![2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
            ("k", Item::Int32(-7)),
            ("counts", Item::Longs(vec![2], vec![3, 4])),
            ("inner", inner),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pt");
        write(&path, items()).unwrap();
        let mut file = TorchFile::read(&path).unwrap();
        assert_eq!(file.tensors.take_f32("w", &[2, 3]).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(file.tensors.take_int("k", &[]).unwrap(), [-7]);
        assert_eq!(file.tensors.take_int("counts", &[2]).unwrap(), [3, 4]);
        assert_eq!(file.others["inner"].field("k").unwrap().size(), Some(1 << 40));
        assert_eq!(file.others["inner"].field("name").unwrap().text(), Some("ReLU"));
        file.tensors.end().unwrap();
    }

    #[test]
    fn strides_and_offsets_are_honored() {
        assert_eq!(indices(&[2, 3], &[3, 1], 0, 6), None);
        assert_eq!(indices(&[3, 2], &[1, 3], 0, 6), Some(vec![0, 3, 1, 4, 2, 5]));
        assert_eq!(indices(&[2], &[1], 4, 2), Some(vec![4, 5]));
        assert_eq!(gathered(vec![7, 8, 9], None, 2), [7, 8]);
    }

    #[test]
    fn a_spoiled_number_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pt");
        write(&path, items()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(4).position(|window| window == 5f32.to_le_bytes()).unwrap();
        bytes[at] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
        let message = TorchFile::read(&path).map(drop).unwrap_err().to_string();
        assert!(message.contains("x.pt") && message.contains("data/0") && message.contains("checksum"), "{message}");
    }

    /// Reads a torch file with one tensor, `w`, whose pickle was changed.
    fn changed(from: &[u8], to: &[u8]) -> Result<TorchFile> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pt");
        let (mut pickle, mut storages) = (b"\x80\x02".to_vec(), vec![]);
        Item::Dict(vec![("w", Item::Floats(vec![2, 3], &[0.0; 6]))]).pickle(&mut pickle, &mut storages);
        pickle.push(b'.');
        let at = pickle.windows(from.len()).position(|window| window == from).unwrap();
        pickle.splice(at..at + from.len(), to.iter().copied());
        let members = vec![("data.pkl".to_string(), pickle), ("data/0".to_string(), storages.remove(0))];
        std::fs::write(&path, zipped(members, "archive/").unwrap()).unwrap();
        TorchFile::read(&path)
    }

    #[test]
    fn views_past_their_storage_are_refused() {
        let refused = |from: &[u8], to: &[u8]| changed(from, to).map(drop).unwrap_err().to_string();
        let shape = b"(J\x02\0\0\0J\x03\0\0\0t";
        assert!(refused(shape, b"(J\x02\0\0\0J\x04\0\0\0t").contains("at most the 6 values"));
        assert!(refused(b"(J\x03\0\0\0J\x01\0\0\0t", b"(J\x05\0\0\0J\x01\0\0\0t").contains("within the 6 values"));
        assert!(refused(b"J\x06\0\0\0tQ", b"J\x07\0\0\0tQ").contains("28 bytes of w, found 24"));
        assert!(
            refused(b"J\x06\0\0\0tQ", b"J\0\0\x01\0tQ").contains("tensors of at most 4 times the size of the file")
        );
        assert!(refused(b"ctorch\nFloatStorage", b"cposix\nsystem").contains("`posix.system`"));
        // 2^40 empty rows have no values; 2^80 of them are too many to count.
        let rows: &[u8] = b"\x8a\x06\0\0\0\0\0\x01";
        let mut empty = changed(shape, &[b"(", rows, b"K\0t"].concat()).unwrap().tensors;
        assert!(empty.take_f32("w", &[1 << 40, 0]).unwrap().is_empty());
        let view: &[u8] = b"J\0\0\0\0(J\x02\0\0\0J\x03\0\0\0t(J\x03\0\0\0J\x01\0\0\0t";
        let three = [b"K\0(", rows, rows, b"K\0t(K\x01K\x01K\x01t"].concat();
        assert!(refused(view, &three).contains("at most the 6 values"));
    }
}
