//! [`Corpus`]: the text to harvest, as a numbered list of documents. The text stays in its files, so memory grows only
//! by about 60 bytes per document.
//!
//! ```text
//! text, JSONL      read once on opening: checked, hashed, position of each document noted     reading.rs, scan.rs
//! .gz .zst, URLs,
//! standard input   plain content copied to the cache first                                    spool.rs
//! parquet          footers are read (and local files hashed); rows are read in blocks         table_file.rs, table.rs
//! ```
//!
//! The result of opening can be saved, so that a resumed run need not read the documents again ([`Corpus::save`]).

mod discover;
mod document;
mod document_column;
mod field_sources;
mod json_line;
mod options;
mod order;
mod plain_file;
mod reading;
mod saved;
mod scan;
mod source;
mod spool;
mod table;
mod table_file;
mod why_left_out;

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{Error, Result, human, source::HubSettings};
pub(crate) use document::{Document, DocumentHash, Record};
use field_sources::FieldSources;
use order::Block;
pub(crate) use order::DocumentOrder;
use plain_file::{DocumentPlace, PlainFile};
pub(crate) use source::DocumentSources;
use table::Tables;
pub(crate) use table_file::{Cause, RowBlock, TableFile};
pub(crate) use why_left_out::WhyLeftOut;

pub use self::{field_sources::NamedSource, options::CorpusOptions, source::CorpusSource};

/// Documents, numbered from 0 in the order of the paths given and of the files in a folder (sorted).
#[derive(Debug, Default)]
pub struct Corpus {
    options: CorpusOptions,
    sources: Vec<CorpusSource>,
    /// The sources that the values of a field make, if one is named; `sources` are then only files and folders.
    field_sources: Option<FieldSources>,
    /// Path and name of the sources as they were found.
    found: Vec<(String, String)>,
    files: Vec<PlainFile>,
    /// The documents in `files`. Each takes only this memory, its entry in the order, and 16 bytes for finding
    /// duplicates.
    places: Vec<DocumentPlace>,
    /// Lines and files without a number: they repeat an earlier document, or hold none.
    left_out: Vec<LeftOutPlace>,
    tables: Vec<TableFile>,
    /// Path of each table within its source.
    tables_within: Vec<String>,
    /// The documents in `tables`: each block of rows with its position in the numbering, ascending.
    blocks: Vec<PlacedBlock>,
    reader: Tables,
    /// Every file by name, with a stamp that changes when its content does.
    stamps: Vec<(String, String)>,
    /// True if the corpus was loaded from what an earlier run saved.
    was_saved: bool,
}

/// A line or file that was left out when the corpus was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LeftOutPlace {
    source: u32,
    place: DocumentPlace,
    why: WhyLeftOut,
}

/// The place of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DocumentOrigin<'a> {
    /// Index of its source.
    pub(crate) source: usize,
    /// Path of its file within the source.
    pub(crate) file: &'a str,
    /// Its line, counted from 1.
    pub(crate) line: Option<u64>,
    /// Its row in the file, counted from 0.
    pub(crate) row: Option<u64>,
    /// The bytes that hold it in the file's plain content; `None` for a row.
    pub(crate) bytes: Option<Range<u64>>,
}

/// A line or file that was left out on opening, as the table of documents describes it.
#[derive(Debug)]
pub(crate) struct LeftOutDocument<'a> {
    pub(crate) origin: DocumentOrigin<'a>,
    /// The name of its source.
    pub(crate) source: String,
    pub(crate) why: WhyLeftOut,
    /// The values of the kept fields; none for a line that holds no document.
    pub(crate) kept: Vec<Option<String>>,
}

/// A block of rows and its position in the numbering.
#[derive(Debug, Clone, Copy)]
struct PlacedBlock {
    block: Block,
    rows: RowBlock,
    /// Documents of the blocks before this one.
    streamed_before: u64,
}

/// Location of a document.
enum Found {
    /// A row of a block.
    Row(RowBlock, u64),
    /// A range of bytes in a text or JSONL file.
    Place(DocumentPlace),
}

impl PlacedBlock {
    /// Documents of this block and of those before it.
    fn streamed(self) -> u64 {
        self.streamed_before + self.block.documents
    }
}

