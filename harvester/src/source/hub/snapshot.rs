//! [`RepoCache`]: the layout on disk that Hugging Face's tools share. `blobs/ETAG` holds each content once;
//! `snapshots/COMMIT/NAME` links to it; `refs/REVISION` holds the commit that a branch or tag had when it was last
//! downloaded.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, Result, store::write_atomically};

/// One repository's folder in the cache.
#[derive(Debug)]
pub(super) struct RepoCache {
    folder: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache_dir: &Path, repo: &str) -> Self {
        Self { folder: cache_dir.join(format!("models--{}", repo.replace('/', "--"))) }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The commit of a revision that was downloaded before, found by the commit itself or through a reference.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_plain(revision) && self.snapshot(revision).is_dir() {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_plain(commit))
    }

    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        create_parent(&path)?;
        write_atomically(&path, commit.as_bytes())
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Path of a content. Creates its folder.
    pub(super) fn blob(&self, etag: &str) -> Result<PathBuf> {
        let path = self.folder.join("blobs").join(etag);
        create_parent(&path)?;
        Ok(path)
    }

    /// Links a blob into a snapshot under a file name.
    pub(super) fn link(&self, etag: &str, commit: &str, name: &str) -> Result<PathBuf> {
        let path = self.snapshot(commit).join(name);
        create_parent(&path)?;
        if path.exists() {
            return Ok(path);
        }
        // A link whose blob was deleted still blocks the name, although `exists` is false for it.
        let _ = fs::remove_file(&path);
        let up = "../".repeat(2 + name.matches('/').count());
        let linked = link_relative(&PathBuf::from(format!("{up}blobs/{etag}")), &path);
        // Some file systems have no symbolic links: there the file is stored twice, as Hugging Face's tools do.
        linked
            .or_else(|_| fs::copy(self.folder.join("blobs").join(etag), &path).map(|_| ()))
            .map_err(Error::io("link", &path))?;
        Ok(path)
    }
}

/// True if a commit or an entity tag, which comes from the network, can be a file name.
pub(super) fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn create_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), |folder| fs::create_dir_all(folder).map_err(Error::io("create", folder)))
}

#[cfg(unix)]
fn link_relative(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn link_relative(_target: &Path, _link: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_stored_once_and_found_by_commit_and_by_branch() {
        let root = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(root.path(), "org/name");
        fs::write(cache.blob("e1").unwrap(), "content").unwrap();
        let path = cache.link("e1", "c0ffee", "onnx/model.gguf").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(path, root.path().join("models--org--name/snapshots/c0ffee/onnx/model.gguf"));
        assert_eq!(cache.commit("main"), None);
        cache.set_commit("main", "c0ffee").unwrap();
        assert_eq!(cache.commit("main").unwrap(), "c0ffee");
        assert_eq!(cache.commit("c0ffee").unwrap(), "c0ffee");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_deleted_blob_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(root.path(), "org/name");
        let blob = cache.blob("e1").unwrap();
        fs::write(&blob, "old").unwrap();
        cache.link("e1", "c0ffee", "a.gguf").unwrap();
        fs::remove_file(blob).unwrap();
        fs::write(cache.blob("e2").unwrap(), "new").unwrap();
        assert_eq!(fs::read(cache.link("e2", "c0ffee", "a.gguf").unwrap()).unwrap(), b"new");
    }

    #[test]
    fn what_comes_from_the_network_cannot_leave_the_cache() {
        for text in ["", "..", "a/b", "../../x", &"a".repeat(200)] {
            assert!(!is_plain(text), "{text} was accepted");
        }
        assert!(is_plain("0a1b-2c"));
    }
}
