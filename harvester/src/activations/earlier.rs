//! The earlier content of a folder of activations that was extended. SAEs were trained on that, with its statistics and
//! its held-out contexts, so they go on with it.
//!
//! ```text
//! activations/manifest.json  part-00000.parquet  part-00001.parquet            as extended
//! activations/earlier/<hash of the earlier manifest>/manifest.json  part-00001.parquet  documents.parquet
//!                                                    the part that was too short, and the documents until then
//! ```

use std::fs;

use sha2::{Digest, Sha256};

use super::manifest::{HarvestManifest, Part};
use crate::{
    Error, Location, Result,
    store::{MANIFEST_FILE, hex},
};

const FOLDER: &str = "earlier";
/// Letters of the hash in the name of a folder.
const LETTERS: usize = 16;

/// The place of what `folder` held when its manifest had this SHA-256.
pub(super) fn earlier_folder(folder: &Location, manifest_sha256: &str) -> Location {
    let name: String = manifest_sha256.chars().take(LETTERS).collect();
    folder.join(FOLDER).join(&name)
}

/// The folder that `earlier` is the earlier state of, if it is one.
pub(super) fn extended_folder(earlier: &Location) -> Option<Location> {
    let parent = earlier.parent()?;
    parent.parent().filter(|_| parent.file_name() == FOLDER)
}

/// Keeps what `folder` holds, with its manifest, before it is extended and the files `replaced` are made again. Only
/// these take space.
pub(super) fn keep_earlier<'a>(folder: &Location, replaced: impl Iterator<Item = &'a str>) -> Result<()> {
    let manifest = folder.join(MANIFEST_FILE).read()?;
    let earlier = earlier_folder(folder, &hex(&Sha256::digest(&manifest)));
    for file in replaced {
        let (from, to) = (folder.join(file), earlier.join(file));
        if to.bytes()?.is_some() {
            continue;
        }
        let (Some(from), Some(to)) = (from.local(), to.local()) else {
            to.write(&from.read()?)?; // one part, which the run makes room for in memory too
            continue;
        };
        let parent = to.with_file_name("");
        fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
        if fs::hard_link(from, to).is_err() {
            fs::copy(from, to).map_err(Error::io("copy", from))?;
        }
    }
    earlier.join(MANIFEST_FILE).write(&manifest)
}

impl HarvestManifest {
    /// The last part, if it holds fewer contexts than a whole part.
    pub(crate) fn short_part(&self) -> Option<&Part> {
        let last = self.parts.len().checked_sub(1)?;
        let contexts = self.parts[last].next.contexts - self.first_context(last);
        (contexts < self.config.part_contexts()).then(|| &self.parts[last])
    }
}

#[cfg(all(test, feature = "cloud"))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_keeps_its_earlier_state_as_a_folder_does() {
        let local = tempfile::tempdir().unwrap();
        for folder in [Location::in_memory(), local.path().into()] {
            folder.join(MANIFEST_FILE).write(b"{}").unwrap();
            folder.join("part-00001.parquet").write(b"short").unwrap();
            keep_earlier(&folder, ["part-00001.parquet"].into_iter()).unwrap();
            folder.join("part-00001.parquet").write(b"whole").unwrap();
            let earlier = earlier_folder(&folder, &hex(&Sha256::digest(b"{}")));
            assert_eq!(earlier.join("part-00001.parquet").read().unwrap(), &b"short"[..], "{folder}");
            assert_eq!(earlier.join(MANIFEST_FILE).read().unwrap(), &b"{}"[..]);
            assert_eq!(extended_folder(&earlier).unwrap().to_string(), folder.to_string());
            assert!(extended_folder(&folder).is_none());
        }
    }
}
