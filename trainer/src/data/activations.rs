//! [`Activations`]: the rows of a harvested folder that are used for training, or for held-out evaluation. All other
//! rows are dropped here, when they are read: position 0, attention sinks, and the contexts of the other part.

use std::ops::Range;

use harvester::{ActivationDataset, ActivationRows, HookPoint, RowGroup, is_ordinary};

use crate::{
    Error, Result,
    data::rows::{Column, RowSource, Rows},
};

/// The rows of one part of a folder at some hook points.
#[derive(Debug)]
pub(crate) struct Activations<'a> {
    dataset: &'a ActivationDataset,
    hook_points: Vec<HookPoint>,
    widths: Vec<usize>,
    sink_norms: Vec<f32>,
    contexts: Range<u64>,
    groups: Vec<RowGroup>,
}

/// Splits a folder into two parts by context: the first part is for training; the second part, the last contexts, is
/// held out.
pub(crate) fn split<'a>(
    dataset: &'a ActivationDataset,
    hook_points: &[HookPoint],
    held_out_fraction: f64,
) -> Result<(Activations<'a>, Activations<'a>)> {
    let n_contexts = dataset.context_end;
    let n_held_out = (n_contexts as f64 * held_out_fraction).ceil() as u64;
    if n_held_out >= n_contexts {
        let found = format!("{n_contexts} contexts, of which {n_held_out} are held out");
        let hint = "Harvest more tokens, or hold out a smaller `held_out_fraction`";
        return Err(Error::malformed(dataset.location.to_string(), "contexts to train on", found, hint));
    }
    let middle = n_contexts - n_held_out;
    let part = |contexts| Activations::open(dataset, hook_points, contexts);
    Ok((part(0..middle)?, part(middle..n_contexts)?))
}

impl<'a> Activations<'a> {
    /// The whole folder.
    pub(crate) fn all(dataset: &'a ActivationDataset, hook_points: &[HookPoint]) -> Result<Self> {
        Self::open(dataset, hook_points, 0..dataset.context_end)
    }

    fn open(dataset: &'a ActivationDataset, hook_points: &[HookPoint], contexts: Range<u64>) -> Result<Self> {
        let (mut widths, mut sink_norms) = (vec![], vec![]);
        for hook_point in hook_points {
            let summary = dataset.manifest.hook_point(*hook_point)?;
            widths.push(summary.d_model);
            sink_norms.push(summary.sink_norm);
        }
        // Row groups are whole contexts, so those of the other part need not be read.
        let has_some = |group: &RowGroup| group.first_context < contexts.end && contexts.start <= group.last_context;
        let groups = dataset.row_groups.iter().copied().filter(has_some).collect();
        Ok(Self { dataset, hook_points: hook_points.to_vec(), widths, sink_norms, contexts, groups })
    }

    /// The range of these contexts.
    pub(crate) fn contexts(&self) -> Range<u64> {
        self.contexts.clone()
    }
}

impl RowSource for Activations<'_> {
    fn widths(&self) -> &[usize] {
        &self.widths
    }

    fn row_bytes(&self) -> usize {
        let dtype = self.dataset.manifest.config.dtype;
        self.widths.iter().map(|width| dtype.row_bytes(*width)).sum()
    }

    fn group_sizes(&self) -> Vec<usize> {
        self.groups.iter().map(|group| group.rows).collect()
    }

    /// Leaves out position 0. The number of sinks and the length of each context are not known before the rows are
    /// read.
    fn n_rows_at_most(&self) -> u64 {
        let ctx_len = self.dataset.manifest.config.ctx_len as u64;
        let n_rows: u64 = self.groups.iter().map(|group| group.rows as u64).sum();
        ((self.contexts.end - self.contexts.start) * ctx_len.saturating_sub(1)).min(n_rows)
    }

    fn read(&self, group: usize) -> Result<Rows> {
        let read = |hook_point: &HookPoint| Ok(self.dataset.read(self.groups[group], *hook_point)?);
        let columns: Vec<_> = self.hook_points.iter().map(read).collect::<Result<_>>()?;
        Ok(ordinary_rows(columns, &self.sink_norms, |context| self.contexts.contains(&context)))
    }
}

