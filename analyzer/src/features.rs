//! Features: what is known about each latent, as a folder on disk.

mod feature;
mod folder;
pub(crate) mod histogram;
mod latents;
mod manifest;
mod portrait;
mod sample;
pub(crate) mod tables;

pub use self::{
    feature::{Example, ExampleKind, Feature, FiresWith},
    folder::FeatureIndex,
    histogram::Histogram,
    manifest::{FeaturesManifest, IndexConfig, IndexedText, Labeled},
    portrait::Portrait,
    sample::Sample,
};
pub(crate) use self::{
    latents::{LATENTS, LatentsWriter, say_size},
    manifest::{IndexedFile, IndexedSource, PARTIAL_FOLDER, STATE_FILE},
    sample::{ByLatent, NO_SOURCE, SampleRow, part_of},
};

#[cfg(test)]
pub(crate) mod tests {
    use harvester::{ArtifactRef, Family, HookPoint, Manifest, ModelIdentity};

    use super::*;

    /// A manifest of two latents and one source.
    pub(crate) fn manifest() -> FeaturesManifest {
        let model = ModelIdentity {
            source: "default".into(),
            relative: None,
            recorded: None,
            family: Family::Llama,
            sha256: "aa".into(),
            tokenizer_sha256: "bb".into(),
            n_layers: 1,
            d_model: 4,
            d_vocab: 100,
        };
        FeaturesManifest {
            format: FeaturesManifest::FORMAT.into(),
            version: FeaturesManifest::VERSION,
            refract_version: String::new(),
            sae: ArtifactRef::default(),
            text: IndexedText { activations: None, identity: serde_json::Value::Null, parts: vec![], tokens: None },
            model,
            hook_point: HookPoint::resid_post(0),
            sink_norm: 100.0,
            d_sae: 2,
            never_active: 0,
            tokens: 10,
            sources: vec![IndexedSource { name: "a".into(), tokens: 10, first_document: 0, documents: 3 }],
            config: IndexConfig::default(),
            sample_cuts: [0, 0],
            labeled: Labeled::default(),
            files: vec![],
        }
    }
}
