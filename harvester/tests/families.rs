//! Every family against Hugging Face transformers: one tiny random checkpoint per family, every hook point and the
//! logits.
//! `tests/fixtures/tiny/make_tiny.py` made the checkpoints and the references.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashMap, path::PathBuf};

use candle_core::{DType, Device, Tensor};
use harvester::{Capture, Checkpoint, Compute, Hook, HookPoint, KvCache, NoHook, Result, Site, Transformer};

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

/// Norm of the difference over the norm of the expected tensor.
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
    let error = relative_error(&model.head().unembed(&resid).unwrap(), &reference["logits"]);
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
fn llama_with_scaled_rope_agrees_with_transformers() {
    assert_family_agrees("llama3");
}

#[test]
fn mistral_with_a_window_in_f16_agrees_with_transformers() {
    assert_family_agrees("mistral");
}

#[test]
fn qwen2_with_a_window_above_agrees_with_transformers() {
    assert_family_agrees("qwen2");
}

#[test]
fn qwen3_agrees_with_transformers() {
    assert_family_agrees("qwen3");
}

#[test]
fn gemma_agrees_with_transformers() {
    assert_family_agrees("gemma");
}

#[test]
fn gemma2_agrees_with_transformers() {
    assert_family_agrees("gemma2");
}

