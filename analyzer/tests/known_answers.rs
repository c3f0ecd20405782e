//! Evaluation and steering with answers that are known in advance: an SAE that is the identity, one that is never
//! active, edits that can be computed on paper. The model is a tiny random llama.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use analyzer::{
    Evaluation, EvaluationConfig, GenerateConfig, Generation, Intervention, Interventions, SaeSite, evaluate, generate,
    shift,
};
use candle_core::{Device, Tensor};
use harvester::{
    ActivationDataset, Batch, Compute, Corpus, CorpusOptions, Edit, HarvestConfig, Hook, HookPoint, LanguageModel,
    ModelSource, NoHook, Rows, Silent, SpecialToken,
};
use trainer::{HookPoints, InputNorm, Nonlinearity, Sae, SaeConfig, SaeWeights};

/// Width of the tiny model.
const D: usize = 48;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn point() -> HookPoint {
    HookPoint::resid_post(1)
}

fn model() -> LanguageModel {
    let path = root().join("tests/fixtures/tiny/llama");
    LanguageModel::open(&ModelSource::Folder(path), Compute::F32, &Silent).unwrap()
}

/// Latent `i` is the positive part of dimension `i`, latent `D + i` the positive part of its negative: together they
/// are the identity. Latents at or below `threshold` are not active.
fn identity(threshold: f32) -> Sae {
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
fn with(sae: Sae, change: impl FnOnce(&mut SaeConfig)) -> Sae {
    let (mut config, weights) = sae.into_parts();
    change(&mut config);
    Sae::new(config, weights).unwrap()
}

fn at(sae: &Sae, sink_norm: f32) -> SaeSite<'_> {
    SaeSite { sae, hook_point: point(), sink_norm }
}

fn evaluate_on_speeches(sae: &Sae) -> Evaluation {
    evaluate_at(at(sae, 1e9))
}

/// Two hook points with the same values.
fn before_and_after() -> [HookPoint; 2] {
    [HookPoint::resid_post(0), "blocks.1.hook_resid_pre".parse().unwrap()]
}

fn evaluate_at(site: SaeSite<'_>) -> Evaluation {
    let folder = tempfile::tempdir().unwrap();
    let corpus = Corpus::open(&[root().join("data/corpora/speeches.jsonl")], &CorpusOptions::default()).unwrap();
    let config = HarvestConfig {
        hook_points: [&[point()][..], &before_and_after()].concat(),
        ctx_len: 32,
        tokens: Some(2048),
        part_tokens: 1024,
        ..HarvestConfig::default()
    };
    harvester::harvest(&model(), &corpus, &config, folder.path(), &Silent).unwrap();
    let dataset = ActivationDataset::open(folder.path()).unwrap();
    evaluate(Some(&model()), site, &dataset, 40..64, &EvaluationConfig { ce_tokens: 128 }, &Silent).unwrap()
}

#[test]
fn the_identity_loses_nothing() {
    let found = evaluate_on_speeches(&identity(0.0));
    assert_eq!(found.reconstruction.tokens, 24 * 31); // 24 contexts without position 0
    let behavior = found.behavior.unwrap();
    assert_eq!(behavior.ce_tokens, 4 * 31); // 128 tokens are 4 contexts, whose last tokens have no next token
    assert!(found.reconstruction.fvu < 1e-12, "{found:?}");
    assert!((found.reconstruction.l0 - D as f64).abs() < 0.1, "one latent per dimension: {found:?}");
    assert_eq!(behavior.ce_loss_with_sae, behavior.ce_loss_without_sae);
    assert_eq!(behavior.kl, 0.0);
}

#[test]
fn an_sae_that_is_always_silent_is_the_ablation() {
    let found = evaluate_on_speeches(&identity(f32::MAX));
    assert_eq!((found.reconstruction.l0, found.reconstruction.frac_alive), (0.0, 0.0));
    assert!(found.reconstruction.fvu >= 1.0, "{found:?}"); // it predicts zero, which is not better than the mean
    let behavior = found.behavior.unwrap();
    assert_eq!(behavior.ce_loss_with_sae, behavior.ce_loss_with_ablation);
    assert!(behavior.kl > 0.0);
}

