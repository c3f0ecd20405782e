//! [`Corpus::read`]: turns the files found at the given paths into numbered documents. Text and JSONL files are read
//! once from end to end; parquet files, only their footers.

use std::{collections::HashSet, path::PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{
    Corpus, CorpusOptions, CorpusSource, PlacedBlock,
    discover::{FileKind, FoundFile, FoundSource, Origin},
    document::DocumentHash,
    order::Block,
    plain_file::{DocumentPlace, PlainFile},
    scan::{self, Scanned, ScannedFile},
    table_file::{RowBlock, TableFile},
};
use crate::{Error, Result, store::hex};

impl Corpus {
    pub(super) fn read(paths: &[PathBuf], options: &CorpusOptions, sources: Vec<FoundSource>) -> Result<Self> {
        check_field_is_used(options, &sources)?;
        let mut corpus = Self { options: options.clone(), ..Self::default() };
        let mut seen = HashSet::new();
        for source in sources {
            corpus.add(source, &mut seen)?;
        }
        if corpus.blocks.is_empty() && corpus.places.iter().all(|place| place.bytes == 0) {
            let given: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            let malformed: u64 = corpus.sources.iter().map(|source| source.malformed_lines).sum();
            let without = if malformed > 0 { format!(" without {malformed} malformed lines") } else { String::new() };
            let found = format!("none in {}{without}", given.join(", "));
            return Err(Error::invalid("corpus", "at least one document with text", found));
        }
        Ok(corpus)
    }

    fn add(&mut self, found: FoundSource, seen: &mut HashSet<DocumentHash>) -> Result<()> {
        let mut source = CorpusSource {
            name: found.name,
            path: found.path,
            named: found.named,
            sha256: String::new(),
            bytes: 0,
            first_document: self.n_documents(),
            documents: 0,
            duplicates: 0,
            skipped_files: found.skipped,
            malformed_lines: 0,
        };
        let mut hasher = Sha256::new();
        let mut only_hash = None;
        let tables = open_tables(&found.files, self.tables.len(), &self.options)?;
        for (file, blocks) in found.files.into_iter().zip(tables) {
            self.stamps.push((file.name(), stamp(&file)?));
            let sha256 = match blocks {
                Some((table, blocks)) => self.add_table(table, blocks, &mut source)?,
                None => match self.add_file(&file, found.is_folder, seen, &mut source)? {
                    Some(sha256) => sha256,
                    None => continue,
                },
            };
            hasher.update(format!("{}\0{sha256}\n", file.relative));
            only_hash = Some(sha256);
        }
        source.sha256 = only_hash.filter(|_| !found.is_folder).unwrap_or_else(|| hex(&hasher.finalize()));
        source.documents = self.n_documents() - source.first_document;
        self.sources.push(source);
        Ok(())
    }

    /// Adds the documents of a text or JSONL file; returns its hash, or `None` if the file is left out.
    fn add_file(
        &mut self,
        found: &FoundFile,
        in_folder: bool,
        seen: &mut HashSet<DocumentHash>,
        source: &mut CorpusSource,
    ) -> Result<Option<String>> {
        let plain = PlainFile::of(found)?;
        let ScannedFile { sha256, bytes, documents, malformed_lines } = match scan::scan(&plain, &self.options)? {
            Scanned::Text(scanned) => scanned,
            Scanned::NotText(error) if in_folder => {
                tracing::warn!("left out of the corpus: {error}");
                source.skipped_files += 1;
                return Ok(None);
            }
            Scanned::NotText(error) => return Err(error),
        };
        let file = self.files.len() as u32;
        source.bytes += bytes;
        source.malformed_lines += malformed_lines;
        for document in documents {
            if self.options.drop_duplicates && document.hash.is_some_and(|hash| !seen.insert(hash)) {
                source.duplicates += 1;
                continue;
            }
            self.places.push(DocumentPlace { file, offset: document.offset, bytes: document.bytes });
        }
        let sha256 = plain.original_sha256.clone().unwrap_or(sha256);
        self.files.push(plain);
        Ok(Some(sha256))
    }

    /// Adds the rows of a parquet file; returns its hash, or the value used instead of one.
    fn add_table(&mut self, table: TableFile, blocks: Vec<RowBlock>, source: &mut CorpusSource) -> Result<String> {
        for rows in blocks {
            let block = Block { first_document: self.n_documents(), documents: rows.rows };
            let streamed_before = block.first_document - self.places.len() as u64;
            self.blocks.push(PlacedBlock { block, rows, streamed_before });
        }
        source.bytes += table.bytes();
        let sha256 = table.identity()?;
        self.tables.push(table);
        Ok(sha256)
    }
}

/// Refuses a field that the user named if no file has fields: the name would have no effect.
fn check_field_is_used(options: &CorpusOptions, sources: &[FoundSource]) -> Result<()> {
    let flag = match options.chat_field {
        Some(_) => "`chat_field`",
        None if options.text_field != CorpusOptions::default().text_field => "`text_field`",
        None => return Ok(()),
    };
    let mut files = sources.iter().flat_map(|source| &source.files).peekable();
    let Some(first) = files.peek().map(|file| file.name()) else { return Ok(()) };
    if files.any(|file| file.kind != FileKind::Text) {
        return Ok(());
    }
    let expected = "a .jsonl or .parquet file in the corpus (jsonl:- on standard input), whose documents have fields";
    Err(Error::invalid(format!("{flag} {}", options.field()), expected, format!("only plain text, such as {first}")))
}

/// A parquet file and its blocks of rows.
type OpenTable = (TableFile, Vec<RowBlock>);

/// The parquet files among `files`, each with its blocks of rows. Footers are read in parallel, because each takes a
/// while in an object store.
fn open_tables(files: &[FoundFile], first: usize, options: &CorpusOptions) -> Result<Vec<Option<OpenTable>>> {
    let is_table = |file: &FoundFile| file.kind == FileKind::Parquet;
    let numbers = files.iter().scan(first, |next, file| {
        *next += usize::from(is_table(file));
        Some(*next - usize::from(is_table(file)))
    });
    let numbered: Vec<_> = files.iter().zip(numbers).collect();
    let open = |(file, number): (&FoundFile, usize)| {
        if !is_table(file) {
            return Ok(None);
        }
        file.check_not_packed()?;
        let table = TableFile::of(file)?;
        let blocks = table.blocks(number as u32, options)?;
        Ok(Some((table, blocks)))
    };
    numbered.into_par_iter().map(open).collect()
}

/// A stamp that changes when the file does. Standard input and pipes have no stamp: they always count as changed.
pub(super) fn stamp(file: &FoundFile) -> Result<String> {
    match &file.origin {
        Origin::At(location) if location.is_pipe() => Ok(String::new()),
        Origin::At(location) => location.stamp(),
        Origin::OnHub(file) => Ok(file.hash.clone()),
        Origin::Stdin => Ok(String::new()),
    }
}
