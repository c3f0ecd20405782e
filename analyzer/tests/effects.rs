//! Measured effects of latents: known answers, invariants, and the figures of a plain forward pass in float64
//! (`fixtures/effects.py`).

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use analyzer::{Dose, Effect, EffectMeter, EffectsConfig, PlacedSae, TokenWeight, Workbench, effects};
use harvester::{Compute, HookPoint, LanguageModel, ModelSource, Silent};
use serde::Deserialize;
use trainer::{HookPoints, InputNorm, Nonlinearity, Sae, SaeConfig, SaeWeights};

fn tiny() -> LanguageModel {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
    LanguageModel::open(&ModelSource::Folder(path), Compute::F32, &Silent).unwrap()
}

/// The decoder of `fixtures/effects.py`.
fn decoder_row(latent: usize, d: usize) -> impl Iterator<Item = f32> {
    (latent * d..latent * d + d).map(move |i| (0.37 * i as f64 + latent as f64).sin() as f32)
}

/// An SAE at the end of a block, with these rows.
fn bench(model: &LanguageModel, layer: usize, w_dec: Vec<f32>, input_norm: InputNorm) -> Workbench {
    let (point, d) = (HookPoint::resid_post(layer), model.config().d_model);
    let d_sae = w_dec.len() / d;
    let config =
        SaeConfig { hook_points: HookPoints::Autoencoder(Some(point)), input_norm, ..SaeConfig::new(d, d_sae) };
    let weights = SaeWeights {
        w_enc: w_dec.clone(),
        w_dec,
        b_enc: vec![0.0; d_sae],
        nonlinearity: Nonlinearity::TopK { k: 1 },
        b_dec: vec![0.0; d],
        w_skip: None,
    };
    let placed = PlacedSae {
        path: "sae".into(),
        sae: Sae::new(config, weights).unwrap(),
        hook_point: point,
        sink_norm: 1e9,
        bos: None,
        model: model.identity().unwrap().clone(),
        sha256: String::new(),
        manifest: None,
    };
    Workbench::new(placed, Some(model)).unwrap()
}

fn waves(model: &LanguageModel, layer: usize, n: usize) -> Workbench {
    let d = model.config().d_model;
    bench(model, layer, (0..n).flat_map(|latent| decoder_row(latent, d)).collect(), InputNorm::None)
}

fn measure(bench: &Workbench, doses: &[Dose]) -> Vec<Effect> {
    effects(bench, doses, &EffectsConfig::default(), &Silent).unwrap()
}

fn dose(latent: u32, activation: f32) -> Dose {
    Dose { latent, activation, max: 1.5 * activation }
}

#[test]
fn a_dose_of_zero_does_nothing() {
    let model = tiny();
    let found = measure(&waves(&model, 1, 3), &[dose(2, 0.0), dose(0, 0.5)]);
    let Effect { kl, delta_confidence, relative_dose, dose_kl25, .. } = found[0];
    assert_eq!((kl, delta_confidence, relative_dose, dose_kl25), (0.0, 0.0, 0.0, f32::INFINITY));
    assert_eq!(found[0].output_score, Some(0.0));
    assert!(found[0].promoted.iter().chain(&found[0].suppressed).all(|token| token.weight == 0.0));
    assert!(found[1].kl > 0.0 && found[1].dose_kl25.is_finite());
}

#[test]
fn a_row_of_the_unembedding_at_the_last_layer_promotes_its_token() {
    let model = tiny();
    for token in [17, 260] {
        let (_, row) = model.logit_lens(&[], &[token]).unwrap();
        let row: Vec<f32> = row.flatten_all().unwrap().to_vec1().unwrap();
        let found = &measure(&bench(&model, 2, row, InputNorm::None), &[dose(0, 2.0)])[0];
        assert_eq!(found.promoted[0].token, token);
        assert!(found.output_score.unwrap() > 0.0 && found.kl > 0.0, "{found:?}");
    }
}

#[test]
fn blocks_of_latents_change_no_number() {
    let model = tiny();
    let bench = waves(&model, 0, 40);
    let doses: Vec<Dose> = (0..40).map(|latent| dose(latent, 0.02 * (latent + 1) as f32)).collect();
    let mut meter = EffectMeter::new(&bench, &EffectsConfig::default(), &Silent).unwrap();
    let whole = meter.measure(&doses).unwrap();
    let parts: Vec<Effect> = doses.chunks(7).flat_map(|doses| meter.measure(doses).unwrap()).collect();
    assert_eq!(whole, parts);
    assert_eq!(whole, measure(&bench, &doses));
}