impl Corpus {
    /// Finds the documents at `paths` and numbers them.
    ///
    /// A path is a file, a folder, a URL of an object store, `hf://datasets/ORG/NAME` for a dataset on the Hub, or `-`
    /// for standard input. A `.jsonl` file has one document per line, a `.parquet` file one per row; any other file is
    /// one document. In a folder, each file of many documents and each subfolder is a separate source, and the
    /// remaining files together are one more source. Hidden files, files that are not UTF-8 text, `.json`, `.csv` and
    /// `.tsv` files, links to folders and broken links are left out of a folder, counted, and logged as warnings.
    ///
    /// # Errors
    /// If a path cannot be read, a named file is not UTF-8 text or ends in `.json`, `.csv` or `.tsv`, a JSONL line is
    /// not an object with the text field (unless such lines are skipped), a parquet file lacks the column, a document
    /// is too long, or there is no text at all.
    pub fn open(paths: &[PathBuf], options: &CorpusOptions) -> Result<Self> {
        Self::read(paths, options, discover::sources(paths, None, &[])?)
    }

    /// Like [`Self::open`], but loads from the file `saved` what an earlier run found, if the options are the same and
    /// no file has changed since. Datasets on the Hub are read at the commits named by `earlier` or by that file, even
    /// if their branches have moved. They come from the Hub that `hub` describes; `None`: from the environment's Hub.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub(crate) fn open_saved(
        paths: &[PathBuf],
        options: &CorpusOptions,
        saved: &Path,
        earlier: &[CorpusSource],
        hub: Option<&HubSettings>,
    ) -> Result<Self> {
        let earlier = [earlier, &saved::sources(saved)].concat();
        let sources = discover::sources(paths, hub, &earlier)?;
        match saved::load(saved, options, &sources) {
            Some(corpus) => {
                corpus.malformed().iter().for_each(|said| tracing::warn!("{said}"));
                Ok(corpus)
            }
            None => Self::read(paths, options, sources),
        }
    }

    /// A sentence about the lines that were left out because they hold no document: their number, and the first of them
    /// with the reason; `None` if there are none.
    pub(crate) fn malformed(&self) -> Option<String> {
        let first = self.left_out.iter().find(|left| left.why == WhyLeftOut::Malformed)?;
        let lines = self.sources.iter().map(|source| source.malformed_lines).sum();
        let file = &self.files[first.place.file as usize];
        let why = scan::why_malformed(file, first.place, &self.options).unwrap_or_else(|| file.place_of(first.place));
        Some(format!("left out of the corpus: {}, the first at {why}", human::counted(lines, "malformed line")))
    }

    /// Saves the result of opening, for [`Self::open_saved`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        if self.was_saved { Ok(()) } else { saved::save(self, path) }
    }

    /// The options with which the files were read.
    pub(crate) fn options(&self) -> &CorpusOptions {
        &self.options
    }

    /// The sources of the documents, in order.
    pub(crate) fn sources(&self) -> &[CorpusSource] {
        &self.sources
    }

    /// The source of each document: an index into [`Self::named_sources`] if a field makes the sources, else into
    /// [`Self::sources`].
    pub(crate) fn document_sources(&self) -> DocumentSources {
        match &self.field_sources {
            Some(of_field) => DocumentSources::Listed(of_field.of_document.clone()),
            None => DocumentSources::of_files(&self.sources),
        }
    }

    /// The sources that the values of a field make.
    pub(crate) fn named_sources(&self) -> &[NamedSource] {
        self.field_sources.as_ref().map_or(&[], |of_field| &of_field.sources)
    }

    /// The name of the source of a document that is in file or folder `source`.
    pub(crate) fn source_name(&self, document: Option<u64>, source: usize) -> &str {
        let of_field = self.field_sources.as_ref().zip(document);
        let named = of_field.and_then(|(of_field, document)| {
            of_field.sources.get(*of_field.of_document.get(document as usize)? as usize)
        });
        let of_file = self.sources.get(source).map(|source| source.name.as_str());
        named.map(|source| source.name.as_str()).or(of_file).unwrap_or_default()
    }

    /// Number of documents.
    pub(crate) fn n_documents(&self) -> u64 {
        self.places.len() as u64 + self.blocks.last().map_or(0, |placed| placed.streamed())
    }

    /// True if some documents are rows of tables.
    pub(crate) fn has_rows(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Size in bytes of the line or file of each document that is not a row.
    pub(crate) fn plain_bytes(&self) -> impl Iterator<Item = u64> {
        self.places.iter().map(|place| place.bytes)
    }

    /// Size in bytes of the line or file of document `index`; `None` if it is a row.
    pub(crate) fn plain_bytes_of(&self, index: u64) -> Option<u64> {
        match self.find(index) {
            Ok(Found::Place(place)) => Some(place.bytes),
            _ => None,
        }
    }

    /// Document `index`.
    ///
    /// # Errors
    /// If its file cannot be read, or changed since the corpus was opened.
    pub(crate) fn document(&self, index: u64) -> Result<Document> {
        Ok(self.record(index)?.document)
    }

    /// Document `index` with the fields kept beside it.
    pub(crate) fn record(&self, index: u64) -> Result<Record> {
        match self.find(index)? {
            Found::Row(rows, row) => self.reader.record(&self.tables, rows, row, &self.options),
            Found::Place(place) => self.files[place.file as usize].record(place, &self.options),
        }
    }

    /// The place of document `index`.
    pub(crate) fn origin(&self, index: u64) -> Result<DocumentOrigin<'_>> {
        let source = self.sources.partition_point(|source| source.first_document <= index).saturating_sub(1);
        match self.find(index)? {
            Found::Row(rows, row) => {
                let of_file = self.blocks.partition_point(|placed| placed.rows.file < rows.file);
                let before = self.blocks[of_file..].iter().take_while(|placed| placed.rows != rows);
                let row = before.map(|placed| placed.rows.rows).sum::<u64>() + row;
                let file = &self.tables_within[rows.file as usize];
                Ok(DocumentOrigin { source, file, line: None, row: Some(row), bytes: None })
            }
            Found::Place(place) => Ok(self.origin_of_place(source, place)),
        }
    }

    /// The lines and files that were left out on opening: place, name of the source, reason, and the fields kept
    /// beside a repeated document.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = Result<LeftOutDocument<'_>>> {
        let has_fields = self.options.source_field.is_some() || !self.options.keep_fields.is_empty();
        self.left_out.iter().map(move |left| {
            let LeftOutPlace { source, place, why } = *left;
            let is_read = has_fields && why == WhyLeftOut::Repeated;
            let record = is_read.then(|| self.files[place.file as usize].record(place, &self.options)).transpose()?;
            let (kept, named) = record.map_or((vec![], None), |record| (record.kept, record.source));
            let source = source as usize;
            let name = named.unwrap_or_else(|| self.source_name(None, source).to_owned());
            Ok(LeftOutDocument { origin: self.origin_of_place(source, place), source: name, why, kept })
        })
    }

    fn origin_of_place(&self, source: usize, place: DocumentPlace) -> DocumentOrigin<'_> {
        let bytes = Some(place.offset..place.offset + place.bytes);
        let (file, line) = (&self.files[place.file as usize].within, Some(place.line).filter(|line| *line > 0));
        DocumentOrigin { source, file, line, row: None, bytes }
    }

    /// Location of document `index`, for errors: its file, and the line or row in it if known.
    pub(crate) fn place_of(&self, index: u64) -> String {
        match self.find(index) {
            Ok(Found::Row(rows, row)) => {
                let file = self.tables[rows.file as usize].name();
                format!("{file}, row {} of row group {}, counted from 0", rows.first_row + row, rows.group)
            }
            Ok(Found::Place(place)) => self.files[place.file as usize].place_of(place),
            Err(_) => format!("document {index}"),
        }
    }

    /// True if repeated documents can only be found while they are read: tables are too large for that on opening.
    pub(crate) fn finds_repeated_later(&self) -> bool {
        !self.blocks.is_empty() && self.options.drop_duplicates
    }

    /// True if the document is a row of a table.
    pub(crate) fn is_streamed(&self, index: u64) -> bool {
        matches!(self.find(index), Ok(Found::Row(..)))
    }

    fn find(&self, index: u64) -> Result<Found> {
        let at = self.blocks.partition_point(|placed| placed.block.first_document <= index);
        let before = at.checked_sub(1).map(|at| self.blocks[at]);
        if let Some(PlacedBlock { block, rows, .. }) = before
            && index < block.first_document + block.documents
        {
            return Ok(Found::Row(rows, index - block.first_document));
        }
        let streamed = before.map_or(0, |placed| placed.streamed());
        let place = self.places.get((index - streamed) as usize).copied();
        place.map(Found::Place).ok_or_else(|| {
            Error::invalid("document", format!("a number below {}", self.n_documents()), index.to_string())
        })
    }

    /// The order in which documents are harvested: shuffled by `seed`, or unchanged if `None`.
    pub(crate) fn order(&self, seed: Option<u64>) -> DocumentOrder {
        DocumentOrder::new(self.n_documents(), self.blocks.iter().map(|placed| placed.block).collect(), seed)
    }
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

    fn text(corpus: &Corpus, index: u64) -> String {
        match corpus.document(index).unwrap() {
            Document::Text(text) => text,
            Document::Chat(messages) | Document::IncompleteChat(messages) => panic!("a conversation: {messages:?}"),
        }
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
        let texts: Vec<_> = (0..corpus.n_documents()).map(|i| text(&corpus, i)).collect();
        assert_eq!(texts, ["Call me Ishmael.\n", "one é", "two", "three"]);
        let spans: Vec<_> = corpus.sources().iter().map(|s| (s.name.as_str(), s.first_document, s.documents)).collect();
        assert_eq!(spans, [("prose", 0, 1), ("lines", 1, 3)]);
        assert_eq!(corpus.sources()[0].sha256, crate::sha256_file(&paths[0]).unwrap());
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
        let texts: Vec<_> = (0..corpus.n_documents()).map(|i| text(&corpus, i)).collect();
        assert_eq!(texts, ["a", "b", "fn main() {}", "fn deep() {}", "w"]);
        let own_name = folder.path().file_name().unwrap().to_str().unwrap();
        let names: Vec<_> = corpus.sources().iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["a", "b", own_name, "rust", "web"]);
        assert_eq!(corpus.sources()[2].skipped_files, 1);
        let sources = (0..5).map(|document| corpus.origin(document).unwrap());
        let files: Vec<_> = sources.map(|origin| (origin.source, origin.file.to_owned(), origin.line)).collect();
        let expected = [
            (0, "a.md", None),
            (1, "b.txt", None),
            (3, "main.rs", None),
            (3, "x/deep.rs", None),
            (4, "web.jsonl", Some(1)),
        ];
        assert_eq!(files, expected.map(|(source, file, line)| (source, file.to_owned(), line)));
    }

    #[test]
    fn many_texts_in_a_folder_are_one_source() {
        let folder = tempfile::tempdir().unwrap();
        (0..1001).for_each(|i| fs::write(folder.path().join(format!("{i:04}.txt")), i.to_string()).unwrap());
        let corpus = open(folder.path()).unwrap();
        assert_eq!((corpus.n_documents(), corpus.sources().len()), (1001, 1));
        fs::remove_file(folder.path().join("0000.txt")).unwrap();
        assert_eq!(open(folder.path()).unwrap().sources().len(), 1000);
    }

    #[test]
    #[cfg(unix)]
    fn a_link_that_leads_nowhere_is_left_out_of_a_folder_and_counted() {
        let folder = folder(&[("a.txt", b"a"), ("deep/b.txt", b"b")]);
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
        link("gone.txt", "dangling.txt");
        link("loop.jsonl", "loop.jsonl");
        link("../a.txt", "deep/good.md");
        let corpus = open(folder.path()).unwrap();
        assert_eq!((corpus.n_documents(), corpus.sources()[1].skipped_files), (2, 2));
        assert_eq!(corpus.sources()[2].duplicates, 1, "a link to a file is read");
        let named = message(open(&folder.path().join("dangling.txt")));
        assert!(named.contains("dangling.txt"), "{named}");
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
    fn an_empty_document_repeats_no_other() {
        let lines = b"{\"text\":\"a\"}\n{\"text\":null}\n{\"text\":\"\"}\n{\"text\":\"a\"}\n{\"text\":\"\"}\n";
        let folder = folder(&[("lines.jsonl", lines), ("one.txt", b""), ("two.txt", b"")]);
        let corpus = open(folder.path()).unwrap();
        let texts: Vec<_> = (0..corpus.n_documents()).map(|i| text(&corpus, i)).collect();
        assert_eq!(texts, ["", "", "a", "", "", ""]);
        assert_eq!(corpus.sources().iter().map(|source| source.duplicates).sum::<u64>(), 1);
    }

    #[test]
    fn text_that_is_not_utf8_is_named_with_its_byte() {
        let folder = folder(&[("good.txt", b"good"), ("latin1.txt", b"caf\xe9 au lait"), ("image.bin", b"ab\0cd")]);
        let latin1 = message(open(&folder.path().join("latin1.txt")));
        assert!(latin1.contains("latin1.txt") && latin1.contains("byte 3"), "{latin1}");
        let binary = message(open(&folder.path().join("image.bin")));
        assert!(binary.contains("image.bin") && binary.contains("byte 2"), "{binary}");
        let corpus = open(folder.path()).unwrap();
        assert_eq!((corpus.n_documents(), corpus.sources()[1].skipped_files), (1, 2));
    }

    #[test]
    fn a_file_of_texts_in_another_form_is_no_text() {
        let json = b"{\"text\":\"a\"}\n";
        let files: [(&str, &[u8]); 5] =
            [("a.txt", b"a"), ("b.json", json), ("c.JSON.gz", json), ("deep/d.csv", b"text\na\n"), ("deep/e.tsv", b"")];
        let folder = folder(&files);
        for (name, hint) in [("b.json", ".jsonl"), ("c.JSON.gz", ".jsonl"), ("deep/d.csv", ".parquet")] {
            let message = message(open(&folder.path().join(name)));
            assert!(message.contains(name) && message.contains(hint), "{message}");
        }
        let corpus = open(folder.path()).unwrap();
        let skipped: Vec<_> = corpus.sources().iter().map(|source| source.skipped_files).collect();
        assert_eq!((corpus.n_documents(), skipped), (1, vec![0, 2, 2]));
    }

    #[test]
    fn a_field_that_no_file_of_the_corpus_has_is_refused() {
        let folder =
            folder(&[("prose.txt", b"a"), ("with/prose.txt", b"b"), ("with/lines.jsonl", b"{\"body\":\"c\"}")]);
        let text_field = CorpusOptions { text_field: "body".into(), ..CorpusOptions::default() };
        let chat_field = CorpusOptions { chat_field: Some("turns".into()), ..CorpusOptions::default() };
        for (options, flag) in [(&text_field, "`text_field` body"), (&chat_field, "`chat_field` turns")] {
            let message = message(Corpus::open(&[folder.path().join("prose.txt")], options));
            assert!(message.contains(flag) && message.contains("prose.txt"), "{message}");
        }
        assert_eq!(Corpus::open(&[folder.path().into()], &text_field).unwrap().n_documents(), 3);
    }

    #[test]
    fn standard_input_named_twice_is_refused() {
        for paths in [["-", "-"], ["jsonl:-", "-"], ["jsonl:-", "jsonl:-"]] {
            let message = message(Corpus::open(&paths.map(PathBuf::from), &CorpusOptions::default()));
            assert!(message.contains("standard input") && message.contains("once"), "{message}");
        }
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
    fn malformed_lines_are_left_out_and_counted_where_that_is_asked_for() {
        let lines = b"{\"text\":\"a\"}\n{\"text\": \"cut\n\n[1]\n{\"text\":\"caf\xe9\"}\n{\"text\":\"b\"}\n";
        let folder = folder(&[("lines.jsonl", lines)]);
        let refused = message(open(folder.path()));
        assert!(refused.contains("lines.jsonl:2") && refused.contains("`skip_malformed`"), "{refused}");
        let skip = CorpusOptions { skip_malformed: true, ..CorpusOptions::default() };
        let corpus = Corpus::open(&[folder.path().to_path_buf()], &skip).unwrap();
        assert_eq!([text(&corpus, 0), text(&corpus, 1)], ["a", "b"]);
        assert_eq!((corpus.n_documents(), corpus.sources()[0].malformed_lines), (2, 3));
        let said = corpus.malformed().unwrap();
        assert!(said.contains("3 malformed lines, the first at") && said.contains("lines.jsonl:2: expected"), "{said}");
        assert!(said.contains("what is not JSON (EOF while parsing a string"), "{said}");
        let (elsewhere, paths) = (tempfile::tempdir().unwrap(), [folder.path().join("lines.jsonl")]);
        let saved = elsewhere.path().join("saved.parquet");
        Corpus::open(&paths, &skip).unwrap().save(&saved).unwrap();
        let again = Corpus::open_saved(&paths, &skip, &saved, &[], None).unwrap();
        assert!(again.was_saved);
        assert_eq!(again.malformed().unwrap(), said);
        let other_field = CorpusOptions { text_field: "body".into(), ..skip };
        let none = message(Corpus::open(&[folder.path().to_path_buf()], &other_field));
        assert!(none.contains("without 5 malformed lines"), "{none}");
    }

    #[test]
    fn a_mark_of_the_encoding_and_a_missing_text_are_no_errors() {
        let folder = folder(&[("marked.jsonl", b"\xef\xbb\xbf{\"text\":\"a\"}\n{\"text\":null}\n")]);
        let corpus = open(folder.path()).unwrap();
        assert_eq!([text(&corpus, 0), text(&corpus, 1)], ["a", ""]);
    }

    #[test]
    fn a_packed_parquet_file_is_named_and_what_to_do() {
        let folder = folder(&[("rows.parquet.gz", b"\x1f\x8b")]);
        for path in [folder.path().to_path_buf(), folder.path().join("rows.parquet.gz")] {
            let message = message(open(&path));
            assert!(message.contains("rows.parquet.gz") && message.contains("Unpack it"), "{message}");
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
    fn a_file_that_shrinks_after_opening_is_an_error() {
        let folder = folder(&[("a.txt", b"some text")]);
        let path = folder.path().join("a.txt");
        let corpus = open(&path).unwrap();
        fs::write(&path, "so").unwrap();
        assert!(corpus.document(0).unwrap_err().to_string().contains("a.txt"));
    }
}
