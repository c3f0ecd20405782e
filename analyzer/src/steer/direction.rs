//! [`SteerVector`]: a direction at a hook point, made by [`direction`] from two sets of texts, or read from a file.
//!
//! ```text
//! x_i      activation of text i: the mean over its tokens, or that of its last token
//! delta    = mean of x over the positive texts - mean over the negative ones
//! mean     v = delta
//! pca      u = first principal component of the differences x_i - y_i of pairs, about 0;  v = u (u . delta)
//! ```
//! So `v` times 1 takes a text from the negative mean to the positive one, in whole or along `u`. `pca` is repeng's
//! `pca_center`: the texts of a pair, less their midpoint, are `+-(x_i - y_i) / 2`.
//!
//! The file is a `.safetensors` with one tensor, `direction`; its metadata say how it was made. Another file with one
//! vector in F32 is read as well.

use std::{collections::BTreeMap, path::Path};

use harvester::{
    Batch, Error as Harvester, HookPoint, LanguageModel, Monitor, SINK_MULTIPLE, SpecialToken, human, norm,
    sha256_bytes, write_atomically,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::prompt::Prompt;
use crate::{Error, Result, auc::auc, encode::Read};

/// Name of the tensor.
const TENSOR: &str = "direction";
/// Keys of the metadata that are read again.
const HOOK_POINT: &str = "hook_point";
const MODEL_SHA256: &str = "model_sha256";
/// Steps of the power iteration at most, and the change of `u` at which it ends.
const STEPS: usize = 20_000;
const CONVERGED: f64 = 1e-12;

/// A vector in the activations at a hook point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SteerVector {
    /// The vector.
    pub vector: Vec<f32>,
    /// Where it was made; `None` if its file does not say.
    pub hook_point: Option<HookPoint>,
    /// Probability that a positive text lies further along than a negative one, by vectors that were made from other
    /// texts; `None` with fewer than four of each, or for a vector from a file.
    pub auc: Option<f64>,
    /// How it was made.
    pub provenance: BTreeMap<String, String>,
}

/// How a direction is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectionConfig {
    /// What it is of the two sets. Default `mean`.
    pub method: DirectionMethod,
    /// The tokens of each text that count. Default `all`.
    pub tokens: DirectionTokens,
}

/// What a direction is of two sets of texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectionMethod {
    /// The difference of their means.
    #[default]
    Mean,
    /// The first principal component of the differences of pairs: the first positive text and the first negative one,
    /// and so on.
    Pca,
}

/// The tokens of a text that make its activation. Position 0 and attention sinks never count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectionTokens {
    /// Their mean.
    #[default]
    All,
    /// The last one.
    Last,
}

/// The direction from `negative` to `positive` texts at `hook_point`.
///
/// # Errors
/// No text on one side; for `pca`, sets of different size; a text longer than the context, or without a token after
/// position 0; sets whose activations do not differ.
pub fn direction(
    model: &LanguageModel,
    hook_point: HookPoint,
    [positive, negative]: [&[Prompt]; 2],
    config: &DirectionConfig,
    monitor: &dyn Monitor,
) -> Result<SteerVector> {
    hook_point.check(model.config())?;
    for (setting, texts) in [("`positive`", positive), ("`negative`", negative)] {
        if texts.is_empty() {
            return Err(Harvester::invalid(setting, "at least one text", "none").into());
        }
    }
    if config.method == DirectionMethod::Pca && positive.len() != negative.len() {
        let expected = format!("{} texts, one for each positive one: `pca` compares pairs", positive.len());
        return Err(Harvester::invalid("`negative`", expected, negative.len().to_string()).into());
    }
    monitor.start("reading", (positive.len() + negative.len()) as u64, "texts");
    let acts = |texts: &[Prompt]| -> Result<Vec<Vec<f64>>> {
        texts.iter().map(|text| activation(model, hook_point, &text.text, config.tokens, monitor)).collect()
    };
    let sides = [acts(positive)?, acts(negative)?];
    monitor.finish();
    let vector: Vec<f32> = made([&sides[0], &sides[1]], config.method).into_iter().map(|value| value as f32).collect();
    let length = norm(&vector);
    if !length.is_finite() || length == 0.0 {
        let expected = "texts whose activations differ";
        return Err(Harvester::invalid("direction", expected, format!("a difference of length {length}")).into());
    }
    let hash = |texts: &[Prompt]| sha256_bytes(texts.iter().flat_map(|text| [text.text.as_bytes(), b"\0"]));
    let provenance = [
        (HOOK_POINT, hook_point.to_string()),
        ("method", config.method.name().to_string()),
        ("tokens", config.tokens.name().to_string()),
        ("model", model.source().to_string()),
        (MODEL_SHA256, model.identity()?.sha256.clone()),
        ("positive_texts", positive.len().to_string()),
        ("negative_texts", negative.len().to_string()),
        ("positive_sha256", hash(positive)),
        ("negative_sha256", hash(negative)),
        ("refract", env!("CARGO_PKG_VERSION").to_string()),
    ];
    let provenance = provenance.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    let auc = auc_of_halves([&sides[0], &sides[1]], config.method);
    Ok(SteerVector { vector, hook_point: Some(hook_point), auc, provenance })
}

