//! [`scan`]: one pass over a corpus file: computes its hash, checks that it is text, and finds the documents in it.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
};

use sha2::{Digest, Sha256};

use super::{
    CorpusOptions, Record,
    discover::{FileKind, has_ending},
    document::{DocumentHash, first_16},
    field_sources::{self, expected_value},
    json_line::{BadLine, UTF8_BOM, record_of_line},
    plain_file::{DocumentPlace, PlainFile},
};
use crate::{Error, Location, Result, store::hex};

/// Result of a scan.
pub(super) enum Scanned {
    Text(ScannedFile),
    /// The error to raise or to log, as the caller decides.
    NotText(Error),
}

/// A text file's documents.
pub(super) struct ScannedFile {
    pub(super) sha256: String,
    pub(super) bytes: u64,
    pub(super) documents: Vec<ScannedDocument>,
    /// Lines that hold no document and were left out.
    pub(super) malformed: Vec<ScannedDocument>,
    /// For each kept field, whether a document has a value in it.
    pub(super) has_field: Vec<bool>,
}

/// Position of a document in its file, and its hash.
pub(super) struct ScannedDocument {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Its line, counted from 1; 0 for a whole file.
    pub(super) line: u64,
    /// `None` for an empty document, and for a line that holds none.
    pub(super) hash: Option<DocumentHash>,
    /// Its value of `source_field`.
    pub(super) source: Option<Box<str>>,
}

impl ScannedDocument {
    /// Its place in file number `file`.
    pub(super) fn at(&self, file: u32) -> DocumentPlace {
        DocumentPlace { file, offset: self.offset, bytes: self.bytes, line: self.line }
    }
}

/// Reads a file once, in pieces.
pub(super) fn scan(file: &PlainFile, options: &CorpusOptions) -> Result<Scanned> {
    match file.kind {
        FileKind::JsonLines => scan_lines(file, options).map(Scanned::Text),
        FileKind::Text | FileKind::Parquet => scan_text(file, options),
    }
}

