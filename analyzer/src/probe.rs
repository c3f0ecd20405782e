//! [`Probe`]: a logistic regression on the activations of a few latents, fitted on two groups of texts.
//!
//! ```text
//! x_dj      mean activation of latent j over the tokens of document d that count, less its mean and divided by its
//!           standard deviation over the documents
//! log odds  b + sum_j w_j x_dj
//! w, b      minimize sum_d c_d log(1 + exp(-y_d log odds)) + |w|^2 / 2    y = 1 or -1, c = n / (2 n of its group)
//! ```
//! which is scikit-learn's `LogisticRegression(class_weight="balanced")` on standardized values. The file has the weights
//! of the activations as they are. The log odds are linear in the activations, so those of the mean of some tokens are
//! the mean of the log odds of each: a guard that smooths a probe over a window reads what the probe was fitted on.

use std::path::Path;

use harvester::{Error as Harvester, write_atomically};
use serde::{Deserialize, Serialize};

use crate::{EncodedRows, FeaturesManifest, Result, auc::auc, halves::Half};

/// Newton steps at most. From zero, a strictly convex loss of this kind takes about ten.
const STEPS: usize = 100;
/// Newton's method ends when no parameter moves by more than this.
const CONVERGED: f64 = 1e-10;

/// Weights of some latents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The latents with their weights, ascending.
    pub latents: Vec<(u32, f32)>,
    /// Log odds where none of them is active.
    pub bias: f32,
    /// Number of latents of the SAE.
    pub d_sae: usize,
    /// SHA-256 of the SAE, as the manifest of the index has it; empty if it has none.
    pub sae_sha256: String,
    /// Probability that a document of the first group has larger log odds than one of the second, among those that it
    /// was not fitted on; `None` if it was fitted on all.
    pub auc: Option<f64>,
    /// Number of documents of the two groups that it was fitted on.
    pub documents: [usize; 2],
}

impl Probe {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read or is no probe.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Harvester::io("read", path))?;
        let hint = "Name a file that `refract find` has fitted";
        let refuse = |found: String| Harvester::malformed(path, "a probe", found, hint);
        let probe: Self = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        let is_ascending = probe.latents.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let is_finite = probe.bias.is_finite() && probe.latents.iter().all(|(_, weight)| weight.is_finite());
        match probe.latents.is_empty() || !is_ascending || !is_finite {
            true => Err(refuse("no latents, latents out of order, or weights that are not finite".into()).into()),
            false => Ok(probe),
        }
    }

    /// Writes a file, in the place of one that is there.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("numbers and text");
        Ok(write_atomically(path, text.as_bytes())?)
    }

    /// Refuses another SAE than the one that it was fitted on: the same latents mean something else there. `sha256`: of
    /// the SAE, if that is known.
    pub(crate) fn check_sae(&self, path: &Path, d_sae: usize, sha256: Option<&str>) -> Result<()> {
        let is_it = sha256.is_none_or(|sha256| self.sae_sha256.is_empty() || self.sae_sha256 == sha256);
        if d_sae == self.d_sae && is_it {
            return Ok(());
        }
        let expected = format!("the SAE it was fitted on, of {} latents and SHA-256 {}", self.d_sae, self.sae_sha256);
        let found = format!("one of {d_sae} latents and SHA-256 {}", sha256.unwrap_or("unknown"));
        Err(Harvester::invalid(format!("probe {}", path.display()), expected, found).into())
    }

    pub(crate) fn latents(&self) -> Vec<u32> {
        self.latents.iter().map(|(latent, _)| *latent).collect()
    }

    pub(crate) fn weights(&self) -> Vec<f32> {
        self.latents.iter().map(|(_, weight)| *weight).collect()
    }
}

impl Probe {
    /// What it is, in sentences.
    pub fn summary(&self) -> Vec<String> {
        let [first, second] = self.documents;
        let of = format!("a probe on {} latents, fitted on {first} and {second} documents", self.latents.len());
        let how = match self.auc {
            Some(auc) => format!("on the documents that it was not fitted on, its AUC is {auc:.3}"),
            None => "too few documents to measure it on others".into(),
        };
        vec![of, how]
    }

