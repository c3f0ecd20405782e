//! [`ShardWriter`]: contexts and their activations in, finished parts and a true manifest out. Where row groups and
//! parts end depends only on the config, and everything summed up over parts is kept with the parts, so a run that was
//! stopped anywhere and started again writes the same bytes as one that was not.

use std::path::{Path, PathBuf};

use super::{
    dataset::part_statistics,
    part_writer::{PartWriter, RowGroupBuffer},
    rows::TokenRows,
    schema::{ROW_GROUP_ROWS, ShardSchema},
};
use crate::{
    Error, HookPoint, Result,
    contexts::{Context, ContextCursor},
    manifest::{HarvestManifest, HookPointSummary, Part},
    stats::{HookPointStatistics, NormHistogram, SINK_MULTIPLE, norm},
};

/// Writes the parts of one folder.
pub struct ShardWriter {
    dir: PathBuf,
    schema: ShardSchema,
    manifest: HarvestManifest,
    /// Over the finished parts, one for each hook point.
    totals: Option<Vec<HookPointStatistics>>,
    part: Option<OpenPart>,
    group: RowGroupBuffer,
    /// After the last context written.
    next: ContextCursor,
}

/// The part that is being written.
struct OpenPart {
    file: String,
    writer: PartWriter,
    rows: usize,
    statistics: Option<Vec<HookPointStatistics>>,
}

impl ShardWriter {
    /// Goes on after the parts that `manifest` lists; its hook points say what is written.
    ///
    /// # Errors
    /// When a part listed is missing or damaged.
    pub fn open(dir: &Path, manifest: HarvestManifest) -> Result<Self> {
        let schema = ShardSchema::of(&manifest);
        let mut totals: Option<Vec<HookPointStatistics>> = None;
        for part in &manifest.parts {
            merge(&mut totals, part_statistics(dir, part, &schema)?);
        }
        let next = manifest.parts.last().map_or_else(ContextCursor::default, |part| part.next);
        let group = RowGroupBuffer::new(&schema, group_rows(&manifest));
        let mut writer = Self { dir: dir.to_path_buf(), schema, manifest, totals, part: None, group, next };
        writer.summarise();
        Ok(writer)
    }

    /// Where the stream of contexts is to go on.
    pub fn next(&self) -> ContextCursor {
        self.next
    }

    /// The manifest as it is on disk.
    pub fn manifest(&self) -> &HarvestManifest {
        &self.manifest
    }

    /// Writes contexts that follow the last ones written.
    ///
    /// # Shapes
    /// `activations`: for each hook point `[contexts, ctx_len, width]`, row-major.
    ///
    /// # Errors
    /// When a value does not fit the dtype, or a file operation fails. Finished parts stay as they are.
    pub fn write(&mut self, contexts: &[Context], activations: &[Vec<f32>]) -> Result<()> {
        let ctx_len = self.manifest.config.ctx_len;
        for (i, context) in contexts.iter().enumerate() {
            push_tokens(&mut self.group.rows, context);
            for (point, values) in activations.iter().enumerate() {
                let length = ctx_len * self.schema.hook_points[point].1;
                self.push_values(point, context, &values[i * length..(i + 1) * length])?;
            }
            self.next = context.next;
            self.end_what_is_full()?;
        }
        Ok(())
    }

    /// Writes what is left, as a shorter part, and marks the folder complete.
    ///
    /// # Errors
    /// When a file operation fails.
    pub fn finish(mut self, dropped_tokens: u64) -> Result<HarvestManifest> {
        self.end_row_group()?;
        self.end_part()?;
        self.manifest.counts.dropped_tokens = dropped_tokens;
        self.manifest.complete = true;
        self.manifest.write(&self.dir)?;
        Ok(self.manifest)
    }

    fn push_values(&mut self, point: usize, context: &Context, values: &[f32]) -> Result<()> {
        let (hook_point, width) = self.schema.hook_points[point];
        let stored = &mut self.group.values[point];
        let start = stored.len();
        stored.extend_finite(values).map_err(|place| {
            let (position, value) = (place / width, values[place]);
            self.not_storable(hook_point, value, context.index, position)
        })?;
        let mut row = vec![0.0; width];
        for position in 0..values.len() / width {
            self.group.values[point].copy_row(start + position * width, &mut row);
            self.group.norms[point].push(norm(&row));
        }
        Ok(())
    }

    fn not_storable(&self, hook_point: HookPoint, value: f32, context: u64, position: usize) -> Error {
        Error::NotStorable { hook_point, value, context, position, dtype: self.schema.dtype }
    }

    fn end_what_is_full(&mut self) -> Result<()> {
        let rows = self.group.rows.len();
        let in_part = self.part.as_ref().map_or(0, |part| part.rows) + rows;
        let part_is_full = in_part == self.manifest.config.part_tokens;
        if rows == group_rows(&self.manifest) || part_is_full {
            self.end_row_group()?;
        }
        if part_is_full { self.end_part() } else { Ok(()) }
    }