#[test]
fn a_transcoder_takes_the_place_of_what_it_predicts_where_the_pass_reaches_that_later() {
    let [before, after] = before_and_after();
    let from_to = |from, to, threshold| {
        let sae = with(identity(threshold), |config| {
            config.hook_points = HookPoints::Transcoder { from: Some(from), to: Some(to) };
            config.apply_b_dec_to_input = false;
        });
        evaluate_at(SaeSite { sae: &sae, hook_point: from, sink_norm: 1e9 })
    };
    let perfect = from_to(before, after, 0.0);
    assert!(perfect.reconstruction.fvu < 1e-12, "{perfect:?}");
    let behavior = perfect.behavior.unwrap();
    assert_eq!(behavior.ce_loss_with_sae, behavior.ce_loss_without_sae);
    assert!(behavior.ce_loss_with_ablation != behavior.ce_loss_without_sae);
    let silent = from_to(before, after, f32::MAX).behavior.unwrap();
    assert_eq!(silent.ce_loss_with_sae, silent.ce_loss_with_ablation);
    let backwards = from_to(after, before, 0.0);
    assert!(backwards.reconstruction.fvu < 1e-12 && backwards.behavior.is_none(), "{backwards:?}");
    let elsewhere = from_to(before, point(), 0.0);
    assert!(elsewhere.reconstruction.fvu > 0.01, "another layer is not the same: {elsewhere:?}");
}

#[test]
fn a_crosscoder_is_told_place_by_place() {
    // The identity on the first hook point, nothing active on the second.
    let (_, of_first) = identity(0.0).into_parts();
    let hook_points = HookPoints::Crosscoder(before_and_after().into_iter().map(|point| (point, D)).collect());
    let beside_zeros = |rows: &[f32]| rows.chunks(D).flat_map(|row| [row, &[0.0; D]].concat()).collect::<Vec<_>>();
    let weights = SaeWeights {
        w_enc: beside_zeros(&of_first.w_enc),
        w_dec: beside_zeros(&of_first.w_dec),
        b_dec: vec![0.0; 2 * D],
        ..of_first
    };
    let sae = Sae::new(SaeConfig { hook_points, ..SaeConfig::new(2 * D, 2 * D) }, weights).unwrap();
    let found = evaluate_at(SaeSite { sae: &sae, hook_point: before_and_after()[0], sink_norm: 1e9 });
    let [first, second] = found.fvu_by_hook_point[..] else { panic!("{found:?}") };
    assert_eq!([first.hook_point, second.hook_point], before_and_after());
    assert!(first.fvu < 1e-12 && second.fvu >= 1.0, "{found:?}");
    assert!((found.reconstruction.fvu - second.fvu / 2.0).abs() < 1e-9, "{found:?}");
    assert!(found.behavior.is_none());
}

/// Applies edits to rows of numbers.
fn edited(rows: &[[f32; D]], sink_norm: f32, edits: &[Intervention]) -> Vec<f32> {
    let sae = identity(0.0);
    let x = Tensor::from_slice(rows.as_flattened(), (rows.len(), D), &Device::Cpu).unwrap();
    let mut hook = Interventions::new(at(&sae, sink_norm), edits.to_vec()).unwrap();
    assert!(hook.wants(point()) && !hook.wants(HookPoint::resid_post(0)));
    replaced(&mut hook, &x)
}

/// The rows by which a hook replaces those of a text from position 1 on.
fn replaced(hook: &mut Interventions<'_>, x: &Tensor) -> Vec<f32> {
    replaced_from(1, hook, x)
}

