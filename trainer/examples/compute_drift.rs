//! Measures the effect of `--compute int8`: the distance of the residual stream from f32's after every layer, and its
//! effect on the next token and on an SAE.
//!
//! `cargo run --release --example compute_drift --package trainer -- [--model MODEL] [--contexts N] [--sae DIR]`
//!
//! ```text
//! error   = |int8 - f32| / |f32|                     per row; median and 99th percentile over rows at position > 0
//! KL      = sum_t p(t) log(p(t) / q(t))              of the next token, p in f32, q in int8
//! FVU     = sum |x - x_hat(x)|^2 / sum |x - mean|^2    of the SAE's reconstruction: of f32's activations, of int8's
//!                                                      activations, and from int8's activations to f32's
//! overlap = share of the latents active on f32's activations that are active on int8's too
//! ```
//!
//! Attention sinks, rows with more than ten times the median norm, are left out, as in training.

#![expect(clippy::print_stdout, reason = "a measurement reports on standard output")]

use std::path::PathBuf;

use candle_core::{Device, Tensor};
use harvester::{
    Compute, ContextCursor, Corpus, CorpusOptions, HarvestConfig, HookPoint, LanguageModel, LiveModel, ModelSource,
    Result, SINK_MULTIPLE, Silent, StorageDtype, norm,
};
use trainer::{ReconstructionMetrics, Sae};

const CTX_LEN: usize = 256;

/// One context's activations at a hook point, without position 0. `[CTX_LEN - 1, d_model]`
type Rows = Vec<Vec<f32>>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| args.iter().position(|arg| arg == name).map(|place| args[place + 1].clone());
    let source: ModelSource = option("--model").as_deref().unwrap_or("default").parse().expect("a model");
    let n = option("--contexts").map_or(16, |n| n.parse().expect("a number"));
    let models =
        [Compute::F32, Compute::Int8].map(|compute| LanguageModel::open(&source, compute, &Silent).expect("a model"));
    let points: Vec<HookPoint> = (0..models[0].config().n_layers).map(HookPoint::resid_post).collect();
    let [exact, rounded] = models.each_ref().map(|model| activations(model, &points, n).expect("a pass")); // [points][rows]
    println!("hook point: median and 99th percentile of the rows' relative error, {n} contexts of {CTX_LEN}");
    for (point, (exact, rounded)) in points.iter().zip(exact.iter().zip(&rounded)) {
        let pairs = without_sinks(exact, rounded);
        let mut errors: Vec<f32> = pairs.iter().map(|(x, y)| norm(&difference(x, y)) / norm(x)).collect();
        errors.sort_by(f32::total_cmp);
        println!("{point}: {:.4} {:.4}", errors[errors.len() / 2], errors[errors.len() * 99 / 100]);
    }
    let last = points.len() - 1;
    report_predictions(&models, [&exact[last], &rounded[last]]);
    if let Some(dir) = option("--sae") {
        let sae = Sae::load(&PathBuf::from(dir)).expect("an SAE");
        let place = points
            .iter()
            .position(|point| sae.config().hook_points.reads() == [*point])
            .expect("an SAE of hook_resid_post");
        println!("SAE at {}:", points[place]);
        report_latents(&sae, &without_sinks(&exact[place], &rounded[place])).expect("activations of the SAE's width");
    }
}

