//! [`ArtifactRef`]: a manifest's reference to another artifact. It holds the path relative to the manifest's folder, so
//! that a project which is moved, copied or mounted elsewhere still works, and a hash.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::location::Location;
use crate::{Error, Result};

/// A reference to another artifact, in the manifest of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactRef {
    /// Path relative to the manifest's folder, with `/`; absent if one of the two is in an object store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<String>,
    /// Absolute path when the manifest was written; absent if the artifact is inside the manifest's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute: Option<String>,
    /// SHA-256 that identifies the artifact: that of its manifest, if it has one. Absent for files without a hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl ArtifactRef {
    /// A reference to `target` from a manifest in `folder`. Neither need exist yet.
    pub fn new(folder: &Path, target: &Location, sha256: Option<String>) -> Self {
        let absolute = target.local().map_or_else(|| target.to_string(), |path| text_of(&real_path(path)));
        let relative = target.local().and_then(|path| relative_path(folder, path));
        let is_inside = relative.as_ref().is_some_and(|relative| !relative.starts_with(".."));
        Self { relative, absolute: (!is_inside).then_some(absolute), sha256 }
    }

    /// Opens the artifact at its path relative to `folder`, which holds the manifest, else at its old absolute path.
    /// `open` opens a place and returns the hash found there, which must be the recorded one.
    ///
    /// # Errors
    /// If it is at neither place; the message says what was found there.
    pub fn open<T>(
        &self,
        what: &str,
        folder: &Path,
        open: impl Fn(&Location) -> Result<(Option<String>, T)>,
    ) -> Result<T> {
        open_first(what, &self.places(folder), self.sha256.as_deref(), |place| open(&place.parse()?))
    }

    /// The places where it may be, likeliest first.
    fn places(&self, folder: &Path) -> Vec<String> {
        let near = self.relative.as_ref().map(|relative| text_of(&real_path(&folder.join(relative))));
        let mut places: Vec<_> = near.into_iter().chain(self.absolute.clone()).collect();
        places.dedup();
        places
    }

    /// The place to show to users: the first one that exists, else the likeliest.
    pub fn shown(&self, folder: &Path) -> String {
        let places = self.places(folder);
        let there = places.iter().find(|place| Path::new(place).exists());
        there.or(places.first()).cloned().unwrap_or_default()
    }

    /// Converts a manifest with a path in `field`, and perhaps a hash in `hash_field`, to the present form.
    pub(super) fn upgrade(manifest: &mut Value, field: &str, hash_field: &str) {
        let Value::Object(fields) = manifest else { return };
        let sha256 = fields.shift_remove(hash_field).unwrap_or_default();
        if let Some(Value::String(path)) = fields.get(field) {
            let is_relative = !path.contains("://") && Path::new(path).is_relative();
            let place = if is_relative { "relative" } else { "absolute" };
            let upgraded = json!({ place: path, "sha256": sha256 });
            fields.insert(field.into(), upgraded);
        }
    }
}

/// Opens an artifact at the first of `places` that holds it. `open` opens a place and returns the hash found there,
/// which must be `sha256`.
///
/// # Errors
/// If it is at none of them; the message says what was found there. If the user asked to stop.
pub(crate) fn open_first<T>(
    what: &str,
    places: &[String],
    sha256: Option<&str>,
    open: impl Fn(&str) -> Result<(Option<String>, T)>,
) -> Result<T> {
    let mut tried = vec![];
    for place in places {
        let why = match open(place) {
            Ok((found, opened)) if found.as_deref() == sha256 => return Ok(opened),
            Ok((found, _)) => format!("another one, of SHA-256 {}", found.as_deref().unwrap_or("none")),
            Err(stopped @ Error::Cancelled { .. }) => return Err(stopped),
            Err(error) => error.to_string(),
        };
        tried.push(format!("  {place}: {why}"));
    }
    Err(Error::ArtifactMoved { what: what.into(), tried })
}

impl fmt::Display for ArtifactRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.absolute.as_deref().or(self.relative.as_deref()).unwrap_or_default())
    }
}

/// The path of `target` relative to `folder`, with `/`; `None` if there is none, as between two drives.
pub(crate) fn relative_path(folder: &Path, target: &Path) -> Option<String> {
    let (folder, target) = (real_path(folder), real_path(target));
    let (from, to): (Vec<_>, Vec<_>) = (folder.components().collect(), target.components().collect());
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    if shared == 0 {
        return None;
    }
    let up = from[shared..].iter().map(|_| "..".to_string());
    let down = to[shared..].iter().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let parts: Vec<_> = up.chain(down).collect();
    Some(if parts.is_empty() { ".".into() } else { parts.join("/") })
}

