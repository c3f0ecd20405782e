//! [`ShardWriter`]: turns contexts and their activations into finished parts and an up-to-date manifest. The ends of
//! row groups and parts depend only on the config, all sums over parts are stored with the parts, and every batch is in
//! a journal before it counts. So a run that was stopped anywhere and started again writes the same bytes as an
//! uninterrupted one, and computes at most one batch twice.
//!
//! ```text
//! batch -> rounded -> journal (on disk) -> row group (in memory) -> part (unfinished) -> part (published) -> manifest
//! ```

use std::{collections::BTreeMap, path::Path};

use sha2::{Digest, Sha256};

use super::{
    documents::{DOCUMENTS, DocumentsFile},
    journal::{Journal, JournalHeader},
    manifest::{HarvestManifest, HookPointSummary, Part, SourceCounts},
    open_part::part_statistics,
    part_names::{journal_file, part_file},
    part_writer::{PartWriter, RowGroupBuffer},
    schema::{ROW_GROUP_ROWS, ShardSchema},
    stored_batch::{StoredBatch, norms, push_tokens},
};
use crate::{
    Result,
    numbers::{HookPointStatistics, NormHistogram, SINK_MULTIPLE},
    store::{Manifest, OutputFolder, hex},
    text::{Context, ContextCursor, DocumentSources, LeftOut},
};

/// Version of the journals' layout. A journal does not outlive its run, but another version of refract may find one.
const JOURNAL_VERSION: u32 = 2;

/// Writes the parts of one folder.
pub struct ShardWriter {
    folder: OutputFolder,
    schema: ShardSchema,
    manifest: HarvestManifest,
    /// Statistics of the finished parts, one per hook point.
    totals: Option<Vec<HookPointStatistics>>,
    /// The batches of the part that is being written.
    journal: Option<Journal>,
    part: Option<UnfinishedPart>,
    group: RowGroupBuffer,
    group_contexts: u64,
    /// Position after the last context written.
    next: ContextCursor,
    /// Number of rows written, in finished parts or not.
    rows: u64,
    /// The source of each document.
    source_of: DocumentSources,
    /// The sources of the open part.
    sources: BTreeMap<usize, SourceCounts>,
    /// The document of the last row of the open part.
    last_document: Option<u64>,
}

/// The part that is being written.
struct UnfinishedPart {
    file: String,
    writer: PartWriter,
    rows: usize,
    statistics: Option<Vec<HookPointStatistics>>,
}

impl ShardWriter {
    /// Continues in the folder `dir` on this machine after the parts listed in `manifest` and the batches in the
    /// journal of the next part. The manifest's hook points are those to write.
    ///
    /// # Errors
    /// If a listed part is missing or damaged, or the journal cannot be read.
    pub fn open(dir: &Path, manifest: HarvestManifest) -> Result<Self> {
        let sources = DocumentSources::of_files(&manifest.corpus);
        Self::resume(OutputFolder::at(dir)?, manifest, sources)
    }

    /// [`Self::open`] for a folder at any kind of location, and sources of any kind.
    pub(crate) fn resume(folder: OutputFolder, manifest: HarvestManifest, source_of: DocumentSources) -> Result<Self> {
        let schema = ShardSchema::of(&manifest);
        let mut totals: Option<Vec<HookPointStatistics>> = None;
        for part in &manifest.parts {
            merge(&mut totals, part_statistics(folder.location(), part, &schema)?);
        }
        let next = manifest.parts.last().map_or_else(ContextCursor::default, |part| part.next);
        let group = RowGroupBuffer::new(&schema, group_contexts(&manifest) as usize * manifest.config.ctx_len);
        let rows = manifest.counts.tokens;
        let (journal, part, group_contexts) = (None, None, 0);
        let (sources, last_document) = (BTreeMap::new(), None);
        let mut writer = Self {
            folder,
            schema,
            manifest,
            totals,
            journal,
            part,
            group,
            group_contexts,
            next,
            rows,
            source_of,
            sources,
            last_document,
        };
        writer.summarize();
        writer.replay()?;
        Ok(writer)
    }

    /// Position at which the stream of contexts must continue.
    pub(crate) fn next(&self) -> ContextCursor {
        self.next
    }