/// The rows of the wanted contexts, without position 0 and without rows that are an attention sink in any column.
pub(crate) fn ordinary_rows(columns: Vec<ActivationRows>, sink_norms: &[f32], wanted: impl Fn(u64) -> bool) -> Rows {
    let ordinary = |row: usize| {
        let counts =
            |column: &ActivationRows, sink_norm| is_ordinary(column.rows.position[row], column.norm[row], sink_norm);
        columns.iter().zip(sink_norms).all(|(column, sink_norm)| counts(column, *sink_norm))
    };
    let contexts = columns.first().map_or(&[][..], |first| &first.rows.context);
    let keep: Vec<bool> = contexts.iter().enumerate().map(|(row, context)| wanted(*context) && ordinary(row)).collect();
    let values = |column: ActivationRows| Column { values: column.values, width: column.d_model };
    Rows::kept(columns.into_iter().map(values).collect(), &keep)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use harvester::{
        Compute, Corpus, CorpusOptions, HarvestConfig, LanguageModel, ModelSource, Silent, TokenRows, Values, harvest,
    };

    use super::*;

    #[test]
    fn a_row_counts_where_it_is_ordinary_at_every_column() {
        let rows = TokenRows {
            document: vec![0; 4],
            context: vec![8, 8, 8, 9],
            position: vec![0, 1, 2, 1],
            token: vec![5; 4],
            role: vec![],
        };
        let column = |norms: [f32; 4], values: [f32; 4]| ActivationRows {
            rows: rows.clone(),
            norm: norms.to_vec(),
            values: Values::F32(values.to_vec()),
            d_model: 1,
        };
        let columns = vec![
            column([1.0, 1.0, 1.0, 9.0], [1.0, 2.0, 3.0, 4.0]),
            column([1.0, 50.0, 1.0, 1.0], [5.0, 6.0, 7.0, 8.0]),
        ];
        let kept = |sink_norms: [f32; 2], wanted: fn(u64) -> bool| {
            ordinary_rows(columns.clone(), &sink_norms, wanted).to_f32()
        };
        assert_eq!(kept([10.0, 100.0], |_| true), [2.0, 6.0, 3.0, 7.0, 4.0, 8.0], "all but position 0");
        assert_eq!(kept([10.0, 10.0], |_| true), [3.0, 7.0, 4.0, 8.0], "a sink at the second column");
        assert_eq!(kept([5.0, 10.0], |_| true), [3.0, 7.0], "one more at the first");
        assert_eq!(kept([10.0, 10.0], |context| context == 9), [4.0, 8.0]);
    }

    #[test]
    fn several_columns_are_the_rows_of_each_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corpus.txt");
        std::fs::write(&path, "the cat sat on the mat, and then 12 dogs came. ".repeat(20)).unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
        let model = LanguageModel::open(&ModelSource::Folder(model), Compute::F32, &Silent).unwrap();
        let points = [HookPoint::resid_post(1), HookPoint::Embed];
        let config = HarvestConfig { hook_points: points.to_vec(), ctx_len: 16, batch: 2, ..HarvestConfig::default() };
        let corpus = Corpus::open(&[path], &CorpusOptions::default()).unwrap();
        let out = folder.path().join("out");
        harvest(&model, &corpus, &config, &out, &Silent).unwrap();
        let dataset = ActivationDataset::open(&out).unwrap();
        let alone = points.map(|point| Activations::all(&dataset, &[point]).unwrap());
        let both = Activations::all(&dataset, &points).unwrap();
        let [first, second] = alone.each_ref().map(|column| column.widths()[0]);
        assert_eq!(both.widths(), [first, second]);
        assert_eq!(both.row_bytes(), alone.iter().map(RowSource::row_bytes).sum::<usize>());
        let [a, b] = alone.map(|column| column.read(0).unwrap().to_f32());
        assert!(!a.is_empty() && a.len() / first == b.len() / second, "neither has a sink of its own");
        let rows = a.chunks(first).zip(b.chunks(second)).flat_map(|(a, b)| [a, b].concat());
        assert_eq!(both.read(0).unwrap().to_f32(), rows.collect::<Vec<_>>());
    }
}
