//! [`Corpus::read`]: turns the files found at the given paths into numbered documents. Text and JSONL files are read
//! once from end to end; parquet files, only their footers.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{
    Corpus, CorpusOptions, CorpusSource, LeftOutPlace, PlacedBlock, WhyLeftOut,
    discover::{FileKind, FoundFile, FoundSource},
    document::DocumentHash,
    field_sources::{self, FieldSources, expected_value, expected_values, source_name},
    order::Block,
    plain_file::PlainFile,
    saved::names_of,
    scan::{self, Scanned, ScannedDocument, ScannedFile},
    table_file::{RowBlock, TableFile},
};
use crate::{Error, Result, store::hex};

impl Corpus {
    pub(super) fn read(paths: &[PathBuf], options: &CorpusOptions, sources: Vec<FoundSource>) -> Result<Self> {
        check_field_is_used(options, &sources)?;
        let mut corpus = Self { options: options.clone(), found: names_of(&sources), ..Self::default() };
        corpus.field_sources = options.source_field.as_ref().map(|_| FieldSources::default());
        let mut reading = Reading { seen: HashSet::new(), has_field: vec![false; options.keep_fields.len()] };
        for source in sources {
            corpus.add(source, &mut reading)?;
        }
        make_names_distinct(&mut corpus.sources);
        corpus.check_fields(&reading)?;
        if corpus.blocks.is_empty() && corpus.places.iter().all(|place| place.bytes == 0) {
            let given: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            let malformed: u64 = corpus.sources.iter().map(|source| source.malformed_lines).sum();
            let without = if malformed > 0 { format!(" without {malformed} malformed lines") } else { String::new() };
            let found = format!("none in {}{without}", given.join(", "));
            return Err(Error::invalid("corpus", "at least one document with text", found));
        }
        corpus.malformed().iter().for_each(|said| tracing::warn!("{said}"));
        Ok(corpus)
    }

    fn add(&mut self, found: FoundSource, reading: &mut Reading) -> Result<()> {
        if found.is_split {
            return self.add_split(found, reading);
        }
        let (in_folder, mut source) = (found.is_folder, new_source(self.n_documents(), &found));
        let mut hasher = Sha256::new();
        let mut only_hash = None;
        let tables = open_tables(&found.files, self.tables.len(), &self.options)?;
        for (file, blocks) in found.files.into_iter().zip(tables) {
            let sha256 = match blocks {
                Some((table, blocks, has_field)) => {
                    reading.add_fields(has_field);
                    self.stamps.push((file.name(), file.stamp()?));
                    self.tables_within.push(file.within());
                    self.add_table(table, blocks, &mut source)?
                }
                None => match self.add_file(&file, in_folder, reading, &mut source)? {
                    Some(sha256) => sha256,
                    None => continue,
                },
            };
            hasher.update(format!("{}\0{sha256}\n", file.relative));
            only_hash = Some(sha256);
        }
        source.sha256 = only_hash.filter(|_| !in_folder).unwrap_or_else(|| hex(&hasher.finalize()));
        self.end_source(source);
        Ok(())
    }

    /// Adds each file of `found` as a source of its own, and the folder as one without documents if something in it was
    /// left out.
    fn add_split(&mut self, found: FoundSource, reading: &mut Reading) -> Result<()> {
        let mut folder = new_source(self.n_documents(), &found);
        for file in found.files {
            let mut source = CorpusSource { skipped_files: 0, ..new_source(self.n_documents(), &file.as_source()) };
            match self.add_file(&file, true, reading, &mut source)? {
                Some(sha256) => self.end_source(CorpusSource { sha256, ..source }),
                None => folder.skipped_files += 1,
            }
        }
        if folder.skipped_files > 0 {
            folder.first_document = self.n_documents();
            folder.sha256 = hex(&Sha256::new().finalize());
            self.end_source(folder);
        }
        Ok(())
    }

    fn end_source(&mut self, mut source: CorpusSource) {
        source.documents = self.n_documents() - source.first_document;
        self.sources.push(source);
    }

