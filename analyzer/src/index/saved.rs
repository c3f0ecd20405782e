//! [`SavedState`]: the state of an unfinished run on disk. Its tables are written into one of two folders in turn, and
//! then `state.json` names that folder: a run killed in between goes on from the state before.

use std::{
    fs,
    path::{Path, PathBuf},
};

use harvester::{Location, Manifest, OutputFolder};
use serde::{Deserialize, Serialize};

use super::{state::IndexState, tables, text::Cursor};
use crate::{
    Result,
    features::{FeaturesManifest, IndexedFile, PARTIAL_FOLDER, STATE_FILE},
};

/// `partial/state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedState {
    format: String,
    version: u32,
    /// The run, with its counts so far.
    run: FeaturesManifest,
    /// The position up to which the text is in the state.
    pub(crate) cursor: Cursor,
    /// The folder in `partial` with the tables.
    folder: String,
    /// The tables.
    files: Vec<IndexedFile>,
    /// The pieces of `latents.parquet`, in order, with their folders in `partial`.
    pub(crate) latents: Vec<IndexedFile>,
}

impl Manifest for SavedState {
    const FORMAT: &'static str = "refract.features.partial";
    const COMMAND: &'static str = "index";
    const FILE: &'static str = STATE_FILE;
    const VERSION: u32 = 2;
    const OLDEST_VERSION: u32 = 2;
    const REPAIR: &'static str = "Remove the folder `partial` to index from the start";

    fn leaves(folder: &OutputFolder, name: &str) -> bool {
        FeaturesManifest::leaves(folder, name)
    }

    fn differences(&self, wanted: &Self) -> Vec<String> {
        self.run.differences(&wanted.run)
    }

    fn is_begun(&self, _folder: &OutputFolder) -> harvester::Result<bool> {
        Ok(!self.files.is_empty())
    }
}

impl SavedState {
    /// The state before the first token.
    pub(crate) fn begin(run: &FeaturesManifest, cursor: Cursor) -> Self {
        let (format, version) = (Self::FORMAT.to_string(), Self::VERSION);
        Self { format, version, run: run.clone(), cursor, folder: "b".into(), files: vec![], latents: vec![] }
    }

    /// Says on disk that the run has begun.
    pub(crate) fn write_begun(&self, out: &Path) -> Result<()> {
        let partial = Self::folder(out);
        fs::create_dir_all(&partial).map_err(harvester::Error::io("create", &partial))?;
        Ok(self.write(out)?)
    }

    /// The state that it stands for.
    pub(crate) fn read_state(&self, out: &Path) -> Result<IndexState> {
        if self.files.is_empty() {
            return Ok(IndexState::new(&self.run));
        }
        let partial = Self::folder(out);
        let dir = partial.join(&self.folder);
        let tables = self.files.iter().map(|table| (&dir, table));
        for (dir, IndexedFile { file, sha256 }) in tables.chain(self.latents.iter().map(|piece| (&partial, piece))) {
            let hint = format!("It was changed or damaged: remove {} to index from the start", partial.display());
            Location::from(dir.join(file)).check_sha256(sha256, &hint)?;
        }
        tables::read(&dir, &self.run)
    }

    /// Saves `state`, which holds the text up to `cursor`, with the pieces of `latents.parquet`.
    pub(crate) fn save(
        &mut self,
        state: &IndexState,
        latents: Vec<IndexedFile>,
        cursor: Cursor,
        out: &Path,
    ) -> Result<()> {
        let partial = Self::folder(out);
        let other = if self.folder == "a" { "b" } else { "a" };
        let before = std::mem::replace(&mut self.folder, other.into());
        let dir = partial.join(&self.folder);
        fs::create_dir_all(&dir).map_err(harvester::Error::io("create", &dir))?;
        state.describe(&mut self.run);
        (self.files, _) = tables::write(state, &self.run, None, &dir)?;
        (self.cursor, self.latents) = (cursor, latents);
        self.write(out)?;
        remove(&partial.join(before))
    }

    /// The folder of an unfinished run.
    pub(crate) fn folder(out: &Path) -> PathBuf {
        out.join(PARTIAL_FOLDER)
    }

    /// Removes what is left of the run once it is finished.
    pub(crate) fn forget(out: &Path) -> Result<()> {
        remove(&Self::folder(out))
    }
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(harvester::Error::io("remove", dir)(error).into())
        }
        _ => Ok(()),
    }
}
