//! [`Corpus`]: the text that is harvested, as a numbered list of documents. Opening it reads every file once, to check
//! and hash it and to note where each document lies; the text itself stays on disk, so memory does not grow with it.

mod discover;
mod scan;

use std::{
    collections::HashSet,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result, atomic::hex};
use discover::{FileKind, FoundSource};
use scan::Scanned;

/// How the files of a corpus are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorpusOptions {
    /// The field of a JSONL line that holds the document.
    pub text_field: String,
    /// Whether a document whose text was seen before is left out.
    pub drop_duplicates: bool,
}

impl Default for CorpusOptions {
    fn default() -> Self {
        Self { text_field: "text".into(), drop_duplicates: true }
    }
}

/// A named stretch of the corpus: a file, or a folder of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusSource {
    /// File name without its extension, or folder name; made longer where two sources would share it.
    pub name: String,
    /// Where it was read from, as it was given.
    pub path: String,
    /// SHA-256 of the file's bytes; for a folder, of the lines `relative path NUL file's SHA-256` in order.
    pub sha256: String,
    /// Size of the file or files, bytes.
    pub bytes: u64,
    /// Number of the first document of this source.
    pub first_document: u64,
    /// How many documents it has, without dropped duplicates: they are numbered without a gap.
    pub documents: u64,
    /// Documents left out because their text had been seen before, in this source or an earlier one.
    pub duplicates: u64,
    /// Files of a folder that were left out because they are not text.
    pub skipped_files: u64,
}

/// Documents, numbered from 0 in the order of the paths given and of the files in a folder (sorted).
#[derive(Debug)]
pub struct Corpus {
    options: CorpusOptions,
    sources: Vec<CorpusSource>,
    files: Vec<(PathBuf, FileKind)>,
    documents: Vec<DocumentPlace>,
}

/// Where a document lies. This is all the memory a document takes, besides its order and 16 bytes against duplicates.
#[derive(Debug, Clone, Copy)]
struct DocumentPlace {
    file: u32,
    offset: u64,
    bytes: u64,
}

impl Corpus {
    /// Reads `paths` once and numbers their documents.
    ///
    /// A `.jsonl` file has a document a line; any other file is one document. In a folder, each `.jsonl` file and each
    /// subfolder is a source of its own, and the remaining files together are one more. Hidden files, files that are
    /// not UTF-8 text and links to folders are left out of a folder, counted, and logged as warnings.
    ///
    /// # Errors
    /// When a path cannot be read, a named file is not UTF-8 text, a JSONL line is not an object with the text field,
    /// or there is no text at all.
    pub fn open(paths: &[PathBuf], options: &CorpusOptions) -> Result<Self> {
        let mut corpus = Self { options: options.clone(), sources: vec![], files: vec![], documents: vec![] };
        let mut seen = HashSet::new();
        for source in discover::sources(paths)? {
            corpus.add(source, &mut seen)?;
        }
        if corpus.documents.iter().all(|document| document.bytes == 0) {
            let given: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            return Err(Error::invalid(
                "corpus",
                "at least one document with text",
                format!("none in {}", given.join(", ")),
            ));
        }
        Ok(corpus)
    }

    fn add(&mut self, found: FoundSource, seen: &mut HashSet<[u8; 16]>) -> Result<()> {
        let first_document = self.documents.len() as u64;
        let (mut bytes, mut duplicates, mut skipped_files) = (0, 0, found.skipped);
        let mut hasher = Sha256::new();
        let mut only_hash = None;
        for (path, relative, kind) in found.files {
            let scanned = match scan::scan(&path, kind, &self.options.text_field)? {
                Scanned::Text(scanned) => scanned,
                Scanned::NotText(error) if found.is_folder => {
                    tracing::warn!("left out of the corpus: {error}");
                    skipped_files += 1;
                    continue;
                }
                Scanned::NotText(error) => return Err(error),
            };
            let file = self.files.len() as u32;
            self.files.push((path, kind));
            bytes += scanned.bytes;
            for document in scanned.documents {
                if self.options.drop_duplicates && !seen.insert(document.hash) {
                    duplicates += 1;
                    continue;
                }
                self.documents.push(DocumentPlace { file, offset: document.offset, bytes: document.bytes });
            }
            hasher.update(format!("{relative}\0{}\n", scanned.sha256));
            only_hash = Some(scanned.sha256);
        }
        let sha256 = only_hash.filter(|_| !found.is_folder).unwrap_or_else(|| hex(&hasher.finalize()));
        let (name, path) = (found.name, found.path.display().to_string());
        let documents = self.documents.len() as u64 - first_document;
        self.sources.push(CorpusSource {
            name,
            path,
            sha256,
            bytes,
            first_document,
            documents,
            duplicates,
            skipped_files,
        });
        Ok(())
    }

