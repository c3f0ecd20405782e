//! Saves and loads the result of opening a [`Corpus`]: a resumed run loads it from a file instead of reading every
//! document again. It is valid only while no file of the corpus has changed.
//!
//! ```text
//! parquet:  one row per document that is not streamed, then one per line or file left out: place, source, reason;
//!           all else as JSON in the file's metadata
//! ```

use std::{fs::File, path::Path, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch, StringArray, UInt32Array, UInt64Array},
    datatypes::{UInt32Type, UInt64Type},
};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
};
use serde::{Deserialize, Serialize};

use super::{
    Block, Corpus, CorpusOptions, CorpusSource, DocumentPlace, LeftOutPlace, PlacedBlock, PlainFile, RowBlock,
    TableFile, WhyLeftOut,
    discover::{FileKind, FoundFile, FoundSource},
    field_sources::FieldSources,
};
use crate::{Error, Result, store::AtomicFile};

/// Key of the JSON in the file's metadata.
const KEY: &str = "refract.corpus";

/// Everything except the positions of documents.
#[derive(Serialize, Deserialize)]
struct Saved {
    /// A file saved by another version of refract is not used.
    refract_version: String,
    options: CorpusOptions,
    sources: Vec<CorpusSource>,
    /// Path and name of the sources as they were found, before a folder was split.
    found: Vec<(String, String)>,
    files: Vec<SavedFile>,
    /// Per block: first document, number of documents; file, row group, first row.
    blocks: Vec<SavedBlock>,
    stamps: Vec<(String, String)>,
    /// Names of the sources that the values of a field make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    field_sources: Option<Vec<String>>,
}

type SavedBlock = (u64, u64, u32, u32, u64);

#[derive(Serialize, Deserialize)]
struct SavedFile {
    name: String,
    within: String,
    path: std::path::PathBuf,
    kind: FileKind,
    original_sha256: Option<String>,
}

/// Writes the contents of `corpus`.
pub(super) fn save(corpus: &Corpus, path: &Path) -> Result<()> {
    let file = |file: &PlainFile| SavedFile {
        name: file.name.clone(),
        within: file.within.clone(),
        path: file.path.clone(),
        kind: file.kind,
        original_sha256: file.original_sha256.clone(),
    };
    let block = |placed: &PlacedBlock| {
        let (block, rows) = (placed.block, placed.rows);
        (block.first_document, block.documents, rows.file, rows.group, rows.first_row)
    };
    let saved = Saved {
        refract_version: env!("CARGO_PKG_VERSION").into(),
        options: corpus.options.clone(),
        sources: corpus.sources.clone(),
        found: corpus.found.clone(),
        files: corpus.files.iter().map(file).collect(),
        blocks: corpus.blocks.iter().map(block).collect(),
        stamps: corpus.stamps.clone(),
        field_sources: corpus
            .field_sources
            .as_ref()
            .map(|of_field| of_field.sources.iter().map(|source| source.name.clone()).collect()),
    };
    let json = serde_json::to_string(&saved).map_err(|error| Error::io("write", path)(error.into()))?;
    let left_out = corpus.left_out.iter().map(|left| (&left.place, left.source, Some(left.why)));
    // Without tables, documents are numbered as their places are.
    let source_of = |document| corpus.field_sources.as_ref().map_or(0, |of_field| of_field.of_document[document]);
    let places = corpus.places.iter().enumerate().map(|(document, place)| (place, source_of(document), None));
    let rows: Vec<_> = places.chain(left_out).collect();
    let numbers = |of: fn(&DocumentPlace) -> u64| {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(place, ..)| of(place)))) as Arc<dyn Array>
    };
    let file = Arc::new(UInt32Array::from_iter_values(rows.iter().map(|(place, ..)| place.file)));
    let source = Arc::new(UInt32Array::from_iter_values(rows.iter().map(|(_, source, _)| *source)));
    let why = Arc::new(rows.iter().map(|(.., why)| why.map(WhyLeftOut::name)).collect::<StringArray>());
    let columns: [(&str, Arc<dyn Array>); 6] = [
        ("file", file),
        ("offset", numbers(|place| place.offset)),
        ("bytes", numbers(|place| place.bytes)),
        ("line", numbers(|place| place.line)),
        ("source", source),
        ("why", why),
    ];
    write(path, columns, json).map_err(Error::parquet("write", path))?.publish().map(drop)
}

fn write(
    path: &Path,
    columns: [(&str, Arc<dyn Array>); 6],
    json: String,
) -> std::result::Result<AtomicFile, ParquetError> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, name == "why")))?;
    let metadata = vec![KeyValue::new(KEY.into(), json)];
    let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata)).build();
    let file = AtomicFile::create(path).map_err(|error| ParquetError::External(error.into()))?;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.into_inner()
}

