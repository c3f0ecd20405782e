//! The step against finite differences, against PyTorch, and against itself on other numbers of threads.

use std::path::Path;

use super::*;
use crate::{
    kernels::plain::{self, Parameters},
    tensors::TensorFile,
};

fn config(architecture: TrainArchitecture, dead_after_tokens: u64) -> StepConfig {
    let adam = AdamConfig::default();
    StepConfig { architecture, k: 5, adam, clip: None, auxk_alpha: 0.5, k_aux: 4, dead_after_tokens }
}

/// Weights away from the tied start, some with a bias that keeps them silent.
fn weights(d_sae: usize, d_in: usize) -> Weights {
    let mut weights = Weights::random(d_sae, plain::random(d_in, 1), 2);
    weights.w_enc.iter_mut().zip(plain::random(d_sae * d_in, 3)).for_each(|(w, r)| *w += 0.2 * r);
    weights.b_enc = plain::random(d_sae, 4).iter().map(|b| 0.3 * b).collect();
    weights.b_enc.iter_mut().step_by(4).for_each(|b| *b -= 0.8);
    weights
}

/// L as the module states it, with the active latents and the residual given.
fn plain_loss(p: &Parameters, x: &[f32], learner: &Learner, residual: &[f64], alpha: f64) -> f64 {
    let aux = &learner.buffers.auxiliary;
    let aux_loss = if aux.dead.is_empty() { 0.0 } else { plain::residual_loss(p, x, &aux.acts, residual) };
    plain::loss(p, x, &learner.buffers.acts) + alpha * aux_loss
}

/// Compares the gradients of a step with central differences of the loss in f64, at every parameter.
fn check_gradients(architecture: TrainArchitecture, dead_after_tokens: u64) {
    let (n, d_in, d_sae) = (40, 7, 20);
    let config = config(architecture, dead_after_tokens);
    let weights = weights(d_sae, d_in);
    let x = plain::random(n * d_in, 5);
    let mut learner = Learner::new(weights.clone(), config);
    learner.dead_latents.record(100, |latent| latent % 4 != 0);
    let report = learner.step(&x, 0.0);
    assert_eq!(report.aux_loss > 0.0, dead_after_tokens <= 100, "{report:?}");

    let start = Parameters::from(&weights);
    let x_c: Vec<f32> = x.iter().zip(weights.b_dec.iter().cycle()).map(|(x, b)| x - b).collect();
    let error = plain::error(&learner.buffers.acts, &weights.w_dec, &x_c, d_in);
    let residual: Vec<f64> = error.iter().map(|e| -e).collect();
    let loss = |p: &Parameters| plain_loss(p, &x, &learner, &residual, config.auxk_alpha);
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
        if g.silent[latent] {
            assert!(w_enc.iter().chain(&w_dec).all(|slope| slope.abs() < 1e-9), "latent {latent} is not silent");
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
    for architecture in TrainArchitecture::ALL {
        check_gradients(architecture, u64::MAX);
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss_while_dead_latents_learn() {
    for architecture in TrainArchitecture::ALL {
        check_gradients(architecture, 100);
    }
}

#[test]
fn a_perfect_reconstruction_leaves_no_auxiliary_loss() {
    // One latent rebuilds every token exactly; another is dead and active on them.
    let weights = Weights {
        d_in: 2,
        d_sae: 2,
        w_enc: vec![1.0, 0.0, 0.5, 0.0],
        b_enc: vec![0.0; 2],
        w_dec: vec![1.0, 0.0, 0.0, 1.0],
        b_dec: vec![3.0, -1.0],
    };
    let mut learner = Learner::new(weights.clone(), StepConfig { k: 1, ..config(TrainArchitecture::TopK, 10) });
    learner.dead_latents.record(10, |latent| latent == 0);
    let report = learner.step(&[4.0, -1.0, 5.0, -1.0], 1e-3);
    assert_eq!((report.loss, report.l0, report.dead), (0.0, 1.0, 1));
    assert_eq!(report.aux_loss, 0.0);
    assert_eq!(learner.weights, weights, "a zero loss has no gradient");
}

/// Steps of `tests/fixtures/make_reference.py`: the same numbers from PyTorch in f64.
fn check_against_torch(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let (n_steps, n, d_in, d_sae) = (5, 32, 16, 48);
    let mut file = TensorFile::read(&path).expect("a committed fixture");
    let config: StepConfig =
        serde_json::from_str(&file.note("settings").expect("settings")).expect("the names of StepConfig");
    let mut take = |name, shape: &[usize]| file.take_f32(name, shape).expect("a tensor of the fixture");
    let start = Weights {
        d_in,
        d_sae,
        w_enc: take("start.w_enc", &[d_sae, d_in]),
        b_enc: take("start.b_enc", &[d_sae]),
        w_dec: take("start.w_dec", &[d_sae, d_in]),
        b_dec: take("start.b_dec", &[d_in]),
    };
    let x = take("x", &[n_steps, n, d_in]);
    let (lr, losses, aux_losses) = (take("lr", &[5]), take("loss", &[5]), take("aux_loss", &[5]));
    let mut learner = Learner::new(start, config);
    for (step, x) in x.chunks_exact(n * d_in).enumerate() {
        let report = learner.step(x, f64::from(lr[step]));
        assert!((report.loss / f64::from(losses[step]) - 1.0).abs() < 1e-5, "loss of step {step}: {report:?}");
        let aux_error = (report.aux_loss - f64::from(aux_losses[step])).abs();
        assert!(aux_error <= 1e-5 * f64::from(aux_losses[step]), "aux loss of step {step}: {report:?}");
    }
    let ours = learner.weights;
    let pairs = [
        ("W_enc", ours.w_enc, take("end.w_enc", &[d_sae, d_in])),
        ("b_enc", ours.b_enc, take("end.b_enc", &[d_sae])),
        ("W_dec", ours.w_dec, take("end.w_dec", &[d_sae, d_in])),
        ("b_dec", ours.b_dec, take("end.b_dec", &[d_in])),
    ];
    for (tensor, ours, torch) in pairs {
        let difference: f32 = ours.iter().zip(&torch).map(|(a, b)| (a - b).powi(2)).sum();
        let size: f32 = torch.iter().map(|b| b * b).sum();
        assert!((difference / size).sqrt() < 1e-6, "{tensor}: {}", (difference / size).sqrt());
        assert!(ours.iter().zip(&torch).all(|(a, b)| (a - b).abs() < 1e-5), "{tensor}");
    }
    file.end().expect("every tensor was compared");
}

#[test]
fn topk_steps_agree_with_torch() {
    check_against_torch("topk.safetensors");
}

#[test]
fn batch_topk_steps_agree_with_torch() {
    check_against_torch("batch-topk.safetensors");
}

#[test]
fn a_step_gives_the_same_bits_on_any_number_of_threads() {
    let (n, d_in, d_sae) = (300, 32, 200);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
        pool.install(|| {
            let mut learner = Learner::new(weights(d_sae, d_in), config(TrainArchitecture::BatchTopK, 500));
            let reports: Vec<_> = (0..4).map(|step| learner.step(&plain::random(n * d_in, 10 + step), 1e-3)).collect();
            (reports, learner.weights, learner.adam)
        })
    };
    assert!(run(1) == run(3), "the number of threads changed the result");
}
