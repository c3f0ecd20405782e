//! Files as people publish them: other names around the same weights, other tasks' heads, quantized weights, split and
//! foreign files. Each gives the same numbers as the plain file, or is refused by name.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::{
    DType, Device, Tensor,
    quantized::gguf_file::{self, Content, Value},
};
use tempfile::TempDir;

use super::{Batch, Checkpoint, NoHook, Positions, RopeScaling, Transformer};
use crate::{Result, TextTokenizer};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn load(path: &Path) -> Result<Transformer> {
    Transformer::load(&Checkpoint::open(path)?, &Device::Cpu)
}

fn refusal(path: &Path) -> String {
    load(path).err().unwrap_or_else(|| panic!("{} was loaded", path.display())).to_string()
}

/// The last residual stream of a short text, and its logits.
fn run(model: &Transformer) -> (Vec<f32>, Result<Vec<f32>>) {
    let values = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let resid = model.resid_final(&Batch::of([[3, 1, 4, 1, 5, 9]]), None, &mut NoHook).unwrap();
    let logits = model.head().unembed(&resid).map(values);
    (values(resid), logits)
}

/// A tiny model's folder with changed files.
struct Folder {
    dir: TempDir,
    weights: HashMap<String, Tensor>,
}

impl Folder {
    fn of(name: &str) -> Self {
        let (from, dir) = (fixture("tiny").join(name), tempfile::tempdir().unwrap());
        let mut weights = HashMap::new();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with("model") && name.ends_with(".safetensors") {
                weights.extend(candle_core::safetensors::load(&path, &Device::Cpu).unwrap());
            } else if name.ends_with(".json") && !name.contains(".index.") {
                fs::copy(&path, dir.path().join(name)).unwrap();
            }
        }
        Self { dir, weights }
    }

    /// Renames the tensors whose names begin with `from`, and saves.
    fn renamed(mut self, from: &str, to: &str) -> Self {
        let renamed = |(name, x): (String, Tensor)| match name.strip_prefix(from) {
            Some(rest) => (format!("{to}{rest}"), x),
            None => (name, x),
        };
        self.weights = self.weights.into_iter().map(renamed).collect();
        self
    }

    fn with(mut self, name: &str, tensor: Tensor) -> Self {
        self.weights.insert(name.into(), tensor);
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.weights.remove(name).unwrap();
        self
    }

    /// Sets a key of config.json; null removes it.
    fn key(self, key: &str, value: serde_json::Value) -> Self {
        let path = self.dir.path().join("config.json");
        let mut json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        json[key] = value;
        fs::write(&path, json.to_string()).unwrap();
        self
    }

    fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        fs::write(self.dir.path().join(name), bytes).unwrap();
        self
    }

    fn save(self) -> TempDir {
        candle_core::safetensors::save(&self.weights, self.dir.path().join("model.safetensors")).unwrap();
        self.dir
    }
}

fn zeros(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::zeros(shape, dtype, &Device::Cpu).unwrap()
}

#[test]
fn the_same_weights_under_other_names_are_the_same_model() {
    let prefixes = [
        ("llama", "model."),
        ("gemma2", "model."),
        ("phi3", "model."),
        ("gpt2", "transformer."),
        ("gpt_neox", "gpt_neox."),
    ];
    for (name, usual) in prefixes {
        let want = run(&load(Folder::of(name).save().path()).unwrap());
        for prefix in ["", "_orig_mod.model.", "module.transformer."] {
            let got = run(&load(Folder::of(name).renamed(usual, prefix).save().path()).unwrap());
            assert_eq!((got.0, got.1.unwrap()), (want.0.clone(), want.1.as_ref().unwrap().clone()), "{name} {prefix}");
        }
    }
}

#[test]
fn a_head_for_another_task_changes_nothing() {
    for (name, head) in [("llama", "score.weight"), ("gpt2", "classifier.weight"), ("gpt_neox", "qa_outputs.bias")] {
        let want = run(&load(Folder::of(name).save().path()).unwrap());
        let folder = Folder::of(name).with(head, zeros(&[2, 4], DType::F32)).save();
        assert_eq!(run(&load(folder.path()).unwrap()).0, want.0, "{head}");
    }
    let error = refusal(Folder::of("llama").with("model.adapter.weight", zeros(&[2], DType::F32)).save().path());
    assert!(error.contains("model.adapter.weight"), "{error}");
}

