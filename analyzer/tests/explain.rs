//! Explanations of the next token with answers that are known: silent latents, an SAE at the last layer, the sum of
//! parts that are the whole. The model is a tiny random llama.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use analyzer::{ExplainConfig, Explanation, LatentEffect, Method, PlacedSae, Workbench, explain};
use candle_core::Tensor;
use harvester::{Batch, Compute, Edit, Hook, HookPoint, LanguageModel, ModelSource, Rows, Silent, SpecialToken};
use trainer::{HookPoints, Nonlinearity, Sae, SaeConfig, SaeWeights};

const TEXT: &str = "the people of the city";
/// Width of the tiny model.
const D: usize = 48;

fn model() -> LanguageModel {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
    LanguageModel::open(&ModelSource::Folder(path), Compute::F32, &Silent).unwrap()
}

/// Latents `i` and `d + i`, with `d` the model's width, are the positive and the negative part of dimension `i`: together they are the identity.
/// Those whose number is divisible by 5 need 1e6 to be active.
fn bench(model: &LanguageModel, layer: usize) -> Workbench {
    let d = model.config().d_model;
    let mut w_enc = vec![0.0; 2 * d * d];
    for i in 0..d {
        w_enc[i * d + i] = 1.0;
        w_enc[(d + i) * d + i] = -1.0;
    }
    let point = HookPoint::resid_post(layer);
    let config = SaeConfig { hook_points: HookPoints::Autoencoder(Some(point)), ..SaeConfig::new(d, 2 * d) };
    let threshold = (0..2 * d).map(|latent: usize| if latent.is_multiple_of(5) { 1e6 } else { 0.0 }).collect();
    let weights = SaeWeights {
        w_dec: w_enc.clone(),
        w_enc,
        b_enc: vec![0.0; 2 * d],
        nonlinearity: Nonlinearity::JumpRelu { threshold },
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

fn explained(bench: &Workbench, config: &ExplainConfig) -> Explanation {
    explain(bench, TEXT, None, config, &Silent).unwrap()
}

/// Every latent of the last token.
fn all() -> ExplainConfig {
    ExplainConfig { top: usize::MAX, ..ExplainConfig::default() }
}

/// Sets one dimension to zero: on the last token, or on all but the first.
struct Zero {
    layer: usize,
    dimension: usize,
    everywhere: bool,
}

impl Hook for Zero {
    fn wants(&self, point: HookPoint) -> bool {
        point == HookPoint::resid_post(self.layer)
    }

    fn apply(&mut self, _point: HookPoint, rows: &Rows, activation: &Tensor) -> harvester::Result<Edit> {
        let mut x: Vec<Vec<f32>> = activation.to_vec2()?;
        let last = rows.iter().len() - 1;
        let from = if self.everywhere { 1 } else { last };
        x[from..].iter_mut().for_each(|row| row[self.dimension] = 0.0);
        Ok(Edit::Replace(Tensor::new(x, activation.device())?))
    }
}

/// Log probabilities of the next token after a plain pass, in f64.
fn log_p(model: &LanguageModel, hook: &mut dyn Hook) -> Vec<f64> {
    let tokens = model.tokenizer().prompt(SpecialToken::None, TEXT).unwrap();
    let batch = Batch::of([&tokens]);
    let resid = model.resid_final(&batch, None, hook).unwrap().narrow(0, tokens.len() - 1, 1).unwrap();
    let logits: Vec<f32> = model.unembed(&resid).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    logits.iter().map(|logit| f64::from(*logit) - sum.ln()).collect()
}

#[test]
fn effects_are_those_of_plain_passes_without_the_latent() {
    let model = model();
    let found = explained(&bench(&model, 1), &ExplainConfig { whole_text: 200, ..all() });
    let before = log_p(&model, &mut harvester::NoHook);
    let target = found.target.token as usize;
    assert!(before.iter().all(|p| *p <= before[target]), "the default target is the most likely token");
    assert!(found.latents.len() > 20 && found.latents.len() == found.n_active);
    for LatentEffect { active, effect, .. } in &found.latents {
        let dimension = active.latent as usize % D;
        let after = log_p(&model, &mut Zero { layer: 1, dimension, everywhere: false });
        assert!((effect.effect - (before[target] - after[target])).abs() < 1e-5, "{active:?} {effect:?}");
        let kl: f64 = before.iter().zip(&after).map(|(p, q)| p.exp() * (p - q)).sum();
        assert!((effect.kl.unwrap() - kl).abs() < 1e-5, "{active:?} {effect:?} {kl}");
    }
    // On the whole text, a dimension is zero where one of its two latents alone is ever active.
    assert_eq!(found.whole_text_tried.0, found.whole_text_tried.1);
    let one_sided = found.whole_text.iter().filter(|it| {
        let other = (it.active.latent as usize + D) % (2 * D);
        !other.is_multiple_of(5)
            && !it.active.latent.is_multiple_of(5)
            && found.whole_text.iter().all(|it| it.active.latent as usize != other)
    });
    let mut checked = 0;
    for it in one_sided {
        let dimension = it.active.latent as usize % D;
        let after = log_p(&model, &mut Zero { layer: 1, dimension, everywhere: true });
        assert!((it.effect.effect - (before[target] - after[target])).abs() < 1e-5, "{it:?}");
        checked += 1;
    }
    assert!(checked > 0);
}

#[test]
fn a_silent_latent_has_no_effect_and_parts_are_told_from_the_whole() {
    let model = model();
    let found = explained(&bench(&model, 1), &ExplainConfig { latents: vec![5, 10], ..all() });
    for latent in &found.latents[..2] {
        assert!([5, 10].contains(&latent.active.latent) && latent.active.activation == 0.0);
        assert_eq!((latent.effect.effect, latent.effect.kl), (0.0, Some(0.0)));
        assert!(latent.supports.is_empty());
    }
    let sum: f64 = found.latents.iter().map(|it| it.effect.effect).sum();
    assert!((sum - found.sum).abs() < 1e-9);
    let page = found.to_string();
    assert!(page.contains(&format!("(interaction {:+.3})", found.sum - found.all.effect)), "{page}");
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    assert!(found.error.unwrap().kl.unwrap() > 0.0 && found.all.kl.unwrap() > 0.0);
}

#[test]
fn a_token_can_be_asked_for() {
    let model = model();
    let found = explained(&bench(&model, 1), &ExplainConfig { token: Some("q".into()), ..all() });
    assert_eq!(found.target.text, "q");
    assert!(found.to_string().contains("explained: \"q\""));
    let refused =
        |config: &ExplainConfig, text| explain(&bench(&model, 1), text, None, config, &Silent).unwrap_err().to_string();
    let long = ExplainConfig { token: Some("q q".into()), ..all() };
    assert!(refused(&long, TEXT).contains("`token`: expected one token"), "{}", refused(&long, TEXT));
    assert!(refused(&all(), "q").contains("at least two tokens"));
    let absent = ExplainConfig { latents: vec![2 * D as u32], ..all() };
    assert!(refused(&absent, TEXT).contains("below 96"));
}

/// After the last layer, a latent changes the target's logit by its direct effect, apart from the scale of the final
/// norm. Undoing that change of scale gives the direct effect.
#[test]
fn at_the_last_layer_direct_is_ablation_with_the_norm_held() {
    let model = model();
    let bench = bench(&model, 2);
    let direct = explained(&bench, &ExplainConfig { method: Method::Direct, ..all() });
    let tokens = model.tokenizer().prompt(SpecialToken::None, TEXT).unwrap();
    let resid = model.resid_final(&Batch::of([&tokens]), None, &mut harvester::NoHook).unwrap();
    let x: Vec<f32> = resid.narrow(0, tokens.len() - 1, 1).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    // The tiny model's norm has an epsilon of 0.01.
    let scale = |x: &[f32]| (x.iter().map(|x| f64::from(x * x)).sum::<f64>() / D as f64 + 0.01).sqrt();
    let logit = |x: &[f32]| -> f64 {
        let logits = model.unembed(&Tensor::from_slice(x, (1, D), &candle_core::Device::Cpu).unwrap()).unwrap();
        f64::from(logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()[direct.target.token as usize])
    };
    assert!(direct.latents.len() > 20 && direct.error.is_none() && direct.whole_text.is_empty());
    for LatentEffect { active, effect, .. } in &direct.latents {
        let mut without = x.clone();
        without[active.latent as usize % D] = 0.0;
        let held = logit(&without) * scale(&without) / scale(&x);
        assert!((effect.effect - (logit(&x) - held)).abs() < 1e-4, "{active:?} {effect:?} {}", logit(&x) - held);
        assert!(effect.kl.is_none());
    }
}

/// `fixtures/direct.json` is from transformers in float64, written by `direct.py` beside it: GPT-2 has layer norms, Gemma 2
/// caps its logits, here so far that the largest are at the cap.
#[test]
fn direct_effects_are_those_of_float64_with_layer_norms_and_below_a_cap() {
    let wanted: serde_json::Value = serde_json::from_str(include_str!("fixtures/direct.json")).unwrap();
    let tiny = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny");
    for family in ["gpt2", "gemma2"] {
        let wanted = &wanted[family];
        let folder = tempfile::tempdir().unwrap();
        for (from, file) in [
            (family, "config.json"),
            (family, "model.safetensors"),
            ("gpt2", "tokenizer.json"),
            ("gpt2", "tokenizer_config.json"),
        ] {
            std::fs::copy(tiny.join(from).join(file), folder.path().join(file)).unwrap();
        }
        let path = folder.path().to_path_buf();
        let model = LanguageModel::open(&ModelSource::Folder(path), Compute::F32, &Silent).unwrap();
        let (d, config) = (model.config().d_model, ExplainConfig { method: Method::Direct, ..all() });
        let text = wanted["text"].as_str().unwrap();
        let found = explain(&bench(&model, 1), text, None, &config, &Silent).unwrap();
        assert_eq!(found.target.token, wanted["target"]);
        let effects: Vec<f64> = wanted["effects"].as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect();
        let largest = effects.iter().fold(0f64, |most, it| most.max(it.abs()));
        assert!(found.latents.len() > d / 2, "{}", found.latents.len());
        for LatentEffect { active, effect, .. } in &found.latents {
            let wanted = effects[active.latent as usize % d];
            assert!((effect.effect - wanted).abs() < 1e-4 * largest, "{family} {active:?} {effect:?} {wanted}");
        }
    }
}
