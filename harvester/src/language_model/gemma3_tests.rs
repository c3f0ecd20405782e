//! A real model whose weights cannot be in the repository: Gemma 3 270M against Hugging Face transformers with the same
//! dequantized weights, and its SentencePiece vocabulary against llama.cpp. `just interop` downloads the file and runs
//! this; `tests/fixtures/reference/make_gemma3.py` made the references.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use crate::{
    Batch, HookPoint, KvCache, NoHook, TextTokenizer,
    model::{Capture, Checkpoint, Transformer},
};

/// As for SmolLM2 (`smollm2_tests.rs`).
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct References {
    texts: Vec<Text>,
    tokenized: Vec<Tokenized>,
}

#[derive(Deserialize)]
struct Text {
    name: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Tokenized {
    text: String,
    ids: Vec<u32>,
}

/// The model file. If it is not set, prints how to get it.
fn model_file() -> Option<PathBuf> {
    let file = std::env::var_os("REFRACT_GEMMA3_GGUF").map(PathBuf::from);
    if file.is_none() {
        eprintln!("skipped: set REFRACT_GEMMA3_GGUF to gemma-3-270m-q4_k_m.gguf; `just interop` downloads it");
    }
    file
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/reference").join(name)
}

fn references() -> References {
    serde_json::from_str(&std::fs::read_to_string(fixture("gemma3.json")).unwrap()).unwrap()
}

/// Largest error of a row relative to that row's norm, over `[rows, width]`.
fn row_error(got: &Tensor, want: &Tensor) -> f64 {
    let norm = |x: &Tensor| {
        x.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
    };
    let error = |i| {
        let (got, want) = (got.get(i).unwrap(), want.get(i).unwrap());
        norm(&(got - &want).unwrap()) / norm(&want)
    };
    (0..want.dim(0).unwrap()).map(error).fold(0.0, f64::max)
}

#[test]
fn residual_stream_and_logits_agree_with_transformers() {
    let Some(file) = model_file() else { return };
    let model = Transformer::load(&Checkpoint::open(&file).unwrap(), &Device::Cpu).unwrap();
    let tensors: HashMap<_, _> = candle_core::safetensors::load(fixture("gemma3.safetensors"), &Device::Cpu).unwrap();
    let mut worst = [0f64; 2];
    for Text { name, ids } in references().texts {
        let layers = (0..model.config().n_layers).map(HookPoint::resid_post);
        let points: Vec<_> = [HookPoint::Embed].into_iter().chain(layers).collect();
        let mut capture = Capture::new(points.clone());
        let resid = model.resid_final(&Batch::of([&ids]), None, &mut capture).unwrap();
        let positions = tensors[&format!("{name}.positions")].to_dtype(DType::U32).unwrap();
        for (i, point) in points.into_iter().enumerate() {
            let got = capture.take(point).unwrap().index_select(&positions, 0).unwrap();
            let error = row_error(&got, &tensors[&format!("{name}.resid")].get(i).unwrap());
            assert!(error < TOLERANCE, "{name} {point}: {error:.1e}");
            worst[0] = worst[0].max(error);
        }
        let last = model.head().unembed(&resid.narrow(0, ids.len() - 1, 1).unwrap()).unwrap().flatten_all().unwrap();
        let every_64th: Vec<f32> = last.to_vec1::<f32>().unwrap().into_iter().step_by(64).collect();
        let got = Tensor::from_vec(every_64th, (1, ()), &Device::Cpu).unwrap();
        let error = row_error(&got, &tensors[&format!("{name}.logits_last")].unsqueeze(0).unwrap());
        assert!(error < TOLERANCE, "{name} logits: {error:.1e}");
        worst[1] = worst[1].max(error);
        assert_cached_continuation_is_the_same(&model, &ids, &resid, &name);
    }
    eprintln!("largest relative error of a row: residual stream {:.1e}, logits {:.1e}", worst[0], worst[1]);
}

/// The last tokens one by one, after a cache of the others; in the long text the cache is longer than the window.
fn assert_cached_continuation_is_the_same(model: &Transformer, ids: &[u32], whole: &Tensor, name: &str) {
    let (first, rest) = ids.split_at(ids.len() - 3);
    let mut cache = KvCache::new(model.config());
    let sequence = cache.add(ids.len()).unwrap();
    let mut add = |tokens: &[u32]| {
        let mut batch = Batch::default();
        batch.push(sequence, tokens);
        model.resid_final(&batch, Some(&mut cache), &mut NoHook).unwrap()
    };
    add(first);
    for (place, id) in (first.len()..).zip(rest) {
        let error = row_error(&add(&[*id]), &whole.narrow(0, place, 1).unwrap());
        assert!(error < 1e-5, "{name}, token {place} from a cache: {error:.1e}");
    }
}

#[test]
fn token_ids_equal_llama_cpp() {
    let Some(file) = model_file() else { return };
    let started = std::time::Instant::now();
    let tokenizer = TextTokenizer::open(&file).unwrap();
    eprintln!("{} tokens loaded in {:.2} s", tokenizer.d_vocab(), started.elapsed().as_secs_f64());
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(2), Some(1), true));
    let tokenized = references().tokenized;
    assert!(tokenized.len() >= 16);
    for Tokenized { text, ids } in tokenized {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids), text.replace('▁', " "), "{text:?}");
    }
}
