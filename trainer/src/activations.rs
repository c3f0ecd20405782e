//! [`Activations`]: the rows of a harvested folder that count in training, or in held-out evaluation. What is dropped
//! is dropped here, at read time: the token at position 0, attention sinks, and the contexts of the other part.

use std::ops::Range;

use harvester::{ActivationDataset, ActivationRows, HookPoint, RowGroup, Values};

use crate::{Error, Result};

/// Something rows can be read from, a group at a time. A trait, so that the shuffling is tested without files.
pub(crate) trait RowSource: Sync {
    fn d_in(&self) -> usize;
    /// Bytes of one row as it is held in memory.
    fn row_bytes(&self) -> usize;
    /// Rows of each group, before any are dropped.
    fn group_sizes(&self) -> Vec<usize>;
    /// The rows of a group that count.
    fn read(&self, group: usize) -> Result<Rows>;
}

/// Rows in the dtype that they are stored in.
#[derive(Debug)]
pub(crate) struct Rows {
    /// Row-major. `[n, d_in]`
    values: Values,
    d_in: usize,
}

impl Rows {
    pub(crate) fn new(values: Values, d_in: usize) -> Self {
        Self { values, d_in }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len() / self.d_in
    }

    /// Writes row `row`, times `scale`, to `x` `[d_in]`.
    pub(crate) fn copy_row(&self, row: usize, scale: f32, x: &mut [f32]) {
        self.values.copy_row(row, x);
        x.iter_mut().for_each(|value| *value *= scale);
    }

    /// All rows in f32, row-major.
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        self.values.to_f32().into_owned()
    }
}

/// The rows of one part of a folder at one hook point.
#[derive(Debug)]
pub(crate) struct Activations<'a> {
    dataset: &'a ActivationDataset,
    hook_point: HookPoint,
    d_in: usize,
    sink_norm: f32,
    contexts: Range<u64>,
    groups: Vec<RowGroup>,
}

/// Cuts a folder in two by context: the first is for training, the second, the last contexts, is held out.
pub(crate) fn split(
    dataset: &ActivationDataset,
    hook_point: HookPoint,
    held_out_fraction: f64,
) -> Result<(Activations<'_>, Activations<'_>)> {
    let n_contexts = dataset.context_end();
    let n_held_out = (n_contexts as f64 * held_out_fraction).ceil() as u64;
    if n_held_out >= n_contexts {
        let found = format!("{n_contexts} contexts, of which {n_held_out} are held out");
        let hint = "Harvest more tokens, or hold out a smaller --held-out-fraction";
        return Err(Error::malformed(dataset.dir(), "contexts to train on", found, hint));
    }
    let middle = n_contexts - n_held_out;
    let part = |contexts| Activations::open(dataset, hook_point, contexts);
    Ok((part(0..middle)?, part(middle..n_contexts)?))
}

impl<'a> Activations<'a> {
    /// The whole folder.
    pub(crate) fn all(dataset: &'a ActivationDataset, hook_point: HookPoint) -> Result<Self> {
        Self::open(dataset, hook_point, 0..dataset.context_end())
    }

    fn open(dataset: &'a ActivationDataset, hook_point: HookPoint, contexts: Range<u64>) -> Result<Self> {
        let summary = dataset.manifest().hook_point(hook_point)?;
        // Groups are whole contexts, so those of the other part need not be read.
        let groups = dataset.row_groups().iter().copied().filter(|group| group.overlaps(&contexts)).collect();
        Ok(Self { dataset, hook_point, d_in: summary.d_model, sink_norm: summary.sink_norm, contexts, groups })
    }

    /// Rows that count at most: position 0 does not; how many are sinks, and how long each context is, is not known
    /// before they are read.
    pub(crate) fn n_rows_at_most(&self) -> u64 {
        let ctx_len = self.dataset.manifest().config.ctx_len as u64;
        let n_rows: u64 = self.groups.iter().map(|group| group.rows as u64).sum();
        ((self.contexts.end - self.contexts.start) * ctx_len.saturating_sub(1)).min(n_rows)
    }

    /// Which contexts these are.
    pub(crate) fn contexts(&self) -> Range<u64> {
        self.contexts.clone()
    }
}

impl RowSource for Activations<'_> {
    fn d_in(&self) -> usize {
        self.d_in
    }

    fn row_bytes(&self) -> usize {
        self.dataset.manifest().config.dtype.row_bytes(self.d_in)
    }

    fn group_sizes(&self) -> Vec<usize> {
        self.groups.iter().map(|group| group.rows).collect()
    }

    fn read(&self, group: usize) -> Result<Rows> {
        let read = self.dataset.read(self.groups[group], self.hook_point)?;
        Ok(ordinary_rows(read, self.sink_norm, |context| self.contexts.contains(&context)))
    }
}

/// The rows that count: those of the contexts wanted, without position 0 and attention sinks.
pub(crate) fn ordinary_rows(mut read: ActivationRows, sink_norm: f32, wanted: impl Fn(u64) -> bool) -> Rows {
    let keeps = |row| read.is_ordinary(row, sink_norm) && wanted(read.rows.context[row]);
    let keep: Vec<bool> = (0..read.rows.len()).map(keeps).collect();
    read.values.keep_rows(read.d_model, &keep);
    Rows::new(read.values, read.d_model)
}