#[test]
fn without_its_head_a_model_has_activations_and_no_logits() {
    let want = run(&load(Folder::of("llama_untied").save().path()).unwrap());
    let bare = Folder::of("llama_untied").without("lm_head.weight").renamed("model.", "").save();
    let (resid, logits) = run(&load(bare.path()).unwrap());
    assert_eq!(resid, want.0);
    let error = logits.unwrap_err().to_string();
    assert!(error.contains("the head's matrix") && error.contains(&*bare.path().to_string_lossy()), "{error}");
}

#[test]
fn a_head_that_differs_from_the_embedding_is_believed() {
    let embed = |name: &str| Folder::of(name).weights["model.embed_tokens.weight"].clone();
    let same = Folder::of("llama").with("lm_head.weight", embed("llama")).save();
    let other = (embed("llama") * 2.0).unwrap();
    let differs = Folder::of("llama").with("lm_head.weight", other.clone()).save();
    let untied = Folder::of("llama").with("lm_head.weight", other).key("tie_word_embeddings", false.into()).save();
    let logits = |folder: &TempDir| run(&load(folder.path()).unwrap()).1.unwrap();
    assert_eq!(logits(&same), logits(&Folder::of("llama").save()));
    assert_eq!(logits(&differs), logits(&untied));
    assert_ne!(logits(&differs), logits(&same));
}

#[test]
fn an_index_beside_a_single_file_counts_for_nothing() {
    let index = r#"{"weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors"}}"#;
    let folder = Folder::of("llama").file("model.safetensors.index.json", index).save();
    assert!(load(folder.path()).is_ok());
}

#[test]
fn quantized_weights_are_refused_by_the_name_of_what_made_them() {
    let down = "model.layers.1.mlp.down_proj";
    let instead = |ending: &str, dtype| {
        let folder = Folder::of("llama").without(&format!("{down}.weight"));
        folder.with(&format!("{down}.{ending}"), zeros(&[4, 4], dtype)).save()
    };
    let beside = |ending: &str, dtype| {
        let folder = Folder::of("llama").with(&format!("{down}.weight"), zeros(&[4, 4], dtype));
        folder.with(&format!("{down}.{ending}"), zeros(&[4], DType::F32)).save()
    };
    let config = |config: serde_json::Value| Folder::of("llama").key("quantization_config", config);
    let cases = [
        (instead("qweight", DType::U32), "GPTQ or AWQ"),
        (instead("weight_packed", DType::U32), "compressed-tensors"),
        (instead("weight", DType::U8), "found U8: weights quantized"),
        (beside("weight.absmax", DType::U8), "found U8: weights quantized by bitsandbytes in 4 bits"),
        (beside("weight_scale_inv", DType::F8E4M3), "found F8_E4M3: weights quantized by fp8"),
        (config(serde_json::json!({"quant_method": "fp8", "activation_scheme": "dynamic"})).save(), "quantized by fp8"),
        (config(serde_json::json!({"quant_method": "gptq", "bits": 4})).save(), "quantized by gptq"),
    ];
    for (folder, expected) in &cases {
        let error = refusal(folder.path());
        assert!(error.contains(expected) && error.contains("Name the model that it was made from"), "{error}");
        assert!(!error.contains("ownload it again"), "{error}");
    }
    // bitsandbytes quantizes such weights only while loading: here they are read as they are stored.
    let plain = config(serde_json::json!({"quant_method": "bitsandbytes", "load_in_4bit": true})).save();
    assert!(load(plain.path()).is_ok());
}