/// The absolute path without links and `..`; works for paths that do not exist yet.
pub(crate) fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut real = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(real.pop()),
            part => real.push(part),
        }
        // Links are resolved before `..` leaves the folder that they lead to.
        real = real.canonicalize().unwrap_or(real);
    }
    real
}

/// Like [`real_path`], except that a file that is a link keeps its name: files in the Hub's cache are links to files
/// whose names say nothing.
pub(crate) fn real_place(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    match (absolute.parent(), absolute.file_name()) {
        (Some(folder), Some(name)) if absolute.is_file() => real_path(folder).join(name),
        _ => real_path(&absolute),
    }
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    /// A project in which each artifact `name` holds its own name as a file; the text is its hash.
    fn project() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in ["acts", "sae"] {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("id"), name).unwrap();
        }
        root
    }

    fn open(artifact: &ArtifactRef, folder: &Path) -> Result<String> {
        artifact.open("the activations", folder, |place| {
            let id = place.join("id").read()?;
            Ok((Some(String::from_utf8_lossy(&id).into_owned()), place.to_string()))
        })
    }

    #[test]
    fn a_project_that_is_moved_finds_its_parts_where_they_are_now() {
        let root = project();
        let (acts, sae) = (root.path().join("acts"), root.path().join("sae"));
        let artifact = ArtifactRef::new(&sae, &acts.as_path().into(), Some("acts".into()));
        assert_eq!(artifact.relative.as_deref(), Some("../acts"));
        assert_eq!(open(&artifact, &sae).unwrap(), text_of(&acts.canonicalize().unwrap()));
        let moved = root.path().join("elsewhere/project");
        fs::create_dir_all(&moved).unwrap();
        for name in ["acts", "sae"] {
            fs::rename(root.path().join(name), moved.join(name)).unwrap();
        }
        assert_eq!(open(&artifact, &moved.join("sae")).unwrap(), text_of(&moved.canonicalize().unwrap().join("acts")));
    }

    #[test]
    fn where_another_lies_in_its_place_the_absolute_path_is_tried_and_both_are_named() {
        let root = project();
        let (acts, sae) = (root.path().join("acts"), root.path().join("sae"));
        let artifact = ArtifactRef::new(&sae, &acts.as_path().into(), Some("acts".into()));
        let alone = tempfile::tempdir().unwrap();
        let copy = alone.path().join("sae");
        fs::create_dir_all(&copy).unwrap();
        fs::create_dir_all(alone.path().join("acts")).unwrap();
        fs::write(alone.path().join("acts/id"), "others").unwrap();
        assert_eq!(open(&artifact, &copy).unwrap(), text_of(&acts.canonicalize().unwrap()));
        fs::remove_dir_all(&acts).unwrap();
        let message = open(&artifact, &copy).unwrap_err().to_string();
        for part in ["another one, of SHA-256 others", "acts/id", "Put it back"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn what_is_inside_the_folder_has_no_absolute_path() {
        let root = project();
        let artifact = ArtifactRef::new(root.path(), &root.path().join("held-out").as_path().into(), None);
        assert_eq!(serde_json::to_value(&artifact).unwrap(), json!({ "relative": "held-out" }));
        let url = "s3://bucket/acts".parse().unwrap();
        let artifact = ArtifactRef::new(root.path(), &url, None);
        assert_eq!(serde_json::to_value(&artifact).unwrap(), json!({ "absolute": "s3://bucket/acts" }));
    }

    #[test]
    fn a_path_as_it_used_to_be_written_is_understood() {
        for (path, field) in [("/data/acts", "absolute"), ("held-out", "relative"), ("s3://b/acts", "absolute")] {
            let mut manifest = json!({ "activations": path, "activations_manifest_sha256": "00" });
            ArtifactRef::upgrade(&mut manifest, "activations", "activations_manifest_sha256");
            assert_eq!(manifest, json!({ "activations": { field: path, "sha256": "00" } }));
        }
    }

    #[test]
    #[cfg(unix)]
    fn links_are_followed() {
        let root = project();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.path().join("sae"), &link).unwrap();
        assert_eq!(relative_path(&link, &root.path().join("acts")).unwrap(), "../acts");
        assert_eq!(relative_path(root.path(), &link.join("../acts/new")).unwrap(), "acts/new");
    }
}