    /// Tokens written: those of finished parts and those in the journal.
    pub(crate) fn tokens(&self) -> u64 {
        self.rows
    }

    /// Tokens written that are not in finished parts.
    pub(crate) fn journaled_tokens(&self) -> u64 {
        self.rows - self.manifest.counts.tokens
    }

    /// Writes contexts that follow the last ones written. Once this returns, killing the process does not lose them.
    ///
    /// # Shapes
    /// `activations`: for each hook point `[rows, width]`, row-major, the rows of all contexts concatenated
    ///
    /// # Errors
    /// If a value does not fit the dtype, or a file operation fails. Finished parts are kept.
    pub fn write(&mut self, contexts: &[Context], activations: &[Vec<f32>]) -> Result<()> {
        if contexts.is_empty() {
            return Ok(());
        }
        let batch = StoredBatch::round(&self.schema.hook_points, self.schema.dtype, contexts, activations)?;
        let journal = match &mut self.journal {
            Some(journal) => journal,
            none => {
                let path = self.folder.unfinished(&journal_file(self.manifest.parts.len()))?;
                none.insert(Journal::create(&path, &header(&self.manifest, self.next))?)
            }
        };
        journal.append(&batch)?;
        self.add(&batch)
    }

    /// Adds the batches of the next part that an earlier process has computed. Stops at the first batch that an
    /// uninterrupted run with the present budget would have cut differently.
    fn replay(&mut self) -> Result<()> {
        let path = self.folder.resume().join(journal_file(self.manifest.parts.len()));
        self.journal = Journal::open(&path, &header(&self.manifest, self.next))?;
        // `add` removes the journal with the batch that ends its part.
        while let Some(journal) = &mut self.journal {
            let first = self.next.contexts;
            let expected = first..first + self.manifest.config.batch_contexts(first);
            let follows = |batch: &StoredBatch| {
                !expected.is_empty() && batch.contexts.iter().map(|context| context.index).eq(expected.clone())
            };
            let Some(batch) = journal.next(&self.schema, follows)? else { break };
            self.add(&batch)?;
        }
        Ok(())
    }

    /// Writes the remaining rows, as a shorter part, and marks the folder complete.
    ///
    /// # Errors
    /// If a file operation fails.
    pub fn finish(self) -> Result<HarvestManifest> {
        let left_out = self.next.left_out;
        self.finish_leaving_out(0, left_out)
    }

    /// [`Self::finish`], with the counts of text that is in no context, up to the end of what was read.
    pub(crate) fn finish_leaving_out(mut self, dropped_tokens: u64, left_out: LeftOut) -> Result<HarvestManifest> {
        self.end_row_group()?;
        self.end_part()?;
        self.manifest.counts.dropped_tokens = dropped_tokens;
        self.manifest.counts.left_out = left_out;
        self.manifest.complete = true;
        self.manifest.write(self.folder.location())?;
        self.folder.remove_unfinished()?;
        Ok(self.manifest)
    }

    /// Publishes the table of documents, which `make` writes to the given path. The manifest lists it once the folder
    /// is complete.
    pub(crate) fn add_documents(&mut self, make: impl FnOnce(&Path) -> Result<DocumentsFile>) -> Result<()> {
        let path = self.folder.unfinished(DOCUMENTS.file)?;
        let made = make(&path)?;
        self.folder.publish(&path, &made.file)?;
        self.manifest.documents = Some(made);
        Ok(())
    }

    /// Adds a batch from the journal to row groups and parts.
    fn add(&mut self, batch: &StoredBatch) -> Result<()> {
        let norms: Vec<Vec<f32>> = self
            .schema
            .hook_points
            .iter()
            .zip(&batch.values)
            .map(|((_, width), values)| norms(values, *width))
            .collect();
        let mut row = 0;
        for context in &batch.contexts {
            let rows = row..row + context.tokens.len();
            self.count_sources(&context.documents);
            push_tokens(&mut self.group.rows, context, self.manifest.config.part);
            for (point, (_, width)) in self.schema.hook_points.iter().enumerate() {
                self.group.values[point].extend_rows(&batch.values[point], rows.clone(), *width);
                self.group.norms[point].extend_from_slice(&norms[point][rows.clone()]);
            }
            row = rows.end;
            self.rows += context.tokens.len() as u64;
            self.group_contexts += 1;
            self.next = context.next;
            self.end_what_is_full()?;
        }
        Ok(())
    }