/// Of each model, the predictions after its own last residual stream.
fn report_predictions(models: &[LanguageModel; 2], resid: [&Rows; 2]) {
    let log_probs = |model: usize, rows: std::ops::Range<usize>| -> Vec<Vec<f64>> {
        let (n, d_model) = (rows.len(), models[model].config().d_model);
        let resid = Tensor::from_vec(resid[model][rows].concat(), (n, d_model), &Device::Cpu).expect("whole rows");
        let logits: Vec<Vec<f32>> = models[model].unembed(&resid).and_then(|it| Ok(it.to_vec2()?)).expect("logits");
        let normed = |row: Vec<f32>| {
            let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let log_sum = max + row.iter().map(|x| (f64::from(*x) - max).exp()).sum::<f64>().ln();
            row.into_iter().map(|x| f64::from(x) - log_sum).collect()
        };
        logits.into_iter().map(normed).collect()
    };
    let likeliest = |row: &[f64]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(token, _)| token);
    let (mut kl, mut same) = (vec![], 0);
    for first in (0..resid[0].len()).step_by(CTX_LEN) {
        let rows = first..(first + CTX_LEN).min(resid[0].len());
        for (p, q) in log_probs(0, rows.clone()).iter().zip(log_probs(1, rows)) {
            kl.push(p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>());
            same += usize::from(likeliest(p) == likeliest(&q));
        }
    }
    kl.sort_by(f64::total_cmp);
    println!(
        "next token: KL {:.5} nats in the mean, {:.5} at the 99th percentile; {:.2} % have the same likeliest token",
        kl.iter().sum::<f64>() / kl.len() as f64,
        kl[kl.len() * 99 / 100],
        100.0 * same as f64 / kl.len() as f64
    );
}

fn report_latents(sae: &Sae, pairs: &[(&[f32], &[f32])]) -> trainer::Result<()> {
    let exact: Vec<f32> = pairs.iter().flat_map(|(x, _)| x.iter().copied()).collect();
    let rounded: Vec<f32> = pairs.iter().flat_map(|(_, y)| y.iter().copied()).collect();
    let ((acts, x_hat), (rounded_acts, rounded_x_hat)) = (sae.reconstruct(&exact)?, sae.reconstruct(&rounded)?);
    let shared: usize = (0..acts.n_rows())
        .map(|row| acts.row(row).0.iter().filter(|latent| rounded_acts.get(row, **latent) > 0.0).count())
        .sum();
    let fvu = |x: &[f32], x_hat: &[f32]| {
        let mut metrics = ReconstructionMetrics::of(sae);
        metrics.add(x, x_hat, &acts);
        metrics.finish().map_or(f64::NAN, |found| found.fvu)
    };
    println!(
        "overlap {:.4}, FVU {:.4} of f32, {:.4} of int8 (its activations), \
         {:.5} of int8 for f32; L0 {:.1}, {:.1}",
        shared as f64 / acts.n_active() as f64,
        fvu(&exact, &x_hat),
        fvu(&rounded, &rounded_x_hat),
        fvu(&exact, &rounded),
        acts.l0(),
        rounded_acts.l0(),
    );
    Ok(())
}

fn difference(x: &[f32], y: &[f32]) -> Vec<f32> {
    x.iter().zip(y).map(|(x, y)| x - y).collect()
}

fn without_sinks<'a>(exact: &'a Rows, rounded: &'a Rows) -> Vec<(&'a [f32], &'a [f32])> {
    let mut norms: Vec<f32> = exact.iter().map(|row| norm(row)).collect();
    norms.sort_by(f32::total_cmp);
    let sink_norm = SINK_MULTIPLE * norms[norms.len() / 2];
    let pairs = exact.iter().map(Vec::as_slice).zip(rounded.iter().map(Vec::as_slice));
    pairs.filter(|(x, _)| norm(x) <= sink_norm).collect()
}

/// The activations of the first contexts of the shuffled bundled corpora at each of `points`.
fn activations(model: &LanguageModel, points: &[HookPoint], n: usize) -> Result<Vec<Rows>> {
    let corpora = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/corpora");
    let paths = ["code", "fiction", "speeches"].map(|name| corpora.join(format!("{name}.jsonl")));
    let corpus = Corpus::open(&paths, &CorpusOptions::default())?;
    let config = HarvestConfig {
        hook_points: points.to_vec(),
        compute: model.compute(),
        dtype: StorageDtype::F32,
        ctx_len: CTX_LEN,
        batch: 1,
        document_tokens: Some(512),
        ..HarvestConfig::default()
    };
    let mut rows: Vec<Rows> = vec![vec![]; points.len()];
    for batch in LiveModel::new(model, corpus, &config)?.stream(points, ContextCursor::default())?.take(n) {
        for (rows, seen) in rows.iter_mut().zip(batch?.activations) {
            rows.extend(seen.values.to_f32().chunks(seen.d_model).skip(1).map(<[f32]>::to_vec));
        }
    }
    Ok(rows)
}
