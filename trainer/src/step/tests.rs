//! Compares the step with finite differences, with PyTorch, and with itself on other numbers of threads.

use std::path::Path;

use self::plain_loss::Parameters;
use super::*;
use crate::{
    kernels::plain,
    step::{architecture::TrainArchitecture, weights::Parameter},
    tensors::TensorFile,
};

mod plain_loss;

fn config(architecture: TrainArchitecture, dead_after_tokens: u64) -> StepConfig {
    StepConfig { auxk_alpha: 0.5, k_aux: 4, dead_after_tokens, ..StepConfig::example(architecture, 5, 0, 20) }
}

/// Weights away from the tied start. Some latents have a bias that keeps them inactive.
fn weights(d_sae: usize, d_in: usize) -> Weights {
    let mut weights = Weights::random(d_sae, plain::random(d_in, 1), 2);
    weights.w_enc.iter_mut().zip(plain::random(d_sae * d_in, 3)).for_each(|(w, r)| *w += 0.2 * r);
    weights.b_enc = plain::random(d_sae, 4).iter().map(|b| 0.3 * b).collect();
    weights.b_enc.iter_mut().step_by(4).for_each(|b| *b -= 0.8);
    weights
}

/// L as the module defines it, for given active latents and a given residual; `aux_weight` is alpha V / |residual|^2.
fn plain_loss(p: &Parameters, x: &[f32], learner: &Learner, residual: &[f64], aux_weight: f64) -> f64 {
    let aux = &learner.buffers.auxiliary;
    let aux_loss = if aux.dead.is_empty() { 0.0 } else { plain_loss::residual_loss(p, x, &aux.acts, residual) };
    plain_loss::loss(p, x, &learner.buffers.acts) + aux_weight * aux_loss
}