    /// Counts the tokens of a context, and the documents that begin in it, by source.
    fn count_sources(&mut self, documents: &[u64]) {
        for run in documents.chunk_by(|a, b| a == b) {
            // A part may go on with a document that an earlier part counts.
            let goes_on = self.last_document.map_or(self.next.tokens > 0, |last| last == run[0]);
            self.last_document = Some(run[0]);
            let Some(source) = self.source_of.of(run[0]) else { continue };
            let counts = self.sources.entry(source).or_insert(SourceCounts { source, documents: 0, tokens: 0 });
            counts.documents += u64::from(!goes_on);
            counts.tokens += run.len() as u64;
        }
    }

    fn end_what_is_full(&mut self) -> Result<()> {
        let part_is_full = self.next.contexts.is_multiple_of(self.manifest.config.part_contexts());
        if part_is_full || self.group_contexts == group_contexts(&self.manifest) {
            self.end_row_group()?;
        }
        if part_is_full { self.end_part() } else { Ok(()) }
    }

    fn end_row_group(&mut self) -> Result<()> {
        if self.group.rows.token.is_empty() {
            return Ok(());
        }
        let sink_norms = self.sink_norms();
        let part = match &mut self.part {
            Some(part) => part,
            none => none.insert(UnfinishedPart::create(&self.folder, self.manifest.parts.len(), &self.schema)?),
        };
        let statistics = part.statistics.get_or_insert_with(|| {
            let widths = self.schema.hook_points.iter().map(|(_, width)| *width);
            widths.zip(&sink_norms).map(|(width, sink_norm)| HookPointStatistics::new(width, *sink_norm)).collect()
        });
        observe(&self.group, statistics);
        part.rows += self.group.rows.token.len();
        part.writer.write(&self.group)?;
        self.group.clear();
        self.group_contexts = 0;
        Ok(())
    }

    /// The norm above which a row is a sink, for each hook point; set by the very first row group.
    fn sink_norms(&self) -> Vec<f32> {
        let settled = self.totals.as_ref().or_else(|| self.part.as_ref().and_then(|part| part.statistics.as_ref()));
        match settled {
            Some(statistics) => statistics.iter().map(HookPointStatistics::sink_norm).collect(),
            None => self.group.norms.iter().map(|norms| sink_norm(norms, &self.group.rows.position)).collect(),
        }
    }

    /// The order matters: the part is published, the manifest lists it, and only then its journal is removed.
    fn end_part(&mut self) -> Result<()> {
        let Some(part) = self.part.take() else { return Ok(()) };
        let statistics = part.statistics.unwrap_or_default();
        let published = part.writer.finish(&statistics)?;
        self.folder.publish(&self.folder.resume().join(&part.file), &part.file)?;
        merge(&mut self.totals, statistics);
        self.last_document = None;
        self.summarize();
        self.manifest.parts.push(Part {
            file: part.file,
            rows: part.rows as u64,
            bytes: published.bytes,
            sha256: published.sha256,
            next: self.next,
            sources: std::mem::take(&mut self.sources).into_values().collect(),
        });
        self.manifest.count_parts();
        self.manifest.write(self.folder.location())?;
        self.journal.take().map_or(Ok(()), Journal::remove)
    }

    /// Updates the manifest's summaries to match the finished parts.
    fn summarize(&mut self) {
        if let Some(totals) = &self.totals {
            let points = self.schema.hook_points.iter().zip(totals);
            self.manifest.hook_points =
                points.map(|((point, _), total)| HookPointSummary::new(*point, total)).collect();
        }
    }
}

impl UnfinishedPart {
    fn create(folder: &OutputFolder, number: usize, schema: &ShardSchema) -> Result<Self> {
        let file = part_file(number);
        let writer = PartWriter::create(&folder.unfinished(&file)?, schema)?;
        Ok(Self { file, writer, rows: 0, statistics: None })
    }
}

