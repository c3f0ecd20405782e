//! [`ActivationDataset`]: a finished folder, or several folders that are parts of one harvest, read one row group at
//! a time, and only the requested columns.

use std::collections::{HashMap, HashSet};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::{ArrowPrimitiveType, Float32Type, UInt32Type, UInt64Type},
};
use parquet::{
    arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    file::{metadata::RowGroupMetaData, statistics::Statistics},
};
use sha2::{Digest, Sha256};

use super::{
    documents::{DocumentRecord, DocumentsFile, read_documents},
    earlier::{earlier_folder, extended_folder},
    manifest::HarvestManifest,
    merged_manifest::merged_manifest,
    open_part::{OTHER_FILE, OpenPart, not_as_recorded, unreadable},
    rows::{ActivationRows, TokenRows, Values},
    schema::{ShardSchema, TOKEN_COLUMNS},
    value_chunks,
};
use crate::{
    Error, HookPoint, Location, Monitor, Result, Role,
    store::{MANIFEST_FILE, Manifest, go_on, hex},
    text::DocumentSources,
};

/// Index of the column `context`.
const CONTEXT_COLUMN: usize = 1;

/// A folder of activations, opened for reading.
#[derive(Debug)]
pub struct ActivationDataset {
    /// The folder as the user named it; for several, the folder that contains them.
    pub location: Location,
    /// Folders of the parts: one, or several if they are parts of one corpus.
    folders: Vec<Location>,
    /// How this dataset was made.
    pub manifest: HarvestManifest,
    /// All row groups, in order.
    pub row_groups: Vec<RowGroup>,
    /// The largest context number plus 1. There may be fewer contexts: if parts of a corpus were merged, the numbers of
    /// one part end before those of another.
    pub context_end: u64,
    schema: ShardSchema,
    parts: Vec<OpenPart>,
}

/// Consecutive rows that are read together: whole contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowGroup {
    /// Index in the manifest's parts.
    pub part: usize,
    /// Row group within that file.
    pub group: usize,
    /// Number of rows of the dataset before this group.
    pub first_row: u64,
    /// Number of rows in the group.
    pub rows: usize,
    /// Number of its first context.
    pub first_context: u64,
    /// Number of its last context. If several parts of a corpus form the dataset, numbers in between may belong to
    /// other row groups.
    pub last_context: u64,
}

impl ActivationDataset {
    /// Opens a folder written by `harvest` or `merge`, or a folder of such folders, each of another part of one
    /// corpus, which then form one dataset. Checks that every part has the size, rows and columns recorded in the
    /// manifest; [`Self::verify`] also checks the content.
    ///
    /// # Errors
    /// Names the first file that is not as recorded, with the expected and the found values.
    pub fn open(folder: impl Into<Location>) -> Result<Self> {
        let location = folder.into();
        let folders = folders_of(&location)?;
        Self::open_folders(location, folders)
    }