#[test]
fn other_things_in_the_place_of_weights_are_named() {
    let pointer =
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 9\n";
    let folder = tempfile::tempdir().unwrap();
    let gguf = |bytes: &[u8]| {
        let path = folder.path().join("model.gguf");
        fs::write(&path, bytes).unwrap();
        refusal(&path)
    };
    let safetensors = |bytes: &str| {
        let folder = Folder::of("llama").save();
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        refusal(folder.path())
    };
    let mut big_endian = fs::read(fixture("gguf/llama.gguf")).unwrap();
    big_endian[4..8].reverse();
    let other = |name: &str| refusal(Folder::of("llama").file(name, "x").dir.path());
    let cases = [
        (gguf(pointer.as_bytes()), "a Git LFS pointer"),
        (safetensors(pointer), "a Git LFS pointer"),
        (gguf(b"<!doctype html><html>"), "a web page"),
        (safetensors("<!DOCTYPE html>\n<html>"), "a web page"),
        (gguf(&big_endian), "a big-endian file"),
        (gguf(b"tjgg\x03\0\0\0"), "the format before GGUF"),
        (other("adapter_model.safetensors"), "merge_and_unload"),
        (other("pytorch_model.bin"), "save_pretrained"),
        (other("gptq_model-4bit-128g.safetensors"), "gptq_model-4bit-128g.safetensors"),
        (other("model.gguf"), "Name that file instead of its folder"),
    ];
    for (error, expected) in cases {
        assert!(error.contains(expected) && !error.contains("ownload it again"), "{expected}: {error}");
    }
    let whole = fs::read(fixture("gguf/llama.gguf")).unwrap();
    assert!(gguf(&whole[..whole.len() / 2]).contains("cut short"));
}

#[test]
fn tensor_types_that_are_not_read_have_names() {
    let whole = fs::read(fixture("gguf/llama.gguf")).unwrap();
    let name = b"blk.0.ffn_up.weight";
    // A tensor's name is followed by the number of its dimensions, the dimensions and its type.
    let at = whole.windows(name.len()).position(|bytes| bytes == name).unwrap() + name.len() + 4 + 2 * 8;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for (kind, expected) in
        [(20u32, "found IQ4_NL"), (39, "found MXFP4"), (23, "found IQ4_XS"), (999, "found type 999")]
    {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let error = refusal(&path);
        assert!(
            error.contains(expected) && error.contains("`blk.0.ffn_up.weight`") && error.contains("Q4_K"),
            "{error}"
        );
        assert!(!error.contains("ownload it again"), "{error}");
    }
}

/// llama.cpp's loader (`src/llama-model.cpp`) reads these keys in this order.
#[test]
fn a_rotary_factor_counts_under_each_of_its_keys() {
    let float = Value::F32;
    let text = |text: &str| Value::String(text.into());
    let (kind, factor, old) = ("llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.scale_linear");
    let four = RopeScaling::Linear { factor: 4.0 };
    let cases: [(&[(&str, Value)], RopeScaling); 6] = [
        (&[], RopeScaling::None),
        (&[(kind, text("linear")), (factor, float(4.0))], four.clone()),
        (&[(factor, float(4.0))], four.clone()),
        (&[(old, float(4.0))], four.clone()),
        (&[(old, float(2.0)), (factor, float(4.0))], four),
        (&[(kind, text("none")), (factor, float(4.0))], RopeScaling::None),
    ];
    for (keys, want) in cases {
        let (_folder, path) = gguf_with(keys);
        let Positions::Rotary { scaling, .. } = Checkpoint::open(&path).unwrap().config().positions.clone() else {
            panic!()
        };
        assert_eq!(scaling, want, "{keys:?}");
    }
}

#[test]
fn what_a_header_says_beside_the_sizes_is_refused_rather_than_ignored() {
    let cases = [
        ("llama.expert_count", Value::U32(8), "8 experts"),
        ("llama.attention.causal", Value::Bool(false), "attention.causal"),
        ("llama.rope.dimension_count", Value::U32(4), "rope.dimension_count"),
        ("llama.rope.scaling.type", Value::String("yarn".into()), "`yarn`"),
        ("general.type", Value::String("adapter".into()), "llama-export-lora"),
    ];
    for (key, value, expected) in cases {
        let (_folder, path) = gguf_with(&[(key, value)]);
        let error = refusal(&path);
        assert!(error.contains(expected) && !error.contains("ownload it again"), "{error}");
    }
    let error = refusal(Folder::of("llama").key("is_causal", false.into()).save().path());
    assert!(error.contains("causal attention"), "{error}");
}