fn replaced_from(position: usize, hook: &mut Interventions<'_>, x: &Tensor) -> Vec<f32> {
    let rows = Rows::of(&Batch::of([vec![0; x.dim(0).unwrap()]]), &[position]);
    let Edit::Replace(edited) = hook.apply(point(), &rows, x).unwrap() else { panic!("it keeps what it sees") };
    edited.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn edits_move_one_direction_by_the_difference() {
    let mut row = [0.5; D];
    row[3] = 2.0;
    row[4] = -1.0;
    let clamp = |latent: usize, value| Intervention::Clamp { latent: latent as u32, value };
    // Latent 3 is 2 and becomes 5; latent D + 4 is 1 and its direction is -e_4, so suppressing it adds 1 to dimension
    // 4.
    let got = edited(&[row], 1e9, &[clamp(3, 5.0), clamp(D + 4, 0.0)]);
    let mut want = row;
    want[3] = 5.0;
    want[4] = 0.0;
    assert_eq!(got, want);
    // Scaling an inactive latent changes nothing: latent D + 3 is inactive because dimension 3 is positive.
    let scale = Intervention::Scale { latent: (D + 3) as u32, factor: 7.0 };
    assert_eq!(edited(&[row], 1e9, &[scale]), row);
}

#[test]
fn an_edit_of_a_normalized_token_is_as_long_as_the_token_is_spread() {
    // Twelve 2s, twelve -2s and zeros: mean 0, variance 24 * 4 / 47.
    let mut row = [0.0; D];
    (0..24).for_each(|i| row[i] = if i % 2 == 0 { 2.0 } else { -2.0 });
    let std = (24.0f32 * 4.0 / 47.0).sqrt();
    let sae = with(identity(0.0), |config| config.input_norm = InputNorm::LayerNorm { eps: 0.0 });
    let mut hook = Interventions::new(at(&sae, 1e9), vec![Intervention::Clamp { latent: 40, value: 3.0 }]).unwrap();
    let x = Tensor::from_slice(&row, (1, D), &Device::Cpu).unwrap();
    let got = replaced(&mut hook, &x);
    for (i, (got, was)) in got.iter().zip(row).enumerate() {
        let want = if i == 40 { 3.0 * std } else { was };
        assert!((got - want).abs() < 1e-5, "dimension {i}: {got}, not {want}");
    }
    // The reconstruction with that latent set differs by the same amount.
    let (mut acts, x_hat) = sae.reconstruct(&row).unwrap();
    assert_eq!(acts.get(0, 40), 0.0);
    let place = acts.latents.partition_point(|latent| *latent < 40);
    acts.latents.insert(place, 40);
    acts.values.insert(place, 3.0);
    acts.offsets[1] += 1;
    let moved = (sae.decode(&acts)[40] * std - x_hat[40]).abs();
    assert!((moved - 3.0 * std).abs() < 1e-5, "{moved}");
}

#[test]
fn what_rebuilds_another_place_is_neither_steered_nor_evaluated() {
    let transcoder = with(identity(0.0), |config| {
        config.hook_points = HookPoints::Transcoder { from: Some(point()), to: Some(HookPoint::resid_post(0)) };
        config.apply_b_dec_to_input = false;
    });
    let message = Interventions::new(at(&transcoder, 1e9), vec![]).unwrap_err().to_string();
    let expected = "a transcoder from blocks.1.hook_resid_post to blocks.0.hook_resid_post";
    assert!(message.contains(expected), "{message}");
    let crosscoder = with(identity(0.0), |config| {
        let columns = [0, 1].map(|layer| (HookPoint::resid_post(layer), D / 2));
        config.hook_points = HookPoints::Crosscoder(columns.to_vec());
    });
    let message = Interventions::new(at(&crosscoder, 1e9), vec![]).unwrap_err().to_string();
    assert!(message.contains("a crosscoder of 2 hook points"), "{message}");
}

#[test]
fn attention_sinks_are_left_alone_to_the_bit() {
    let (row, mut sink) = ([0.5; D], [0.25; D]);
    sink[0] = 1e6;
    let got = edited(&[row, sink], 1e3, &[Intervention::Clamp { latent: 0, value: 9.0 }]);
    assert_eq!(got[0], 9.0);
    assert_eq!(got[D..], sink);
}

#[test]
fn position_0_is_left_alone_to_the_bit() {
    let sae = identity(0.0);
    let mut hook = Interventions::new(at(&sae, 1e9), vec![Intervention::Clamp { latent: 0, value: 9.0 }]).unwrap();
    let x = Tensor::from_slice([[0.5f32; D]; 2].as_flattened(), (2, D), &Device::Cpu).unwrap();
    let got = replaced_from(0, &mut hook, &x);
    assert_eq!(got[..D], [0.5; D]);
    assert_eq!(got[D], 9.0);
}

#[test]
fn unusable_edits_are_refused() {
    let sae = identity(0.0);
    let refused = |edits: Vec<Intervention>| Interventions::new(at(&sae, 1e9), edits).is_err();
    let clamp = |latent, value| Intervention::Clamp { latent, value };
    assert!(refused(vec![clamp(2 * D as u32, 0.0)]), "past the last latent");
    assert!(refused(vec![clamp(1, 0.0), clamp(1, 2.0)]), "one latent twice");
    assert!(refused(vec![clamp(1, f32::NAN)]) && refused(vec![clamp(1, 1e30)]), "not a usable number");
}

#[test]
fn steered_text_is_the_same_with_and_without_a_cache() {
    let (model, sae) = (model(), identity(0.0));
    let edits = vec![Intervention::Clamp { latent: 5, value: 8.0 }];
    let hook = || Interventions::new(at(&sae, 1e9), edits.clone()).unwrap();
    let prompt = model.tokenizer().prompt(SpecialToken::FromModel, "fellow citizens of the senate").unwrap();
    let config = GenerateConfig { max_new_tokens: 12, ..GenerateConfig::default() };
    let cached = generate(&model, &[&prompt], &config, &mut hook(), &Silent).unwrap().remove(0);
    let mut text = prompt.clone();
    for token in &cached {
        let resid = model.resid_final(&Batch::of([&text]), None, &mut hook()).unwrap();
        let last = resid.narrow(0, text.len() - 1, 1).unwrap();
        let logits = model.unembed(&last).unwrap().flatten_all().unwrap();
        assert_eq!(logits.argmax(0).unwrap().to_scalar::<u32>().unwrap(), *token);
        text.push(*token);
    }
    assert!(!cached.is_empty());
    let moved = shift(&model, at(&sae, 1e9), &edits, &text, prompt.len(), 3).unwrap();
    assert!(moved.kl_next > 0.0 && moved.kl_mean > 0.0 && moved.kl_written > Some(0.0), "{moved:?}");
    let alone = shift(&model, at(&sae, 1e9), &edits, &prompt, prompt.len(), 3).unwrap();
    assert_eq!((alone.kl_next, alone.kl_written, alone.moved), (moved.kl_next, None, moved.moved));
}

#[test]
fn texts_written_side_by_side_are_what_each_is_alone() {
    let (model, sae) = (model(), identity(0.0));
    let mut hook = Interventions::new(at(&sae, 1e9), vec![Intervention::Clamp { latent: 5, value: 8.0 }]).unwrap();
    let texts = ["fellow citizens of the senate", "a", "among the vicissitudes incident to life no event", "the war"];
    let prompts: Vec<Vec<u32>> =
        texts.iter().map(|text| model.tokenizer().prompt(SpecialToken::FromModel, text).unwrap()).collect();
    let config = |i: usize| GenerateConfig { max_new_tokens: 3 * i, temperature: 0.7, seed: 3, ..Default::default() };
    for hook in [&mut NoHook as &mut dyn Hook, &mut hook] {
        let mut alone = |i: usize| generate(&model, &prompts[i..=i], &config(i), hook, &Silent).unwrap().remove(0);
        let alone: Vec<Vec<u32>> = (0..4).map(&mut alone).collect();
        assert!(alone[0].is_empty() && alone[3].len() == 9, "{alone:?}");
        // The last text is added when the others are half written.
        let mut generation = Generation::new(&model).unwrap();
        let mut written = vec![vec![]; 4];
        (0..3).for_each(|i| assert_eq!(generation.add(&prompts[i], &config(i)).unwrap(), i));
        for step in 0.. {
            if step == 2 {
                generation.add(&prompts[3], &config(3)).unwrap();
            }
            if generation.is_done() {
                break;
            }
            generation.step(hook).unwrap().into_iter().for_each(|(text, token)| written[text].push(token));
        }
        assert_eq!(written, alone);
    }
    let mut generation = Generation::new(&model).unwrap();
    assert!(generation.add(&[], &config(1)).is_err(), "an empty prompt");
    assert!(generation.add(&[1; 60], &config(2)).is_err(), "more than the context");
    let endless = GenerateConfig { max_new_tokens: usize::MAX, ..config(1) };
    assert!(generation.add(&[1], &endless).is_err(), "more than the context, and than a `usize` can count");
}
