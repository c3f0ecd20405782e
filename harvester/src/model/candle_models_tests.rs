//! candle-transformers as a second oracle for the families that it has: it was written by others and shares neither our
//! kernels nor our loaders. It has neither GPT-2 nor GPT-NeoX. It reads windows and scaled rotary positions differently
//! or not at all: those are switched off here, and tested against transformers in `families_tests.rs`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{gemma, gemma2, gemma3, llama, mistral, olmo2, phi3, qwen2, qwen3};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    Batch, NoHook,
    model::{Checkpoint, Transformer},
};

/// As in `families_tests.rs`: f32 on both sides.
const TOLERANCE: f64 = 1e-5;

/// A tiny checkpoint whose `config.json` is in the older form that candle reads.
fn plain_copy(name: &str, changes: &Value) -> tempfile::TempDir {
    let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny").join(name);
    let copy = tempfile::tempdir().unwrap();
    fs::copy(fixture.join("model.safetensors"), copy.path().join("model.safetensors")).unwrap();
    let text = fs::read_to_string(fixture.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let keys = config.as_object_mut().unwrap();
    keys.retain(|key, _| !["rope_parameters", "rope_scaling", "layer_types"].contains(&key.as_str()));
    keys.insert("rope_theta".to_owned(), json!(700.0));
    keys.extend(changes.as_object().unwrap().clone());
    fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    copy
}

fn config<T: DeserializeOwned>(folder: &Path) -> T {
    serde_json::from_str(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
}

fn weights(folder: &Path) -> VarBuilder<'static> {
    let tensors = candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap();
    let widened: HashMap<_, _> = tensors.into_iter().map(|(name, x)| (name, x.to_dtype(DType::F32).unwrap())).collect();
    VarBuilder::from_tensors(widened, DType::F32, &Device::Cpu)
}

fn tokens() -> Tensor {
    Tensor::new(&[[31u32, 41, 59, 26, 53, 58, 97, 93, 23, 84, 62]], &Device::Cpu).unwrap()
}

/// `oracle`: candle's logits of the last position, `[1, 1, d_vocab]` or `[1, d_vocab]`.
fn assert_agrees(name: &str, changes: &Value, oracle: impl Fn(&Path) -> candle_core::Result<Tensor>) {
    let copy = plain_copy(name, changes);
    let model = Transformer::load(&Checkpoint::open(copy.path()).unwrap(), &Device::Cpu).unwrap();
    let batch = Batch::of(tokens().to_vec2::<u32>().unwrap());
    let resid = model.resid_final(&batch, None, &mut NoHook).unwrap();
    let last = resid.narrow(0, batch.n_rows() - 1, 1).unwrap();
    let got = model.head().unembed(&last).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let want = oracle(copy.path()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(got.len(), want.len(), "{name}");
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(&want).map(|(a, b)| a - b)) / norm(&mut want.iter().copied());
    assert!(error < TOLERANCE, "{name}: {error:.1e}");
}

#[test]
fn llama_agrees_with_candle() {
    assert_agrees("llama", &json!({}), |folder| {
        let config = config::<llama::LlamaConfig>(folder).into_config(false);
        let mut cache = llama::Cache::new(false, DType::F32, &config, &Device::Cpu)?;
        llama::Llama::load(weights(folder), &config)?.forward(&tokens(), 0, &mut cache)
    });
}

#[test]
fn mistral_agrees_with_candle() {
    assert_agrees("mistral", &json!({"sliding_window": null}), |folder| {
        mistral::Model::new(&config(folder), weights(folder))?.forward(&tokens(), 0)
    });
}

#[test]
fn qwen2_and_3_agree_with_candle() {
    let global = json!({"use_sliding_window": false, "sliding_window": 64, "max_window_layers": 3});
    assert_agrees("qwen2", &global, |folder| {
        qwen2::ModelForCausalLM::new(&config(folder), weights(folder))?.forward(&tokens(), 0)
    });
    assert_agrees("qwen3", &global, |folder| {
        qwen3::ModelForCausalLM::new(&config(folder), weights(folder))?.forward(&tokens(), 0)
    });
}

#[test]
fn gemma_1_to_3_agree_with_candle() {
    assert_agrees("gemma", &json!({}), |folder| {
        gemma::Model::new(false, &config(folder), weights(folder))?.forward(&tokens(), 0)
    });
    // candle scales scores by 1 / sqrt(head_dim) and ignores query_pre_attn_scalar.
    let global = json!({"sliding_window": 64, "query_pre_attn_scalar": 12});
    assert_agrees("gemma2", &global, |folder| {
        gemma2::Model::new(false, &config(folder), weights(folder))?.forward(&tokens(), 0)
    });
    let global = json!({
        "sliding_window": 64, "query_pre_attn_scalar": 12, "rope_local_base_freq": 300.0, "sliding_window_pattern": 3,
    });
    assert_agrees("gemma3", &global, |folder| {
        // One token at a time: with several key heads, its cache refuses several tokens at once.
        let mut model = gemma3::Model::new(false, &config(folder), weights(folder))?;
        let one = |model: &mut gemma3::Model, i| model.forward(&tokens().narrow(1, i, 1)?, i);
        (0..10).try_for_each(|i| one(&mut model, i).map(drop))?;
        one(&mut model, 10)
    });
}

#[test]
fn phi3_agrees_with_candle() {
    let global = json!({"sliding_window": null, "partial_rotary_factor": 0.67});
    assert_agrees("phi3", &global, |folder| phi3::Model::new(&config(folder), weights(folder))?.forward(&tokens(), 0));
}

#[test]
fn olmo2_agrees_with_candle() {
    assert_agrees("olmo2", &json!({}), |folder| {
        olmo2::Model::new(&config(folder), weights(folder))?.forward(&tokens(), 0)
    });
}
