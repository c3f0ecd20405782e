//! Steering with answers that are known in advance: edits that can be computed on paper, and what must hold for any edit:
//! what changes nothing changes no bit, cached generation equals whole passes, a text among others equals the text
//! alone, every generated token is edited. The model is a tiny random llama; at the end, the default model.

#![expect(clippy::unwrap_used, reason = "tests")]

mod tiny;

use analyzer::{
    DirectionConfig, DirectionMethod, EditCount, GenerateConfig, Generation, Interventions, Positions, Prompt,
    SteerEdit, SteeredSae, direction, generate, shift,
};
use candle_core::{Device, Tensor};
use harvester::{
    Batch, Compute, Edit, Hook, HookPoint, LanguageModel, ModelSource, NoHook, Rows, Silent, SpecialToken, norm,
};
use trainer::{HookPoints, InputNorm, Nonlinearity, Sae, SaeConfig, SaeWeights};

use tiny::{D, at, identity, model, point, with};

fn edits(texts: &[&str]) -> Vec<SteerEdit> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn hook<'a>(sae: &'a Sae, sink_norm: f32, texts: &[&str]) -> Interventions<'a> {
    Interventions::new(&model(), &[at(sae, sink_norm).into()], &edits(texts)).unwrap()
}

/// The rows after the edits of a hook, from rows of a text from `position` on, with `prompt_len` tokens of prompt.
fn replaced(hook: &mut dyn Hook, position: usize, x: &[f32]) -> Vec<f32> {
    let n = x.len() / D;
    let rows = Rows::of(&Batch::of([vec![5; n]]), &[position]);
    let before = Tensor::from_slice(x, (n, D), &Device::Cpu).unwrap();
    match hook.apply(point(), &rows, &before).unwrap() {
        Edit::Keep => x.to_vec(),
        Edit::Replace(edited) => edited.flatten_all().unwrap().to_vec1().unwrap(),
        Edit::Variants(_) => panic!("only a shift has variants"),
    }
}

/// Applies edits to rows from position 1 on.
fn edited(rows: &[[f32; D]], sink_norm: f32, texts: &[&str]) -> Vec<f32> {
    let sae = identity(0.0);
    let mut hook = hook(&sae, sink_norm, texts);
    assert!(hook.wants(point()) && !hook.wants(HookPoint::resid_post(0)));
    replaced(&mut hook, 1, rows.as_flattened())
}

