//! Every family against Hugging Face transformers: a tiny random checkpoint each, every hook point and the logits.
//! `tests/fixtures/tiny/make_tiny.py` made the checkpoints and the references.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashMap, path::PathBuf};

use candle_core::{DType, Device, Tensor};
use harvester::{Capture, Checkpoint, Hook, HookPoint, KvCache, NoHook, Result, Site, Transformer};

/// Both sides compute in f32; products of this depth differ by a few units in the last place, 1e-6 relative.
const TOLERANCE: f64 = 1e-5;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny").join(name)
}

fn load(name: &str) -> (Transformer, HashMap<String, Tensor>, Tensor) {
    let checkpoint = Checkpoint::open(&folder(name)).unwrap();
    let model = Transformer::load(&checkpoint, &Device::Cpu).unwrap();
    let reference = candle_core::safetensors::load(folder(name).join("reference.safetensors"), &Device::Cpu).unwrap();
    let tokens = reference["input_ids"].to_dtype(DType::U32).unwrap();
    (model, reference, tokens)
}

/// Norm of the difference over the norm of what is expected.
fn relative_error(got: &Tensor, want: &Tensor) -> f64 {
    let norm = |x: &Tensor| {
        x.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
    };
    let got = got.reshape(want.shape()).unwrap();
    norm(&(got - want).unwrap()) / norm(want)
}

fn every_point(model: &Transformer) -> Vec<HookPoint> {
    let blocks = (0..model.config().n_layers).flat_map(|layer| Site::ALL.map(|site| HookPoint::Block { layer, site }));
    [HookPoint::Embed].into_iter().chain(blocks).filter(|point| point.check(model.config()).is_ok()).collect()
}

fn assert_family_agrees(name: &str) {
    let (model, reference, tokens) = load(name);
    let points = every_point(&model);
    let mut capture = Capture::new(points.clone());
    let resid = model.resid_final(&tokens, None, &mut capture).unwrap();
    for point in points {
        let want = reference.get(&point.to_string()).unwrap_or_else(|| panic!("{name}: no reference for {point}"));
        let error = relative_error(&capture.take(point).unwrap(), want);
        assert!(error < TOLERANCE, "{name} {point}: relative error {error:.1e}");
    }
    let error = relative_error(&model.unembed(&resid).unwrap(), &reference["logits"]);
    assert!(error < TOLERANCE, "{name} logits: relative error {error:.1e}");
    let known = |key: &&String| key.starts_with("blocks.") || key.starts_with("hook_embed");
    assert_eq!(reference.keys().filter(known).count(), every_point(&model).len(), "{name}: unread references");
}

#[test]
fn llama_agrees_with_transformers() {
    assert_family_agrees("llama");
}

#[test]
fn llama_untied_in_bf16_shards_agrees_with_transformers() {
    assert_family_agrees("llama_untied");
}

#[test]
fn gpt2_agrees_with_transformers() {
    assert_family_agrees("gpt2");
}

#[test]
fn gpt_neox_agrees_with_transformers() {
    assert_family_agrees("gpt_neox");
}

#[test]
fn sequential_gpt_neox_agrees_with_transformers() {
    assert_family_agrees("gpt_neox_sequential");
}

const FAMILIES: [&str; 3] = ["llama", "gpt2", "gpt_neox"];

fn bits(x: &Tensor) -> Vec<u32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Returns every activation unchanged.
struct Identity;

impl Hook for Identity {
    fn wants(&self, _point: HookPoint) -> bool {
        true
    }

    fn apply(&mut self, _point: HookPoint, activation: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(activation.copy()?))
    }
}

#[test]
fn identity_hook_changes_no_bit() {
    for name in FAMILIES {
        let (model, _, tokens) = load(name);
        let plain = model.resid_final(&tokens, None, &mut NoHook).unwrap();
        let hooked = model.resid_final(&tokens, None, &mut Identity).unwrap();
        assert_eq!(bits(&plain), bits(&hooked), "{name}");
    }
}

#[test]
fn a_replaced_activation_reaches_the_rest_of_the_pass() {
    /// Zeroes the residual stream after block 0.
    struct Zero;
    impl Hook for Zero {
        fn wants(&self, point: HookPoint) -> bool {
            point == HookPoint::resid_post(0)
        }
        fn apply(&mut self, _point: HookPoint, activation: &Tensor) -> Result<Option<Tensor>> {
            Ok(Some(activation.zeros_like()?))
        }
    }
    let (model, _, tokens) = load("llama");
    let zeroed = model.resid_final(&tokens, None, &mut Zero).unwrap();
    // With nothing in the stream, every position of a llama (no biases) carries the same: nothing.
    assert!(bits(&zeroed).into_iter().all(|bits| f32::from_bits(bits) == 0.0));
}

#[test]
fn a_batch_row_is_what_it_is_alone() {
    for name in FAMILIES {
        let (model, _, tokens) = load(name);
        let together = model.resid_final(&tokens, None, &mut NoHook).unwrap();
        for row in 0..2 {
            let alone = model.resid_final(&tokens.narrow(0, row, 1).unwrap(), None, &mut NoHook).unwrap();
            let error = relative_error(&alone, &together.narrow(0, row, 1).unwrap());
            assert!(error < 1e-6, "{name} row {row}: {error:.1e}");
        }
    }
}

#[test]
fn cached_continuation_equals_the_whole_text() {
    for name in FAMILIES {
        let (model, _, tokens) = load(name);
        let whole = model.resid_final(&tokens, None, &mut NoHook).unwrap();
        let mut cache = KvCache::new(model.config(), 2, 17, &Device::Cpu).unwrap();
        let mut parts = vec![];
        for (start, len) in [(0, 9), (9, 1), (10, 1), (11, 6)] {
            let part = tokens.narrow(1, start, len).unwrap().contiguous().unwrap();
            parts.push(model.resid_final(&part, Some(&mut cache), &mut NoHook).unwrap());
        }
        let error = relative_error(&Tensor::cat(&parts, 1).unwrap(), &whole);
        assert!(error < 1e-6, "{name}: {error:.1e}");
        assert!(model.resid_final(&tokens, Some(&mut cache), &mut NoHook).is_err(), "{name}: a full cache took more");
    }
}

#[test]
fn a_pass_ends_after_the_last_point_wanted() {
    let (model, _, tokens) = load("llama");
    let mut capture = Capture::new(vec![HookPoint::resid_post(0)]);
    assert_eq!(model.n_layers_run(&capture), 1);
    model.run(&tokens, &mut capture).unwrap();
    assert!(capture.take(HookPoint::resid_post(0)).is_some());
    assert!(model.config().flop_per_token(1, 17) < model.config().flop_per_token(3, 17));
}

#[test]
fn points_that_a_model_lacks_are_named() {
    let (model, ..) = load("gpt_neox");
    let past = HookPoint::resid_post(3).check(model.config()).unwrap_err().to_string();
    assert!(past.contains("0 to 2") && past.contains("blocks.3.hook_resid_post"), "{past}");
    let mid = HookPoint::Block { layer: 0, site: Site::ResidMid };
    assert!(mid.check(model.config()).unwrap_err().to_string().contains("parallel"));
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let (model, ..) = load("llama");
    let tokens = Tensor::new(&[[1u32, 300]], &Device::Cpu).unwrap();
    let error = model.resid_final(&tokens, None, &mut NoHook).unwrap_err().to_string();
    assert!(error.contains("300"), "{error}");
}