/// `llama.gguf` with added or changed keys.
fn gguf_with(keys: &[(&str, Value)]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    rewrite(&fixture("gguf/llama.gguf"), &path, keys);
    (folder, path)
}

/// Writes the GGUF file `from` to `to` with added or changed keys.
fn rewrite(from: &Path, to: &Path, keys: &[(&str, Value)]) {
    let mut file = fs::File::open(from).unwrap();
    let content = Content::read(&mut file).unwrap();
    let tensors: Vec<_> = content
        .tensor_infos
        .keys()
        .map(|name| (name.as_str(), content.tensor(&mut file, name, &Device::Cpu).unwrap()))
        .collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let kept = content.metadata.iter().filter(|(key, _)| keys.iter().all(|(changed, _)| changed != key));
    let mut values: Vec<_> = kept.map(|(key, value)| (key.as_str(), value)).collect();
    values.extend(keys.iter().map(|(key, value)| (*key, value)));
    gguf_file::write(&mut fs::File::create(to).unwrap(), &values, &tensors).unwrap();
}

/// `tests/fixtures/gguf/make_split.py` split `qwen3.gguf`.
#[test]
fn a_split_model_is_the_model() {
    let part = |number| fixture("gguf").join(format!("split-0000{number}-of-00003.gguf"));
    let (whole, split) = (load(&fixture("gguf/qwen3.gguf")).unwrap(), load(&part(1)).unwrap());
    assert_eq!(run(&whole).1.unwrap(), run(&split).1.unwrap());
    assert!(Checkpoint::open(&part(1)).unwrap().sha256().is_ok());
    let error = refusal(&part(2));
    assert!(error.contains("the first of 3 parts") && error.contains("part 2"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("split-00001-of-00003.gguf");
    fs::copy(part(1), &alone).unwrap();
    let error = refusal(&alone);
    assert!(error.contains("no file `split-00002-of-00003.gguf`") && error.contains("--merge"), "{error}");
    let renamed = folder.path().join("model.gguf");
    fs::copy(part(1), &renamed).unwrap();
    assert!(refusal(&renamed).contains("NAME-00001-of-00003.gguf"));
    rewrite(&part(1), &renamed, &[("split.no", Value::U64(u64::MAX))]);
    assert!(refusal(&renamed).contains("the first of 3 parts"));
    // Without a part beside it, the tokenizer says so too.
    assert!(TextTokenizer::open(&alone).unwrap_err().to_string().contains("split-00002-of-00003"));
}

#[test]
fn parts_of_different_models_are_refused() {
    let part = |number| fixture("gguf").join(format!("split-0000{number}-of-00003.gguf"));
    let folder = tempfile::tempdir().unwrap();
    let copy = |number| folder.path().join(format!("split-0000{number}-of-00003.gguf"));
    let refused = |changed: usize, from: usize, keys: &[(&str, Value)]| {
        for number in 1..=3 {
            fs::copy(part(number), copy(number)).unwrap();
        }
        rewrite(&part(from), &copy(changed), keys);
        refusal(&copy(1))
    };
    let error = refused(2, 3, &[]);
    assert!(error.contains("split-00002-of-00003.gguf: expected part 2 of 3, found part 3 of 3"), "{error}");
    let error = refused(3, 3, &[("split.count", Value::U16(4))]);
    assert!(error.contains("expected part 3 of 3, found part 3 of 4"), "{error}");
    let error = refused(3, 2, &[("split.no", Value::U16(2))]);
    assert!(error.contains("split-00003-of-00003.gguf: expected tensors of its own, found `"), "{error}");
    let error = refused(1, 1, &[("split.tensors.count", Value::I32(7))]);
    assert!(error.contains("split-00001-of-00003.gguf: expected 7 tensors in its 3 parts, found "), "{error}");
}
