//! SHA-256 in lower-case hexadecimal, as in every manifest.

use std::{fs::File, io::Read, path::Path};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// SHA-256 of a file's bytes. Reads it in pieces.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256_file(path: &Path) -> Result<String> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    sha256_reader(file).map_err(Error::io("read", path))
}

/// SHA-256 of all bytes of `reader`.
pub(super) fn sha256_reader(mut reader: impl Read) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}

/// SHA-256 of the concatenated `chunks`.
pub fn sha256_bytes(chunks: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut hasher = Sha256::new();
    chunks.into_iter().for_each(|chunk| hasher.update(chunk));
    hex(&hasher.finalize())
}

/// Checks the hash found at `place` against the recorded one. `None`: there is no file.
///
/// # Errors
/// If it is another one; `hint` then says what to do.
pub(crate) fn expect_sha256(place: impl AsRef<Path>, recorded: &str, found: Option<&str>, hint: &str) -> Result<()> {
    if found == Some(recorded) {
        return Ok(());
    }
    let found = found.map_or("no such file".into(), |found| format!("SHA-256 {found}"));
    Err(Error::malformed(place, format!("SHA-256 {recorded}"), found, hint))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
