//! Files that are truncated, damaged or malicious are refused by name, and no code in them runs.

use std::{fs, io::Write, path::PathBuf};

use trainer::Sae;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::spoil::{copy, emptied, members, refused, rewrite, write_safetensors, write_zip};

#[test]
fn a_pickle_that_would_run_code_is_refused_and_nothing_runs() {
    let (dir, folder) = copy("dictionary-learning-AutoEncoderTopK");
    let witness = dir.path().join("witness");
    // os.system(f"touch {witness}"), as pickle writes it for `__reduce__`.
    let command = format!("touch {}", witness.display());
    let mut pickle = b"\x80\x02cposix\nsystem\nX".to_vec();
    pickle.extend((command.len() as u32).to_le_bytes());
    pickle.extend(command.bytes());
    pickle.extend(b"\x85R.");
    let path = folder.join("ae.pt");
    rewrite(&path, |name, bytes| Some(if name.ends_with("data.pkl") { pickle.clone() } else { bytes }));
    let message = refused(&folder);
    assert!(message.contains("ae.pt") && message.contains("`posix.system`"), "{message}");
    assert!(!witness.exists());
}

#[test]
fn files_that_are_cut_short_are_refused_by_name() {
    for (name, file) in [
        ("dictionary-learning-BatchTopKSAE", "ae.pt"),
        ("openai-topk", "3.pt"),
        ("gemma-scope-res", "params.npz"),
        ("gemma-scope-packed", "params.npz"),
        ("gemma-scope-2-res", "params.safetensors"),
        ("llamascopium-topk", "sae_weights.safetensors"),
        ("sparsify-sae", "sae.safetensors"),
    ] {
        let (_dir, folder) = copy(name);
        let path = folder.join(file);
        let bytes = fs::read(&path).unwrap();
        for len in [0, 1, 100, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..len]).unwrap();
            let message = refused(&folder);
            assert!(message.contains(file), "{name}, {len} bytes: {message}");
        }
    }
}

#[test]
fn no_byte_of_a_file_can_bring_the_reader_down() {
    for (name, file) in [
        ("dictionary-learning-AutoEncoder", "ae.pt"),
        ("gemma-scope-packed", "params.npz"),
        ("llamascopium-jumprelu", "sae_weights.safetensors"),
        ("llamascopium-jumprelu", "config.json"),
    ] {
        let (_dir, folder) = copy(name);
        let path = folder.join(file);
        let bytes = fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(3) {
            let mut spoiled = bytes.clone();
            spoiled[at] ^= 0x55;
            fs::write(&path, spoiled).unwrap();
            // Most changes of a zip file are caught by its checksums; the next test computes the checksums again.
            drop(Sae::load(&folder));
        }
    }
}

#[test]
fn no_byte_within_a_zip_file_can_bring_the_reader_down() {
    for (name, file) in [
        ("dictionary-learning-AutoEncoder", "ae.pt"),
        ("openai-topk", "3.pt"),
        ("gemma-scope-res", "params.npz"),
        ("gemma-scope-packed", "params.npz"),
    ] {
        let (_dir, folder) = copy(name);
        let path = folder.join(file);
        let mut members = members(&path);
        let mut refused = 0;
        for member in 0..members.len() {
            let parsed = match &members[member] {
                (name, bytes) if name.ends_with("data.pkl") => bytes.len(),
                (name, _) if name.ends_with(".npy") => 128, // the values begin here, and may be any
                _ => 0,
            };
            for at in 0..parsed {
                let flip = [0x01, 0x55, 0xff][at % 3];
                members[member].1[at] ^= flip;
                write_zip(&path, &members);
                members[member].1[at] ^= flip;
                refused += usize::from(Sae::load(&folder).is_err());
            }
        }
        assert!(refused > 200, "{name}: the parsers refused {refused}");
    }
}

#[test]
fn sizes_of_nothing_are_refused() {
    for (name, file) in [
        ("dictionary-learning-AutoEncoder", "ae.pt"),
        ("dictionary-learning-JumpReluAutoEncoder", "ae.pt"),
        ("openai-topk", "3.pt"),
        ("gemma-scope-res", "params.npz"),
        ("gemma-scope-packed", "params.npz"),
        ("gemma-scope-2-affine", "params.safetensors"),
        ("llamascopium-jumprelu", "sae_weights.safetensors"),
        ("llama-scope", "checkpoints/final.safetensors"),
        ("sparsify-skip", "sae.safetensors"),
        ("saelens-topk-rescaled", "sae_weights.safetensors"),
    ] {
        for size in [10, 24] {
            let (_dir, folder) = copy(name);
            let is_config = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
            for config in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(is_config) {
                let text = fs::read_to_string(&config).unwrap();
                // The config may have d_sae as d_in * 2.4.
                let factor = if size == 24 { ": 2.4" } else { ": 10" };
                fs::write(&config, text.replace(&format!(": {size}"), ": 0").replace(factor, ": 0")).unwrap();
            }
            emptied(&folder.join(file), size);
            let message = refused(&folder);
            // In sparsify, num_latents 0 means 32 latents per dimension.
            let expected = if (name, size) == ("sparsify-skip", 24) { "of shape [320, 10]" } else { "of 1 or more" };
            assert!(message.contains(expected), "{name} without {size}: {message}");
        }
    }
}

#[test]
fn a_config_does_not_say_how_much_memory_is_taken() {
    let (_dir, folder) = copy("llamascopium-topk");
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let config = config.replace("\"use_decoder_bias\": true", "\"use_decoder_bias\": false");
    let of_sizes = |d_model: &str, factor: &str| {
        let config = config.replace(": 10,", &format!(": {d_model},")).replace(": 2.4,", &format!(": {factor},"));
        fs::write(folder.join("config.json"), config).unwrap();
        refused(&folder)
    };
    let message = of_sizes("4611686018427387904", "2.4");
    assert!(message.contains("W_E of shape [4611686018427387904"), "{message}");
    // A tensor without values can have any width.
    let rest = [("b_E", vec![0]), ("W_D", vec![0, 1 << 62])];
    let tensors = [("W_E", vec![1 << 62, 0])].into_iter().chain(rest);
    let tensors: Vec<_> = tensors.map(|(name, shape)| (name.to_string(), shape, vec![])).collect();
    write_safetensors(&folder.join("sae_weights.safetensors"), &tensors);
    let message = of_sizes("4611686018427387904", "0");
    assert!(message.contains("of 1 or more, found `4611686018427387904 and 0`"), "{message}");
}

#[test]
fn a_file_that_unpacks_to_many_times_its_size_is_refused() {
    let (_dir, folder) = copy("gemma-scope-res");
    let path = folder.join("params.npz");
    let mut writer = ZipWriter::new(fs::File::create(&path).unwrap());
    writer.start_file("W_enc.npy", SimpleFileOptions::default()).unwrap();
    (0..64).for_each(|_| writer.write_all(&[0; 1 << 16]).unwrap());
    writer.finish().unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 20_000);
    assert!(
        refused(&folder).contains("at most 20 times the size of the file, found 4194304 bytes"),
        "{}",
        refused(&folder)
    );
}
