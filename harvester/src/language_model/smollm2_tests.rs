//! The default model against Hugging Face transformers with the same dequantized weights: token ids, the residual
//! stream after every layer, logits, greedy text. `tests/fixtures/reference/make_smollm2.py` made the references.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashMap, path::PathBuf, sync::LazyLock};

use candle_core::{D, DType, Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use serde::Deserialize;

use crate::{
    Batch, ChatDate, Compute, HookPoint, KvCache, ModelSource, NoHook, Silent, TextTokenizer,
    model::{Capture, Checkpoint, Transformer},
    text::ChatMessage,
};

/// transformers in f32 itself differs from transformers in f64 by up to 7e-6 (`fixtures/README.md`).
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct References {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    name: String,
    text: String,
    ids: Vec<u32>,
    messages: Option<Vec<ChatMessage>>,
    continuation: Option<Continuation>,
}

#[derive(Deserialize)]
struct Continuation {
    ids: Vec<u32>,
}

struct Fixture {
    path: PathBuf,
    model: Transformer,
    tokenizer: TextTokenizer,
    prompts: Vec<Prompt>,
    tensors: HashMap<String, Tensor>,
}

/// Loaded once for all tests: half a gigabyte.
static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/reference");
    let path = ModelSource::Default.resolve(&Silent).unwrap().path;
    let model = Transformer::load(&Checkpoint::open(&path).unwrap(), &Device::Cpu).unwrap();
    let json = std::fs::read_to_string(folder.join("smollm2.json")).unwrap();
    Fixture {
        model,
        tokenizer: TextTokenizer::open(&path).unwrap(),
        prompts: serde_json::from_str::<References>(&json).unwrap().prompts,
        tensors: candle_core::safetensors::load(folder.join("smollm2.safetensors"), &Device::Cpu).unwrap(),
        path,
    }
});

