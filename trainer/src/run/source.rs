//! [`TrainSource`]: the user's choice of the rows to train on.

use std::path::PathBuf;

use harvester::{ActivationDataset, Location, Monitor, VectorDataset};

use crate::{Error, Result, TrainArchitecture, run::train::TrainData};

/// Rows to train on that are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrainSource {
    /// A folder that harvest wrote, or a folder of the parts of one corpus.
    pub activations: Option<PathBuf>,
    /// Vectors of any origin: a parquet file, or a folder of them. Unused if `activations` are given.
    pub vectors: Option<PathBuf>,
    /// The column of the vectors. Default: the only one that holds lists.
    pub column: Option<String>,
}

/// Rows to train on, opened.
#[derive(Debug)]
pub enum TrainRows {
    /// Activations.
    Harvested(Box<ActivationDataset>),
    /// Vectors.
    Vectors(Box<VectorDataset>),
}

impl TrainSource {
    /// Refuses an architecture that needs hook points, which vectors do not have.
    ///
    /// # Errors
    /// Names the architecture.
    pub fn check(&self, architecture: TrainArchitecture) -> Result<()> {
        if self.vectors.is_none() || architecture.maps_one_column() {
            return Ok(());
        }
        let what = format!("`architecture` {architecture}");
        Err(Error::invalid(what, "`activations`: it needs several hook points of a model", "vectors, which have none"))
    }

    /// Opens the rows; `None` if there are no `activations` and no `vectors`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open(&self, monitor: &dyn Monitor) -> Result<Option<TrainRows>> {
        Ok(match (&self.activations, &self.vectors) {
            (Some(file), _) if file.is_file() => {
                let hint = "For vectors of other tools use `vectors`";
                return Err(Error::malformed(file, "the folder that refract harvest wrote", "a file", hint));
            }
            (Some(folder), _) => Some(TrainRows::Harvested(ActivationDataset::open(Location::named(folder)?)?.into())),
            (None, Some(vectors)) => {
                let dataset = VectorDataset::open(Location::named(vectors)?, self.column.as_deref(), monitor)?;
                Some(TrainRows::Vectors(dataset.into()))
            }
            (None, None) => None,
        })
    }
}

impl<'a> From<&'a TrainRows> for TrainData<'a> {
    fn from(rows: &'a TrainRows) -> Self {
        match rows {
            TrainRows::Harvested(dataset) => Self::Harvested(dataset),
            TrainRows::Vectors(vectors) => Self::Vectors(vectors),
        }
    }
}