    /// Opens what a folder held when its manifest had this SHA-256, if it has been extended since; else the folder as
    /// it is now.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_as(folder: impl Into<Location>, manifest_sha256: &str) -> Result<Self> {
        let folder = folder.into();
        let earlier = earlier_folder(&folder, manifest_sha256);
        let is_kept = earlier.join(MANIFEST_FILE).bytes()?.is_some();
        Self::open(if is_kept { earlier } else { folder })
    }

    fn open_folders(location: Location, folders: Vec<Location>) -> Result<Self> {
        let manifests: Vec<_> = folders.iter().map(HarvestManifest::read).collect::<Result<_>>()?;
        for (folder, manifest) in folders.iter().zip(&manifests) {
            check_folder(folder, manifest)?;
        }
        // A merged dataset's parts are in the order of the harvests' parts, whatever the order of the folders.
        let mut order: Vec<_> = (0..folders.len()).collect();
        order.sort_by_key(|i| manifests[*i].config.part);
        let manifest = match &manifests[..] {
            [one] => one.clone(),
            many => merged_manifest(&folders, many)?,
        };
        let schema = ShardSchema::of(&manifest);
        let (mut parts, mut row_groups) = (vec![], vec![]);
        for (folder, manifest) in order.into_iter().map(|i| (&folders[i], &manifests[i])) {
            let extended = extended_folder(folder);
            for recorded in &manifest.parts {
                // The parts that an extension left as they were are in the extended folder.
                let is_own = extended.is_none() || folder.join(&recorded.file).bytes()?.is_some();
                let holder = if is_own { folder } else { extended.as_ref().unwrap_or(folder) };
                let part = OpenPart::open(holder, recorded, &schema)?;
                add_row_groups(&mut row_groups, parts.len(), &part)?;
                parts.push(part);
            }
        }
        let context_end = row_groups.iter().map(|group| group.last_context + 1).max().unwrap_or(0);
        Ok(Self { location, folders, manifest, row_groups, context_end, schema, parts })
    }

    /// SHA-256 of the manifest file; for several folders, of their concatenated hashes.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn manifest_sha256(&self) -> Result<String> {
        let hash = |folder: &Location| Ok(hex(&Sha256::digest(folder.join(MANIFEST_FILE).read()?)));
        let hashes: Vec<_> = self.folders.iter().map(hash).collect::<Result<_>>()?;
        Ok(if let [one] = &hashes[..] { one.clone() } else { hex(&Sha256::digest(hashes.concat())) })
    }

    /// The token columns of the rows of `group`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn tokens(&self, group: RowGroup) -> Result<TokenRows> {
        let columns = (0..TOKEN_COLUMNS.len()).chain(self.schema.role_leaf());
        let batch = self.read_columns(group, &columns.collect::<Vec<_>>())?;
        self.token_rows(group, &batch)
    }

    /// The rows of `group` at `hook_point`; no other hook point is read from the disk.
    ///
    /// # Errors
    /// If the folder lacks the hook point, the file cannot be read, or a value is not finite.
    pub fn read(&self, group: RowGroup, hook_point: HookPoint) -> Result<ActivationRows> {
        let d_model = self.manifest.hook_point(hook_point)?.d_model;
        let place = self.schema.hook_points.iter().position(|(point, _)| *point == hook_point).unwrap_or(0);
        let leaf = self.schema.first_leaf(place);
        let beside = leaf + 1..leaf + self.schema.leaves_per_point();
        let columns = (0..TOKEN_COLUMNS.len()).chain(beside.clone()).chain(self.schema.role_leaf());
        let batch = self.read_columns(group, &columns.collect::<Vec<_>>())?;
        let norm = column::<Float32Type>(batch.column(TOKEN_COLUMNS.len() + beside.len() - 1));
        let mut values = self.read_values(group, leaf, d_model)?;
        if let Values::I8 { scales, .. } = &mut values {
            *scales = column::<Float32Type>(batch.column(TOKEN_COLUMNS.len()));
        }
        if let Some(place) = values.first_not_finite() {
            return Err(self.not_finite(group, hook_point, place / d_model, place % d_model));
        }
        Ok(ActivationRows { rows: self.token_rows(group, &batch)?, norm, values, d_model })
    }

    /// The token columns of a batch, whose last column is that of the roles if there is one.
    fn token_rows(&self, group: RowGroup, batch: &RecordBatch) -> Result<TokenRows> {
        let mut rows = TokenRows {
            document: column::<UInt64Type>(batch.column(0)),
            context: column::<UInt64Type>(batch.column(1)),
            position: column::<UInt32Type>(batch.column(2)),
            token: column::<UInt32Type>(batch.column(3)),
            role: vec![],
        };
        if self.schema.roles {
            let words = batch.column(batch.num_columns() - 1).as_string::<i32>();
            let role = |word: Option<&str>| match word {
                None => Ok(None),
                Some(word) => Role::named(word).map(Some).ok_or_else(|| {
                    let names: Vec<_> = Role::ALL.iter().map(|role| role.name()).collect();
                    let expected = format!("roles: {}", names.join(", "));
                    not_as_recorded(&self.parts[group.part].location, expected, format!("`{word}`"))
                }),
            };
            rows.role = words.iter().map(role).collect::<Result<_>>()?;
        }
        Ok(rows)
    }

    /// We never write such a number, so the file was changed.
    fn not_finite(&self, group: RowGroup, hook_point: HookPoint, row: usize, place: usize) -> Error {
        let part = self.parts[group.part].location.to_string();
        let row = group.first_row + row as u64;
        let found = format!("a NaN or an infinity in row {row} of the folder, at index {place}");
        let hint = "Verify the folder (`refract inspect` does), and harvest it again";
        Error::malformed(part, format!("finite numbers at {hook_point}"), found, hint)
    }

    /// The documents with these numbers, in the order of their table; `None` if the folder has no table of documents: it
    /// is unfinished, or an earlier version wrote it.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn documents(&self, numbers: &HashSet<u64>) -> Result<Option<Vec<DocumentRecord>>> {
        let mut found = vec![];
        let is_there = self.for_each_document(|document| numbers.contains(&document), |record| found.push(record))?;
        Ok(is_there.then_some(found))
    }

    /// A function that finds the source of a document by its number, as an index into the manifest's
    /// [`source_names`](HarvestManifest::source_names).
    ///
    /// # Errors
    /// If the sources are values of a field, and no table says which document is of which.
    pub fn source_of(&self) -> Result<impl Fn(u64) -> Option<usize> + use<>> {
        let sources = self.document_sources()?;
        Ok(move |document| sources.of(document))
    }

    fn document_sources(&self) -> Result<DocumentSources> {
        if self.manifest.sources.is_empty() {
            return Ok(DocumentSources::of_files(&self.manifest.corpus));
        }
        let places: HashMap<_, _> = self.manifest.source_names().iter().map(|(name, _)| *name).zip(0..).collect();
        let mut of_document = vec![];
        let n_documents: u64 = self.manifest.corpus.iter().map(|files| files.documents).sum();
        let is_there = self.for_each_document(
            |document| document < n_documents,
            |record| {
                let at = record.document as usize;
                of_document.resize(of_document.len().max(at + 1), u32::MAX);
                of_document[at] = places.get(record.source.as_str()).copied().unwrap_or(u32::MAX);
            },
        )?;
        if is_there {
            return Ok(DocumentSources::Listed(of_document));
        }
        let expected = "a finished harvest, whose documents.parquet says the source of each document";
        Err(Error::malformed(self.location.to_string(), expected, "none", go_on(self.location.clone())))
    }

    /// Calls `each` with the wanted documents; `false` if a folder has no table of them.
    fn for_each_document(&self, wanted: impl Fn(u64) -> bool, mut each: impl FnMut(DocumentRecord)) -> Result<bool> {
        for folder in &self.folders {
            let Some(DocumentsFile { file, .. }) = HarvestManifest::read(folder)?.documents else { return Ok(false) };
            read_documents(&folder.join(&file), &wanted, &mut each)?;
        }
        Ok(true)
    }

    /// Reads every byte and compares the hashes with those in the manifests, and the hash of each manifest with its
    /// own.
    ///
    /// # Errors
    /// Names the first file that differs.
    pub fn verify(&self, monitor: &dyn Monitor) -> Result<()> {
        monitor.start("verify", self.parts.iter().map(|part| part.recorded.bytes).sum(), "bytes");
        for folder in &self.folders {
            if let Some(DocumentsFile { file, sha256, .. }) = HarvestManifest::read(folder)?.documents {
                folder.join(&file).check_sha256(&sha256, OTHER_FILE)?;
            }
        }
        for part in &self.parts {
            if monitor.cancelled() {
                return Err(Error::Cancelled { place: self.location.to_string() });
            }
            part.location.check_sha256(&part.recorded.sha256, OTHER_FILE)?;
            monitor.advance(part.recorded.bytes);
        }
        monitor.finish();
        Ok(())
    }

    /// Reads a column of values. Scales are read separately.
    fn read_values(&self, group: RowGroup, leaf: usize, width: usize) -> Result<Values> {
        let part = &self.parts[group.part];
        let read = || {
            let mut pages = part.pages(group.group, leaf, group.rows)?;
            value_chunks::decode(&mut pages, self.schema.dtype, self.schema.layout, group.rows * width)
        };
        read().map_err(|error| unreadable(&part.location, &part.recorded, error))
    }

    /// Reads the given flat columns of `group`.
    fn read_columns(&self, group: RowGroup, leaves: &[usize]) -> Result<RecordBatch> {
        let part = &self.parts[group.part];
        let mask = ProjectionMask::leaves(part.metadata.parquet_schema(), leaves.iter().copied());
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(part.file.clone(), part.metadata.clone())
            .with_row_groups(vec![group.group])
            .with_projection(mask)
            .with_batch_size(group.rows)
            .build()
            .map_err(|error| unreadable(&part.location, &part.recorded, error))?;
        let schema = arrow::array::RecordBatchReader::schema(&reader);
        let batches: std::result::Result<Vec<_>, _> = reader.collect();
        let batch = batches.and_then(|batches| concat_batches(&schema, &batches));
        let batch = batch.map_err(|error| unreadable(&part.location, &part.recorded, error.into()))?;
        if batch.num_rows() != group.rows {
            let (expected, found) = (format!("{} rows", group.rows), batch.num_rows().to_string());
            return Err(not_as_recorded(&part.location, expected, found));
        }
        Ok(batch)
    }
}