/// Some row without a pattern.
fn some_row() -> [f32; D] {
    std::array::from_fn(|i| ((i * 37 % 23) as f32 - 11.0) / 7.0)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn edits_move_one_direction_by_the_difference() {
    let mut row = [0.5; D];
    row[3] = 2.0;
    row[4] = -1.0;
    // Latent 3 is 2 and becomes 5; latent D + 4 is 1 and its direction is -e_4, so suppressing it adds 1 to dimension 4.
    let mut want = row;
    (want[3], want[4]) = (5.0, 0.0);
    assert_eq!(edited(&[row], 1e9, &["clamp 3=5", &format!("suppress {}", D + 4)]), want);
    // Scaling an inactive latent changes nothing: latent D + 3 is inactive because dimension 3 is positive.
    assert_eq!(edited(&[row], 1e9, &[&format!("scale {}=7", D + 3)]), row);
    let of_3 = |texts: &[&str]| edited(&[row], 1e9, texts)[3];
    assert_eq!((of_3(&["floor 3=5"]), of_3(&["floor 3=1"])), (5.0, 2.0));
    assert_eq!((of_3(&["cap 3=5"]), of_3(&["cap 3=1"])), (2.0, 1.0));
    assert_eq!(of_3(&["scale 3=2", "cap 3=3"]), 3.0, "one after the other");
    assert_eq!(of_3(&["cap 3=3", "scale 3=2"]), 4.0);
    assert_eq!(of_3(&["floor 3=1", "cap 3=1.5"]), 1.5);
}

#[test]
fn directions_are_added_removed_and_swapped() {
    let (row, mut v) = (some_row(), [0.0; D]);
    (v[3], v[7]) = (3.0, 4.0); // of length 5
    let json = |rest: &str| format!(r#"{{"direction": {v:?}, {rest}}}"#);
    let added = edited(&[row], 1e9, &[&json(r#""kind": "add", "value": 2"#)]);
    for i in 0..D {
        assert!((added[i] - row[i] - 2.0 * v[i]).abs() < 1e-5, "dimension {i}");
    }
    let by_norm = edited(&[row], 1e9, &[&json(r#""kind": "add", "value": "0.5norm""#)]);
    let moved: Vec<f32> = by_norm.iter().zip(&row).map(|(after, before)| after - before).collect();
    assert!((norm(&moved) / norm(&row) - 0.5).abs() < 1e-5 && dot(&moved, &v) > 0.0);
    let ablated = edited(&[row], 1e9, &[&json(r#""kind": "ablate""#)]);
    assert!(dot(&ablated, &v).abs() < 1e-5, "{}", dot(&ablated, &v));
    assert_eq!(ablated[0], row[0], "the rest stays");
    // The part along v becomes the same part along e_9.
    let swapped = edited(&[row], 1e9, &[&json(r#""kind": "swap", "to": 9"#)]);
    assert!(dot(&swapped, &v).abs() < 1e-5);
    assert!((f64::from(swapped[9] - row[9]) - dot(&row, &v) / 5.0).abs() < 1e-5);
    // A latent's direction that is added where the latent is inactive is the latent clamped.
    let inactive = (0..D).find(|i| row[*i] < 0.0).unwrap();
    let [added, clamped] = ["add", "clamp"].map(|name| edited(&[row], 1e9, &[&format!("{name} {inactive}=3")]));
    assert_eq!(added, clamped);
}

#[test]
fn a_splice_continues_with_the_reconstruction_and_other_edits_keep_the_error() {
    let sae = identity(0.6); // does not explain values up to 0.6
    let row = some_row();
    let (_, x_hat) = sae.reconstruct(&row).unwrap();
    let spliced = |texts: &[&str]| replaced(&mut hook(&sae, 1e9, texts), 1, &row);
    assert_eq!(spliced(&[r#"{"kind": "splice"}"#]), x_hat);
    let active = (0..D).find(|i| row[*i] > 0.6).unwrap();
    let suppress = format!("suppress {active}");
    let mut without = x_hat.clone();
    without[active] = 0.0;
    assert_eq!(spliced(&[r#"{"kind": "splice"}"#, &suppress]), without);
    assert_eq!(spliced(&[&suppress, r#"{"kind": "splice"}"#]), without, "they read one encoding");
    let mut kept = row;
    kept[active] = 0.0;
    assert_eq!(spliced(&[&suppress]), kept);
}

#[test]
fn an_edit_that_changes_nothing_changes_no_bit() {
    let sae = random_sae(D, 200, point());
    let rows: Vec<f32> = (0..9 * D).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * 3.0).collect();
    let acts = sae.encode(&rows).unwrap();
    let mut n = [0, 0];
    for (row, x) in rows.chunks_exact(D).enumerate() {
        for latent in 0..200 {
            let z = acts.get(row, latent);
            let (is_active, texts) = match z > 0.0 {
                true => {
                    (1, vec![format!("clamp {latent}={z}"), format!("floor {latent}={z}"), format!("scale {latent}=1")])
                }
                false => {
                    (0, vec![format!("suppress {latent}"), format!("scale {latent}=9"), format!("cap {latent}=0")])
                }
            };
            for text in texts {
                let mut hook = hook(&sae, 1e9, &[&text]);
                assert_eq!(replaced(&mut hook, 1, x), x, "{text}");
                assert_eq!(hook.counts(), [EditCount { in_scope: 1, changed: 0 }]);
                n[is_active] += 1;
            }
        }
    }
    assert!(n[0] > 300 && n[1] > 300, "{n:?}");
}

#[test]
fn positions_tokens_and_decay_choose_rows_and_shares() {
    let sae = identity(0.0);
    let rows = [[0.5; D]; 6];
    // Dimension 0 of the rows at positions 0 to 5, of which the first four are the prompt.
    let first = |texts: &[&str]| {
        let mut hook = hook(&sae, 1e9, texts).with_prompt_len(4);
        let after = replaced(&mut hook, 0, rows.as_flattened());
        assert!(after.iter().enumerate().all(|(at, x)| at % D == 0 || *x == 0.5));
        after.iter().step_by(D).copied().collect::<Vec<_>>()
    };
    let clamp = |rest: &str| format!(r#"{{"kind": "clamp", "latent": 0, "value": 8.5{rest}}}"#);
    let at = |at: &str| first(&[&clamp(&format!(r#", "at": "{at}""#))]);
    assert_eq!(at("all"), [0.5, 8.5, 8.5, 8.5, 8.5, 8.5], "never position 0");
    assert_eq!(at("prompt"), [0.5, 8.5, 8.5, 8.5, 0.5, 0.5]);
    assert_eq!(at("generated"), [0.5, 0.5, 0.5, 0.5, 8.5, 8.5]);
    assert_eq!(at("last_prompt"), [0.5, 0.5, 0.5, 8.5, 0.5, 0.5]);
    assert_eq!(at("2..3,5.."), [0.5, 0.5, 8.5, 0.5, 0.5, 8.5]);
    assert_eq!(
        first(&[&clamp(r#", "decay": 0.5"#)]),
        [0.5, 8.5, 8.5, 8.5, 8.5, 4.5],
        "from the second written token on"
    );
    let of_token = model().tokenizer().token_text(5);
    let tokens = |text: &str| first(&[&clamp(&format!(r#", "tokens": [{}]"#, serde_json::to_string(text).unwrap()))]);
    assert_eq!(tokens(&of_token)[1], 8.5);
    assert_eq!(tokens(&model().tokenizer().token_text(6)), [0.5; 6]);
    // Two edits at different places of one text.
    let both = [&clamp(r#", "at": "prompt""#)[..], r#"{"kind": "clamp", "latent": 0, "value": 2, "at": "generated"}"#];
    assert_eq!(first(&both), [0.5, 8.5, 8.5, 8.5, 2.0, 2.0]);
}

#[test]
fn special_tokens_are_left_alone_unless_asked_for() {
    let sae = identity(0.0);
    let x = Tensor::from_slice(&[0.5f32; 3 * D], (3, D), &Device::Cpu).unwrap();
    let rows = Rows::of(&Batch::of([[5, 1, 2]]), &[1]); // the last two begin and end a turn
    let changed = |text: &str| {
        let mut hook = hook(&sae, 1e9, &[text]);
        hook.apply(point(), &rows, &x).unwrap();
        hook.counts()[0].changed
    };
    assert_eq!(changed("clamp 0=9"), 1);
    assert_eq!(changed(r#"{"kind": "clamp", "latent": 0, "value": 9, "special_tokens": true}"#), 3);
}

#[test]
fn a_condition_holds_per_token_or_for_the_whole_text() {
    let sae = identity(0.0);
    let mut rows = [[0.5; D]; 5];
    (rows[2][1], rows[4][1]) = (3.0, 2.0);
    let first = |rest: &str| {
        let text = format!(r#"{{"kind": "clamp", "latent": 0, "value": 8, "when": {{"latent": 1, {rest}}}}}"#);
        let mut hook = hook(&sae, 1e9, &[&text]).with_prompt_len(3);
        replaced(&mut hook, 0, rows.as_flattened()).iter().step_by(D).copied().collect::<Vec<_>>()
    };
    assert_eq!(first(r#""above": 1"#), [0.5, 0.5, 8.0, 0.5, 8.0]);
    assert_eq!(first(r#""above": 2"#), [0.5, 0.5, 8.0, 0.5, 0.5], "not at the value itself");
    assert_eq!(first(r#""above": 1, "per": "prompt""#), [0.5, 8.0, 8.0, 8.0, 8.0]);
    assert_eq!(first(r#""above": 3, "per": "prompt""#), [0.5; 5]);
}

#[test]
fn an_edit_of_a_normalized_token_is_as_long_as_the_token_is_spread() {
    // Twelve 2s, twelve -2s and zeros: mean 0, variance 24 * 4 / 47.
    let mut row = [0.0; D];
    (0..24).for_each(|i| row[i] = if i % 2 == 0 { 2.0 } else { -2.0 });
    let std = (24.0f32 * 4.0 / 47.0).sqrt();
    let sae = with(identity(0.0), |config| config.input_norm = InputNorm::LayerNorm { eps: 0.0 });
    let got = replaced(&mut hook(&sae, 1e9, &["clamp 40=3"]), 1, &row);
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
fn what_rebuilds_another_place_is_not_steered() {
    let transcoder = with(identity(0.0), |config| {
        config.hook_points = HookPoints::Transcoder { from: Some(point()), to: Some(HookPoint::resid_post(0)) };
        config.apply_b_dec_to_input = false;
    });
    let message =
        Interventions::new(&model(), &[at(&transcoder, 1e9).into()], &edits(&["suppress 0"])).unwrap_err().to_string();
    let expected = "a transcoder from blocks.1.hook_resid_post to blocks.0.hook_resid_post";
    assert!(message.contains(expected), "{message}");
    let crosscoder = with(identity(0.0), |config| {
        let columns = [0, 1].map(|layer| (HookPoint::resid_post(layer), D / 2));
        config.hook_points = HookPoints::Crosscoder(columns.to_vec());
    });
    let message =
        Interventions::new(&model(), &[at(&crosscoder, 1e9).into()], &edits(&["suppress 0"])).unwrap_err().to_string();
    assert!(message.contains("a crosscoder of 2 hook points"), "{message}");
}

#[test]
fn attention_sinks_and_position_0_are_left_alone_to_the_bit() {
    let (row, mut sink) = ([0.5; D], [0.25; D]);
    sink[0] = 1e6;
    for text in ["clamp 0=9", "add 0=8.5"] {
        let got = edited(&[row, sink], 1e3, &[text]);
        assert_eq!(got[0], 9.0);
        assert_eq!(got[D..], sink);
        let sae = identity(0.0);
        let got = replaced(&mut hook(&sae, 1e9, &[text]), 0, [row; 2].as_flattened());
        assert_eq!(got[..D], row);
        assert_eq!(got[D], 9.0);
    }
}

#[test]
fn unusable_edits_are_refused_with_what_was_expected_and_found() {
    let sae = identity(0.0);
    let refused = |texts: &[&str]| {
        let made = Interventions::new(&model(), &[at(&sae, 1e9).into()], &edits(texts));
        made.map(drop).unwrap_err().to_string()
    };
    let clamp = |rest: &str| format!(r#"{{"kind": "clamp", "latent": 1, "value": 2, {rest}}}"#);
    for (message, parts) in [
        (refused(&["clamp 96=0"]), ["edit 1 (clamp 96=0): latent", "expected below 96, found 96"]),
        (refused(&["clamp 1=nan"]), ["strength", "found NaN"]),
        (refused(&["clamp 1=1e30"]), ["a number from -1000000 to 1000000", "found 1e30"]),
        (refused(&["suppress 2", "scale 1=inf"]), ["edit 2 (scale 1=inf): factor", "found inf"]),
        (refused(&["clamp 1=2max"]), ["`features`", "found none"]),
        (refused(&["clamp 1=0", "clamp 1=2"]), ["do not contradict each other", "clamp 1=0 and clamp 1=2"]),
        (refused(&["scale 1=3", "suppress 1"]), ["do not contradict", "scale 1=3 and suppress 1"]),
        (refused(&["floor 1=3", "cap 1=2"]), ["do not contradict", "floor 1=3 and cap 1=2"]),
        (
            refused(&[&clamp(r#""hook_point": "blocks.0.hook_resid_post""#)]),
            ["an SAE at blocks.0.hook_resid_post", "found at blocks.1.hook_resid_post"],
        ),
        (refused(&[&clamp(r#""sae": "other""#)]), ["an SAE other", "found at blocks.1"]),
        (refused(&[&clamp(r#""decay": 0"#)]), ["`decay`", "above 0 and at most 1, found 0"]),
        (refused(&[&clamp(r#""when": {"latent": 200, "above": 1}"#)]), ["latent", "below 96, found 200"]),
        (refused(&[&clamp(r#""tokens": ["no such token"]"#)]), ["texts of single tokens", "no such token"]),
        (
            refused(&[r#"{"kind": "add", "direction": [1, 2, 3], "value": 1}"#]),
            ["48 values, the width of blocks.1.hook_resid_post of ", "found 3 values"],
        ),
        (
            refused(&[r#"{"kind": "add", "direction": 3, "value": 1, "hook_point": "blocks.7.hook_resid_post"}"#]),
            ["a layer from 0 to 2", "blocks.7"],
        ),
        (refused(&["ablate absent.safetensors"]), ["cannot read absent.safetensors", ""]),
        (refused(&[&format!(r#"{{"kind": "ablate", "direction": {:?}}}"#, [0; D])]), ["a vector with a length", "0"]),
    ] {
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let alone = Interventions::new(&model(), &[], &edits(&["suppress 1"])).map(drop).unwrap_err().to_string();
    assert!(alone.contains("expected an SAE, found no SAE"), "{alone}");
    let later = SteeredSae { name: "later".into(), ..at(&sae, 1e9).into() };
    let later = SteeredSae { site: analyzer::SaeSite { hook_point: HookPoint::resid_post(2), ..later.site }, ..later };
    let condition = edits(&[&clamp(r#""when": {"latent": 3, "above": 1, "sae": "later"}"#)]);
    let made = Interventions::new(&model(), &[at(&sae, 1e9).into(), later], &condition);
    assert!(made.map(drop).unwrap_err().to_string().contains("a condition at blocks.1.hook_resid_post or before"));
    // At different places of a text they do not contradict each other.
    let apart = [clamp(r#""at": "prompt""#), r#"{"kind": "suppress", "latent": 1, "at": "generated"}"#.into()];
    hook(&sae, 1e9, &apart.each_ref().map(String::as_str));
}

/// Edits of every kind and scope.
fn every_kind() -> Vec<SteerEdit> {
    edits(&[
        "clamp 5=8",
        r#"{"kind": "scale", "latent": 6, "factor": 3, "at": "generated"}"#,
        r#"{"kind": "floor", "latent": 7, "value": "0.3norm", "at": "last_prompt,generated", "decay": 0.8}"#,
        r#"{"kind": "cap", "latent": 8, "value": 0.1, "when": {"latent": 9, "above": 0.2}}"#,
        r#"{"kind": "add", "direction": 10, "value": 2, "when": {"latent": 11, "above": 0.4, "per": "prompt"}}"#,
        r#"{"kind": "ablate", "direction": 12, "at": "3.."}"#,
        r#"{"kind": "splice", "at": "generated", "when": {"latent": 13, "above": 0.3}}"#,
        r#"{"kind": "clamp", "latent": 5, "value": 4, "sae": "early"}"#,
    ])
}

fn two_saes<'a>(sae: &'a Sae, early: &'a Sae) -> [SteeredSae<'a>; 2] {
    let site = analyzer::SaeSite { sae: early, hook_point: HookPoint::resid_post(0), sink_norm: 1e9 };
    [at(sae, 1e9).into(), SteeredSae { name: "early".into(), ..site.into() }]
}

#[test]
fn steered_text_is_the_same_with_and_without_a_cache() {
    let (model, sae, early) = (model(), identity(0.1), random_sae(D, 100, HookPoint::resid_post(0)));
    let hook = || Interventions::new(&model, &two_saes(&sae, &early), &every_kind()).unwrap();
    let prompt = model.tokenizer().prompt(SpecialToken::FromModel, "fellow citizens of the senate").unwrap();
    let config = GenerateConfig { max_new_tokens: 12, ..GenerateConfig::default() };
    let mut cached_hook = hook();
    let cached = generate(&model, &[&prompt], &config, &mut cached_hook, &Silent).unwrap().remove(0);
    assert!(cached_hook.counts().iter().all(|count| count.changed > 0), "{:?}", cached_hook.counts());
    let mut text = prompt.clone();
    for token in &cached {
        let mut whole = hook().with_prompt_len(prompt.len());
        let resid = model.resid_final(&Batch::of([&text]), None, &mut whole).unwrap();
        let last = resid.narrow(0, text.len() - 1, 1).unwrap();
        let logits = model.unembed(&last).unwrap().flatten_all().unwrap();
        assert_eq!(logits.argmax(0).unwrap().to_scalar::<u32>().unwrap(), *token);
        text.push(*token);
    }
    assert!(!cached.is_empty());
    let moved = shift(&model, hook(), &text, prompt.len(), 3).unwrap();
    assert!(moved.kl_next > 0.0 && moved.kl_mean > 0.0 && moved.kl_written > Some(0.0), "{moved:?}");
    let alone = shift(&model, hook(), &prompt, prompt.len(), 3).unwrap();
    assert_eq!((alone.kl_next, alone.kl_written, alone.moved), (moved.kl_next, None, moved.moved));
}

#[test]
fn the_residual_stream_of_a_cached_pass_has_the_bits_of_a_whole_one() {
    let (model, sae, early) = (model(), identity(0.1), random_sae(D, 100, HookPoint::resid_post(0)));
    let hook = || Interventions::new(&model, &two_saes(&sae, &early), &every_kind()).unwrap();
    let text: Vec<u32> = (0..20).map(|i| 20 + 7 * i % 250).collect();
    let values = |x: Tensor| x.to_vec2::<f32>().unwrap();
    let whole = model.resid_final(&Batch::of([&text]), None, &mut hook().with_prompt_len(9)).unwrap();
    let mut cache = harvester::KvCache::new(model.config());
    let (number, mut cached_hook) = (cache.add(20).unwrap(), hook());
    let mut cached = vec![];
    for part in [&text[..9]].into_iter().chain(text[9..].chunks(1)) {
        let mut batch = Batch::default();
        batch.push(number, part);
        cached.extend(values(model.resid_final(&batch, Some(&mut cache), &mut cached_hook).unwrap()));
    }
    assert_eq!(values(whole), cached);
}

#[test]
fn several_saes_edit_several_hook_points_of_one_pass() {
    let (model, sae, early) = (model(), identity(0.1), random_sae(D, 100, HookPoint::resid_post(0)));
    let saes = two_saes(&sae, &early);
    let both = edits(&["clamp 5=8", r#"{"kind": "clamp", "latent": 5, "value": 4, "sae": "early"}"#]);
    let text: Vec<u32> = (0..12).map(|i| 20 + 7 * i % 250).collect();
    // A pass with one hook after the other must give what both together give, also beside the unedited text.
    let [first, second] = [&both[1..], &both[..1]].map(|edits| Interventions::new(&model, &saes, edits).unwrap());
    let mut in_turn = InTurn([first, second]);
    let probabilities = |hook: &mut dyn Hook| {
        let resid = model.resid_final(&Batch::of([&text]), None, hook).unwrap();
        let logits = model.unembed(&resid.narrow(0, 11, 1).unwrap()).unwrap();
        let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        logits.iter().map(|x| f64::from(*x).exp() / sum).collect::<Vec<f64>>()
    };
    let (p, q) = (probabilities(&mut NoHook), probabilities(&mut in_turn));
    let kl: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
    let found = shift(&model, Interventions::new(&model, &saes, &both).unwrap(), &text, 12, 3).unwrap();
    assert!(kl > 1e-4 && (found.kl_next / kl - 1.0).abs() < 1e-2, "{} {kl}", found.kl_next);
    assert_eq!(found.latents.len(), 2);
}

/// Two hooks of different points.
struct InTurn<'a>([Interventions<'a>; 2]);

impl Hook for InTurn<'_> {
    fn wants(&self, point: HookPoint) -> bool {
        self.0.iter().any(|hook| hook.wants(point))
    }

    fn apply(&mut self, point: HookPoint, rows: &Rows, activation: &Tensor) -> harvester::Result<Edit> {
        self.0.iter_mut().find(|hook| hook.wants(point)).unwrap().apply(point, rows, activation)
    }
}

#[test]
fn every_generated_token_is_edited() {
    let (model, sae) = (model(), identity(0.0));
    let prompt = model.tokenizer().prompt(SpecialToken::FromModel, "fellow citizens of the senate").unwrap();
    let config = GenerateConfig { max_new_tokens: 9, temperature: 1.0, seed: 4, ..GenerateConfig::default() };
    let counted = |at: &str| {
        let edit = edits(&["add 5=3"]).remove(0).at(at.parse::<Positions>().unwrap());
        let mut hook = Interventions::new(&model, &[at_point(&sae)], &[edit]).unwrap();
        let written = generate(&model, &[&prompt], &config, &mut hook, &Silent).unwrap().remove(0);
        assert_eq!(written.len(), 9, "no stop token in this text");
        assert_eq!(hook.counts()[0].changed, hook.counts()[0].in_scope);
        hook.counts()[0].changed as usize
    };
    let n = prompt.len();
    assert_eq!(counted("generated"), 8, "all that the model reads again: no token follows the last one");
    assert_eq!(counted("last_prompt,generated"), 9, "every token is written under the edit");
    assert_eq!(counted("last_prompt"), 1);
    assert_eq!(counted("all"), n - 1 + 8, "all but position 0");
    assert_eq!(counted("prompt"), n - 1);
    // The last token alone is another dose than every position.
    let kl = |at: &str| {
        let edit = edits(&["add 5=3"]).remove(0).at(at.parse::<Positions>().unwrap());
        shift(&model, Interventions::new(&model, &[at_point(&sae)], &[edit]).unwrap(), &prompt, n, 3).unwrap()
    };
    let (last, all) = (kl("last_prompt"), kl("all"));
    assert!(last.kl_next > 0.0 && last.kl_next != all.kl_next && last.kl_mean < all.kl_mean);
}

fn at_point(sae: &Sae) -> SteeredSae<'_> {
    at(sae, 1e9).into()
}

#[test]
fn texts_written_side_by_side_are_what_each_is_alone() {
    let (model, sae, early) = (model(), identity(0.0), random_sae(D, 100, HookPoint::resid_post(0)));
    let mut hook = Interventions::new(&model, &two_saes(&sae, &early), &every_kind()).unwrap();
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

#[test]
fn an_edit_of_one_text_leaves_the_others_as_they_are() {
    let (model, sae) = (model(), identity(0.0));
    let prompt = model.tokenizer().prompt(SpecialToken::FromModel, "fellow citizens of the senate").unwrap();
    let config = GenerateConfig { max_new_tokens: 9, temperature: 1.0, seed: 3, ..GenerateConfig::default() };
    let hook = || Interventions::new(&model, &[at_point(&sae)], &edits(&["clamp 5=300"])).unwrap();
    let write = |n: usize, hook: &mut dyn Hook| generate(&model, &vec![&prompt; n], &config, hook, &Silent).unwrap();
    let (plain, steered) = (write(1, &mut NoHook).remove(0), write(1, &mut hook()).remove(0));
    assert_ne!(plain, steered);
    assert_eq!(write(3, &mut hook().only(1)), [plain.clone(), steered, plain]);
}

#[test]
fn sampling_keeps_to_the_likeliest_tokens_and_a_penalty_keeps_the_text_from_itself() {
    let model = model();
    let prompt = model.tokenizer().prompt(SpecialToken::FromModel, "fellow citizens of the senate").unwrap();
    let write = |config: &GenerateConfig| generate(&model, &[&prompt], config, &mut NoHook, &Silent).unwrap().remove(0);
    let greedy = GenerateConfig { max_new_tokens: 12, ..GenerateConfig::default() };
    let hot = GenerateConfig { temperature: 5.0, seed: 1, ..greedy.clone() };
    assert_ne!(write(&hot), write(&greedy));
    assert_eq!(write(&GenerateConfig { top_k: 1, ..hot.clone() }), write(&greedy));
    assert_eq!(write(&GenerateConfig { top_k: 1, top_p: 0.5, ..hot.clone() }), write(&greedy));
    assert_eq!(write(&GenerateConfig { top_k: usize::MAX, ..hot.clone() }), write(&hot));
    // The first token: the likeliest by logits of which those of the prompt's tokens are divided or multiplied by 2.
    let resid = model.resid_final(&Batch::of([&prompt]), None, &mut NoHook).unwrap();
    let last = model.unembed(&resid.narrow(0, prompt.len() - 1, 1).unwrap()).unwrap();
    let mut logits: Vec<f32> = last.flatten_all().unwrap().to_vec1().unwrap();
    for token in prompt.iter().collect::<std::collections::HashSet<_>>() {
        let logit = &mut logits[*token as usize];
        *logit = if *logit > 0.0 { *logit / 2.0 } else { *logit * 2.0 };
    }
    let likeliest = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
    assert_eq!(write(&GenerateConfig { repetition_penalty: 2.0, ..greedy.clone() })[0], likeliest as u32);
    let new = write(&GenerateConfig { repetition_penalty: 100.0, ..greedy.clone() });
    let distinct: std::collections::HashSet<_> = new.iter().chain(&prompt).collect();
    assert!(distinct.len() >= new.len() + 2, "{new:?}");
    for (config, setting) in [
        (GenerateConfig { temperature: -1.0, ..greedy.clone() }, "`temperature`"),
        (GenerateConfig { top_p: f64::NAN, ..greedy.clone() }, "`top_p`"),
        (GenerateConfig { repetition_penalty: 0.0, ..greedy }, "`repetition_penalty`"),
    ] {
        let message = generate(&model, &[&prompt], &config, &mut NoHook, &Silent).unwrap_err().to_string();
        assert!(message.contains(setting), "{message}");
    }
}

#[test]
fn a_direction_of_texts_is_added_from_its_file() {
    let (model, sae, folder) = (model(), identity(0.0), tempfile::tempdir().unwrap());
    let texts = |texts: &[&str]| texts.iter().map(|text| Prompt::from(*text)).collect::<Vec<_>>();
    let (positive, negative) =
        (texts(&["fellow citizens", "the senate"]), texts(&["a war", "of the enemy", "the war"]));
    let config = DirectionConfig::default();
    let made = direction(&model, point(), [&positive, &negative], &config, &Silent).unwrap();
    // The same from what a hook sees.
    let mean = |texts: &[Prompt]| -> Vec<f64> {
        let mut mean = vec![0.0; D];
        for text in texts {
            let tokens = model.tokenizer().prompt(SpecialToken::FromModel, &text.text).unwrap();
            let mut seen = Watched {
                hook: Interventions::new(&model, &[at(&sae, 1e9).into()], &edits(&["add 0=0"])).unwrap(),
                seen: vec![],
                edited: vec![],
            };
            model.resid_final(&Batch::of([&tokens]), None, &mut seen).unwrap();
            let rows = &seen.seen[D..];
            rows.iter()
                .enumerate()
                .for_each(|(i, x)| mean[i % D] += f64::from(*x) / (rows.len() / D * texts.len()) as f64);
        }
        mean
    };
    for ((made, x), y) in made.vector.iter().zip(mean(&positive)).zip(mean(&negative)) {
        assert!((f64::from(*made) - (x - y)).abs() < 1e-5, "{made} {}", x - y);
    }
    let path = folder.path().join("v.safetensors");
    made.write(&path).unwrap();
    let row = some_row();
    let added = edited(&[row], 1e9, &[&format!("add {}=2", path.display())]);
    for i in 0..D {
        assert!((added[i] - row[i] - 2.0 * made.vector[i]).abs() < 1e-4, "dimension {i}");
    }
    let refused = |sides: [&[Prompt]; 2], method| {
        direction(&model, point(), sides, &DirectionConfig { method, ..config }, &Silent).unwrap_err().to_string()
    };
    assert!(refused([&positive, &negative], DirectionMethod::Pca).contains("compares pairs, found 3"));
    assert!(refused([&positive, &[]], DirectionMethod::Mean).contains("`negative`"));
    assert!(refused([&positive, &positive], DirectionMethod::Mean).contains("texts whose activations differ"));
    let long = texts(&[&"the senate ".repeat(64)]);
    assert!(refused([&long, &negative], DirectionMethod::Mean).contains("2 to 64 tokens"));
}

#[test]
fn a_shift_tells_what_both_models_think_of_the_written_text() {
    let (model, sae) = (model(), identity(0.1));
    let hook = || Interventions::new(&model, &[at_point(&sae)], &edits(&["add 5=6"])).unwrap();
    let text: Vec<u32> = (0..20).map(|i| 20 + 7 * i % 250).collect();
    let found = shift(&model, hook(), &text, 8, 3).unwrap();
    let log_p = |hook: &mut dyn Hook| -> Vec<Vec<f64>> {
        let resid = model.resid_final(&Batch::of([&text]), None, hook).unwrap();
        let logits = model.unembed(&resid).unwrap().to_vec2::<f32>().unwrap();
        let of_row = |row: Vec<f32>| {
            let sum = row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            row.into_iter().map(|x| f64::from(x) - sum).collect()
        };
        logits.into_iter().map(of_row).collect()
    };
    let sides = [log_p(&mut NoHook), log_p(&mut hook().with_prompt_len(8))];
    assert_eq!(found.written.len(), 12);
    for (at, token) in found.written.iter().enumerate() {
        let [p, q] = [0, 1].map(|side| &sides[side][at + 7]);
        let kl: f64 = p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum();
        assert!((token.kl - kl).abs() < 1e-5 && token.kl > 0.0, "{at}: {} {kl}", token.kl);
        let want = [p, q].map(|log_p| log_p[text[at + 8] as usize]);
        assert!((0..2).all(|side| (token.log_p[side] - want[side]).abs() < 1e-5), "{at}: {token:?} {want:?}");
    }
    let mean = (0..12).map(|at| sides[0][at + 7][text[at + 8] as usize]).sum::<f64>() / 12.0;
    let [without, with] = found.perplexity().unwrap();
    assert!((without / (-mean).exp() - 1.0).abs() < 1e-5 && without != with, "{without} {with}");
    // The latent whose direction is added is watched, on the prompt and after it.
    let latent = found.latents[0];
    assert_eq!((latent.latent, found.latents.len()), (5, 1));
    assert!(latent.active_prompt <= 7 && latent.active_written <= 12);
}

#[test]
fn a_prompt_that_does_not_fit_is_refused() {
    let model = model();
    let long = vec![5; 60];
    let config = GenerateConfig { max_new_tokens: 10, ..GenerateConfig::default() };
    let message = generate(&model, &[&long], &config, &mut NoHook, &Silent).unwrap_err().to_string();
    assert!(message.contains("at most 64 tokens, the model's context length, found 70 tokens"), "{message}");
}

/// An SAE whose latents overlap.
fn random_sae(d_in: usize, d_sae: usize, point: HookPoint) -> Sae {
    let values = |n: usize, seed: usize| -> Vec<f32> {
        (0..n).map(|i| (((i + seed) * 7919 % 1009) as f32 / 504.5 - 1.0) / (d_in as f32).sqrt()).collect()
    };
    let weights = SaeWeights {
        w_enc: values(d_sae * d_in, 0),
        b_enc: vec![0.0; d_sae],
        nonlinearity: Nonlinearity::JumpRelu { threshold: vec![0.05; d_sae] },
        w_dec: values(d_sae * d_in, 5),
        b_dec: vec![0.0; d_in],
        w_skip: None,
    };
    let config = SaeConfig { hook_points: HookPoints::Autoencoder(Some(point)), ..SaeConfig::new(d_in, d_sae) };
    Sae::new(config, weights).unwrap()
}

/// Keeps the rows, and what an edit makes of them.
struct Watched<'a> {
    hook: Interventions<'a>,
    seen: Vec<f32>,
    edited: Vec<f32>,
}

impl Hook for Watched<'_> {
    fn wants(&self, point: HookPoint) -> bool {
        self.hook.wants(point)
    }

    fn apply(&mut self, point: HookPoint, rows: &Rows, activation: &Tensor) -> harvester::Result<Edit> {
        self.seen = activation.flatten_all()?.to_vec1()?;
        let edit = self.hook.apply(point, rows, activation)?;
        if let Edit::Replace(x) = &edit {
            self.edited = x.flatten_all()?.to_vec1()?;
        }
        Ok(edit)
    }
}

/// The default model, and an SAE whose latents overlap.
fn default_model(compute: Compute) -> (LanguageModel, Sae, HookPoint) {
    let source: ModelSource = "default".parse().unwrap();
    let model = LanguageModel::open(&source, compute, &Silent).unwrap();
    let point = HookPoint::resid_post(14);
    let sae = random_sae(model.config().d_model, 1200, point);
    (model, sae, point)
}

#[test]
fn the_algebra_holds_on_the_default_model() {
    let (model, sae, point) = default_model(Compute::F32);
    let site = analyzer::SaeSite { sae: &sae, hook_point: point, sink_norm: 2000.0 };
    let hook = |texts: &[&str]| Interventions::new(&model, &[site.into()], &edits(texts)).unwrap();
    let prompt = model.tokenizer().prompt(SpecialToken::None, "The old lighthouse keeper had seen many").unwrap();
    let logits = |hook: &mut dyn Hook| {
        let resid = model.resid_final(&Batch::of([&prompt]), None, hook).unwrap();
        model.unembed(&resid).unwrap().to_vec2::<f32>().unwrap()
    };
    let plain = logits(&mut NoHook);
    // A clamped latent, read again, has its value up to the interference that is reported.
    let mut watched = Watched { hook: hook(&["clamp 7=40"]), seen: vec![], edited: vec![] };
    assert_ne!(logits(&mut watched), plain);
    let again = sae.encode(&watched.edited).unwrap();
    let off = (1..prompt.len()).map(|row| (again.get(row, 7) - 40.0).abs()).fold(0.0, f32::max);
    let reported = shift(&model, hook(&["clamp 7=40"]), &prompt, prompt.len(), 3).unwrap().latents[0];
    assert!(off > 0.0 && reported.interference == Some(off), "{off} {reported:?}");
    // What changes nothing changes no bit of any logit: clamping to the present value, and suppressing a silent latent.
    let mut read = Watched { hook: hook(&["add 7=1"]), seen: vec![], edited: vec![] };
    logits(&mut read);
    let row = &read.edited[3 * sae.d_in()..][..sae.d_in()];
    let before: Vec<f32> = row.iter().zip(sae.decoder_row(7)).map(|(x, d)| x - d).collect();
    let acts = sae.encode(&before).unwrap();
    let silent = (0..1200).filter(|latent| !acts.row(0).0.contains(latent)).take(20);
    let mut n = 0;
    for latent in silent {
        let mut suppressed = hook(&[&format!(r#"{{"kind": "suppress", "latent": {latent}, "at": "3..4"}}"#)]);
        let found = logits(&mut suppressed);
        n += usize::from(suppressed.counts()[0].changed == 0);
        assert!(found == plain || suppressed.counts()[0].changed > 0, "latent {latent}");
    }
    assert!(n > 15, "rounding of the row above wakes hardly any latent: {n}");
}

#[test]
fn many_texts_of_the_default_model_are_what_each_is_alone() {
    let (model, sae, point) = default_model(Compute::Int8);
    let site = analyzer::SaeSite { sae: &sae, hook_point: point, sink_norm: 2000.0 };
    let hook = || Interventions::new(&model, &[site.into()], &edits(&["clamp 7=60", "scale 3=2"])).unwrap();
    let texts = ["The sea", "When the old man came home, he", "def main():", "In the year 1850 the"];
    let prompt = |text: &&str| model.tokenizer().prompt(SpecialToken::None, text).unwrap();
    let prompts: Vec<Vec<u32>> = texts.iter().map(prompt).collect();
    let config = GenerateConfig { max_new_tokens: 12, ..GenerateConfig::default() };
    let together = generate(&model, &prompts, &config, &mut hook(), &Silent).unwrap();
    for (prompt, together) in prompts.iter().zip(&together) {
        let mut alone = hook();
        assert_eq!(&generate(&model, &[prompt], &config, &mut alone, &Silent).unwrap().remove(0), together);
        let edited = (prompt.len() - 1 + together.len() - 1) as u64;
        assert_eq!(alone.counts()[0], EditCount { in_scope: edited, changed: edited });
    }
    let plain = generate(&model, &prompts, &config, &mut NoHook, &Silent).unwrap();
    assert!(plain.iter().zip(&together).all(|(plain, steered)| plain != steered), "60 is enough to change every text");
}