    /// How the files were read.
    pub fn options(&self) -> &CorpusOptions {
        &self.options
    }

    /// Where the documents come from, in order.
    pub fn sources(&self) -> &[CorpusSource] {
        &self.sources
    }

    /// Number of documents.
    pub fn n_documents(&self) -> u64 {
        self.documents.len() as u64
    }

    /// Size of the files that documents come from, bytes.
    pub fn bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.bytes).sum()
    }

    /// The text of document `index`.
    ///
    /// # Errors
    /// When its file cannot be read, or changed since the corpus was opened.
    pub fn document(&self, index: u64) -> Result<String> {
        let place = usize::try_from(index).ok().and_then(|index| self.documents.get(index)).ok_or_else(|| {
            Error::invalid("document", format!("a number below {}", self.n_documents()), index.to_string())
        })?;
        let (path, kind) = &self.files[place.file as usize];
        let bytes = read_at(path, place.offset, place.bytes)?;
        let text = match kind {
            FileKind::Text => String::from_utf8(bytes).ok(),
            FileKind::JsonLines => scan::text_of_line(&bytes, &self.options.text_field).ok(),
        };
        text.ok_or_else(|| changed(path, place))
    }

    /// The documents' numbers in the order in which they are harvested: shuffled by `seed`, or as they are.
    ///
    /// Fisher-Yates driven by ChaCha8, both written down here so that a seed means the same on every machine and with
    /// every version of a library.
    pub fn order(&self, seed: Option<u64>) -> Vec<u64> {
        let mut order: Vec<u64> = (0..self.n_documents()).collect();
        if let Some(seed) = seed {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            for last in (1..order.len()).rev() {
                // The high half of a 64 x 64 bit product: uniform on 0..=last but for 2^-64 a value.
                let pick = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
                order.swap(last, pick as usize);
            }
        }
        order
    }
}

fn read_at(path: &Path, offset: u64, bytes: u64) -> Result<Vec<u8>> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    file.seek(SeekFrom::Start(offset)).map_err(Error::io("read", path))?;
    let mut buffer = vec![0; bytes as usize];
    file.read_exact(&mut buffer).map_err(Error::io("read", path))?;
    Ok(buffer)
}

