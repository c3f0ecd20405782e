//! A tiny random llama, and SAEs of it that do what is known in advance.

#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::allow_attributes, dead_code, reason = "not every test file uses all of it")]

use std::path::PathBuf;

use analyzer::SaeSite;
use harvester::{Compute, HookPoint, LanguageModel, ModelSource, Silent};
use trainer::{HookPoints, Nonlinearity, Sae, SaeConfig, SaeWeights};

/// Width of the tiny model.
pub(crate) const D: usize = 48;

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn point() -> HookPoint {
    HookPoint::resid_post(1)
}

pub(crate) fn model() -> LanguageModel {
    let path = root().join("tests/fixtures/tiny/llama");
    LanguageModel::open(&ModelSource::Folder(path), Compute::F32, &Silent).unwrap()
}

/// Latent `i` is the positive part of dimension `i`, latent `D + i` the positive part of its negative: together they
/// are the identity. Latents at or below `threshold` are not active.
pub(crate) fn identity(threshold: f32) -> Sae {
    let mut w_enc = vec![0.0; 2 * D * D];
    for i in 0..D {
        w_enc[i * D + i] = 1.0;
        w_enc[(D + i) * D + i] = -1.0;
    }
    let config = SaeConfig {
        hook_points: HookPoints::Autoencoder(Some(point())),
        model_name: "tiny".to_string(),
        ..SaeConfig::new(D, 2 * D)
    };
    let weights = SaeWeights {
        w_dec: w_enc.clone(),
        w_enc,
        b_enc: vec![0.0; 2 * D],
        nonlinearity: Nonlinearity::JumpRelu { threshold: vec![threshold; 2 * D] },
        b_dec: vec![0.0; D],
        w_skip: None,
    };
    Sae::new(config, weights).unwrap()
}

/// The same with another config.
pub(crate) fn with(sae: Sae, change: impl FnOnce(&mut SaeConfig)) -> Sae {
    let (mut config, weights) = sae.into_parts();
    change(&mut config);
    Sae::new(config, weights).unwrap()
}

pub(crate) fn at(sae: &Sae, sink_norm: f32) -> SaeSite<'_> {
    SaeSite { sae, hook_point: point(), sink_norm }
}