/// The activation of a text. `[width]`
fn activation(
    model: &LanguageModel,
    hook_point: HookPoint,
    text: &str,
    tokens: DirectionTokens,
    monitor: &dyn Monitor,
) -> Result<Vec<f64>> {
    if monitor.cancelled() {
        return Err(Error::Stopped);
    }
    let ids = model.tokenizer().prompt(SpecialToken::FromModel, text)?;
    let ctx_len = model.config().ctx_len;
    let refuse = |expected: String, found: String| {
        let begin: String = text.chars().take(40).collect();
        Err(Harvester::invalid(format!("text {begin:?}"), expected, found).into())
    };
    if !(2..=ctx_len).contains(&ids.len()) {
        let expected =
            format!("2 to {ctx_len} tokens: position 0 does not count, and {ctx_len} is the model's context");
        return refuse(expected, ids.len().to_string());
    }
    let mut read = Read::at(hook_point);
    model.run(&Batch::of([&ids]), &mut read)?;
    let rows: Vec<&[f32]> = read.x.chunks_exact(hook_point.width(model.config())).skip(1).collect();
    let mut norms: Vec<f32> = rows.iter().map(|row| norm(row)).collect();
    norms.sort_unstable_by(f32::total_cmp);
    let sink = SINK_MULTIPLE * norms[norms.len() / 2];
    let counted: Vec<&[f32]> = rows.into_iter().filter(|row| norm(row) <= sink).collect();
    let counted = if tokens == DirectionTokens::Last { &counted[counted.len() - 1..] } else { &counted[..] };
    monitor.advance(1);
    Ok(mean(&counted.iter().map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect::<Vec<_>>()))
}

/// The vector that two sets of activations make, for `pca` of equal size.
fn made([positive, negative]: [&[Vec<f64>]; 2], method: DirectionMethod) -> Vec<f64> {
    let delta = minus(&mean(positive), &mean(negative));
    match method {
        DirectionMethod::Mean => delta,
        DirectionMethod::Pca => {
            let differences: Vec<Vec<f64>> = positive.iter().zip(negative).map(|(x, y)| minus(x, y)).collect();
            let unit = first_component(&differences);
            let along = dot(&unit, &delta);
            unit.into_iter().map(|u| along * u).collect()
        }
    }
}

/// The unit vector `u` with the largest `sum (d . u)^2`, by power iteration; zeros if all of `d` are.
fn first_component(d: &[Vec<f64>]) -> Vec<f64> {
    let longest = d.iter().max_by(|a, b| dot(a, a).total_cmp(&dot(b, b)));
    let mut u = unit(longest.cloned().unwrap_or_default());
    for _ in 0..STEPS {
        let mut next = vec![0.0; u.len()];
        for d in d {
            let along = dot(d, &u);
            next.iter_mut().zip(d).for_each(|(next, d)| *next += along * d);
        }
        let next = unit(next);
        let moved = minus(&next, &u);
        u = next;
        if dot(&moved, &moved) < CONVERGED * CONVERGED {
            break;
        }
    }
    u
}

