//! Damaged and foreign checkpoints: each gives one error that names the file, and none a panic.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use candle_core::Device;
use harvester::{Checkpoint, Transformer};

fn tiny(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny").join(name)
}

/// A copy of a tiny checkpoint, to be damaged.
fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(tiny(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// Opens and loads; returns the message.
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
    assert!(error.contains("config.json") && error.contains("mamba") && error.contains("gpt_neox"), "{error}");
}

#[test]
fn a_missing_key_is_named() {
    let copy = copy_of("llama");
    edit_config(copy.path(), "rms_norm_eps", "rms_norm_epsilon");
    assert!(error_of(copy.path()).contains("rms_norm_eps"));
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
        // Some bytes are white space or a number nobody checks; what matters is that nothing panics.
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