#[test]
fn gemma3_agrees_with_transformers() {
    assert_family_agrees("gemma3");
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

#[test]
fn phi3_with_partial_rotation_agrees_with_transformers() {
    assert_family_agrees("phi3");
}

#[test]
fn phi3_with_longrope_agrees_with_transformers() {
    assert_family_agrees("phi3_long");
}

#[test]
fn olmo2_agrees_with_transformers() {
    assert_family_agrees("olmo2");
}

const FAMILIES: [&str; 15] = [
    "llama",
    "llama_untied",
    "llama3",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt_neox",
    "gpt_neox_sequential",
    "phi3",
    "phi3_long",
    "olmo2",
];

fn logits(model: &Transformer, tokens: &Tensor) -> Tensor {
    model.head().unembed(&model.resid_final(&tokens.contiguous().unwrap(), None, &mut NoHook).unwrap()).unwrap()
}

#[test]
fn a_short_text_agrees_with_transformers() {
    for name in FAMILIES {
        let (model, reference, tokens) = load(name);
        let want = &reference["short.logits"];
        let got = logits(&model, &tokens.narrow(1, 0, want.dim(1).unwrap()).unwrap());
        let error = relative_error(&got, want);
        assert!(error < TOLERANCE, "{name}: relative error {error:.1e}");
    }
}

/// transformers ran both rows in one batch, with the shorter one padded on the left and masked; here each row runs
/// alone.
#[test]
fn rows_agree_with_a_padded_batch_of_transformers() {
    for name in FAMILIES {
        let (model, reference, tokens) = load(name);
        let lengths = reference["padded.lengths"].to_vec1::<i64>().unwrap();
        assert!(lengths[1] < lengths[0], "{name}: nothing is padded");
        for (row, len) in lengths.into_iter().enumerate() {
            let len = len as usize;
            let got = logits(&model, &tokens.narrow(0, row, 1).unwrap().narrow(1, 0, len).unwrap());
            let want = reference["padded.logits"].get(row).unwrap();
            let want = want.narrow(0, want.dim(0).unwrap() - len, len).unwrap();
            let error = relative_error(&got, &want);
            assert!(error < TOLERANCE, "{name} row {row}: relative error {error:.1e}");
        }
    }
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn the_head_by_itself_is_the_models() {
    for name in FAMILIES {
        let (model, reference, tokens) = load(name);
        let head = Checkpoint::open(&folder(name)).unwrap().load_head(&Device::Cpu).unwrap();
        let resid = model.resid_final(&tokens, None, &mut NoHook).unwrap();
        let logits = head.unembed(&resid).unwrap();
        assert_eq!(bits(&logits), bits(&model.head().unembed(&resid).unwrap()), "{name}");
        assert!(relative_error(&logits, &reference["logits"]) < TOLERANCE, "{name}");
        let (rows, last) = (head.w_unembed(&[3, 0]).unwrap(), model.config().d_vocab as u32 - 1);
        assert_eq!(rows.dims2().unwrap(), (2, model.config().d_model), "{name}");
        assert!(head.w_unembed(&[last]).is_ok() && head.w_unembed(&[last + 1]).is_err(), "{name}");
    }
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

/// Stacks the activation at one point on itself.
struct Twice(HookPoint);

impl Hook for Twice {
    fn wants(&self, point: HookPoint) -> bool {
        point == self.0
    }

    fn apply(&mut self, _point: HookPoint, activation: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(Tensor::cat(&[activation, activation], 0)?))
    }
}

#[test]
fn a_batch_may_grow_at_every_point() {
    for name in FAMILIES {
        let (model, _, tokens) = load(name);
        let plain = bits(&model.resid_final(&tokens, None, &mut NoHook).unwrap());
        let sites = Site::ALL.into_iter().map(|site| HookPoint::Block { layer: 1, site });
        for point in sites.chain([HookPoint::Embed]).filter(|point| point.check(model.config()).is_ok()) {
            let twice = bits(&model.resid_final(&tokens, None, &mut Twice(point)).unwrap());
            assert!(twice == [&plain[..], &plain[..]].concat(), "{name} {point}");
        }
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
    // With a zero residual stream, every position of a llama (no biases) stays zero.
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
        let pos = tokens.dim(1).unwrap();
        let whole = model.resid_final(&tokens, None, &mut NoHook).unwrap();
        let mut cache = KvCache::new(model.config(), 2, pos, &Device::Cpu).unwrap();
        let mut parts = vec![];
        for (start, len) in [(0, 9), (9, 1), (10, 1), (11, pos - 11)] {
            let part = tokens.narrow(1, start, len).unwrap().contiguous().unwrap();
            parts.push(model.resid_final(&part, Some(&mut cache), &mut NoHook).unwrap());
        }
        let error = relative_error(&Tensor::cat(&parts, 1).unwrap(), &whole);
        assert!(error < 2e-6, "{name}: {error:.1e}");
        assert!(model.resid_final(&tokens, Some(&mut cache), &mut NoHook).is_err(), "{name}: a full cache took more");
    }
}

/// A window wider than the text changes nothing; the windows of the fixtures do.
#[test]
fn windows_are_felt() {
    for name in ["mistral", "qwen2", "gemma2", "gemma3", "phi3"] {
        let (model, _, tokens) = load(name);
        let window = (0..3).find_map(|layer| model.config().window(layer)).unwrap();
        let pos = tokens.dim(1).unwrap();
        assert!(window < pos, "{name}");
        let mut other = tokens.to_vec2::<u32>().unwrap();
        other.iter_mut().for_each(|row| row[0] = (row[0] + 1) % 100);
        let other = Tensor::new(other, &Device::Cpu).unwrap();
        // The first token differs. Rows beyond the window stay the same if block 0 is local; in Qwen 2 it is global.
        let captures = [&tokens, &other].map(|tokens| {
            let mut capture = Capture::new(vec![HookPoint::resid_post(0)]);
            model.run(tokens, &mut capture).unwrap();
            capture.take(HookPoint::resid_post(0)).unwrap().narrow(1, window, pos - window).unwrap()
        });
        let same = bits(&captures[0]) == bits(&captures[1]);
        assert_eq!(same, model.config().window(0).is_some(), "{name}");
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
    let (model, ..) = load("olmo2");
    let normalized = HookPoint::Block { layer: 0, site: Site::Ln1Normalized };
    assert!(normalized.check(model.config()).unwrap_err().to_string().contains("olmo2 has no norms before"));
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let (model, ..) = load("llama");
    let tokens = Tensor::new(&[[1u32, 300]], &Device::Cpu).unwrap();
    let error = model.resid_final(&tokens, None, &mut NoHook).unwrap_err().to_string();
    assert!(error.contains("300"), "{error}");
}

#[test]
fn eight_bits_stay_near_f32_and_a_batch_row_is_what_it_is_alone() {
    for name in ["llama", "gpt2", "gpt_neox"] {
        let (exact, _, tokens) = load(name);
        let checkpoint = Checkpoint::open(&folder(name)).unwrap();
        let model = Transformer::load_for(&checkpoint, &Device::Cpu, Compute::Int8).unwrap();
        let run = |model: &Transformer, tokens: &Tensor| model.resid_final(tokens, None, &mut NoHook).unwrap();
        let resid = run(&model, &tokens);
        let error = relative_error(&resid, &run(&exact, &tokens));
        // Each token goes through about six products, and each is off by half a step of 1/127 of its group's largest
        // value.
        assert!(error > 1e-4 && error < 3e-2, "{name}: {error:.1e}");
        for row in 0..tokens.dim(0).unwrap() {
            let alone = run(&model, &tokens.narrow(0, row, 1).unwrap().contiguous().unwrap());
            let error = relative_error(&resid.narrow(0, row, 1).unwrap(), &alone);
            // Attention's products add in another order for other sizes; a rounded input may then fall to the next
            // step.
            assert!(error < 2e-3, "{name}, row {row}: {error:.1e}");
        }
    }
}
