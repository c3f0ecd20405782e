//! [`Object`] for a build without the feature `cloud`: opening one is an error.

use std::{convert::Infallible, path::Path};

use bytes::Bytes;

use crate::{Error, Result};

#[derive(Debug, Clone)]
pub(super) struct Object(Infallible);

impl Object {
    pub(super) fn open(url: &str) -> Result<Self> {
        Err(Error::MissingFeature { what: format!("{url}: an object store"), feature: "cloud" })
    }

    pub(super) fn join(&self, _name: &str) -> Self {
        match self.0 {}
    }

    pub(super) fn parent(&self) -> Option<Self> {
        match self.0 {}
    }

    pub(super) fn name(&self) -> String {
        match self.0 {}
    }

    pub(super) fn url(&self) -> String {
        match self.0 {}
    }

    pub(super) fn not_found(&self) -> Error {
        match self.0 {}
    }

    pub(super) fn bytes(&self) -> Result<Option<u64>> {
        match self.0 {}
    }

    pub(super) fn stamp(&self) -> Result<String> {
        match self.0 {}
    }

    pub(super) fn read(&self) -> Result<Bytes> {
        match self.0 {}
    }

    pub(super) fn read_range(&self, _offset: u64, _len: u64) -> Result<Bytes> {
        match self.0 {}
    }

    pub(super) fn list(&self) -> Result<Vec<(Self, bool)>> {
        match self.0 {}
    }

    pub(super) fn write(&self, _bytes: Bytes) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn upload(&self, _local: &Path) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn remove(&self) -> Result<()> {
        match self.0 {}
    }
}

#[cfg(test)]
mod tests {
    use crate::Location;

    #[test]
    fn the_feature_is_named() {
        let error = "s3://bucket/a".parse::<Location>().expect_err("there is no store in this build");
        let message = error.to_string();
        assert!(message.starts_with("s3://bucket/a: ") && message.contains("--features cloud"), "{message}");
    }
}