    /// Fits a probe on these latents. With `is_split`, it is fitted on the documents of one half, and `auc` is of the other.
    ///
    /// # Errors
    /// A group without a document to fit on.
    pub(crate) fn fitted(
        [positive, negative]: [&EncodedRows; 2],
        latents: &[u32],
        is_split: bool,
        index: &FeaturesManifest,
    ) -> Result<Self> {
        let mut latents = latents.to_vec();
        latents.sort_unstable();
        let mean = |document: &EncodedRows| {
            let n = document.ordinary.iter().filter(|counts| **counts).count().max(1) as f64;
            let of_latent = |latent: &u32| {
                (0..document.len()).map(|row| f64::from(document.acts.get(row, *latent))).sum::<f64>() / n
            };
            latents.iter().map(of_latent).collect::<Vec<f64>>()
        };
        let (mut fit_on, mut others) = ((vec![], vec![]), (vec![], vec![]));
        for (group, is_first) in [(positive, true), (negative, false)] {
            for document in group.documents() {
                let is_fitted = !is_split || Half::of(document.rows.document[0]) == Half::Choose;
                let (x, y) = if is_fitted { &mut fit_on } else { &mut others };
                x.push(mean(&document));
                y.push(is_first);
            }
        }
        let (x, y) = fit_on;
        let n_first = y.iter().filter(|first| **first).count();
        let documents = [n_first, y.len() - n_first];
        if documents.contains(&0) || latents.is_empty() {
            let found = format!("{} and {} documents, {} latents", documents[0], documents[1], latents.len());
            return Err(Harvester::invalid("probe", "documents of both groups and latents to fit on", found).into());
        }
        let (weights, bias) = fit(&x, &y);
        let log_odds = |x: &Vec<f64>| bias + x.iter().zip(&weights).map(|(x, w)| x * w).sum::<f64>();
        let of_group = |first: bool| {
            others
                .0
                .iter()
                .zip(&others.1)
                .filter(|(_, of)| **of == first)
                .map(|(x, _)| log_odds(x))
                .collect::<Vec<f64>>()
        };
        let [first, second] = [of_group(true), of_group(false)];
        let auc = (!first.is_empty() && !second.is_empty()).then(|| auc(&first, &second));
        let latents = latents.into_iter().zip(weights.iter().map(|weight| *weight as f32)).collect();
        let sae_sha256 = index.sae.sha256.clone().unwrap_or_default();
        Ok(Self { latents, bias: bias as f32, d_sae: index.d_sae, sae_sha256, auc, documents })
    }
}