/// Compares the gradients of a step with central differences of the loss in f64, at every parameter.
fn check_gradients(architecture: TrainArchitecture, dead_after_tokens: u64) {
    let (n, d_in, d_sae) = (40, 7, 20);
    let config = config(architecture, dead_after_tokens);
    let weights = weights(d_sae, d_in);
    let x = plain::random(n * d_in, 5);
    let mut learner = Learner::new(weights.clone(), config.clone());
    learner.dead_latents.record(100, |latent| latent % 4 != 0);
    let report = learner.step(&x, 0.0);
    assert_eq!(report.aux_loss > 0.0, dead_after_tokens <= 100, "{report:?}");

    let start = Parameters::from(&weights);
    let x_c: Vec<f32> = x.iter().zip(weights.b_dec.iter().cycle()).map(|(x, b)| x - b).collect();
    let error = plain::error(&learner.buffers.acts, &weights.w_dec, &x_c, d_in);
    let residual: Vec<f64> = error.iter().map(|e| -e).collect();
    let mean: Vec<f64> =
        (0..d_in).map(|i| x.iter().skip(i).step_by(d_in).map(|&x| f64::from(x)).sum::<f64>() / n as f64).collect();
    let spread = x.iter().enumerate().map(|(at, &x)| (f64::from(x) - mean[at % d_in]).powi(2)).sum::<f64>();
    let aux_weight = config.auxk_alpha * spread / residual.iter().map(|r| r * r).sum::<f64>();
    let loss = |p: &Parameters| plain_loss(p, &x, &learner, &residual, aux_weight);
    let slope = |place: &dyn Fn(&mut Parameters) -> &mut f64| {
        let (mut up, mut down) = (start.clone(), start.clone());
        *place(&mut up) += 1e-5;
        *place(&mut down) -= 1e-5;
        (loss(&up) - loss(&down)) / 2e-5
    };
    let g = &learner.buffers.gradients;
    let close = |ours: f32, slope: f64| (f64::from(ours) - slope).abs() < 1e-5 * (1.0 + slope.abs());
    for latent in 0..d_sae {
        let row = latent * d_in..(latent + 1) * d_in;
        let w_enc: Vec<f64> = row.clone().map(|i| slope(&|p| &mut p.w_enc[i])).collect();
        let mut w_dec: Vec<f64> = row.clone().map(|i| slope(&|p| &mut p.w_dec[i])).collect();
        let w = weights.decoder_row(latent);
        let along: f64 = w_dec.iter().zip(w).map(|(g, &w)| g * f64::from(w)).sum();
        w_dec.iter_mut().zip(w).for_each(|(g, &w)| *g -= along * f64::from(w));
        if g.inactive[latent] {
            assert!(w_enc.iter().chain(&w_dec).all(|slope| slope.abs() < 1e-9), "latent {latent} is not inactive");
            continue;
        }
        assert!(g.w_enc[row.clone()].iter().zip(&w_enc).all(|(&g, &s)| close(g, s)), "W_enc of latent {latent}");
        assert!(g.w_dec[row].iter().zip(&w_dec).all(|(&g, &s)| close(g, s)), "W_dec of latent {latent}");
        assert!(close(g.b_enc[latent], slope(&|p| &mut p.b_enc[latent])), "b_enc of latent {latent}");
    }
    for i in 0..d_in {
        assert!(close(g.b_dec[i], slope(&|p| &mut p.b_dec[i])), "b_dec at {i}");
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    for architecture in [TrainArchitecture::TopK, TrainArchitecture::BatchTopK] {
        check_gradients(architecture, u64::MAX);
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss_while_dead_latents_learn() {
    for architecture in [TrainArchitecture::TopK, TrainArchitecture::BatchTopK] {
        check_gradients(architecture, 100);
    }
}

#[test]
fn a_perfect_reconstruction_leaves_no_auxiliary_loss() {
    // One latent reconstructs every token exactly; another is dead and active on them.
    let weights = Weights {
        w_enc: vec![1.0, 0.0, 0.5, 0.0],
        w_dec: vec![1.0, 0.0, 0.0, 1.0],
        b_dec: vec![3.0, -1.0],
        ..Weights::random(2, vec![0.0; 2], 0)
    };
    let mut learner =
        Learner::new(weights.clone(), StepConfig { k: 1, weight_decay: 0.0, ..config(TrainArchitecture::TopK, 10) });
    learner.dead_latents.record(10, |latent| latent == 0);
    let report = learner.step(&[4.0, -1.0, 5.0, -1.0], 1e-3);
    assert_eq!((report.loss, report.l0, report.dead), (0.0, 1.0, 1));
    assert_eq!(report.aux_loss, 0.0);
    assert_eq!(learner.weights, weights, "a zero loss has no gradient");
}

/// Rows of a batch, steps, and width of the inputs of every fixture.
const N: usize = 32;
const N_STEPS: usize = 5;
const D_IN: usize = 16;

/// Steps of `tests/fixtures/make_reference.py`: losses, gradients and weights from PyTorch in f64. The script also
/// compares every gradient with finite differences.
struct Reference {
    name: &'static str,
    file: TensorFile,
    config: StepConfig,
    d_sae: usize,
}

impl Reference {
    fn open(name: &'static str, architecture: TrainArchitecture) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.safetensors"));
        let file = TensorFile::read(&path, "Make it again: `just fixtures`").expect("a committed fixture");
        let config = serde_json::from_str(&file.note("settings").expect("settings")).expect("the names of StepConfig");
        let d_sae = if architecture == TrainArchitecture::Dense { 6 } else { 48 };
        Self { name, file, config: StepConfig { architecture, ..config }, d_sae }
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        self.file.take_f32(name, shape).expect("a tensor of the fixture")
    }

    /// A parameter at the `start` or `end`, or its gradient (`grad`) in the last step.
    fn parameter(&mut self, kind: &str, name: &str) -> Vec<f32> {
        let (d_sae, d_out) = (self.d_sae, self.config.d_out);
        let shape = match name {
            "w_enc" => vec![d_sae, D_IN],
            "w_dec" => vec![d_sae, d_out],
            "b_dec" => vec![d_out],
            "w_skip" => vec![d_out, D_IN],
            _ => vec![d_sae],
        };
        self.take(&format!("{kind}.{name}"), &shape)
    }

    fn start(&mut self, extra: &[&'static str]) -> Weights {
        let is_transcoder = self.config.architecture == TrainArchitecture::Transcoder;
        let d_out = self.config.d_out;
        let [w_enc, b_enc, w_dec, b_dec] =
            ["w_enc", "b_enc", "w_dec", "b_dec"].map(|name| self.parameter("start", name));
        let own = |name: &&'static str| Parameter { name, values: self.parameter("start", name), lr_scale: 1.0 };
        let extra = extra.iter().map(own).collect();
        let b_in = is_transcoder.then(|| self.take("start.b_in", &[D_IN]));
        let blocks = if self.config.blocks.is_empty() { vec![d_out] } else { self.config.blocks.clone() };
        Weights { d_in: D_IN, d_out, d_sae: self.d_sae, w_enc, b_enc, w_dec, b_dec, extra, b_in, blocks }
    }

    /// Runs the reference's steps and compares the losses of each.
    fn train(&mut self, learner: &mut Learner) {
        let width = learner.weights.row_width();
        let x = self.take("x", &[N_STEPS, N, width]);
        let [lr, losses, aux_losses, sparsity_losses] =
            ["lr", "loss", "aux_loss", "sparsity_loss"].map(|name| self.take(name, &[N_STEPS]));
        for (step, x) in x.chunks_exact(N * width).enumerate() {
            let report = learner.step(x, f64::from(lr[step]));
            let StepReport { loss, aux_loss, sparsity_loss, .. } = report;
            for (ours, torch) in [(loss, &losses), (aux_loss, &aux_losses), (sparsity_loss, &sparsity_losses)] {
                let torch = f64::from(torch[step]);
                assert!((ours - torch).abs() <= 1e-5 * torch, "{}, step {step}: {torch} in {report:?}", self.name);
            }
        }
    }

    /// Compares a parameter at the end and its gradient; the errors are relative root mean squares.
    fn compare(&mut self, name: &str, gradient: &[f32], end: &[f32]) {
        // The crosscoder has one weight whose gradient is nearly zero, so rounding decides Adam's step: there, PyTorch
        // in float32 is 4e-7 away from its float64 weights, and less than 1e-7 in every other case.
        let most = if self.config.architecture == TrainArchitecture::Crosscoder { 3e-6 } else { 1e-6 };
        for (kind, ours) in [("grad", gradient), ("end", end)] {
            let torch = self.parameter(kind, name);
            assert_eq!(ours.len(), torch.len());
            let difference: f32 = ours.iter().zip(&torch).map(|(a, b)| (a - b).powi(2)).sum();
            let away = (difference / torch.iter().map(|b| b * b).sum::<f32>()).sqrt();
            assert!(away < most, "{}, {kind}.{name}: {away}", self.name);
        }
    }
}

/// The gradient of a matrix, with zeros for the rows of inactive latents, which are not written.
fn whole(gradient: &[f32], inactive: &[bool]) -> Vec<f32> {
    let rows = gradient.chunks_exact(gradient.len() / inactive.len()).zip(inactive);
    rows.flat_map(|(row, &inactive)| row.iter().map(move |&g| if inactive { 0.0 } else { g })).collect()
}

fn check_against_torch(name: &'static str, architecture: TrainArchitecture, extra: &[&'static str]) {
    let mut reference = Reference::open(name, architecture);
    let mut learner = Learner::new(reference.start(extra), reference.config.clone());
    reference.train(&mut learner);
    let (g, ours) = (&learner.buffers.gradients, &learner.weights);
    reference.compare("w_enc", &whole(&g.w_enc, &g.inactive), &ours.w_enc);
    reference.compare("w_dec", &whole(&g.w_dec, &g.inactive), &ours.w_dec);
    reference.compare("b_enc", &g.b_enc, &ours.b_enc);
    reference.compare("b_dec", &g.b_dec, &ours.b_dec);
    for (name, (gradient, parameter)) in extra.iter().zip(g.extra.iter().zip(&ours.extra)) {
        reference.compare(name, gradient, &parameter.values);
    }
    reference.file.end().expect("every tensor was compared");
}

#[test]
fn steps_agree_with_torch() {
    use TrainArchitecture::{BatchTopK, Crosscoder, Dense, Gated, JumpRelu, Matryoshka, Relu, TopK, Transcoder};
    check_against_torch("topk", TopK, &[]);
    check_against_torch("topk-nesterov", TopK, &[]);
    check_against_torch("batch-topk", BatchTopK, &[]);
    check_against_torch("relu", Relu, &[]);
    check_against_torch("jumprelu-step", JumpRelu, &["threshold"]);
    check_against_torch("jumprelu-tanh", JumpRelu, &["threshold"]);
    check_against_torch("gated", Gated, &["r_mag", "b_mag"]);
    check_against_torch("gated-nesterov", Gated, &["r_mag", "b_mag"]);
    check_against_torch("matryoshka", Matryoshka, &[]);
    check_against_torch("transcoder", Transcoder, &[]);
    check_against_torch("transcoder-skip", Transcoder, &["w_skip"]);
    check_against_torch("crosscoder", Crosscoder, &[]);
    check_against_torch("dense", Dense, &[]);
}

#[test]
fn a_step_gives_the_same_bits_on_any_number_of_threads() {
    let (n, d_in, d_sae) = (300, 32, 200);
    let run = |architecture, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
        pool.install(|| {
            let config = StepConfig { dead_after_tokens: 500, ..StepConfig::example(architecture, 5, d_in, d_sae) };
            let width = config.row_width(d_in);
            let mut learner = Learner::start(d_sae, plain::random(width, 1), 2, config);
            let reports: Vec<_> = (0..4).map(|step| learner.step(&plain::random(n * width, 10 + step), 1e-3)).collect();
            (reports, learner.weights, learner.adam)
        })
    };
    for architecture in TrainArchitecture::ALL {
        assert!(run(architecture, 1) == run(architecture, 3), "{architecture}: the threads changed the result");
    }
}

#[test]
fn a_look_at_held_out_rows_changes_no_bit_of_the_training() {
    let (n, d_in, d_sae) = (60, 16, 64);
    let run = |architecture, looks: bool| {
        let config = StepConfig { dead_after_tokens: 70, ..StepConfig::example(architecture, 5, d_in, d_sae) };
        let width = config.row_width(d_in);
        let mut learner = Learner::start(d_sae, plain::random(width, 1), 2, config);
        let mut seen = vec![];
        let reports: Vec<_> = (0..5)
            .map(|step| {
                let report = learner.step(&plain::random(n * width, 10 + step), 1e-3);
                seen.extend(looks.then(|| learner.fvu(&plain::random(2 * n * width, 3))));
                report
            })
            .collect();
        assert!(seen.iter().all(|fvu| fvu.is_finite()), "{seen:?}");
        (reports, learner.weights, learner.adam, learner.dead_latents, learner.sparsity)
    };
    for architecture in TrainArchitecture::ALL {
        assert!(run(architecture, true) == run(architecture, false), "{architecture}");
    }
}