/// The header of the journal for the part after those of `manifest`.
fn header(manifest: &HarvestManifest, start: ContextCursor) -> JournalHeader {
    let run = hex(&Sha256::digest(manifest.identity().to_string()));
    JournalHeader { version: JOURNAL_VERSION, run, part: manifest.parts.len(), start }
}

/// Contexts per full row group: at least one.
fn group_contexts(manifest: &HarvestManifest) -> u64 {
    (ROW_GROUP_ROWS / manifest.config.ctx_len).max(1) as u64
}

fn sink_norm(norms: &[f32], positions: &[u32]) -> f32 {
    let mut histogram = NormHistogram::default();
    for (norm, _) in norms.iter().zip(positions).filter(|(_, position)| **position > 0) {
        histogram.observe(*norm);
    }
    let median = histogram.quantile(0.5);
    // A hook point that is zero nearly everywhere has no sinks.
    if histogram.max() == 0.0 || median == 0.0 { f32::MAX } else { SINK_MULTIPLE * median }
}

fn observe(group: &RowGroupBuffer, statistics: &mut [HookPointStatistics]) {
    for ((statistics, values), norms) in statistics.iter_mut().zip(&group.values).zip(&group.norms) {
        let width = statistics.width();
        let mut row = vec![0.0; width];
        for (i, (norm, position)) in norms.iter().zip(&group.rows.position).enumerate() {
            values.copy_row(i, &mut row);
            statistics.observe(&row, *norm, *position);
        }
    }
}