/// The weights and the bias of a logistic regression. `x`: a row for each document, of the same length; `y`: true for
/// those of the first group, which both occur.
fn fit(x: &[Vec<f64>], y: &[bool]) -> (Vec<f64>, f64) {
    let (n, d) = (x.len() as f64, x[0].len());
    let mean = |j: usize| x.iter().map(|row| row[j]).sum::<f64>() / n;
    let means: Vec<f64> = (0..d).map(mean).collect();
    let variance = |j: usize| x.iter().map(|row| (row[j] - means[j]).powi(2)).sum::<f64>() / n;
    // A latent that is the same everywhere gets no weight.
    let scales: Vec<f64> = (0..d).map(|j| Some(variance(j).sqrt()).filter(|s| *s > 0.0).unwrap_or(1.0)).collect();
    let rows: Vec<Vec<f64>> =
        x.iter().map(|row| (0..d).map(|j| (row[j] - means[j]) / scales[j]).chain([1.0]).collect()).collect();
    let n_first = y.iter().filter(|first| **first).count() as f64;
    let weight = |first: bool| n / (2.0 * if first { n_first } else { n - n_first });
    let log_odds = |row: &[f64], w: &[f64]| row.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
    let loss = |w: &[f64]| -> f64 {
        let of_document = |(row, &first): (&Vec<f64>, &bool)| {
            let margin = if first { log_odds(row, w) } else { -log_odds(row, w) };
            // log(1 + exp(-margin)), without an overflow
            weight(first) * ((-margin.abs()).exp().ln_1p() + (-margin).max(0.0))
        };
        rows.iter().zip(y).map(of_document).sum::<f64>() + w[..d].iter().map(|w| w * w).sum::<f64>() / 2.0
    };
    let mut w = vec![0.0; d + 1];
    for _ in 0..STEPS {
        let mut gradient: Vec<f64> = w.iter().take(d).copied().chain([0.0]).collect();
        let mut hessian = vec![vec![0.0; d + 1]; d + 1];
        (0..d).for_each(|j| hessian[j][j] = 1.0);
        for (row, &first) in rows.iter().zip(y) {
            let p = 1.0 / (1.0 + (-log_odds(row, &w)).exp());
            let slope = weight(first) * (p - if first { 1.0 } else { 0.0 });
            let curve = weight(first) * p * (1.0 - p);
            for i in 0..=d {
                gradient[i] += slope * row[i];
                for j in 0..=i {
                    hessian[i][j] += curve * row[i] * row[j];
                }
            }
        }
        let mut step = solve(hessian, gradient);
        let moved = |step: &[f64]| w.iter().zip(step).map(|(w, step)| w - step).collect::<Vec<f64>>();
        let mut next = moved(&step);
        while loss(&next) > loss(&w) && step.iter().any(|step| step.abs() >= CONVERGED) {
            step.iter_mut().for_each(|step| *step /= 2.0); // too far for the quadratic approximation
            next = moved(&step);
        }
        w = next;
        if step.iter().all(|step| step.abs() < CONVERGED) {
            break;
        }
    }
    let weights: Vec<f64> = w.iter().zip(&scales).map(|(w, scale)| w / scale).collect();
    let bias = w[d] - weights.iter().zip(&means).map(|(w, mean)| w * mean).sum::<f64>();
    (weights, bias)
}

/// Solves `a x = b` for a symmetric positive definite matrix, of which the lower half is given, by Cholesky's method.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| a[i][k] * a[j][k]).sum();
            let rest = a[i][j] - sum;
            a[i][j] = if i == j { rest.sqrt() } else { rest / a[j][j] };
        }
        let sum: f64 = (0..i).map(|k| a[i][k] * b[k]).sum();
        b[i] = (b[i] - sum) / a[i][i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| a[k][i] * b[k]).sum();
        b[i] = (b[i] - sum) / a[i][i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Fitted {
        x: Vec<Vec<f64>>,
        y: Vec<bool>,
        weights: Vec<f64>,
        bias: f64,
    }

    /// `tests/fixtures/probe.py` makes them.
    #[test]
    fn a_probe_is_that_of_scikit_learn() {
        let problems: Vec<Fitted> = serde_json::from_str(include_str!("../tests/fixtures/probe.json")).expect("JSON");
        assert_eq!(problems.len(), 3);
        for Fitted { x, y, weights, bias } in problems {
            let (found, found_bias) = fit(&x, &y);
            // Both are at the minimum to about 1e-9.
            let is_close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
            let all = found.iter().zip(&weights).all(|(a, b)| is_close(*a, *b));
            assert!(all && is_close(found_bias, bias), "{found:?} {found_bias}, expected {weights:?} {bias}");
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_another_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("probe.json");
        let (latents, documents) = (vec![(3, 0.5), (9, -2.0)], [10, 12]);
        let (sae_sha256, auc) = ("ab".into(), Some(0.875));
        let probe = Probe { latents, bias: -1.0, d_sae: 16, sae_sha256, auc, documents };
        probe.write(&path).expect("written");
        assert_eq!(Probe::read(&path).expect("read"), probe);
        let other = std::fs::read_to_string(&path).expect("text").replace("[\n      9", "[\n      3");
        std::fs::write(&path, other).expect("written");
        let error = Probe::read(&path).expect_err("out of order").to_string();
        assert!(error.contains("probe.json") && error.contains("order"), "{error}");
        assert!(probe.check_sae(&path, 16, Some("ab")).is_ok() && probe.check_sae(&path, 16, None).is_ok());
        for (d_sae, sha256) in [(16, Some("cd")), (32, Some("ab")), (32, None)] {
            assert!(probe.check_sae(&path, d_sae, sha256).is_err(), "{d_sae} {sha256:?}");
        }
    }
}