    /// Adds the documents of a text or JSONL file; returns its hash, or `None` if the file is left out.
    fn add_file(
        &mut self,
        found: &FoundFile,
        in_folder: bool,
        reading: &mut Reading,
        source: &mut CorpusSource,
    ) -> Result<Option<String>> {
        self.stamps.push((found.name(), found.stamp()?));
        let plain = PlainFile::of(found)?;
        let ScannedFile { sha256, bytes, documents, malformed, has_field } = match scan::scan(&plain, &self.options)? {
            Scanned::Text(scanned) => scanned,
            Scanned::NotText(error) if in_folder => {
                tracing::warn!("left out of the corpus: {error}");
                source.skipped_files += 1;
                return Ok(None);
            }
            Scanned::NotText(error) => return Err(error),
        };
        let (file, of_source) = (self.files.len() as u32, self.sources.len() as u32);
        let place = |found: &ScannedDocument| found.at(file);
        let left_out = |found: &ScannedDocument, why| LeftOutPlace { source: of_source, place: place(found), why };
        source.bytes += bytes;
        source.malformed_lines += malformed.len() as u64;
        self.left_out.extend(malformed.iter().map(|line| left_out(line, WhyLeftOut::Malformed)));
        for document in documents {
            if self.options.drop_duplicates && document.hash.is_some_and(|hash| !reading.seen.insert(hash)) {
                source.duplicates += 1;
                self.left_out.push(left_out(&document, WhyLeftOut::Repeated));
                continue;
            }
            self.places.push(place(&document));
            self.add_to_source(document.source.as_deref(), &source.name, || plain.place_of(place(&document)))?;
        }
        reading.add_fields(has_field);
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
        if let Some(field) = self.options.source_field.clone() {
            table.for_each_value(&field, |value| {
                let name = source_name(value).map_err(|found| {
                    Error::malformed(table.name(), expected_value(&field), found, field_sources::hint(&field))
                })?;
                self.add_to_source(name.as_deref(), &source.name, || table.name())
            })?;
        }
        let sha256 = table.identity()?;
        self.tables.push(table);
        Ok(sha256)
    }
}

impl Corpus {
    /// Adds the next document, which is at `place`, to the source of its value of `source_field`, or to its file's.
    fn add_to_source(&mut self, value: Option<&str>, file: &str, place: impl Fn() -> String) -> Result<()> {
        let (Some(sources), Some(field)) = (&mut self.field_sources, &self.options.source_field) else { return Ok(()) };
        sources
            .push(value, file)
            .map_err(|found| Error::malformed(place(), expected_values(field), found, field_sources::hint(field)))
    }

    /// Refuses a field in which no document has a value: its name would have no effect.
    fn check_fields(&self, reading: &Reading) -> Result<()> {
        let kept = self.options.keep_fields.iter().zip(&reading.has_field).find(|(_, has)| !**has);
        let kept = kept.map(|(field, _)| ("`keep_fields`", field));
        let has_sources = self.field_sources.as_ref().is_none_or(FieldSources::has_values);
        let of_source = self.options.source_field.as_ref().filter(|_| !has_sources);
        let Some((setting, field)) = kept.or(of_source.map(|field| ("`source_field`", field))) else { return Ok(()) };
        let expected = "a field of a .jsonl line, or a column of a .parquet file, with a value in the corpus";
        let names: Vec<_> = self.sources.iter().map(|source| source.path.as_str()).collect();
        let found = format!("none, or only null and NaN, in {}", names.join(", "));
        Err(Error::invalid(format!("{setting} {field}"), expected, found))
    }
}

/// The state that is carried from file to file while a corpus is opened.
struct Reading {
    /// Hashes of the documents so far.
    seen: HashSet<DocumentHash>,
    /// For each kept field, whether a document has a value in it.
    has_field: Vec<bool>,
}

impl Reading {
    /// Adds the kept fields that a file has.
    fn add_fields(&mut self, has_field: Vec<bool>) {
        self.has_field.iter_mut().zip(has_field).for_each(|(all, here)| *all |= here);
    }
}

/// The source `found`, which starts at `first_document` and has nothing in it yet.
fn new_source(first_document: u64, found: &FoundSource) -> CorpusSource {
    CorpusSource {
        name: found.name.clone(),
        path: found.path.clone(),
        named: found.named.clone(),
        sha256: String::new(),
        bytes: 0,
        first_document,
        documents: 0,
        duplicates: 0,
        skipped_files: found.skipped,
        malformed_lines: 0,
    }
}

/// Sources that share a name get their whole path as name.
fn make_names_distinct(sources: &mut [CorpusSource]) {
    let mut times: HashMap<String, u32> = HashMap::new();
    sources.iter().for_each(|source| *times.entry(source.name.clone()).or_default() += 1);
    for source in sources.iter_mut().filter(|source| times[&source.name] > 1) {
        source.name = source.path.clone();
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

/// A parquet file, its blocks of rows, and for each kept field whether it has that column.
type OpenTable = (TableFile, Vec<RowBlock>, Vec<bool>);

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
        let (blocks, has_field) = table.blocks(number as u32, options)?;
        Ok(Some((table, blocks, has_field)))
    };
    numbered.into_par_iter().map(open).collect()
}