/// The folders that form the dataset at `location`: the folder itself, or the folders in it that have a manifest if it
/// has none.
pub(crate) fn folders_of(location: &Location) -> Result<Vec<Location>> {
    let has_manifest = |location: &Location| Ok::<_, Error>(location.join(MANIFEST_FILE).bytes()?.is_some());
    if has_manifest(location)? || !location.is_folder()? {
        return Ok(vec![location.clone()]);
    }
    let mut folders = vec![];
    for entry in location.list()? {
        if entry.is_folder && has_manifest(&entry.location)? {
            folders.push(entry.location);
        }
    }
    Ok(if folders.is_empty() { vec![location.clone()] } else { folders })
}

fn check_folder(folder: &Location, manifest: &HarvestManifest) -> Result<()> {
    let name = folder.to_string();
    if manifest.parts.is_empty() {
        let hint = go_on(folder.clone());
        return Err(Error::malformed(name, "at least one finished part", "none", hint));
    }
    if !manifest.complete {
        tracing::warn!("{name} is not complete: reading the {} finished parts", manifest.parts.len());
    }
    check_counts(folder, manifest)
}

fn add_row_groups(row_groups: &mut Vec<RowGroup>, number: usize, part: &OpenPart) -> Result<()> {
    for (group, metadata) in part.metadata.metadata().row_groups().iter().enumerate() {
        let first_row = row_groups.last().map_or(0, |last| last.first_row + last.rows as u64);
        let (first_context, last_context) = contexts_of(metadata).ok_or_else(|| {
            not_as_recorded(&part.location, "the first and last number of each row group's contexts", "none")
        })?;
        let rows = metadata.num_rows() as usize;
        row_groups.push(RowGroup { part: number, group, first_row, rows, first_context, last_context });
    }
    Ok(())
}