/// Each half of the texts, every second one, is ordered by the vector that the other half makes.
fn auc_of_halves(sides: [&[Vec<f64>]; 2], method: DirectionMethod) -> Option<f64> {
    if sides.iter().any(|side| side.len() < 4) {
        return None;
    }
    let (mut above, mut pairs) = (0.0, 0.0);
    for half in [0, 1] {
        let part = |side: &[Vec<f64>], half: usize| side.iter().skip(half).step_by(2).cloned().collect::<Vec<_>>();
        let v = made([&part(sides[0], 1 - half), &part(sides[1], 1 - half)], method);
        let [positive, negative] = sides.map(|side| part(side, half).iter().map(|x| dot(x, &v)).collect::<Vec<f64>>());
        let n = (positive.len() * negative.len()) as f64;
        above += n * auc(&positive, &negative);
        pairs += n;
    }
    Some(above / pairs)
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    let mut sum = vec![0.0; rows[0].len()];
    rows.iter().for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
    sum.into_iter().map(|sum| sum / rows.len() as f64).collect()
}

fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn unit(v: Vec<f64>) -> Vec<f64> {
    let length = dot(&v, &v).sqrt();
    if length == 0.0 { v } else { v.into_iter().map(|x| x / length).collect() }
}

impl SteerVector {
    /// Writes a new file.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        if path.exists() {
            let hint = "Choose another `out`, or remove it";
            return Err(Harvester::malformed(path, "a new file", "one that exists", hint).into());
        }
        let bytes: Vec<u8> = self.vector.iter().flat_map(|value| value.to_le_bytes()).collect();
        let refused = |error: safetensors::SafeTensorError| Harvester::invalid("vector", "a tensor", error.to_string());
        let tensor = TensorView::new(Dtype::F32, vec![self.vector.len()], &bytes).map_err(refused)?;
        let metadata = self.provenance.clone().into_iter().collect();
        let file = safetensors::serialize([(TENSOR, tensor)], Some(metadata)).map_err(refused)?;
        Ok(write_atomically(path, &file)?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, or does not hold one vector of finite f32 numbers.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Harvester::io("read", path))?;
        let hint = "Name a file that holds one vector in F32, such as `refract direction` writes";
        let refuse = |expected: &str, found: String| Harvester::malformed(path, expected, found, hint);
        let damaged = |error: safetensors::SafeTensorError| refuse("a safetensors file", error.to_string());
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let vectors: Vec<_> = tensors.iter().filter(|(_, tensor)| tensor.shape().len() == 1).collect();
        let named = vectors.iter().find(|(name, _)| *name == TENSOR);
        let tensor = match (named, &vectors[..]) {
            (Some((_, tensor)), _) | (None, [(_, tensor)]) => tensor,
            (None, others) => {
                let expected = format!("one tensor of one dimension, or one named `{TENSOR}`");
                return Err(refuse(&expected, format!("{} of one dimension", others.len())).into());
            }
        };
        if tensor.dtype() != Dtype::F32 {
            return Err(refuse("a vector in F32", format!("{:?}", tensor.dtype())).into());
        }
        let vector: Vec<f32> =
            tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if let Some(at) = vector.iter().position(|value| !value.is_finite()) {
            return Err(refuse("finite numbers", format!("{} at index {at}", vector[at])).into());
        }
        let provenance: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let hook_point = provenance.get(HOOK_POINT).map(|point| point.parse()).transpose()?;
        Ok(Self { vector, hook_point, auc: None, provenance })
    }

    /// Warns if it was made on another model.
    pub(crate) fn check_model(&self, model: &LanguageModel) -> Result<()> {
        if let Some(made_on) = self.provenance.get(MODEL_SHA256).filter(|sha256| !sha256.is_empty())
            && *made_on != model.identity()?.sha256
        {
            let name = self.provenance.get("model").map_or("another model", String::as_str);
            tracing::warn!("a direction that was made on {name} is used on {}", model.source());
        }
        Ok(())
    }

    /// What it is, in lines.
    pub fn summary(&self) -> Vec<String> {
        let Self { vector, auc, provenance, .. } = self;
        let of = |key: &str| provenance.get(key).map_or("?", String::as_str);
        let n = |key: &str| human::counted(of(key).parse().unwrap_or(0), "text");
        let mut lines = vec![
            format!(
                "{} at {}, from {} and {}: {} values of length {:.2}",
                of("method"),
                of(HOOK_POINT),
                n("positive_texts"),
                n("negative_texts"),
                vector.len(),
                norm(vector)
            ),
            "1 times it takes a text from the one mean to the other along it; try 0.5 to 4".into(),
        ];
        lines.push(match auc {
            Some(auc) => {
                format!("made from one half of the texts, it tells those of the other half apart: AUC {auc:.3}")
            }
            None => "with four texts or more on each side, it is also tried on texts that it was not made from".into(),
        });
        lines
    }
}