/// The sources that an earlier run found, with the commits of datasets on the Hub.
pub(super) fn sources(path: &Path) -> Vec<CorpusSource> {
    let reader = File::open(path).ok().and_then(|file| ParquetRecordBatchReaderBuilder::try_new(file).ok());
    reader.and_then(|reader| said(&reader)).map_or_else(Vec::new, |saved| saved.sources)
}

/// Everything saved except the positions of documents.
fn said(reader: &ParquetRecordBatchReaderBuilder<File>) -> Option<Saved> {
    let metadata = reader.metadata().file_metadata().key_value_metadata()?;
    let json = metadata.iter().find(|entry| entry.key == KEY)?.value.as_deref()?;
    serde_json::from_str(json).ok()
}

/// The saved corpus; `None` if there is none, it cannot be read, or anything has changed. The corpus is then read anew.
pub(super) fn load(path: &Path, options: &CorpusOptions, found: &[FoundSource]) -> Option<Corpus> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).ok()?).ok()?;
    let saved = said(&reader)?;
    let files = found.iter().flat_map(|source| &source.files);
    let stamps: Vec<(String, String)> =
        files.clone().map(|file| Some((file.name(), file.stamp().ok()?))).collect::<Option<_>>()?;
    let same =
        saved.refract_version == env!("CARGO_PKG_VERSION") && saved.options == *options && saved.stamps == stamps;
    // Standard input has no stamp, and a plain copy may have been removed from the cache.
    let there = stamps.iter().all(|(_, stamp)| !stamp.is_empty()) && saved.files.iter().all(|file| file.path.exists());
    // The sources of rows are not saved: their column is read again.
    let has_rows = options.source_field.is_some() && !saved.blocks.is_empty();
    if !same || !there || has_rows || names_of(found) != saved.found {
        return None;
    }
    let (mut places, mut left_out, mut of_document) = (vec![], vec![], vec![]);
    for batch in reader.build().ok()? {
        add_rows(&batch.ok()?, &mut places, &mut of_document, &mut left_out)?;
    }
    let table_files: Vec<&FoundFile> = files.filter(|file| file.kind == FileKind::Parquet).collect();
    let tables: Vec<_> = table_files.iter().map(|file| TableFile::of(file)).collect::<Result<_>>().ok()?;
    let is_place = |place: &DocumentPlace| {
        (place.file as usize) < saved.files.len() && place.bytes <= saved.options.max_document_bytes
    };
    let is_left = |left: &LeftOutPlace| is_place(&left.place) && (left.source as usize) < saved.sources.len();
    if !places.iter().all(is_place) || !left_out.iter().all(is_left) {
        return None;
    }
    let field_sources = match saved.field_sources {
        Some(names) => Some(FieldSources::saved(names, of_document)?),
        None => None,
    };
    let blocks = placed(&saved.blocks, tables.len(), places.len() as u64)?;
    let file = |file: SavedFile| PlainFile {
        name: file.name,
        within: file.within,
        path: file.path,
        kind: file.kind,
        original_sha256: file.original_sha256,
    };
    Some(Corpus {
        options: saved.options,
        sources: saved.sources,
        files: saved.files.into_iter().map(file).collect(),
        found: saved.found,
        places,
        left_out,
        field_sources,
        tables,
        tables_within: table_files.iter().map(|file| file.within()).collect(),
        blocks,
        stamps,
        was_saved: true,
        ..Corpus::default()
    })
}

/// Path and name of each source.
pub(super) fn names_of(found: &[FoundSource]) -> Vec<(String, String)> {
    found.iter().map(|source| (source.path.clone(), source.name.clone())).collect()
}

/// Adds the rows of a batch; `None` if it has other columns.
fn add_rows(
    batch: &RecordBatch,
    places: &mut Vec<DocumentPlace>,
    of_document: &mut Vec<u32>,
    left_out: &mut Vec<LeftOutPlace>,
) -> Option<()> {
    let small = |name: &str| Some(batch.column_by_name(name)?.as_primitive_opt::<UInt32Type>()?.values());
    let large = |name: &str| Some(batch.column_by_name(name)?.as_primitive_opt::<UInt64Type>()?.values());
    let (file, source) = (small("file")?, small("source")?);
    let (offset, bytes, line) = (large("offset")?, large("bytes")?, large("line")?);
    let why = batch.column_by_name("why")?.as_string_opt::<i32>()?;
    for row in 0..batch.num_rows() {
        let place = DocumentPlace { file: file[row], offset: offset[row], bytes: bytes[row], line: line[row] };
        match why.is_valid(row).then(|| why.value(row)) {
            None => {
                places.push(place);
                of_document.push(source[row]);
            }
            Some(name) => {
                let why = [WhyLeftOut::Repeated, WhyLeftOut::Malformed].into_iter().find(|why| why.name() == name)?;
                left_out.push(LeftOutPlace { source: source[row], place, why });
            }
        }
    }
    Some(())
}

