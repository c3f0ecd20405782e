//! [`scan`]: one pass over a corpus file: its hash, whether it is text, and where its documents lie.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::discover::FileKind;
use crate::{Error, Result, atomic::hex};

/// What a file holds.
pub(super) enum Scanned {
    Text(ScannedFile),
    /// The error that says so, for the caller to raise or to log.
    NotText(Error),
}

/// A text file's documents.
pub(super) struct ScannedFile {
    pub(super) sha256: String,
    pub(super) bytes: u64,
    pub(super) documents: Vec<ScannedDocument>,
}

/// Where a document lies in its file, and the first 16 bytes of its text's SHA-256.
pub(super) struct ScannedDocument {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) hash: [u8; 16],
}

/// Reads the file at `path` once, in pieces.
pub(super) fn scan(path: &Path, kind: FileKind, text_field: &str) -> Result<Scanned> {
    match kind {
        FileKind::Text => scan_text(path),
        FileKind::JsonLines => scan_lines(path, text_field).map(Scanned::Text),
    }
}

fn scan_text(path: &Path) -> Result<Scanned> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let (mut carried, mut bytes) = (0, 0); // a character cut by the end of a piece is carried to the next one
    loop {
        let read = file.read(&mut buffer[carried..]).map_err(Error::io("read", path))?;
        hasher.update(&buffer[carried..carried + read]);
        let start = bytes - carried as u64;
        bytes += read as u64;
        let piece = &buffer[..carried + read];
        let checked = match text_end(piece) {
            Ok(end) if read > 0 || end == piece.len() => end,
            Ok(end) | Err(end) => return Ok(Scanned::NotText(not_text(path, start + end as u64, piece[end]))),
        };
        if read == 0 {
            break;
        }
        carried = piece.len() - checked;
        buffer.copy_within(checked..checked + carried, 0);
    }
    let digest = hasher.finalize();
    let document = ScannedDocument { offset: 0, bytes, hash: first_16(&digest) };
    Ok(Scanned::Text(ScannedFile { sha256: hex(&digest), bytes, documents: vec![document] }))
}

/// Up to where `piece` is text: `Ok` at its end or before a character that the next piece may complete, `Err` at a
/// byte that no text has.
fn text_end(piece: &[u8]) -> Result<usize, usize> {
    if let Some(zero) = piece.iter().position(|byte| *byte == 0) {
        return Err(zero);
    }
    match std::str::from_utf8(piece) {
        Ok(_) => Ok(piece.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(error) => Err(error.valid_up_to()),
    }
}

fn not_text(path: &Path, offset: u64, byte: u8) -> Error {
    let found = format!("byte 0x{byte:02x} at byte {offset}");
    Error::malformed(path, "UTF-8 text", found, "Convert it to UTF-8, or leave it out of the corpus")
}

fn scan_lines(path: &Path, text_field: &str) -> Result<ScannedFile> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut hasher = Sha256::new();
    let mut scanned = ScannedFile { sha256: String::new(), bytes: 0, documents: vec![] };
    let mut line = vec![];
    for number in 1_u64.. {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
        if read == 0 {
            break;
        }
        hasher.update(&line);
        if !line.trim_ascii().is_empty() {
            let text = text_of_line(&line, text_field).map_err(|found| bad_line(path, number, text_field, found))?;
            let hash = first_16(&Sha256::digest(text.as_bytes()));
            scanned.documents.push(ScannedDocument { offset: scanned.bytes, bytes: read as u64, hash });
        }
        scanned.bytes += read as u64;
    }
    scanned.sha256 = hex(&hasher.finalize());
    Ok(scanned)
}

/// The document of a JSONL line, or what is there instead.
pub(super) fn text_of_line(line: &[u8], text_field: &str) -> Result<String, String> {
    match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(mut object)) => match object.remove(text_field) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("a field `{text_field}` that is no string")),
            None => {
                let fields: Vec<_> = object.keys().map(String::as_str).collect();
                Err(format!("an object with the fields [{}]", fields.join(", ")))
            }
        },
        Ok(_) => Err("JSON that is no object".into()),
        Err(error) => Err(format!("{error}")),
    }
}

fn bad_line(path: &Path, number: u64, text_field: &str, found: String) -> Error {
    let place = format!("{}:{number}", path.display());
    let expected = format!("a JSON object with a string in the field `{text_field}`");
    Error::malformed(place, expected, found, "Correct the line, or name the field that holds the text")
}

fn first_16(digest: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    first
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_character_across_two_pieces_is_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.txt");
        for shift in 0..4 {
            let text = "x".repeat(shift) + &"\u{1f980}".repeat(700_000); // pieces are 1 MiB, characters 4 bytes
            std::fs::write(&path, &text).unwrap();
            let Scanned::Text(scanned) = scan(&path, FileKind::Text, "text").unwrap() else { panic!("shift {shift}") };
            assert_eq!(scanned.bytes, text.len() as u64);
            assert_eq!(scanned.sha256, crate::atomic::sha256_file(&path).unwrap());
        }
    }

    #[test]
    fn a_character_cut_by_the_end_of_the_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.txt");
        let mut bytes = "a".repeat((1 << 20) - 1).into_bytes();
        bytes.extend(&"\u{1f980}".as_bytes()[..2]);
        std::fs::write(&path, &bytes).unwrap();
        let Scanned::NotText(error) = scan(&path, FileKind::Text, "text").unwrap() else {
            panic!("was taken for text")
        };
        assert!(error.to_string().contains("byte 1048575"), "{error}");
    }
}
