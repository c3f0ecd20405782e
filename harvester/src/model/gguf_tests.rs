//! GGUF files in llama.cpp's layout: each architecture gives the same logits as its safetensors folder, and each tensor
//! type the same numbers as the gguf package. `tests/fixtures/gguf/make_gguf.py` made the files.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashMap, fs::File, path::PathBuf};

use candle_core::{DType, Device, Tensor, quantized::gguf_file::Content};

use super::families_tests::{FAMILIES, relative_error};
use crate::{
    Batch, NoHook,
    model::{Checkpoint, Positions, Transformer},
};

/// As in `families_tests.rs`: f32 on both sides.
const TOLERANCE: f64 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn tensors(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture(name), &Device::Cpu).unwrap()
}

fn load(path: &str) -> Transformer {
    Transformer::load(&Checkpoint::open(&fixture(path)).unwrap(), &Device::Cpu).unwrap()
}

fn logits(model: &Transformer, tokens: &Tensor) -> Tensor {
    let batch = Batch::of(tokens.to_vec2::<u32>().unwrap());
    model.head().unembed(&model.resid_final(&batch, None, &mut NoHook).unwrap()).unwrap()
}

/// The tiny folders that are in llama.cpp's layout too.
fn folders() -> impl Iterator<Item = &'static str> {
    FAMILIES.into_iter().filter(|name| !["llama_untied", "mistral"].contains(name))
}

#[test]
fn every_architecture_agrees_with_transformers() {
    for name in folders() {
        let model = load(&format!("gguf/{name}.gguf"));
        let reference = tensors(&format!("tiny/{name}/reference.safetensors"));
        let tokens = reference["input_ids"].to_dtype(DType::U32).unwrap();
        let error = relative_error(&logits(&model, &tokens), &reference["logits"]);
        assert!(error < TOLERANCE, "{name}: relative error {error:.1e}");
        let short = &reference["short.logits"];
        let tokens = tokens.narrow(1, 0, short.dim(1).unwrap()).unwrap().contiguous().unwrap();
        let error = relative_error(&logits(&model, &tokens), short);
        assert!(error < TOLERANCE, "{name}, a short text: relative error {error:.1e}");
    }
}

/// Same weights, same shape: only the two descriptions of rotary scaling may differ.
#[test]
fn a_file_describes_the_model_that_its_folder_describes() {
    for name in folders() {
        let of = |path: String| {
            let mut config = Checkpoint::open(&fixture(&path)).unwrap().config().clone();
            // GGUF stores reals in f32.
            config.norm_eps = f64::from(config.norm_eps as f32);
            config.attn_scale = f64::from(config.attn_scale as f32);
            config.positions = Positions::Learned;
            config
        };
        assert_eq!(of(format!("gguf/{name}.gguf")), of(format!("tiny/{name}")), "{name}");
    }
}

#[test]
fn quantized_models_agree_with_transformers() {
    let reference = tensors("gguf/quantized.safetensors");
    let tokens = reference["input_ids"].to_dtype(DType::U32).unwrap();
    for kind in ["Q4_0", "Q4_1", "Q5_0", "Q8_0"] {
        let model = load(&format!("gguf/quantized_{kind}.gguf"));
        let error = relative_error(&logits(&model, &tokens), &reference[&format!("{kind}.logits")]);
        assert!(error < TOLERANCE, "{kind}: relative error {error:.1e}");
    }
}

/// candle dequantizes; no Python package quantizes to the K types, so their blocks have random bits here.
#[test]
fn blocks_of_every_type_dequantize_to_the_same_numbers() {
    let mut file = File::open(fixture("gguf/blocks.gguf")).unwrap();
    let content = Content::read(&mut file).unwrap();
    let reference = tensors("gguf/blocks.safetensors");
    assert_eq!(reference.len(), 13);
    for (kind, want) in reference {
        let got = content.tensor(&mut file, &kind, &Device::Cpu).unwrap().dequantize(&Device::Cpu).unwrap();
        let error = relative_error(&got, &want);
        assert!(error < 1e-7, "{kind}: relative error {error:.1e}");
    }
}