impl DirectionMethod {
    fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Pca => "pca",
        }
    }
}

impl DirectionTokens {
    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Last => "last",
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_first_component_is_that_of_numpy() {
        // d = numpy.array([[2, 1, 0], [1, 2, 1], [3, 1, -1], [-2, 0, 1.5]]); numpy.linalg.svd(d)[2][0]
        let d = [[2.0, 1.0, 0.0], [1.0, 2.0, 1.0], [3.0, 1.0, -1.0], [-2.0, 0.0, 1.5]].map(Vec::from);
        let u = first_component(&d);
        let known: [f64; 3] = [-0.898_483_690_486, -0.374_231_249_494, 0.229_516_948_901];
        let sign = u[0].signum() * known[0].signum();
        u.iter().zip(known).for_each(|(u, known)| assert!((sign * u - known).abs() < 1e-9, "{u} {known}"));
    }

    #[test]
    fn a_direction_takes_one_mean_to_the_other() {
        let positive = [vec![3.0, 1.0], vec![5.0, 1.0]];
        let negative = [vec![1.0, 0.0], vec![1.0, 2.0]];
        assert_eq!(made([&positive, &negative], DirectionMethod::Mean), [3.0, 0.0]);
        // Differences (2, 1) and (4, -1): their component leans to the second; its length is that of delta along it.
        let v = made([&positive, &negative], DirectionMethod::Pca);
        let along = dot(&unit(v.clone()), &[3.0, 0.0]);
        assert!((dot(&v, &v).sqrt() - along).abs() < 1e-12 && v[0] > 0.0 && v[1] < 0.0, "{v:?}");
    }

    #[test]
    fn sets_that_differ_are_told_apart_by_the_other_half() {
        let set = |at: f64| (0..6).map(|i| vec![at, f64::from(i) * 0.1]).collect::<Vec<_>>();
        assert_eq!(auc_of_halves([&set(1.0), &set(0.0)], DirectionMethod::Mean), Some(1.0));
        assert_eq!(auc_of_halves([&set(1.0), &set(0.0)], DirectionMethod::Pca), Some(1.0));
        assert_eq!(auc_of_halves([&set(1.0), &set(0.0)[..3]], DirectionMethod::Mean), None);
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_what_is_no_vector_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.safetensors");
        let provenance = BTreeMap::from([(HOOK_POINT.to_string(), "blocks.1.hook_resid_post".to_string())]);
        let hook_point = Some(HookPoint::resid_post(1));
        let made = SteerVector { vector: vec![1.0, -2.5], hook_point, auc: None, provenance };
        made.write(&path).unwrap();
        assert_eq!(SteerVector::read(&path).unwrap(), made);
        assert!(made.write(&path).unwrap_err().to_string().contains("a new file"));
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            SteerVector::read(&path).unwrap_err().to_string()
        };
        assert!(refused(b"no tensors").contains("a safetensors file"));
        let values = [f32::NAN.to_le_bytes(), 1f32.to_le_bytes()].concat();
        let file = |dtype, shape: &[usize], bytes: &[u8]| {
            let tensor = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
            safetensors::serialize([("x", tensor)], None).unwrap()
        };
        assert!(refused(&file(Dtype::F32, &[2], &values)).contains("NaN at index 0"));
        assert!(refused(&file(Dtype::F16, &[4], &values)).contains("a vector in F32"));
        assert!(refused(&file(Dtype::F32, &[1, 2], &values)).contains("0 of one dimension"));
    }
}