/// With an input norm, an activation is in units of the row's own scale.
#[test]
fn a_dose_is_scaled_as_the_input_norm_says() {
    let model = tiny();
    let rows: Vec<f32> = decoder_row(1, model.config().d_model).collect();
    let config = EffectsConfig { prompts: vec!["Findings show that".into()] };
    let of = |input_norm, activation| {
        let bench = bench(&model, 1, rows.clone(), input_norm);
        effects(&bench, &[dose(0, activation)], &config, &Silent).unwrap().remove(0)
    };
    let (normed, plain) = (of(InputNorm::ConstantNorm, 0.2), of(InputNorm::None, 0.2));
    // The norm divides by `norm / sqrt(d_model)`, so the relative dose is that of a row of norm sqrt(d_model).
    let norm = harvester::norm(&rows) * 0.2 / 48f32.sqrt();
    assert!((normed.relative_dose / norm - 1.0).abs() < 1e-5, "{normed:?}");
    let same = of(InputNorm::None, 0.2 * normed.relative_dose / plain.relative_dose);
    assert!((same.kl / normed.kl - 1.0).abs() < 1e-4 && same.promoted[0].token == normed.promoted[0].token);
}

#[test]
fn prompts_and_latents_that_cannot_be_measured_are_refused() {
    let model = tiny();
    let bench = waves(&model, 1, 2);
    let refused = |prompts: &[&str], latent| {
        let config = EffectsConfig { prompts: prompts.iter().map(|prompt| prompt.to_string()).collect() };
        effects(&bench, &[dose(latent, 1.0)], &config, &Silent).unwrap_err().to_string()
    };
    assert!(refused(&[], 0).contains("`prompts`: expected at least one"));
    assert!(refused(&["We think", "x"], 0).contains("at least two tokens each"));
    assert!(refused(&["We think"], 2).contains("below 2"));
}

#[derive(Deserialize)]
struct Reference {
    layer: usize,
    effects: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    dose: f32,
    max: f32,
    kl: f32,
    output_score: f32,
    delta_confidence: f32,
    lens_agreement: f32,
    relative_dose: f32,
    dose_kl25: f32,
    promoted: Vec<(u32, f32)>,
    suppressed: Vec<(u32, f32)>,
}

fn assert_equals_float64(model: &LanguageModel, name: &str) {
    let json: serde_json::Value = serde_json::from_str(include_str!("fixtures/effects.json")).unwrap();
    let Reference { layer, effects } = Reference::deserialize(&json[name]).unwrap();
    let dose = |(latent, it): (usize, &Expected)| Dose { latent: latent as u32, activation: it.dose, max: it.max };
    let doses: Vec<Dose> = effects.iter().enumerate().map(dose).collect();
    for (want, got) in effects.iter().zip(measure(&waves(model, layer, doses.len()), &doses)) {
        // A pass in f32 is off by 1e-5 of a logit; the figures are differences of logits up to 30.
        let near = |got: f32, want: f32| (got - want).abs() <= 2e-4 * want.abs() + 2e-6;
        assert!(near(got.kl, want.kl), "kl {} {}", got.kl, want.kl);
        assert!(near(got.output_score.unwrap(), want.output_score), "{:?} {}", got.output_score, want.output_score);
        assert!(
            near(got.delta_confidence, want.delta_confidence),
            "{} {}",
            got.delta_confidence,
            want.delta_confidence
        );
        assert!(near(got.relative_dose, want.relative_dose), "{} {}", got.relative_dose, want.relative_dose);
        assert!(near(got.lens_agreement.unwrap(), want.lens_agreement), "{:?}", got.lens_agreement);
        assert!((got.dose_kl25 / want.dose_kl25 - 1.0).abs() < 0.05, "{} {}", got.dose_kl25, want.dose_kl25);
        for (got, want) in [(&got.promoted, &want.promoted), (&got.suppressed, &want.suppressed)] {
            let tokens = |tokens: &[TokenWeight]| tokens.iter().map(|it| it.token).collect::<Vec<_>>();
            assert_eq!(tokens(got), want.iter().map(|it| it.0).collect::<Vec<_>>());
            assert!(got.iter().zip(want).all(|(got, want)| near(got.weight, want.1)), "{got:?} {want:?}");
        }
    }
}

#[test]
fn a_tiny_model_gives_the_figures_of_float64() {
    assert_equals_float64(&tiny(), "tiny");
}

#[test]
fn the_default_model_gives_the_figures_of_float64() {
    let model = LanguageModel::open(&ModelSource::Default, Compute::F32, &Silent).unwrap();
    assert_equals_float64(&model, "default");
}
