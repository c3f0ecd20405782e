//! The SAEs of other tools in `fixtures/formats`, and the results that each tool computes with them.

use std::{fs, path::PathBuf};

use safetensors::SafeTensors;
use trainer::{FeatureActs, Sae};

/// An SAE of a tool, and the results that the tool computes with it.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) x: Vec<f32>,
    pub(crate) feature_acts: Vec<f32>,
    pub(crate) x_hat: Vec<f32>,
}

/// A folder of cases: `formats` has the SAEs of the tools as they are, `vintages` those of former versions.
pub(crate) fn fixtures(set: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(set)
}

pub(crate) fn case(name: &str) -> Case {
    case_in("formats", name)
}

pub(crate) fn case_in(set: &str, name: &str) -> Case {
    let folder = fixtures(set).join(name);
    let bytes = fs::read(folder.join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        tensors.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    Case {
        name: name.to_string(),
        path: folder.join(&header.metadata().as_ref().unwrap()["sae"]),
        x: floats("x"),
        feature_acts: floats("feature_acts"),
        x_hat: floats("x_hat"),
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let entries = fs::read_dir(fixtures("formats")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() > 30, "{names:?}");
    names.iter().map(|name| case(name)).collect()
}

fn dense(acts: &FeatureActs, d_sae: usize) -> Vec<f32> {
    let mut dense = vec![0.0; acts.n_rows() * d_sae];
    for row in 0..acts.n_rows() {
        let (latents, values) = acts.row(row);
        latents.iter().zip(values).for_each(|(latent, value)| dense[row * d_sae + *latent as usize] = *value);
    }
    dense
}

/// |found - expected| / |expected|
pub(crate) fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let mut pairs = found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b));
    norm(&mut pairs) / norm(&mut expected.iter().map(|b| f64::from(*b)))
}

/// Checks that the same latents are active, and that activations and reconstructions agree.
pub(crate) fn assert_agrees(sae: &Sae, case: &Case, what: &str) {
    let (acts, x_hat) = sae.reconstruct(&case.x).unwrap();
    let acts = dense(&acts, sae.d_sae());
    let what = format!("{}{what}", case.name);
    assert!(acts.iter().zip(&case.feature_acts).all(|(a, b)| (*a != 0.0) == (*b != 0.0)), "{what}: other latents");
    for (name, error) in
        [("activations", difference(&acts, &case.feature_acts)), ("x_hat", difference(&x_hat, &case.x_hat))]
    {
        assert!(error < 1e-5, "{what}: {name} differ by {error:e}");
    }
}
