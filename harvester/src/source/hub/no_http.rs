//! [`Http`] for a build without the feature `hub`: making one is an error. Cached models are still found.

use std::convert::Infallible;

use super::{
    HubSettings, RepoKind,
    answer::{Answer, Failure, Question},
};
use crate::{Error, Result};

#[derive(Clone)]
pub(super) struct Http(Infallible);

impl Http {
    pub(super) fn new(_: &HubSettings, _: RepoKind, repo: &str) -> Result<Self> {
        Err(Error::MissingFeature { what: format!("{repo}: the Hugging Face Hub"), feature: "hub" })
    }

    pub(super) fn file_url(&self, _revision: &str, _file: &str) -> String {
        match self.0 {}
    }

    pub(super) fn url(&self, _revision: &str) -> String {
        match self.0 {}
    }

    pub(super) fn ask(&self, _revision: &str, _question: &Question<'_>) -> Result<Answer, Failure> {
        match self.0 {}
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        ModelSource, Silent,
        source::{cache::ModelCache, places::Places, wheel::Pip},
    };

    #[test]
    fn the_feature_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let hub = super::HubSettings::in_folder(folder.path());
        let places = Places { cache: ModelCache::new(folder.path()), hub, pip: Pip::from_path() };
        let model = ModelSource::Hub { repo: "org/name".into(), revision: None, file: None };
        let message = model.resolve_in(&places, &Silent).expect_err("nothing is cached").to_string();
        assert!(message.starts_with("org/name: ") && message.contains("--features hub"), "{message}");
    }
}