/// The saved blocks of rows, for `tables` files and `places` other documents; `None` if they do not fit.
fn placed(saved: &[SavedBlock], tables: usize, places: u64) -> Option<Vec<PlacedBlock>> {
    let (mut end, mut streamed_before) = (0, 0);
    let mut blocks = Vec::with_capacity(saved.len());
    for &(first_document, documents, file, group, first_row) in saved {
        // The documents before this block are all earlier blocks and some of the `places` other documents.
        if file as usize >= tables || first_document < end || first_document - streamed_before > places {
            return None;
        }
        end = first_document.checked_add(documents)?;
        let block = Block { first_document, documents };
        blocks.push(PlacedBlock { block, rows: RowBlock { file, group, first_row, rows: documents }, streamed_before });
        streamed_before += documents;
    }
    Some(blocks)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_saved_of_other_files_than_there_are_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, saved) = (folder.path().join("lines.jsonl"), folder.path().join("saved.parquet"));
        fs::write(&path, "{\"text\":\"one\"}\n{\"text\":\"two\"}\n").unwrap();
        let paths = [path];
        let open = || Corpus::open_saved(&paths, &CorpusOptions::default(), &saved, &[], None).unwrap();
        type Damage = fn(&mut Corpus);
        let damages: [(&str, Damage); 3] = [
            ("a file of a place", |corpus| corpus.places[1].file = 7),
            ("a length of a place", |corpus| corpus.places[1].bytes = u64::MAX),
            ("a file of a block", |corpus| {
                let rows = RowBlock { file: 1, group: 0, first_row: 0, rows: 3 };
                let block = Block { first_document: 2, documents: 3 };
                corpus.blocks = vec![PlacedBlock { block, rows, streamed_before: 0 }];
            }),
        ];
        open().save(&saved).unwrap();
        assert!(open().was_saved);
        for (damage, change) in damages {
            let mut corpus = Corpus::open(&paths, &CorpusOptions::default()).unwrap();
            change(&mut corpus);
            corpus.save(&saved).unwrap();
            let found = open();
            assert!(!found.was_saved, "{damage}");
            assert_eq!(found.document(1).unwrap(), crate::text::Document::Text("two".into()));
        }
    }

    #[test]
    fn the_sources_of_a_field_are_saved() {
        let folder = tempfile::tempdir().unwrap();
        let (path, saved) = (folder.path().join("lines.jsonl"), folder.path().join("saved.parquet"));
        let lines = ["en", "fr", "en", ""].map(|lang| format!("{{\"text\":\"{lang}!\",\"lang\":\"{lang}\"}}\n"));
        fs::write(&path, lines.concat() + "{\"text\":\"other\"}\n").unwrap();
        let options = CorpusOptions { source_field: Some("lang".into()), ..CorpusOptions::default() };
        let open = || Corpus::open_saved(std::slice::from_ref(&path), &options, &saved, &[], None).unwrap();
        let found = |corpus: &Corpus| {
            let of = corpus.document_sources();
            let of: Vec<_> = (0..corpus.n_documents()).map(|document| of.of(document)).collect();
            (of, corpus.named_sources().to_vec())
        };
        let read = open();
        read.save(&saved).unwrap();
        let loaded = open();
        assert!(loaded.was_saved);
        assert_eq!(found(&loaded), found(&read));
        assert_eq!(found(&loaded).0.len(), 4, "the repeated line is left out");
    }

    #[test]
    fn blocks_of_rows_are_in_order_and_leave_room_for_no_more_than_there_is() {
        let good = [(0, 5, 0, 0, 0), (7, 5, 1, 0, 0)];
        assert_eq!(placed(&good, 2, 2).unwrap()[1].streamed(), 10);
        assert!(placed(&good, 1, 2).is_none(), "a file that is not there");
        assert!(placed(&good, 2, 1).is_none(), "a gap");
        assert!(placed(&[good[1], good[0]], 2, 7).is_none(), "out of order");
        assert!(placed(&[(0, u64::MAX, 0, 0, 0), (u64::MAX, 1, 0, 0, 0)], 1, 0).is_none(), "too many");
    }
}
