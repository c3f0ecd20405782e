//! Damaged and foreign checkpoints: each gives one error that names the file, and none causes a panic.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};

use crate::{
    Batch, Compute, NoHook,
    model::{Checkpoint, Transformer},
};

fn tiny(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny").join(name)
}

/// A copy of a tiny checkpoint, to be damaged by a test.
fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(tiny(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// Opens and loads a model; returns the error message.
fn error_of(path: &Path) -> String {
    let loaded = Checkpoint::open(path).and_then(|checkpoint| Transformer::load(&checkpoint, &Device::Cpu));
    loaded.err().unwrap_or_else(|| panic!("{} was loaded", path.display())).to_string()
}

fn edit_config(folder: &Path, from: &str, to: &str) {
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "the fixture has no {from}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn an_unknown_model_type_names_the_known_ones() {
    let copy = copy_of("llama");
    edit_config(copy.path(), "\"llama\"", "\"mamba\"");
    let error = error_of(copy.path());
    assert!(
        error.contains("config.json")
            && error.contains("mamba")
            && error.contains("gpt_neox")
            && error.contains("phi3"),
        "{error}"
    );
}

#[test]
fn biases_that_the_config_does_not_ask_for_are_refused() {
    let copy = copy_of("llama");
    let path = copy.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let width = tensors["model.layers.1.self_attn.q_proj.weight"].dim(0).unwrap();
    let bias = candle_core::Tensor::ones(width, candle_core::DType::F32, &Device::Cpu).unwrap();
    tensors.insert("model.layers.1.self_attn.q_proj.bias".into(), bias);
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let text = fs::read_to_string(copy.path().join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    for value in [serde_json::Value::Null, false.into(), true.into()] {
        config["attention_bias"] = value.clone();
        fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
        match Checkpoint::open(copy.path()) {
            Ok(_) => assert_eq!(value, true),
            Err(error) => {
                let error = error.to_string();
                assert!(value != true && error.contains("expected `attention_bias`: true, because"), "{error}");
            }
        }
    }
}

#[test]
fn the_head_is_read_without_the_rest() {
    let copy = copy_of("llama_untied");
    let of_head = ["model.norm.weight", "lm_head.weight"];
    for entry in fs::read_dir(copy.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
            tensors.retain(|name, _| of_head.contains(&name.as_str()));
            candle_core::safetensors::save(&tensors, &path).unwrap();
        }
    }
    assert!(Checkpoint::open(copy.path()).unwrap().load_head(&Device::Cpu, Compute::F32).is_ok());
    assert!(error_of(copy.path()).contains("embed_tokens.weight"));
}

#[test]
fn a_key_of_another_kind_is_named() {
    for (value, found) in [("\"small\"", "\"small\""), ("NaN", "\"NaN\""), ("true", "true")] {
        let copy = copy_of("llama");
        edit_config(copy.path(), "\"rms_norm_eps\": 0.01", &format!("\"rms_norm_eps\": {value}"));
        let error = error_of(copy.path());
        assert!(error.contains(&format!("expected `rms_norm_eps` to be a number, found {found}")), "{error}");
    }
}

#[test]
fn a_number_that_json_lacks_does_not_matter_where_nobody_reads_it() {
    let copy = copy_of("llama");
    let want = config_of(copy.path());
    edit_config(copy.path(), "\"model_type\"", "\"time_step_limit\": [0.0, Infinity], \"scale\": NaN, \"model_type\"");
    assert_eq!(config_of(copy.path()), want);
}

#[test]
fn scaled_rotary_positions_are_refused_rather_than_ignored() {
    let copy = copy_of("llama");
    edit_config(copy.path(), "\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2.0}");
    assert!(error_of(copy.path()).contains("yarn"));
}

#[test]
fn another_shape_than_the_config_says_is_named() {
    let copy = copy_of("llama");
    edit_config(copy.path(), "\"intermediate_size\": 64", "\"intermediate_size\": 65");
    let error = error_of(copy.path());
    assert!(error.contains("gate_proj") && error.contains("65") && error.contains("64"), "{error}");
}

#[test]
fn fewer_layers_than_the_weights_have_is_refused() {
    let copy = copy_of("llama");
    edit_config(copy.path(), "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2");
    assert!(error_of(copy.path()).contains("model.layers.2"));
}

#[test]
fn a_missing_shard_is_named() {
    let copy = copy_of("llama_untied");
    fs::remove_file(copy.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert!(error_of(copy.path()).contains("model-00002-of-00002.safetensors"));
}

#[test]
fn weights_cut_anywhere_are_an_error() {
    let whole = fs::read(tiny("llama").join("model.safetensors")).unwrap();
    let copy = copy_of("llama");
    for tenth in 0..10 {
        fs::write(copy.path().join("model.safetensors"), &whole[..whole.len() * tenth / 10]).unwrap();
        assert!(error_of(copy.path()).contains("model.safetensors"), "cut at {tenth} tenths");
    }
}

#[test]
fn a_damaged_safetensors_header_is_an_error_and_allocates_nothing_huge() {
    let whole = fs::read(tiny("llama").join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let copy = copy_of("llama");
    for position in (0..header.min(1_200)).step_by(7) {
        let mut damaged = whole.clone();
        damaged[position] ^= 0x55;
        fs::write(copy.path().join("model.safetensors"), &damaged).unwrap();
        // Some bytes are white space or a number that nobody checks; the test is that nothing panics.
        let _ = Checkpoint::open(copy.path()).and_then(|c| Transformer::load(&c, &Device::Cpu));
    }
}

#[test]
fn files_that_are_no_gguf_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for bytes in [
        &b""[..],
        b"GGUF",
        b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"PK\x03\x04 not a model",
    ] {
        fs::write(&path, bytes).unwrap();
        assert!(error_of(&path).contains("model.gguf"));
    }
    assert!(error_of(&folder.path().join("absent.gguf")).contains("absent.gguf"));
}

fn config_of(path: &Path) -> crate::ModelConfig {
    Checkpoint::open(path).unwrap().config().clone()
}

fn json_of(folder: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
}

fn write_json(folder: &Path, json: &serde_json::Value) {
    fs::write(folder.join("config.json"), json.to_string()).unwrap();
}

#[test]
fn the_keys_of_published_gemma_3_mean_the_same() {
    let copy = copy_of("gemma3");
    let want = config_of(copy.path());
    let mut json = json_of(copy.path());
    let keys = json.as_object_mut().unwrap();
    for key in ["rope_parameters", "layer_types", "_sliding_window_pattern"] {
        keys.remove(key).unwrap();
    }
    let published = serde_json::json!({
        "rope_theta": 40000.0, "rope_local_base_freq": 300.0, "rope_scaling": {"rope_type": "linear", "factor": 2.5},
    });
    keys.extend(published.as_object().unwrap().clone());
    write_json(copy.path(), &json);
    assert_eq!(config_of(copy.path()), want);
}

#[test]
fn the_text_model_inside_a_multimodal_gemma_3_is_read() {
    let logits = |path: &Path| {
        let model = Transformer::load(&Checkpoint::open(path).unwrap(), &Device::Cpu).unwrap();
        let batch = Batch::of([[3, 1, 4, 1, 5, 9]]);
        let logits = model.head().unembed(&model.resid_final(&batch, None, &mut NoHook).unwrap()).unwrap();
        logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let want = logits(&tiny("gemma3"));
    for (from, to) in [("model.", "language_model.model."), ("model.", "model.language_model.")] {
        let copy = copy_of("gemma3");
        write_json(copy.path(), &serde_json::json!({"model_type": "gemma3", "text_config": json_of(copy.path())}));
        let weights = candle_core::safetensors::load(copy.path().join("model.safetensors"), &Device::Cpu).unwrap();
        let renamed = |(name, x): (String, Tensor)| (name.replacen(from, to, 1), x);
        let mut weights: HashMap<_, _> = weights.into_iter().map(renamed).collect();
        let image = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        weights.insert(format!("{}vision_tower.x", if to.starts_with("model") { "model." } else { "" }), image);
        candle_core::safetensors::save(&weights, copy.path().join("model.safetensors")).unwrap();
        assert_eq!(logits(copy.path()), want, "{to}");
    }
}

#[test]
fn what_the_pass_does_not_compute_is_refused_by_name() {
    let cases = [
        ("gemma2", "\"gelu_pytorch_tanh\"", "\"relu\"", "relu"),
        ("gemma3", "\"use_bidirectional_attention\": false", "\"use_bidirectional_attention\": true", "bidirectional"),
        ("phi3_long", "\"longrope\"", "\"yarn\"", "yarn"),
        ("phi3_long", "\"short_factor\"", "\"shorter_factor\"", "short_factor"),
        ("llama3", "\"factor\": 8.0", "\"factor\": 0.0", "over 0"),
        ("mistral", "\"sliding_window\": 5", "\"sliding_window\": 0", "window of 0"),
        ("qwen3", "\"vocab_size\": 100", "\"vocab_size\": 101", "embed_tokens.weight"),
        ("olmo2", "\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", "`gelu`"),
        ("qwen2", "\"full_attention\"", "\"chunked_attention\"", "chunked_attention"),
    ];
    for (name, from, to, expected) in cases {
        let copy = copy_of(name);
        edit_config(copy.path(), from, to);
        let error = error_of(copy.path());
        assert!(error.contains(expected) && error.contains(&*copy.path().to_string_lossy()), "{error}");
    }
}

#[test]
fn a_header_that_would_divide_by_zero_is_refused() {
    let (name, value) = (b"general.alignment", 0u32);
    let mut bytes = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    bytes.extend((name.len() as u64).to_le_bytes());
    bytes.extend(name);
    bytes.extend(4u32.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    assert!(error_of(&path).contains("an alignment of 0"));
}
