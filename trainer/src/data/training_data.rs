//! [`TrainingData`]: everything that a run needs to know about its data, whether a model computed them
//! ([`crate::data::harvested_data`]) or another program wrote them ([`crate::data::vector_data`]). The training loop,
//! the scale and the manifest use only this.

use std::ops::Range;

use harvester::{Location, ModelIdentity, SpecialToken, VectorFile};
use serde::{Deserialize, Serialize};

use crate::{Result, data::rows::RowSource, sae::HookPoints};

/// Rows of one or more columns, and their origin.
pub(crate) trait TrainingData {
    /// The folder or file.
    fn location(&self) -> &Location;

    /// The hook points that an SAE of these rows reads and reconstructs.
    fn hook_points(&self) -> HookPoints;

    /// Statistics of each column, in the order of a row.
    fn columns(&self) -> Result<Vec<ColumnSummary<'_>>>;

    /// Splits the rows into training and held-out rows. The split depends only on the data and `held_out`.
    fn split(&self, held_out: HeldOut) -> Result<Split<'_>>;

    /// The part recorded in the run's manifest.
    fn provenance(&self) -> Result<Provenance>;

    /// The part recorded in the saved SAE's config.
    fn label(&self) -> Label;
}

/// A column's mean and standard deviation over the usable rows.
#[derive(Debug, Clone)]
pub(crate) struct ColumnSummary<'a> {
    pub(crate) name: String,
    /// `[width]`
    pub(crate) mean: &'a [f32],
    /// `[width]`
    pub(crate) std: &'a [f32],
}

/// The rows that are never trained on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldOut {
    /// Share of the held-out rows.
    pub(crate) fraction: f64,
    /// Seed of the draw, if rows are chosen one by one.
    pub(crate) seed: u64,
}

/// The two parts of the data.
pub(crate) struct Split<'a> {
    pub(crate) training: Box<dyn RowSource + 'a>,
    pub(crate) held_out: Box<dyn RowSource + 'a>,
    /// The contexts held out; empty if rows are chosen one by one.
    pub(crate) held_out_contexts: Range<u64>,
}

/// The exact origin of the rows.
#[derive(Debug, Clone)]
pub(crate) struct Provenance {
    /// SHA-256 of the folder's manifest, if it has one.
    pub(crate) manifest_sha256: Option<String>,
    /// The model that computed them.
    pub(crate) model: Option<ModelIdentity>,
    /// The files, if no model computed the rows.
    pub(crate) vectors: Option<VectorsIdentity>,
    /// Rows with a larger norm at the first input were dropped.
    pub(crate) sink_norm: f32,
    /// The token before every context; `None` for vectors.
    pub(crate) bos: Option<SpecialToken>,
}

/// The exact identity of vectors that no model computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorsIdentity {
    /// The column that holds the vectors, as lists.
    pub column: String,
    /// The files, in the order of the rows.
    pub files: Vec<VectorFile>,
}

/// Facts about the training for the SAE's own config, for readers without the manifest.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    /// Empty if there is no model.
    pub(crate) model_name: String,
    pub(crate) ctx_len: Option<usize>,
    pub(crate) prepend_bos: bool,
    /// Name of the corpus, or of the file.
    pub(crate) dataset: String,
}