/// The smallest and the largest context number of a row group, from its statistics.
fn contexts_of(group: &RowGroupMetaData) -> Option<(u64, u64)> {
    match group.column(CONTEXT_COLUMN).statistics()? {
        Statistics::Int64(numbers) => Some((numbers.min_opt()?.cast_unsigned(), numbers.max_opt()?.cast_unsigned())),
        _ => None,
    }
}

/// A column's values. Its type matches the schema, as checked by [`OpenPart::open`].
fn column<T: ArrowPrimitiveType>(array: &ArrayRef) -> Vec<T::Native> {
    array.as_primitive::<T>().values().to_vec()
}

const EDITED: &str = "The manifest was edited: restore it, or harvest again into another folder";

/// Refuses counts that contradict each other: all later code trusts them.
fn check_counts(folder: &Location, manifest: &HarvestManifest) -> Result<()> {
    let path = folder.join(MANIFEST_FILE).to_string();
    let rows: u64 = manifest.parts.iter().map(|part| part.rows).sum();
    let (counts, ctx_len) = (&manifest.counts, manifest.config.ctx_len as u64);
    let at_most = counts.contexts.checked_mul(ctx_len);
    if ctx_len == 0 || counts.tokens != rows || counts.contexts > rows || at_most.is_none_or(|most| most < rows) {
        let expected = format!("tokens and contexts that add up to the parts' {rows} rows");
        let found = format!("{} tokens, {} contexts of at most {ctx_len}", counts.tokens, counts.contexts);
        return Err(Error::malformed(path, expected, found, EDITED));
    }
    for point in &manifest.hook_points {
        if point.mean.len() != point.d_model || point.std.len() != point.d_model || point.d_model == 0 {
            let expected = format!("a mean and a std of {} values at {}", point.d_model, point.name);
            let found = format!("{} and {}", point.mean.len(), point.std.len());
            return Err(Error::malformed(path, expected, found, EDITED));
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{
        fs::{self, File},
        ops::Range,
        path::Path,
    };

    use parquet::{
        arrow::arrow_reader::{ArrowReaderOptions, RowSelector},
        file::metadata::PageIndexPolicy,
    };

    use super::*;
    use crate::{
        Context, Layout, ShardWriter, Silent, StorageDtype,
        activations::testing::{manifest, rounded, storages, uneven_contexts, write},
    };

    fn dataset(dtype: StorageDtype) -> (tempfile::TempDir, ActivationDataset) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), manifest(3, 4, 8, dtype), 0..5);
        let dataset = ActivationDataset::open(dir.path()).unwrap();
        (dir, dataset)
    }

    /// A folder of uneven contexts over several pages, row groups and parts, and the values that its rows must have.
    fn uneven(dtype: StorageDtype, layout: Layout) -> (tempfile::TempDir, Vec<Context>, Vec<f32>) {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = manifest(300, 64, 64 * 350, dtype);
        manifest.config.layout = layout;
        let (contexts, values) = uneven_contexts(300, 64, 0..500);
        let mut writer = ShardWriter::open(dir.path(), manifest).unwrap();
        writer.write(&contexts, &values).unwrap();
        writer.finish().unwrap();
        let expected = rounded(dtype, 300, &values[0]);
        (dir, contexts, expected)
    }

    #[test]
    fn what_was_written_is_read_back() {
        for (dtype, layout) in storages() {
            let (dir, contexts, expected) = uneven(dtype, layout);
            let dataset = ActivationDataset::open(dir.path()).unwrap();
            assert_eq!((dataset.manifest.parts.len(), dataset.row_groups.len()), (2, 3));
            let rows: Vec<_> =
                dataset.row_groups.iter().map(|group| dataset.read(*group, HookPoint::Embed).unwrap()).collect();
            let read: Vec<f32> = rows.iter().flat_map(|rows| rows.values.to_f32().into_owned()).collect();
            assert!(read == expected, "{dtype} {layout}");
            let tokens: Vec<u32> = rows.iter().flat_map(|rows| rows.rows.token.clone()).collect();
            assert_eq!(tokens, contexts.iter().flat_map(|context| context.tokens.clone()).collect::<Vec<_>>());
            let norms: Vec<f32> = rows.iter().flat_map(|rows| rows.norm.clone()).collect();
            for (norm, row) in norms.iter().zip(expected.chunks(300)) {
                let by_hand = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
                assert!((f64::from(*norm) / by_hand - 1.0).abs() < 1e-6, "{norm} instead of {by_hand}");
            }
        }
    }

    /// The index of pages serves readers other than ours, so another one reads here.
    #[test]
    fn arrow_reads_a_few_contexts_without_the_rest_of_the_file() {
        let (dir, contexts, expected) = uneven(StorageDtype::F32, Layout::List);
        let path = dir.path().join("part-00000.parquet");
        let first_row = |context: usize| contexts[..context].iter().map(|context| context.tokens.len()).sum::<usize>();
        let read = |range: Range<usize>| {
            let rows = first_row(range.start)..first_row(range.end);
            let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
            let selection = vec![RowSelector::skip(rows.start), RowSelector::select(rows.len())];
            let opened = ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(&path).unwrap(), options);
            let batches = opened.unwrap().with_row_selection(selection.into()).with_batch_size(rows.len()).build();
            let batch = batches.unwrap().next().unwrap()?;
            let list = batch.column_by_name("hook_embed").unwrap().as_fixed_size_list();
            let values = list.values().as_primitive::<Float32Type>().values().to_vec();
            Ok::<_, arrow::error::ArrowError>(values == expected[rows.start * 300..rows.end * 300])
        };
        let ranges = [0..1, 17..18, 60..90, 200..202, 255..257, 340..350];
        assert!(ranges.into_iter().all(|range| read(range).unwrap()));
        let mut bytes = fs::read(&path).unwrap();
        // Overwrites the first page of values, of 1 MiB; the token columns before it are small.
        bytes[200_000..900_000].fill(0xff);
        fs::write(&path, bytes).unwrap();
        assert!(first_row(200) * 4 * 300 > 1 << 20, "the contexts read should not be on the first page");
        assert!(read(200..202).unwrap());
        assert!(!read(20..21).is_ok_and(|same| same), "the overwritten page is read when it is needed");
    }

    #[test]
    fn row_groups_are_whole_contexts_numbered_through() {
        let (_dir, dataset) = dataset(StorageDtype::F16);
        let starts: Vec<_> = dataset.row_groups.iter().map(|group| (group.part, group.first_row, group.rows)).collect();
        assert_eq!(starts, [(0, 0, 8), (1, 8, 8), (2, 16, 4)]);
        let tokens = dataset.tokens(dataset.row_groups[1]).unwrap();
        assert_eq!(tokens.context, [2, 2, 2, 2, 3, 3, 3, 3]);
        assert_eq!(tokens.position, [0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn the_manifest_describes_what_is_stored() {
        let (_dir, dataset) = dataset(StorageDtype::F16);
        let mut rows = vec![];
        for group in &dataset.row_groups {
            let read = dataset.read(*group, HookPoint::Embed).unwrap();
            let values = read.values.to_f32();
            let kept = read.rows.position.iter().zip(values.chunks(3)).filter(|(position, _)| **position > 0);
            rows.extend(kept.map(|(_, row)| f64::from(row[1])));
        }
        let mean = rows.iter().sum::<f64>() / rows.len() as f64;
        let summary = dataset.manifest.hook_point(HookPoint::Embed).unwrap();
        assert_eq!(summary.mean[1], mean as f32);
    }

    #[test]
    fn a_flipped_bit_in_any_file_is_found_by_verify() {
        let (dir, dataset) = dataset(StorageDtype::F16);
        dataset.verify(&Silent).unwrap();
        for name in ["manifest.json", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"] {
            let path = dir.path().join(name);
            let bytes = fs::read(&path).unwrap();
            for i in 0..200 {
                let bit = (i * 2_654_435_761_usize) % (8 * bytes.len());
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, damaged).unwrap();
                // Once with the footers read before, and once opened again.
                let verified = dataset.verify(&Silent);
                assert!(verified.unwrap_err().to_string().contains(name), "bit {bit} of {name}");
                let opened = ActivationDataset::open(dir.path()).and_then(|dataset| dataset.verify(&Silent));
                assert!(opened.is_err(), "bit {bit} of {name}");
            }
            fs::write(&path, bytes).unwrap();
        }
        dataset.verify(&Silent).unwrap();
    }

    #[test]
    fn damaged_parts_are_named() {
        let open_after = |change: &dyn Fn(&Path)| {
            let (dir, _) = dataset(StorageDtype::F16);
            change(&dir.path().join("part-00001.parquet"));
            ActivationDataset::open(dir.path()).unwrap_err().to_string()
        };
        let missing = open_after(&|path| fs::remove_file(path).unwrap());
        assert!(missing.contains("part-00001.parquet"), "{missing}");
        let cut = open_after(&|path| fs::write(path, &fs::read(path).unwrap()[..100]).unwrap());
        assert!(cut.contains("found 100 bytes"), "{cut}");
        let foreign = open_after(&|path| fs::write(path, vec![0; fs::metadata(path).unwrap().len() as usize]).unwrap());
        assert!(foreign.contains("expected a parquet file of 8 rows"), "{foreign}");
    }

    #[test]
    fn a_part_of_another_width_is_refused() {
        let (dir, _) = dataset(StorageDtype::F16);
        let other = tempfile::tempdir().unwrap();
        write(other.path(), manifest(5, 4, 8, StorageDtype::F16), 0..2);
        fs::copy(other.path().join("part-00000.parquet"), dir.path().join("part-00000.parquet")).unwrap();
        let mut mixed = HarvestManifest::read(dir.path()).unwrap();
        mixed.parts[0].bytes = fs::metadata(dir.path().join("part-00000.parquet")).unwrap().len();
        mixed.write(dir.path()).unwrap();
        let message = ActivationDataset::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("hook_embed"), "{message}");
    }

    #[test]
    fn a_hook_point_that_was_not_harvested_is_named_with_those_that_were() {
        let (_dir, dataset) = dataset(StorageDtype::F16);
        let group = dataset.row_groups[0];
        let message = dataset.read(group, HookPoint::resid_post(3)).unwrap_err().to_string();
        assert!(message.contains("hook_embed") && message.contains("blocks.3.hook_resid_post"), "{message}");
    }

    #[test]
    fn a_folder_without_a_finished_part_says_how_to_go_on() {
        let dir = tempfile::tempdir().unwrap();
        manifest(3, 4, 8, StorageDtype::F16).write(dir.path()).unwrap();
        let message = ActivationDataset::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("continues where it stopped"), "{message}");
    }
}