/// Adds a part's statistics to those of the parts before it.
fn merge(totals: &mut Option<Vec<HookPointStatistics>>, part: Vec<HookPointStatistics>) {
    match totals {
        None => *totals = Some(part),
        Some(totals) => totals.iter_mut().zip(&part).for_each(|(total, part)| total.merge(part)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        ActivationDataset, HarvestConfig, StorageDtype,
        activations::{
            harvest_folder::begin_harvest,
            manifest::tests::example,
            testing::{contexts, manifest, uneven_contexts, write},
        },
    };

    /// Published files; unfinished ones are left out.
    fn bytes_of(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }

    /// Three contexts per batch, seven per part.
    fn batched(dtype: StorageDtype) -> HarvestManifest {
        let mut manifest = manifest(3, 4, 7 * 4, dtype);
        manifest.config.batch = 3;
        manifest.config.tokens = Some(18 * 4);
        manifest
    }

    /// Opens a folder as a harvest does.
    fn resumed(folder: OutputFolder, wanted: HarvestManifest) -> ShardWriter {
        let manifest = begin_harvest(&folder, wanted, &[]).unwrap();
        let sources = DocumentSources::of_files(&manifest.corpus);
        ShardWriter::resume(folder, manifest, sources).unwrap()
    }

    /// Writes contexts up to `to` in the batches of an uninterrupted run; a batch must end at `to`.
    fn write_batches(writer: &mut ShardWriter, to: u64) {
        while writer.next().contexts < to {
            let first = writer.next().contexts;
            let (contexts, values) = contexts(3, 4, first..first + writer.manifest.config.batch_contexts(first));
            writer.write(&contexts, &values).unwrap();
        }
    }

    #[test]
    fn a_run_stopped_after_any_batch_goes_on_from_it_and_writes_the_same_bytes() {
        for dtype in [StorageDtype::F32, StorageDtype::F16, StorageDtype::I8] {
            let whole = tempfile::tempdir().unwrap();
            let mut writer = ShardWriter::open(whole.path(), batched(dtype)).unwrap();
            write_batches(&mut writer, 18);
            writer.finish().unwrap();
            for stop in [0, 3, 6, 7, 10, 13, 14, 17, 18] {
                let dir = tempfile::tempdir().unwrap();
                let mut writer = ShardWriter::open(dir.path(), batched(dtype)).unwrap();
                write_batches(&mut writer, stop);
                assert_eq!(writer.next().contexts, stop);
                let on_disk = writer.manifest.clone();
                drop(writer);
                let mut writer = ShardWriter::open(dir.path(), on_disk).unwrap();
                assert_eq!((writer.next().contexts, writer.tokens()), (stop, 4 * stop));
                write_batches(&mut writer, 18);
                writer.finish().unwrap();
                assert!(bytes_of(dir.path()) == bytes_of(whole.path()), "{dtype}, stopped after {stop} contexts");
                assert!(!dir.path().join(".resume").exists());
            }
        }
    }

    #[test]
    fn a_journal_is_used_as_far_as_the_present_budget_cuts_contexts_alike() {
        let dir = tempfile::tempdir().unwrap();
        let mut short = batched(StorageDtype::F16);
        short.config.tokens = Some(5 * 4); // batches of 3 and 2
        let mut writer = ShardWriter::open(dir.path(), short.clone()).unwrap();
        write_batches(&mut writer, 5);
        drop(writer);
        // An uninterrupted run with a larger budget has 3, 3 and 1 in the first part; one with a smaller budget has 3
        // and 1.
        assert_eq!(ShardWriter::open(dir.path(), short.clone()).unwrap().next().contexts, 5);
        short.config.tokens = Some(4 * 4);
        assert_eq!(ShardWriter::open(dir.path(), short).unwrap().next().contexts, 3);
        assert_eq!(ShardWriter::open(dir.path(), batched(StorageDtype::F16)).unwrap().next().contexts, 3);
    }

    #[test]
    fn killed_between_any_two_steps_of_publishing() {
        let whole = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::open(whole.path(), batched(StorageDtype::F16)).unwrap();
        write_batches(&mut writer, 18);
        writer.finish().unwrap();
        // The files on disk when the first part's last batch is in the journal, and those published afterwards.
        let at = |contexts| {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = resumed(OutputFolder::open(dir.path()).unwrap(), batched(StorageDtype::F16));
            write_batches(&mut writer, contexts);
            dir
        };
        let (before, after) = (at(6), at(7));
        let part = "part-00000.parquet";
        let steps: [&dyn Fn(&Path); 5] = [
            &|_| (),
            &|dir| fs::write(dir.join(".resume/part-00000.parquet.tmp"), "half").unwrap(),
            &|dir| assert!(fs::copy(after.path().join(part), dir.join(".resume").join(part)).is_ok()),
            &|dir| assert!(fs::copy(after.path().join(part), dir.join(part)).is_ok()),
            // The manifest lists the part and its journal is still there.
            &|dir| {
                fs::copy(after.path().join(part), dir.join(part)).unwrap();
                fs::copy(after.path().join("manifest.json"), dir.join("manifest.json")).unwrap();
            },
        ];
        for (i, step) in steps.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join(".resume")).unwrap();
            for name in ["manifest.json", ".resume/part-00000.journal"] {
                fs::copy(before.path().join(name), dir.path().join(name)).unwrap();
            }
            step(dir.path());
            let mut writer = resumed(OutputFolder::open(dir.path()).unwrap(), batched(StorageDtype::F16));
            assert_eq!(writer.next().contexts, if i == 4 { 7 } else { 6 });
            write_batches(&mut writer, 18);
            writer.finish().unwrap();
            assert!(bytes_of(dir.path()) == bytes_of(whole.path()), "step {i}");
        }
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn a_dataset_in_a_store_is_resumed_on_this_machine_and_on_another_and_read_there() {
        let whole = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::open(whole.path(), batched(StorageDtype::I8)).unwrap();
        write_batches(&mut writer, 18);
        writer.finish().unwrap();

        let store = crate::Location::in_memory();
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |staging: &tempfile::TempDir| {
            let folder = OutputFolder::open_with_resume(&store, &staging.path().join("staging")).unwrap();
            resumed(folder, batched(StorageDtype::I8))
        };
        let stop_after = |mut writer: ShardWriter, contexts| {
            let began_at = writer.next().contexts;
            write_batches(&mut writer, contexts);
            began_at
        };
        assert_eq!(stop_after(open(&here), 10), 0);
        assert_eq!(stop_after(open(&here), 10), 10, "on this machine the journal is there");
        assert_eq!(stop_after(open(&there), 14), 7, "elsewhere the published parts are");
        // This machine's journal belongs to a part that another machine has published.
        let mut writer = open(&here);
        assert_eq!(writer.next().contexts, 14);
        write_batches(&mut writer, 18);
        writer.finish().unwrap();
        assert!(!here.path().join("staging").exists());
        for (name, bytes) in bytes_of(whole.path()) {
            assert!(store.join(&name).read().unwrap() == bytes, "{name}");
        }
        assert_eq!(store.list().unwrap().len(), bytes_of(whole.path()).len());

        let (local, remote) =
            (ActivationDataset::open(whole.path()).unwrap(), ActivationDataset::open(&store).unwrap());
        remote.verify(&crate::Silent).unwrap();
        assert_eq!(remote.manifest_sha256().unwrap(), local.manifest_sha256().unwrap());
        for group in &local.row_groups {
            let read = remote.read(*group, crate::HookPoint::Embed).unwrap();
            assert_eq!(read, local.read(*group, crate::HookPoint::Embed).unwrap());
        }
    }

    #[test]
    fn contexts_shorter_than_others_fill_parts_by_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::open(dir.path(), batched(StorageDtype::F16)).unwrap();
        let (contexts, values) = uneven_contexts(3, 4, 0..16);
        writer.write(&contexts, &values).unwrap();
        let manifest = writer.finish().unwrap();
        let rows = |contexts: &[Context]| contexts.iter().map(|context| context.tokens.len() as u64).sum::<u64>();
        let expected = [rows(&contexts[..7]), rows(&contexts[7..14]), rows(&contexts[14..])];
        assert_eq!(manifest.parts.iter().map(|part| part.rows).collect::<Vec<_>>(), expected);
        assert_eq!((manifest.counts.contexts, manifest.counts.tokens), (16, rows(&contexts)));
    }

    #[test]
    fn batches_may_be_cut_anywhere() {
        let (one, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(one.path(), manifest(3, 4, 8, StorageDtype::F32), 0..5);
        let mut writer = ShardWriter::open(many.path(), manifest(3, 4, 8, StorageDtype::F32)).unwrap();
        for cut in [0..1, 1..4, 4..5] {
            let (contexts, values) = contexts(3, 4, cut);
            writer.write(&contexts, &values).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(bytes_of(one.path()), bytes_of(many.path()));
    }

    #[test]
    fn a_value_that_f16_cannot_hold_is_refused_and_nothing_is_left() {
        for value in [70_000.0, f32::NAN, f32::NEG_INFINITY] {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = ShardWriter::open(dir.path(), manifest(3, 4, 8, StorageDtype::F16)).unwrap();
            let (contexts, mut values) = contexts(3, 4, 0..2);
            values[0][4 * 3 + 2 * 3 + 1] = value;
            let message = writer.write(&contexts, &values).unwrap_err().to_string();
            assert!(message.contains("hook_embed") && message.contains("context 1, position 2"), "{message}");
            assert_eq!(message.contains("`dtype` f32"), value == 70_000.0, "{message}");
            drop(writer);
            assert_eq!(bytes_of(dir.path()), []);
        }
    }

    #[test]
    fn sinks_are_left_out_of_the_mean_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let config = HarvestConfig { ctx_len: 4, part_tokens: 8, ..manifest(1, 4, 8, StorageDtype::F32).config };
        let mut with_point = example(1, config);
        with_point.hook_points = manifest(1, 4, 8, StorageDtype::F32).hook_points;
        let mut writer = ShardWriter::open(dir.path(), with_point).unwrap();
        let (contexts, _) = contexts(1, 4, 0..2);
        writer.write(&contexts, &[vec![900.0, 1.0, 2.0, 3.0, -900.0, 500.0, 2.0, 2.0]]).unwrap();
        let summary = writer.finish().unwrap().hook_points.remove(0);
        assert_eq!((summary.mean[0], summary.sinks), (2.0, 1));
        assert_eq!(summary.norm_quantiles.max, 500.0);
        assert!((summary.sink_norm - 20.0).abs() < 0.1);
    }

    #[test]
    fn the_last_part_is_shorter_and_the_counts_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let finished = write(dir.path(), manifest(3, 4, 8, StorageDtype::F16), 0..5);
        let rows: Vec<_> = finished.parts.iter().map(|part| part.rows).collect();
        assert_eq!(rows, [8, 8, 4]);
        assert_eq!((finished.counts.contexts, finished.counts.tokens), (5, 20));
        assert_eq!(ActivationDataset::open(dir.path()).unwrap().manifest.counts.tokens, 20);
    }
}
