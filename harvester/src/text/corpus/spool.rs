//! [`spool`]: makes a plain local copy of a file that cannot be read at any offset: compressed files, files in an
//! object store, standard input and pipes. The copy is kept in the cache under the hash of its content, so it is made
//! once; documents are then read from it as from any other file.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use sha2::{Digest, Sha256};

use crate::{
    Error, Location, Result,
    store::{cache_folder, hex},
};

/// Compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    Gzip,
    Zstandard,
    Bzip2,
    Xz,
}

/// Largest window of a zstandard frame, as a power of two: `zstd --long=31` of the Reddit dumps. It is allocated only
/// if a frame says so.
const WINDOW_LOG: u32 = 31;

impl Packed {
    /// Detects the compression from the first bytes; the file's name does not matter.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // A file of pzstd begins with a frame to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstandard),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            [0xfd, b'7', b'z', b'X', ..] => Some(Self::Xz),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstandard => "zstandard",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        }
    }

    /// Writes the plain content of `packed`.
    fn unpack(self, packed: impl Read, plain: &mut impl Write) -> io::Result<u64> {
        match self {
            Self::Gzip => unpack_gzip(BufReader::new(packed), plain),
            Self::Zstandard => {
                let mut decoder = zstd::stream::read::Decoder::new(packed)?;
                decoder.window_log_max(WINDOW_LOG)?;
                io::copy(&mut decoder, plain)
            }
            Self::Bzip2 => io::copy(&mut bzip2::read::MultiBzDecoder::new(packed), plain),
            Self::Xz => io::copy(&mut lzma_rust2::XzReader::new(BufReader::new(packed), true), plain),
        }
    }
}

/// The members of a gzip file, one after the other. Zeros after them fill up a block of a tape or a disk, and are no
/// part of them (`gzip -d` and Python skip them too).
fn unpack_gzip(mut packed: impl BufRead, plain: &mut impl Write) -> io::Result<u64> {
    let mut written = 0;
    loop {
        written += io::copy(&mut flate2::bufread::GzDecoder::new(&mut packed), plain)?;
        loop {
            let next = packed.fill_buf()?;
            if next.is_empty() {
                return Ok(written);
            }
            let zeros = next.iter().take_while(|byte| **byte == 0).count();
            let is_over = zeros < next.len();
            let is_member = next[zeros..].first() == Some(&0x1f);
            packed.consume(zeros);
            if is_over && !is_member {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes after its end that are not packed"));
            }
            if is_over {
                break;
            }
        }
    }
}

/// A plain copy of a file.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) path: PathBuf,
    /// SHA-256 of the original file.
    pub(super) sha256: String,
}

/// Copies the plain content of the file at `location`.
pub(super) fn spool(location: &Location, packed: Option<Packed>) -> Result<Spooled> {
    let name = location.to_string();
    copy(location.reader()?, packed, Path::new(&name))
}

/// Copies standard input or a named pipe to its end. It can be read only once.
pub(super) fn spool_stream(stream: impl Read + Send + 'static, name: &str) -> Result<Spooled> {
    let path = Path::new(name);
    let mut input = BufReader::new(stream);
    let start = input.fill_buf().map_err(Error::io("read", path))?;
    let packed = Packed::of(start);
    copy(Box::new(input), packed, path)
}

fn copy(from: Box<dyn Read + Send>, packed: Option<Packed>, name: &Path) -> Result<Spooled> {
    let folder = cache_folder()?.join("corpora");
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let mut plain = tempfile_in(&folder)?;
    let mut hashing = Hashing { from, hasher: Sha256::new() };
    tracing::info!("copying the plain content of {} to {}", name.display(), folder.display());
    let written = match packed {
        None => io::copy(&mut hashing, &mut plain.file),
        Some(packed) => packed.unpack(&mut hashing, &mut plain.file),
    };
    written.map_err(|error| damaged(error, packed, name, &plain.path))?;
    // Bytes after the decoder's last frame are part of the file too.
    io::copy(&mut hashing, &mut io::sink()).map_err(Error::io("read", name))?;
    // A later run trusts what has the hash as its name, also after a power failure.
    plain.file.sync_all().map_err(Error::io("flush to disk", &plain.path))?;
    let sha256 = hex(&hashing.hasher.finalize());
    let path = folder.join(&sha256);
    fs::rename(&plain.path, &path).map_err(Error::io("rename to", &path))?;
    Ok(Spooled { path, sha256 })
}

/// A failure of the disk is reported as such; any other error means that the file is damaged.
fn damaged(error: io::Error, packed: Option<Packed>, name: &Path, plain: &Path) -> Error {
    match (packed, error.kind()) {
        (_, io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::QuotaExceeded) => {
            Error::io("write", plain)(error)
        }
        (Some(packed), _) => {
            let hint = match error.kind() {
                io::ErrorKind::InvalidData => "Download it again, or remove what follows the packed data",
                _ => "Download it again: it may have been cut short",
            };
            Error::malformed(name, format!("a whole {} file", packed.name()), error.to_string(), hint)
        }
        (None, _) => Error::io("read", name)(error),
    }
}

/// A file that is removed on drop unless it was renamed.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // best effort; after a rename there is nothing to remove
    }
}

fn tempfile_in(folder: &Path) -> Result<Temporary> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("{}-{number}.tmp", std::process::id()));
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    Ok(Temporary { path, file })
}

/// Hashes the bytes that are read through it.
struct Hashing {
    from: Box<dyn Read + Send>,
    hasher: Sha256,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(packed: &[u8]) -> io::Result<String> {
        let mut plain = vec![];
        Packed::of(packed).unwrap().unpack(packed, &mut plain)?;
        Ok(String::from_utf8(plain).unwrap())
    }

    #[test]
    fn members_of_gzip_follow_each_other_with_zeros_between_and_after_them() {
        let file = [gzip("one "), gzip(""), vec![0; 7], gzip("two"), vec![0; 512]].concat();
        assert_eq!(unpacked(&file).unwrap(), "one two");
        let error = unpacked(&[gzip("one"), b"garbage".to_vec()].concat()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let whole = gzip(&"one ".repeat(99));
        assert_eq!(unpacked(&whole[..whole.len() - 5]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn zstandard_has_frames_to_skip_and_windows_of_2_gib() {
        // Frames of the zstd command: --long=31 of "long ", and one of its plain "frame".
        let long = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8][..], &[0x29, 0, 0], b"long "].concat();
        let skipped = [&[0x5f, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, 5][..], &[0x29, 0, 0], b"frame"].concat();
        assert_eq!(unpacked(&[skipped, long, frame].concat()).unwrap(), "long frame");
    }
}