fn changed(path: &Path, place: &DocumentPlace) -> Error {
    let expected = format!("the document of {} bytes that was at byte {}", place.bytes, place.offset);
    Error::malformed(path, expected, "something else", "The file changed while it was read; start again")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    fn open(path: &Path) -> Result<Corpus> {
        Corpus::open(&[path.to_path_buf()], &CorpusOptions::default())
    }

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn message(result: Result<Corpus>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_text_file_is_a_document_and_a_jsonl_line_is_one() {
        let lines = "{\"text\": \"one \\u00e9\", \"id\": 1}\n\n{\"id\": 2, \"text\": \"two\"}\r\n{\"text\":\"three\"}";
        let folder = folder(&[("prose.txt", "Call me Ishmael.\n".as_bytes()), ("lines.jsonl", lines.as_bytes())]);
        let paths = [folder.path().join("prose.txt"), folder.path().join("lines.jsonl")];
        let corpus = Corpus::open(&paths, &CorpusOptions::default()).unwrap();
        let texts: Vec<_> = (0..corpus.n_documents()).map(|i| corpus.document(i).unwrap()).collect();
        assert_eq!(texts, ["Call me Ishmael.\n", "one é", "two", "three"]);
        let spans: Vec<_> = corpus.sources().iter().map(|s| (s.name.as_str(), s.first_document, s.documents)).collect();
        assert_eq!(spans, [("prose", 0, 1), ("lines", 1, 3)]);
        assert_eq!(corpus.sources()[0].sha256, crate::atomic::sha256_file(&paths[0]).unwrap());
        assert!(corpus.document(4).is_err());
    }

    #[test]
    fn a_folder_is_read_in_sorted_order_and_split_into_sources() {
        let files: [(&str, &[u8]); 6] = [
            ("b.txt", b"b"),
            ("a.md", b"a"),
            ("rust/x/deep.rs", b"fn deep() {}"),
            ("rust/main.rs", b"fn main() {}"),
            ("web.jsonl", b"{\"text\":\"w\"}"),
            (".hidden", b"h"),
        ];
        let folder = folder(&files);
        let corpus = open(folder.path()).unwrap();
        let texts: Vec<_> = (0..corpus.n_documents()).map(|i| corpus.document(i).unwrap()).collect();
        assert_eq!(texts, ["a", "b", "fn main() {}", "fn deep() {}", "w"]);
        let own_name = folder.path().file_name().unwrap().to_str().unwrap();
        let names: Vec<_> = corpus.sources().iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, [own_name, "rust", "web"]);
        assert_eq!(corpus.sources()[0].skipped_files, 1);
    }

    #[test]
    fn the_same_text_is_kept_once_unless_asked_otherwise() {
        let folder = folder(&[("a.txt", b"same"), ("b.jsonl", b"{\"text\":\"same\"}\n{\"text\":\"other\"}\n")]);
        let corpus = open(folder.path()).unwrap();
        assert_eq!(corpus.n_documents(), 2);
        assert_eq!(corpus.sources().iter().map(|source| source.duplicates).sum::<u64>(), 1);
        let keep = CorpusOptions { drop_duplicates: false, ..CorpusOptions::default() };
        assert_eq!(Corpus::open(&[folder.path().to_path_buf()], &keep).unwrap().n_documents(), 3);
    }

    #[test]
    fn text_that_is_not_utf8_is_named_with_its_byte() {
        let folder = folder(&[("good.txt", b"good"), ("latin1.txt", b"caf\xe9 au lait"), ("image.bin", b"ab\0cd")]);
        let latin1 = message(open(&folder.path().join("latin1.txt")));
        assert!(latin1.contains("latin1.txt") && latin1.contains("byte 3"), "{latin1}");
        let binary = message(open(&folder.path().join("image.bin")));
        assert!(binary.contains("image.bin") && binary.contains("byte 2"), "{binary}");
        let corpus = open(folder.path()).unwrap();
        assert_eq!((corpus.n_documents(), corpus.sources()[0].skipped_files), (1, 2));
    }

    #[test]
    fn a_bad_jsonl_line_is_named_with_its_number() {
        let cases: [(&[u8], &str); 4] = [
            (b"{\"text\":\"a\"}\n{\"text\": \"b\"\n", "bad.jsonl:2"),
            (b"{\"body\":\"a\"}\n", "field `text`"),
            (b"{\"text\": 7}\n", "field `text`"),
            (b"\n\n[1]\n", "bad.jsonl:3"),
        ];
        for (bytes, expected) in cases {
            let folder = folder(&[("bad.jsonl", bytes)]);
            let message = message(open(&folder.path().join("bad.jsonl")));
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn no_text_at_all_is_refused() {
        let folder = folder(&[("empty.txt", b""), ("empty.jsonl", b"\n")]);
        assert!(message(open(folder.path())).contains("at least one document"));
        assert!(message(open(&folder.path().join("nowhere.txt"))).contains("nowhere.txt"));
        assert!(message(Corpus::open(&[], &CorpusOptions::default())).contains("corpus"));
    }

    #[test]
    fn a_seed_gives_one_permutation_for_ever() {
        let lines: String = (0..100).map(|i| format!("{{\"text\":\"{i}\"}}\n")).collect();
        let folder = folder(&[("many.jsonl", lines.as_bytes())]);
        let corpus = open(folder.path()).unwrap();
        let order = corpus.order(Some(0));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, corpus.order(None));
        assert_ne!(order, sorted);
        assert_eq!(order, corpus.order(Some(0)));
        assert_ne!(order, corpus.order(Some(1)));
        // By ChaCha8 and Fisher-Yates written out in Python.
        assert_eq!(order[..8], [96, 53, 11, 31, 76, 2, 62, 43]);
    }

    #[test]
    fn a_file_that_shrinks_after_opening_is_an_error() {
        let folder = folder(&[("a.txt", b"some text")]);
        let path = folder.path().join("a.txt");
        let corpus = open(&path).unwrap();
        fs::write(&path, "so").unwrap();
        assert!(corpus.document(0).unwrap_err().to_string().contains("a.txt"));
    }
}