fn scan_text(plain: &PlainFile, options: &CorpusOptions) -> Result<Scanned> {
    let path = &plain.path;
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let size = file.metadata().map_err(Error::io("read", path))?.len();
    let (mut hasher, mut text_hasher) = (Sha256::new(), Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    let (mut carried, mut bytes) = (0, 0); // a character cut by the end of a piece is carried to the next one
    let mut first = 0; // where the text begins
    loop {
        let read = file.read(&mut buffer[carried..]).map_err(Error::io("read", path))?;
        let new = &buffer[carried..carried + read];
        if bytes == 0 {
            if let Some(error) = in_utf16(&plain.name, new) {
                return Ok(Scanned::NotText(error));
            }
            first = if new.starts_with(UTF8_BOM) { UTF8_BOM.len() } else { 0 };
            if plain.kind == FileKind::Text && !has_ending(&plain.within) && is_json_lines(&new[first..]) {
                let hint = "Rename it to .jsonl if each line holds a document, or to .txt to harvest its characters as they are";
                let expected = "text, in a file without an ending";
                return Ok(Scanned::NotText(Error::malformed(&plain.name, expected, "lines of JSON", hint)));
            }
        }
        hasher.update(new);
        text_hasher.update(if bytes == 0 { &new[first..] } else { new });
        let start = bytes - carried as u64;
        bytes += read as u64;
        let piece = &buffer[..carried + read];
        let checked = match text_end(piece) {
            Ok(end) if read > 0 || end == piece.len() => end,
            Ok(end) | Err(end) => return Ok(Scanned::NotText(not_text(&plain.name, start + end as u64, piece[end]))),
        };
        if read == 0 {
            break;
        }
        // Not before it is known to begin like a text: what is none is left out, of whatever size.
        options.check_size(&plain.name, size)?;
        carried = piece.len() - checked;
        buffer.copy_within(checked..checked + carried, 0);
    }
    let (offset, length) = (first as u64, bytes - first as u64);
    let hash = (length > 0).then(|| first_16(&text_hasher.finalize()));
    let documents = vec![ScannedDocument { offset, bytes: length, line: 0, hash, source: None }];
    let (malformed, has_field) = (vec![], vec![]);
    Ok(Scanned::Text(ScannedFile { sha256: hex(&hasher.finalize()), bytes, documents, malformed, has_field }))
}

/// True if the first line is a JSON object and ends here. Read as plain text, its braces would be harvested too.
fn is_json_lines(start: &[u8]) -> bool {
    let start = start.trim_ascii_start();
    let Some(end) = start.iter().position(|byte| *byte == b'\n') else { return false };
    matches!(serde_json::from_slice(&start[..end]), Ok(serde_json::Value::Object(_)))
}

/// The error for a file in UTF-16: it begins with a BOM, or with two ASCII characters of two bytes each.
fn in_utf16(name: &str, start: &[u8]) -> Option<Error> {
    let is_marked = matches!(start, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
    let is_marked = is_marked || matches!(start, [1..=0x7f, 0, 1..=0x7f, 0, ..] | [0, 1..=0x7f, 0, 1..=0x7f, ..]);
    let hint = "Convert it, for example with `iconv -f UTF-16 -t UTF-8`";
    is_marked.then(|| Error::malformed(name, "text in UTF-8", "text in UTF-16", hint))
}

/// Length of the valid text in `piece`: `Ok` up to its end or to a character that the next piece may complete, `Err` at
/// a byte that cannot be in text.
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

fn not_text(name: &str, offset: u64, byte: u8) -> Error {
    let found = format!("byte 0x{byte:02x} at byte {offset}");
    Error::malformed(name, "UTF-8 text", found, "Convert it to UTF-8, or leave it out of the corpus")
}

fn scan_lines(plain: &PlainFile, options: &CorpusOptions) -> Result<ScannedFile> {
    let path = &plain.path;
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut hasher = Sha256::new();
    let has_field = vec![false; options.keep_fields.len()];
    let mut scanned = ScannedFile { sha256: String::new(), bytes: 0, documents: vec![], malformed: vec![], has_field };
    let mut line = vec![];
    for line_number in 1_u64.. {
        line.clear();
        // Reads at most up to the limit, however long the line is.
        let mut bounded = reader.by_ref().take(options.max_document_bytes.saturating_add(1));
        let read = bounded.read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
        if read == 0 {
            break;
        }
        if let Some(error) = in_utf16(&plain.name, &line).filter(|_| line_number == 1) {
            return Err(error);
        }
        options.check_size(&format!("{}:{line_number}", plain.name), read as u64)?;
        hasher.update(&line);
        if !line.trim_ascii().is_empty() {
            let place = |hash| ScannedDocument {
                offset: scanned.bytes,
                bytes: read as u64,
                line: line_number,
                hash,
                source: None,
            };
            match record_of_line(&line, options) {
                Ok(Record { document, kept, source }) => {
                    scanned.has_field.iter_mut().zip(&kept).for_each(|(has, kept)| *has |= kept.is_some());
                    let place = place((!document.is_empty()).then(|| document.hash()));
                    scanned.documents.push(ScannedDocument { source: source.map(Into::into), ..place });
                }
                Err(bad) if options.skip_malformed && !bad.is_of_source => {
                    tracing::info!("left out of the corpus: {}", bad_line(plain, line_number, options, bad));
                    scanned.malformed.push(place(None));
                }
                Err(bad) => return Err(bad_line(plain, line_number, options, bad)),
            }
        }
        scanned.bytes += read as u64;
    }
    scanned.sha256 = hex(&hasher.finalize());
    Ok(scanned)
}

/// Why the line at `place`, which was left out, holds no document; `None` if it cannot be read again.
pub(super) fn why_malformed(plain: &PlainFile, place: DocumentPlace, options: &CorpusOptions) -> Option<String> {
    let bytes = Location::from(plain.path.as_path()).read_range(place.offset, place.bytes).ok()?;
    let found = record_of_line(&bytes, options).err()?.found;
    Some(format!("{}: expected {}, found {found}", plain.place_of(place), expected_line(options)))
}

/// The content of a good line, for messages.
fn expected_line(options: &CorpusOptions) -> String {
    let what = if options.chat_field.is_some() { "a list of turns" } else { "a string" };
    format!("a JSON object with {what} in the field `{}`", options.field())
}

fn bad_line(plain: &PlainFile, number: u64, options: &CorpusOptions, line: BadLine) -> Error {
    let place = format!("{}:{number}", plain.name);
    if let Some(field) = options.source_field.as_deref().filter(|_| line.is_of_source) {
        return Error::malformed(place, expected_value(field), line.found, field_sources::hint(field));
    }
    let flag = if options.chat_field.is_some() { "`chat_field`" } else { "`text_field`" };
    let hint = match (line.conversation, line.inside) {
        (Some(field), _) => format!("Name conversations with `chat_field` {field}"),
        (None, Some(path)) => format!("Name a field inside an object with a dot: `text_field` {path}"),
        (None, None) => {
            format!("Correct the line, name another field with {flag}, or leave such lines out with `skip_malformed`")
        }
    };
    Error::malformed(place, expected_line(options), line.found, hint)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;

    fn plain(path: &Path) -> PlainFile {
        let name = path.display().to_string();
        PlainFile { within: name.clone(), name, path: path.into(), kind: FileKind::Text, original_sha256: None }
    }

    #[test]
    fn utf_16_is_named_with_and_without_its_mark() {
        let folder = tempfile::tempdir().unwrap();
        let units = |text: &str| text.encode_utf16().collect::<Vec<_>>();
        let little: Vec<u8> = units("{\"text\": 1}").into_iter().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = units("plain text").into_iter().flat_map(u16::to_be_bytes).collect();
        for (name, bytes) in [
            ("marked.txt", [&[0xff, 0xfe][..], &little].concat()),
            ("marked.jsonl", [&[0xfe, 0xff][..], &big].concat()),
            ("little.jsonl", little.clone()),
            ("big.txt", big.clone()),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let message = crate::Corpus::open(&[path], &CorpusOptions::default()).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("iconv -f UTF-16"), "{message}");
        }
    }

    #[test]
    fn a_mark_of_utf_8_is_no_part_of_a_text() {
        let folder = tempfile::tempdir().unwrap();
        let (marked, plain) = (folder.path().join("marked.txt"), folder.path().join("plain.txt"));
        std::fs::write(&marked, [UTF8_BOM, b"alpha bravo"].concat()).unwrap();
        std::fs::write(&plain, "alpha bravo").unwrap();
        let corpus = crate::Corpus::open(&[marked, plain], &CorpusOptions::default()).unwrap();
        assert_eq!(corpus.document(0).unwrap(), crate::text::Document::Text("alpha bravo".into()));
        assert_eq!((corpus.n_documents(), corpus.sources()[1].duplicates), (1, 1), "the other repeats it");
        assert_eq!(corpus.origin(0).unwrap().bytes, Some(3..14));
    }

    #[test]
    fn lines_of_json_in_a_file_without_an_ending_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            crate::Corpus::open(&[path], &CorpusOptions::default())
        };
        let lines = "\n{\"text\": \"a\"}\n{\"text\": \"b\"}\n";
        let message = open("dump", lines).unwrap_err().to_string();
        assert!(
            message.contains("dump") && message.contains("lines of JSON") && message.contains(".jsonl"),
            "{message}"
        );
        assert!(open("dump.txt", lines).is_ok(), "as its name says");
        assert!(open("LICENSE", "{ is no JSON }\nnor this\n").is_ok());
        // In a folder, it is left out and counted.
        std::fs::write(folder.path().join("a.txt"), "a").unwrap();
        let corpus = crate::Corpus::open(&[folder.path().into()], &CorpusOptions::default()).unwrap();
        assert_eq!(corpus.sources().iter().map(|source| source.skipped_files).sum::<u64>(), 1);
    }

    #[test]
    fn a_file_that_is_no_text_is_left_out_of_a_folder_whatever_its_size() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), "a").unwrap();
        std::fs::write(folder.path().join("program"), [0x7f, 0, 0, 0].repeat(1 << 10)).unwrap();
        let options = CorpusOptions { max_document_bytes: 1 << 10, ..CorpusOptions::default() };
        let corpus = crate::Corpus::open(&[folder.path().into()], &options).unwrap();
        assert_eq!(corpus.sources().iter().map(|source| source.skipped_files).sum::<u64>(), 1);
        std::fs::write(folder.path().join("b.txt"), "b".repeat(1 << 11)).unwrap();
        let message = crate::Corpus::open(&[folder.path().into()], &options).unwrap_err().to_string();
        assert!(message.contains("b.txt") && message.contains("max_document_bytes"), "{message}");
    }

    #[test]
    fn a_character_across_two_pieces_is_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.txt");
        for shift in 0..4 {
            let text = "x".repeat(shift) + &"\u{1f980}".repeat(700_000); // pieces are 1 MiB, characters 4 bytes
            std::fs::write(&path, &text).unwrap();
            let Scanned::Text(scanned) = scan(&plain(&path), &CorpusOptions::default()).unwrap() else {
                panic!("shift {shift}")
            };
            assert_eq!(scanned.bytes, text.len() as u64);
            assert_eq!(scanned.sha256, crate::sha256_file(&path).unwrap());
        }
    }

    #[test]
    fn a_character_cut_by_the_end_of_the_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.txt");
        let mut bytes = "a".repeat((1 << 20) - 1).into_bytes();
        bytes.extend(&"\u{1f980}".as_bytes()[..2]);
        std::fs::write(&path, &bytes).unwrap();
        let Scanned::NotText(error) = scan(&plain(&path), &CorpusOptions::default()).unwrap() else {
            panic!("was taken for text")
        };
        assert!(error.to_string().contains("byte 1048575"), "{error}");
    }
}
