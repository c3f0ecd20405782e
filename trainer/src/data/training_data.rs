//! [`TrainingData`]: what a run must know of its data, whether a model computed them ([`crate::data::harvested_data`])
//! or any program wrote them ([`crate::data::vector_data`]). The loop, the scale and the manifest ask here and nowhere
//! else.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use harvester::{HookPoint, ModelIdentity, VectorFile};
use serde::{Deserialize, Serialize};

use crate::{Result, data::rows::RowSource};

/// Rows of one or more columns, and where they are from.
pub(crate) trait TrainingData {
    /// The folder or file, as errors name it.
    fn dir(&self) -> &Path;

    /// What each column looks like, in the order of a row.
    fn columns(&self) -> Result<Vec<ColumnSummary<'_>>>;

    /// Cuts the rows in two. Which are held out depends on nothing else.
    fn split(&self, held_out: HeldOut) -> Result<Split<'_>>;

    /// What the manifest of a run records of them.
    fn provenance(&self) -> Result<Provenance>;

    /// What the saved SAE says of them.
    fn label(&self) -> Label;
}

/// A column's mean and deviation over the rows that count.
#[derive(Debug, Clone)]
pub(crate) struct ColumnSummary<'a> {
    pub(crate) name: String,
    /// `[width]`
    pub(crate) mean: &'a [f32],
    /// `[width]`
    pub(crate) std: &'a [f32],
}

/// Which rows are never trained on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldOut {
    /// Their share.
    pub(crate) fraction: f64,
    /// Where rows are chosen one by one, the draw's.
    pub(crate) seed: u64,
}

/// The two parts of the data.
pub(crate) struct Split<'a> {
    pub(crate) training: Box<dyn RowSource + 'a>,
    pub(crate) held_out: Box<dyn RowSource + 'a>,
    /// The contexts held out; none where rows are chosen one by one.
    pub(crate) held_out_contexts: Range<u64>,
}

/// Where the rows are from, to the bit.
#[derive(Debug, Clone)]
pub(crate) struct Provenance {
    /// Found from any working directory: an absolute path, or an URL.
    pub(crate) path: PathBuf,
    /// SHA-256 of the folder's manifest, where it has one.
    pub(crate) manifest_sha256: Option<String>,
    /// The model that computed them.
    pub(crate) model: Option<ModelIdentity>,
    /// The files, where they are no model's.
    pub(crate) vectors: Option<VectorsIdentity>,
    /// Rows of a larger norm were dropped, at the first input.
    pub(crate) sink_norm: f32,
}

/// Vectors of no model, to the bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorsIdentity {
    /// The column of lists.
    pub column: String,
    /// The files, in the order of the rows.
    pub files: Vec<VectorFile>,
}

/// What the SAE's own config says of its training, for readers without the manifest.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    /// The first input.
    pub(crate) hook_point: Option<HookPoint>,
    /// Empty where there is no model.
    pub(crate) model_name: String,
    pub(crate) ctx_len: Option<usize>,
    pub(crate) prepend_bos: bool,
    /// The text, or the file.
    pub(crate) dataset: String,
}