    fn end_row_group(&mut self) -> Result<()> {
        if self.group.rows.is_empty() {
            return Ok(());
        }
        let sink_norms = self.sink_norms();
        let part = match &mut self.part {
            Some(part) => part,
            none => none.insert(OpenPart::create(&self.dir, self.manifest.parts.len(), &self.schema)?),
        };
        let statistics = part.statistics.get_or_insert_with(|| {
            let widths = self.schema.hook_points.iter().map(|(_, width)| *width);
            widths.zip(&sink_norms).map(|(width, sink_norm)| HookPointStatistics::new(width, *sink_norm)).collect()
        });
        observe(&self.group, statistics);
        part.rows += self.group.rows.len();
        part.writer.write(&self.group)?;
        self.group.clear();
        Ok(())
    }

    /// The norm above which a row is a sink, for each hook point: settled by the very first row group.
    fn sink_norms(&self) -> Vec<f32> {
        let settled = self.totals.as_ref().or_else(|| self.part.as_ref().and_then(|part| part.statistics.as_ref()));
        match settled {
            Some(statistics) => statistics.iter().map(HookPointStatistics::sink_norm).collect(),
            None => self.group.norms.iter().map(|norms| sink_norm(norms, &self.group.rows.position)).collect(),
        }
    }

    fn end_part(&mut self) -> Result<()> {
        let Some(part) = self.part.take() else { return Ok(()) };
        let statistics = part.statistics.unwrap_or_default();
        let published = part.writer.finish(&statistics)?;
        merge(&mut self.totals, statistics);
        self.summarise();
        self.manifest.parts.push(Part {
            file: part.file,
            rows: part.rows as u64,
            bytes: published.bytes,
            sha256: published.sha256,
            next: self.next,
        });
        self.manifest.count_parts();
        self.manifest.write(&self.dir)
    }

    /// Brings the manifest's summaries in line with the finished parts.
    fn summarise(&mut self) {
        if let Some(totals) = &self.totals {
            let points = self.schema.hook_points.iter().zip(totals);
            self.manifest.hook_points =
                points.map(|((point, _), total)| HookPointSummary::new(*point, total)).collect();
        }
    }
}

impl OpenPart {
    fn create(dir: &Path, number: usize, schema: &ShardSchema) -> Result<Self> {
        let file = part_file(number);
        let writer = PartWriter::create(&dir.join(&file), schema)?;
        Ok(Self { file, writer, rows: 0, statistics: None })
    }
}

/// Name of part `number`.
pub(super) fn part_file(number: usize) -> String {
    format!("part-{number:05}.parquet")
}

/// Rows of a full row group: whole contexts, at least one.
pub(super) fn group_rows(manifest: &HarvestManifest) -> usize {
    let ctx_len = manifest.config.ctx_len;
    (ROW_GROUP_ROWS / ctx_len).max(1) * ctx_len
}

/// Adds the tokens of a context.
pub(crate) fn push_tokens(rows: &mut TokenRows, context: &Context) {
    let length = rows.len() + context.tokens.len();
    rows.document.extend_from_slice(&context.documents);
    rows.context.resize(length, context.index);
    rows.position.extend(0..context.tokens.len() as u32);
    rows.token.extend_from_slice(&context.tokens);
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
            values.copy_row(i * width, &mut row);
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
        manifest::tests::example,
        shard::testing::{contexts, manifest, write},
    };

    fn bytes_of(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_run_stopped_after_any_context_and_resumed_writes_the_same_bytes() {
        let whole = tempfile::tempdir().unwrap();
        write(whole.path(), manifest(3, 4, 8, StorageDtype::F16), 0..7);
        for stop in 0..7 {
            let halves = tempfile::tempdir().unwrap();
            let mut first = ShardWriter::open(halves.path(), manifest(3, 4, 8, StorageDtype::F16)).unwrap();
            let (stopped, values) = contexts(3, 4, 0..stop);
            first.write(&stopped, &values).unwrap();
            let done = first.manifest().clone();
            drop(first);
            let resumed = done.parts.len() as u64 * 2;
            assert_eq!(resumed, stop / 2 * 2);
            write(halves.path(), done, resumed..7);
            assert_eq!(bytes_of(halves.path()), bytes_of(whole.path()), "stopped after {stop} contexts");
        }
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
        writer.finish(0).unwrap();
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
            assert_eq!(message.contains("--dtype f32"), value == 70_000.0, "{message}");
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
        let summary = writer.finish(0).unwrap().hook_points.remove(0);
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
        assert_eq!(ActivationDataset::open(dir.path()).unwrap().n_rows(), 20);
    }
}
