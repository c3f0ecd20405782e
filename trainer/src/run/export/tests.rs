//! Compares exported SAEs, on raw rows, with the formulas of training in plain f64 loops.

use harvester::HookPoint;

use super::*;
use crate::{
    TrainConfig,
    kernels::plain,
    sae::HookPoints,
    step::{
        architecture::{self, TrainArchitecture},
        config::StepConfig,
    },
};

pub(crate) const WIDTHS: [usize; 2] = [12, 9];
pub(crate) const SCALES: [f32; 2] = [0.3, 4.0];
pub(crate) const D_SAE: usize = 40;
const K: usize = 5;
const N: usize = 30;

/// In training units; for a crosscoder too, whose activations stay in them.
const THRESHOLD: f32 = 0.4;

pub(crate) fn resolved(architecture: TrainArchitecture, skip: bool) -> Resolved {
    let [first, second] = [HookPoint::resid_post(0), HookPoint::resid_post(1)];
    let hook_points = match architecture {
        TrainArchitecture::Transcoder => HookPoints::Transcoder { from: Some(first), to: Some(second) },
        TrainArchitecture::Crosscoder => HookPoints::Crosscoder(vec![(first, WIDTHS[0]), (second, WIDTHS[1])]),
        _ => HookPoints::Autoencoder(Some(first)),
    };
    let widths = WIDTHS[..hook_points.columns().len()].to_vec();
    let config = TrainConfig { architecture, d_sae: Some(D_SAE), k: K, skip, ..TrainConfig::default() };
    config.resolve(hook_points, widths).expect("a config that fits")
}

/// Random weights with the shapes that training starts from.
pub(crate) fn random_weights(config: &StepConfig, d_in: usize) -> Weights {
    let mut weights = architecture::of(config).start(D_SAE, plain::random(config.row_width(d_in), 1), 2);
    let Weights { w_enc, b_enc, w_dec, b_dec, extra, .. } = &mut weights;
    for (seed, values) in [w_enc, b_enc, w_dec, b_dec].into_iter().enumerate() {
        *values = plain::random(values.len(), 10 + seed as u64);
    }
    for (seed, parameter) in extra.iter_mut().enumerate() {
        parameter.values = plain::random(parameter.values.len(), 20 + seed as u64).iter().map(|v| v.abs()).collect();
    }
    weights
}

/// The formulas of training for one row `x` in training units. Returns the reconstruction.
fn rebuilt(weights: &Weights, trained: TrainArchitecture, x: &[f64]) -> Vec<f64> {
    let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
    let (d_in, d_out) = (weights.d_in, weights.d_out);
    let center = wide(weights.b_in.as_ref().unwrap_or(&weights.b_dec));
    let x_c: Vec<f64> = x[..d_in].iter().zip(&center).map(|(x, b)| x - b).collect();
    let times = |row: &[f32]| wide(row).iter().zip(&x_c).map(|(w, x)| w * x).sum::<f64>();
    let product: Vec<f64> = weights.w_enc.chunks(d_in).map(times).collect();
    let pre: Vec<f64> = product.iter().zip(wide(&weights.b_enc)).map(|(p, b)| p + b).collect();
    let extra = |name: &str, latent: usize| f64::from(weights.extra(name).expect("a parameter of its own")[latent]);
    let mut sorted = pre.clone();
    sorted.sort_by(f64::total_cmp);
    let f = |latent: usize| {
        let p = pre[latent];
        let keep = |active: bool| if active { p } else { 0.0 };
        match trained {
            TrainArchitecture::TopK => keep(p > 0.0 && p >= sorted[D_SAE - K]),
            TrainArchitecture::Relu => keep(p > 0.0),
            TrainArchitecture::Dense => p,
            TrainArchitecture::JumpRelu => keep(p > extra("threshold", latent)),
            TrainArchitecture::Gated if p <= 0.0 => 0.0,
            TrainArchitecture::Gated => {
                (product[latent] * extra("r_mag", latent).exp() + extra("b_mag", latent)).max(0.0)
            }
            _ => keep(p > f64::from(THRESHOLD)),
        }
    };
    let mut y = wide(&weights.b_dec);
    for latent in 0..D_SAE {
        let f = f(latent);
        y.iter_mut().zip(wide(weights.decoder_row(latent))).for_each(|(y, w)| *y += f * w);
    }
    if let Some(w_skip) = weights.extra("w_skip") {
        assert_eq!(w_skip.len(), d_out * d_in);
        y.iter_mut().zip(w_skip.chunks(d_in)).for_each(|(y, row)| *y += times(row));
    }
    y
}

pub(crate) fn label() -> Label {
    Label { model_name: "tiny".into(), ctx_len: None, prepend_bos: false, dataset: String::new() }
}

fn assert_exported(trained: TrainArchitecture, skip: bool) {
    let resolved = resolved(trained, skip);
    let widths = &resolved.widths;
    let standard = Standard { scales: SCALES[..widths.len()].to_vec(), mean: vec![] };
    let weights = random_weights(&resolved.step_config(), resolved.d_in);
    let mut sae = export(weights.clone(), &standard, &resolved, label()).expect("an SAE");
    // Scales of the input and of the reconstruction.
    let scale_of = |column: usize| std::iter::repeat_n(f64::from(SCALES[column]), WIDTHS[column]);
    let inputs: Vec<f64> = (0..resolved.hook_points.reads().len()).flat_map(scale_of).collect();
    let outputs: Vec<f64> =
        if trained == TrainArchitecture::Transcoder { scale_of(1).collect() } else { inputs.clone() };
    if trained.is_batch_topk() {
        let unit = if trained == TrainArchitecture::Crosscoder { 1.0 } else { outputs[0] };
        sae.set_threshold((f64::from(THRESHOLD) / unit) as f32);
    }
    let raw: Vec<f32> = plain::random(N * inputs.len(), 3).iter().map(|x| 4.0 * x + 1.0).collect();
    let (acts, y) = sae.reconstruct(&raw).expect("whole rows");
    assert!(acts.n_active() > N, "{trained}: too few are active to tell");
    for (raw, y) in raw.chunks(inputs.len()).zip(y.chunks(outputs.len())) {
        let x: Vec<f64> = raw.iter().zip(&inputs).map(|(x, scale)| f64::from(*x) * scale).collect();
        let expected = rebuilt(&weights, trained, &x);
        for ((y, scale), expected) in y.iter().zip(&outputs).zip(&expected) {
            let found = f64::from(*y) * scale;
            assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{trained}: {found}, not {expected}");
        }
    }
}

#[test]
fn what_is_exported_is_what_was_trained() {
    TrainArchitecture::ALL.into_iter().for_each(|trained| assert_exported(trained, false));
    assert_exported(TrainArchitecture::Transcoder, true);
}