fn norm(x: &Tensor) -> f64 {
    x.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

/// Largest error of a row relative to that row's norm, over `[rows, width]`.
fn row_error(got: &Tensor, want: &Tensor) -> f64 {
    let rows = want.dim(0).unwrap();
    let error = |i| {
        let (got, want) = (got.get(i).unwrap(), want.get(i).unwrap());
        norm(&(got - &want).unwrap()) / norm(&want)
    };
    (0..rows).map(error).fold(0.0, f64::max)
}

#[test]
fn token_ids_equal_transformers() {
    for prompt in &FIXTURE.prompts {
        assert_eq!(FIXTURE.tokenizer.encode(&prompt.text).unwrap(), prompt.ids, "{}", prompt.name);
        if let Some(messages) = &prompt.messages {
            assert_eq!(
                FIXTURE.tokenizer.render_chat(ChatDate::default(), messages, true).unwrap(),
                prompt.text,
                "{}",
                prompt.name
            );
        }
    }
    assert_eq!(FIXTURE.prompts.len(), 8);
}

#[test]
fn residual_stream_of_every_layer_and_logits_agree_with_transformers() {
    let layers = FIXTURE.model.config().n_layers;
    for Prompt { name, ids, .. } in &FIXTURE.prompts {
        let points: Vec<_> = [HookPoint::Embed].into_iter().chain((0..layers).map(HookPoint::resid_post)).collect();
        let mut capture = Capture::new(points.clone());
        let resid = FIXTURE.model.resid_final(&Batch::of([ids]), None, &mut capture).unwrap();
        let positions = &FIXTURE.tensors[&format!("{name}.positions")].to_dtype(DType::U32).unwrap();
        let want = &FIXTURE.tensors[&format!("{name}.resid")]; // [31, positions, d_model]
        for (i, point) in points.into_iter().enumerate() {
            let got = capture.take(point).unwrap().index_select(positions, 0).unwrap();
            let error = row_error(&got, &want.get(i).unwrap());
            assert!(error < TOLERANCE, "{name} {point}: {error:.1e}");
        }
        let logits = FIXTURE.model.head().unembed(&resid).unwrap(); // [pos, d_vocab]
        let want = FIXTURE.tensors[&format!("{name}.logits_last")].unsqueeze(0).unwrap();
        let error = row_error(&logits.narrow(0, ids.len() - 1, 1).unwrap(), &want);
        assert!(error < TOLERANCE, "{name} logits: {error:.1e}");
        let log_probs = candle_nn::ops::log_softmax(&logits.to_dtype(DType::F64).unwrap(), D::Minus1).unwrap();
        let targets = Tensor::from_slice(&ids[1..], (ids.len() - 1, 1), &Device::Cpu).unwrap();
        let chosen = log_probs.narrow(0, 0, ids.len() - 1).unwrap().gather(&targets, 1).unwrap();
        let ce = -chosen.mean_all().unwrap().to_scalar::<f64>().unwrap();
        let want = f64::from(FIXTURE.tensors[&format!("{name}.ce")].to_scalar::<f32>().unwrap());
        assert!((ce - want).abs() < 1e-4, "{name}: cross-entropy {ce}, not {want}");
    }
}

#[test]
fn cached_greedy_text_equals_transformers() {
    let with_text = FIXTURE.prompts.iter().filter_map(|prompt| Some((prompt, prompt.continuation.as_ref()?)));
    let mut checked = 0;
    for (prompt, continuation) in with_text {
        let mut cache = KvCache::new(FIXTURE.model.config());
        let sequence = cache.add(200).unwrap();
        let mut input = prompt.ids.clone();
        let mut written: Vec<u32> = vec![];
        while written.len() < continuation.ids.len() {
            let mut batch = Batch::default();
            batch.push(sequence, &input);
            let resid = FIXTURE.model.resid_final(&batch, Some(&mut cache), &mut NoHook).unwrap();
            let last = resid.narrow(0, input.len() - 1, 1).unwrap();
            let next = FIXTURE.model.head().unembed(&last).unwrap().flatten_all().unwrap().argmax(0).unwrap();
            input = vec![next.to_scalar::<u32>().unwrap()];
            written.extend(&input);
        }
        assert_eq!(written, continuation.ids, "{}", prompt.name);
        checked += 1;
    }
    assert_eq!(checked, 2);
}

/// A second oracle that shares only candle's tensors with our code: its own GGUF loader, unpermuted weights, another
/// rotary layout. It multiplies quantized weights with quantized activations, hence the looser bound.
#[test]
fn logits_agree_with_candle_transformers() {
    let mut file = std::fs::File::open(&FIXTURE.path).unwrap();
    let content = candle_core::quantized::gguf_file::Content::read(&mut file).unwrap();
    let mut oracle = ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
    let ids = &FIXTURE.prompts[0].ids;
    let ids_of_batch = Tensor::from_slice(ids, (1, ids.len()), &Device::Cpu).unwrap();
    let want = oracle.forward(&ids_of_batch, 0).unwrap(); // [1, d_vocab]
    let resid = FIXTURE.model.resid_final(&Batch::of([ids]), None, &mut NoHook).unwrap();
    let got = FIXTURE.model.head().unembed(&resid.narrow(0, ids.len() - 1, 1).unwrap()).unwrap();
    let error = row_error(&got, &want);
    assert!(error < 2e-2, "{error:.1e}");
}

/// Sixteen texts of different lengths, written side by side, get the tokens and the logits that each gets alone, to the
/// bit; and those of a pass over the whole text.
#[test]
fn texts_written_together_are_what_each_is_alone() {
    if !Compute::F32.has_own_products() {
        return; // the order of a sum depends on the number of rows
    }
    let (model, new) = (&FIXTURE.model, 4);
    let ids = &FIXTURE.prompts.iter().max_by_key(|prompt| prompt.ids.len()).unwrap().ids;
    let prompts: Vec<&[u32]> = (0..16).map(|i| &ids[i..][..1 + i * 11 % 40]).collect();
    // The logits after each of the new tokens but the last, `[texts][new][d_vocab]`.
    let write = |prompts: &[&[u32]]| -> Vec<Vec<Vec<f32>>> {
        let mut cache = KvCache::new(model.config());
        let numbers: Vec<usize> = prompts.iter().map(|prompt| cache.add(prompt.len() + new).unwrap()).collect();
        let mut unseen: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.to_vec()).collect();
        let mut written = vec![vec![]; prompts.len()];
        for _ in 0..new {
            let mut batch = Batch::default();
            numbers.iter().zip(&unseen).for_each(|(number, unseen)| batch.push(*number, unseen));
            let resid = model.resid_final(&batch, Some(&mut cache), &mut NoHook).unwrap();
            let last = Tensor::new(batch.last_rows(), &Device::Cpu).unwrap();
            let logits = model.head().unembed(&resid.index_select(&last, 0).unwrap()).unwrap();
            let next = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap();
            for (row, written) in written.iter_mut().enumerate() {
                written.push(logits.get(row).unwrap().to_vec1::<f32>().unwrap());
            }
            unseen = next.into_iter().map(|token| vec![token]).collect();
        }
        written
    };
    let together = write(&prompts);
    for (prompt, together) in prompts.iter().zip(together) {
        assert!(write(&[prompt]).remove(0) == together, "{} tokens", prompt.len());
        let likeliest = |logits: &[f32]| {
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            logits.iter().position(|logit| *logit == largest).unwrap() as u32
        };
        let text: Vec<u32> = prompt.iter().copied().chain(together[..new - 1].iter().map(|it| likeliest(it))).collect();
        let resid = model.resid_final(&Batch::of([&text]), None, &mut NoHook).unwrap();
        let last = model.head().unembed(&resid.narrow(0, text.len() - 1, 1).unwrap()).unwrap();
        assert!(last.get(0).unwrap().to_vec1::<f32>().unwrap() == together[new - 1], "{} tokens", prompt.len());
    }
}
