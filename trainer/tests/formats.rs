//! SAEs of other tools, against what those tools compute: `interop/formats.py` made the folders and the numbers beside
//! them. Then back into each format that can hold them, and files that are broken or malicious.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;
use trainer::{Architecture, FeatureActs, Sae, SaeFormat, formats};
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// An SAE of a tool, and what the tool computes with it.
struct Case {
    name: String,
    path: PathBuf,
    x: Vec<f32>,
    feature_acts: Vec<f32>,
    x_hat: Vec<f32>,
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats")
}

fn case(name: &str) -> Case {
    let folder = fixtures().join(name);
    let bytes = fs::read(folder.join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        tensors.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    Case {
        name: name.to_string(),
        path: folder.join(&header.metadata().as_ref().unwrap()["sae"]),
        x: floats("x"),
        feature_acts: floats("feature_acts"),
        x_hat: floats("x_hat"),
    }
}

fn cases() -> Vec<Case> {
    let mut names: Vec<String> =
        fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() > 30, "{names:?}");
    names.iter().map(|name| case(name)).collect()
}

fn dense(acts: &FeatureActs, d_sae: usize) -> Vec<f32> {
    let mut dense = vec![0.0; acts.n_rows() * d_sae];
    for row in 0..acts.n_rows() {
        let (latents, values) = acts.row(row);
        latents.iter().zip(values).for_each(|(latent, value)| dense[row * d_sae + *latent as usize] = *value);
    }
    dense
}

/// |found - expected| / |expected|
fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let mut pairs = found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b));
    norm(&mut pairs) / norm(&mut expected.iter().map(|b| f64::from(*b)))
}

/// Checks activations, all in the same places, and reconstructions.
fn assert_agrees(sae: &Sae, case: &Case, what: &str) {
    let (acts, x_hat) = sae.reconstruct(&case.x).unwrap();
    let acts = dense(&acts, sae.d_sae());
    let what = format!("{}{what}", case.name);
    assert!(acts.iter().zip(&case.feature_acts).all(|(a, b)| (*a != 0.0) == (*b != 0.0)), "{what}: other latents");
    for (name, error) in
        [("activations", difference(&acts, &case.feature_acts)), ("x_hat", difference(&x_hat, &case.x_hat))]
    {
        assert!(error < 1e-5, "{what}: {name} differ by {error:e}");
    }
}

#[test]
fn every_tools_sae_computes_what_the_tool_computes() {
    for case in cases() {
        let sae = Sae::load(&case.path).unwrap();
        assert_agrees(&sae, &case, "");
        let format = SaeFormat::of(&case.path).unwrap().to_string();
        let longest = SaeFormat::ALL.map(|format| format.to_string());
        let longest = longest.iter().filter(|name| case.name.starts_with(*name)).max_by_key(|name| name.len());
        assert_eq!(Some(&format), longest, "{}", case.name);
    }
}

/// The folder that a format's own names need.
fn folder_for(format: SaeFormat, sae: &Sae, dir: &Path) -> PathBuf {
    let place = sae.config.hook_point.map(|point| point.to_string()).unwrap_or_default();
    let is_resid_post = place == "blocks.3.hook_resid_post";
    let folder = dir.join(match (format, sae.config.is_transcoder()) {
        (SaeFormat::Sparsify, true) => "layers.3.mlp",
        (SaeFormat::Sparsify, false) if is_resid_post => "layers.3",
        (SaeFormat::GemmaScope, true) => "gemma-scope-2b-pt-transcoders/layer_3",
        (SaeFormat::GemmaScope, false) if is_resid_post => "gemma-scope-2b-pt-res/layer_3",
        _ => "sae",
    });
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn what_is_written_in_any_format_computes_the_same() {
    let mut written = [0; SaeFormat::ALL.len()];
    for case in cases() {
        let sae = Sae::load(&case.path).unwrap();
        for (at, format) in SaeFormat::ALL.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let folder = folder_for(format, &sae, dir.path());
            if let Err(error) = sae.save_as(format, &folder) {
                let message = error.to_string();
                assert!(message.contains(&format!("SAE to be written as {format}")), "{}: {message}", case.name);
                assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "{}: something was written", case.name);
                continue;
            }
            written[at] += 1;
            assert_eq!(SaeFormat::of(&folder).unwrap(), format);
            let back = Sae::load(&folder).unwrap();
            assert_eq!(back.config.d_out, sae.config.d_out);
            if folder.ends_with("sae") {
                assert_eq!(back.config.is_transcoder(), sae.config.is_transcoder(), "{} as {format}", case.name);
            } else {
                assert_eq!(back.config.hook_point, sae.config.hook_point, "{} as {format}", case.name);
                assert_eq!(back.config.hook_point_out, sae.config.hook_point_out, "{} as {format}", case.name);
            }
            if (format, back.config.architecture) == (SaeFormat::DictionaryLearning, Architecture::Standard) {
                // Its loader makes decoder rows of norm 1, which changes the length of activations.
                let (_, x_hat) = back.reconstruct(&case.x).unwrap();
                assert!(difference(&x_hat, &case.x_hat) < 1e-5, "{} as {format}", case.name);
            } else {
                assert_agrees(&back, &case, &format!(" as {format}"));
            }
        }
    }
    // All of them in SAELens' format, none in the one that is only read, some in each other.
    assert_eq!((written[0], written[7]), (cases().len(), 0));
    assert!(written[1..7].iter().all(|count| *count >= 3), "{written:?}");
}

#[test]
fn a_folder_that_names_another_place_is_not_written_to() {
    let refused = |name: &str, format: SaeFormat, folder: &str| {
        let (sae, dir) = (Sae::load(&case(name).path).unwrap(), tempfile::tempdir().unwrap());
        let folder = dir.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let written = sae.save_as(format, &folder);
        assert_eq!(written.is_err(), fs::read_dir(&folder).unwrap().next().is_none(), "{name} in {}", folder.display());
        written.map_err(|error| error.to_string())
    };
    let sparsify = |name: &str, folder: &str| refused(name, SaeFormat::Sparsify, folder);
    for folder in ["foo", "layers.3", "layers.4.mlp"] {
        let message = sparsify("sparsify-transcoder", folder).unwrap_err();
        assert!(message.contains("a folder layers.3.mlp, whose name") && message.contains(folder), "{message}");
    }
    assert!(sparsify("sparsify-sae", "layers.4").unwrap_err().contains("a folder layers.3, whose name"));
    // No name says the place before a block.
    assert!(sparsify("saelens-legacy", "layers.3").unwrap_err().contains("whose name says no place"));
    assert_eq!(sparsify("sparsify-sae", "foo"), Ok(()));

    let gemma_scope = |name: &str, folder: &str| refused(name, SaeFormat::GemmaScope, folder);
    for folder in ["foo", "gemma-scope-2b-pt-res/layer_3", "gemma-scope-2b-pt-transcoders/layer_4"] {
        let message = gemma_scope("gemma-scope-2-transcoder", folder).unwrap_err();
        assert!(message.contains("a folder gemma-scope-2b-pt-transcoders/layer_3, whose name"), "{message}");
    }
    for folder in ["gemma-scope-2b-pt-transcoders/layer_3", "gemma-scope-2b-pt-mlp/layer_3"] {
        let message = gemma_scope("gemma-scope-res", folder).unwrap_err();
        assert!(message.contains("a folder gemma-scope-2b-pt-res/layer_3, whose name"), "{message}");
    }
    assert_eq!(gemma_scope("gemma-scope-res", "foo"), Ok(()));
    let (sae, dir) = (Sae::load(&case("sparsify-transcoder").path).unwrap(), tempfile::tempdir().unwrap());
    let mut unplaced = sae.clone();
    (unplaced.config.hook_point, unplaced.config.hook_point_out) = (None, "hook_embed".parse().ok());
    let message = unplaced.save_as(SaeFormat::Sparsify, dir.path()).unwrap_err().to_string();
    assert!(message.contains("in a folder such as layers.10.mlp"), "{message}");
}

#[test]
fn an_sae_is_known_by_each_of_its_files() {
    for case in cases() {
        let sae = Sae::load(&case.path).unwrap();
        for file in formats::files_of(&case.path).unwrap() {
            assert_eq!(Sae::load(&file).unwrap(), sae, "{}", file.display());
            assert_eq!(formats::files_of(&file).unwrap().len(), formats::files_of(&case.path).unwrap().len());
        }
    }
}

#[test]
fn what_a_format_says_about_the_origin_is_kept() {
    let load = |name: &str| Sae::load(&case(name).path).unwrap().config;
    let hook = |text: &str| Some(text.parse().unwrap());
    let config = load("saelens-jumprelu-transcoder");
    assert_eq!(config.hook_point, hook("blocks.3.ln2.hook_normalized"));
    assert_eq!(config.hook_point_out, hook("blocks.3.hook_mlp_out"));
    assert_eq!((config.model_name.as_str(), config.ctx_len, config.prepend_bos), ("tiny", Some(64), true));
    assert_eq!(load("saelens-legacy").hook_point, hook("blocks.3.hook_resid_pre"));
    assert_eq!(load("dictionary-learning-BatchTopKSAE").hook_point, hook("blocks.3.hook_resid_post"));
    assert_eq!(load("gemma-scope-packed").hook_point, hook("blocks.3.hook_mlp_out"));
    assert_eq!(load("gemma-scope-2-affine").hook_point_out, hook("blocks.3.hook_mlp_out"));
    assert_eq!(load("openai-topk").hook_point, hook("blocks.3.hook_resid_post"));
    assert_eq!(load("llamascopium-transcoder").hook_point_out, hook("blocks.3.hook_mlp_out"));
    assert_eq!(load("sparsify-sae").hook_point, hook("blocks.3.hook_resid_post"));
}

/// A copy of a case's files that may be spoilt.
fn copy(name: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let case = case(name);
    let source = if case.path.is_file() { case.path.parent().unwrap().to_path_buf() } else { case.path.clone() };
    let folder = dir.path().join(source.file_name().unwrap());
    copy_files(&source, &folder);
    (dir, folder)
}

fn copy_files(source: &Path, folder: &Path) {
    fs::create_dir(folder).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), folder.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy_files(&from, &to);
        } else {
            fs::copy(&from, to).unwrap();
        }
    }
}

/// Writes a zip file again with some members changed; `change` gives the new bytes, or nothing to leave one out.
fn rewrite(path: &Path, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) {
    let changed = |(name, bytes): (String, Vec<u8>)| change(&name, bytes).map(|bytes| (name, bytes));
    let members: Vec<_> = members(path).into_iter().filter_map(changed).collect();
    write_zip(path, &members);
}

/// The members of a zip file, unpacked.
fn members(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut members = vec![];
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).unwrap();
        let mut bytes = vec![];
        member.read_to_end(&mut bytes).unwrap();
        members.push((member.name().unwrap().into_owned(), bytes));
    }
    members
}

/// A zip file, with the checksums of what its members are now.
fn write_zip(path: &Path, members: &[(String, Vec<u8>)]) {
    let mut writer = ZipWriter::new(fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        writer.start_file(name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

fn refused(path: &Path) -> String {
    Sae::load(path).unwrap_err().to_string()
}

#[test]
fn a_pickle_that_would_run_code_is_refused_and_nothing_runs() {
    let (dir, folder) = copy("dictionary-learning-AutoEncoderTopK");
    let witness = dir.path().join("witness");
    // os.system(f"touch {witness}"), as `__reduce__` has pickle write it.
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
fn tensors_that_are_missing_or_unknown_are_named() {
    let (_dir, folder) = copy("dictionary-learning-GatedAutoEncoder");
    let rename = |from: &[u8], to: &[u8]| {
        rewrite(&folder.join("ae.pt"), |name, bytes| {
            Some(if name.ends_with("data.pkl") { replaced(&bytes, from, to) } else { bytes })
        });
    };
    rename(b"mag_bias", b"mag_bent");
    let message = refused(&folder);
    assert!(message.contains("an array mag_bias") && message.contains("mag_bent"), "{message}");

    let (_dir, folder) = copy("gemma-scope-res");
    let path = folder.join("params.npz");
    let b_enc = |bytes: &[u8]| bytes.to_vec();
    rewrite(&path, |name, bytes| (name != "threshold.npy").then(|| b_enc(&bytes)));
    assert!(refused(&folder).contains("an array threshold"));
    let (_dir, folder) = copy("gemma-scope-res");
    let extra = zip_with(&folder.join("params.npz"), "W_extra.npy", "b_dec.npy");
    assert!(extra.contains("also W_extra"), "{extra}");

    // A skip connection that the config does not speak of.
    let (_dir, folder) = copy("sparsify-skip");
    let cfg = fs::read_to_string(folder.join("cfg.json")).unwrap();
    fs::write(folder.join("cfg.json"), cfg.replace("\"skip_connection\": true", "\"skip_connection\": false")).unwrap();
    let message = refused(&folder);
    assert!(message.contains("sae.safetensors") && message.contains("also W_skip"), "{message}");
    let cfg = cfg.replace("\"k\"", "\"k_of_another_time\"");
    fs::write(folder.join("cfg.json"), cfg).unwrap();
    assert!(refused(&folder).contains("k_of_another_time"));
}

/// What reading says after one more member, a copy of another.
fn zip_with(path: &Path, name: &str, like: &str) -> String {
    let mut archive = ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut bytes = vec![];
    archive.by_name(like).unwrap().read_to_end(&mut bytes).unwrap();
    let mut writer = ZipWriter::new_append(fs::OpenOptions::new().read(true).write(true).open(path).unwrap()).unwrap();
    writer.start_file(name, SimpleFileOptions::default().compression_method(CompressionMethod::Stored)).unwrap();
    writer.write_all(&bytes).unwrap();
    writer.finish().unwrap();
    refused(path)
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
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 0x55;
            fs::write(&path, spoilt).unwrap();
            // Of a zip file most end at its checksums; the next test makes those anew.
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
                (name, _) if name.ends_with(".npy") => 128, // where the numbers begin, which may be any
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
                // d_sae may be in it as d_in * 2.4.
                let factor = if size == 24 { ": 2.4" } else { ": 10" };
                fs::write(&config, text.replace(&format!(": {size}"), ": 0").replace(factor, ": 0")).unwrap();
            }
            emptied(&folder.join(file), size);
            let message = refused(&folder);
            // With num_latents 0 sparsify means 32 latents a dimension.
            let expected = if (name, size) == ("sparsify-skip", 24) { "of shape [320, 10]" } else { "of 1 or more" };
            assert!(message.contains(expected), "{name} without {size}: {message}");
        }
    }
}

/// Makes `size` 0 in every shape of a file, and takes out the numbers that are then no more.
fn emptied(path: &Path, size: usize) {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("pt") => rewrite(path, |name, mut bytes| {
            if name.ends_with("data.pkl") {
                // BININT1: of shapes, and of strides and storages, which an empty view does not reach.
                let from = [b'K', size as u8];
                while let Some(at) = bytes.windows(2).position(|window| window == from) {
                    bytes[at + 1] = 0;
                }
            }
            Some(bytes)
        }),
        Some("npz") => rewrite(path, |_, bytes| {
            let header = String::from_utf8(bytes[10..128].to_vec()).unwrap();
            let none = header.replace(&format!("({size},"), "( 0,").replace(&format!(", {size})"), ",  0)");
            let rest = if none == header { &bytes[128..] } else { &[] };
            Some([&bytes[..10], none.as_bytes(), rest].concat())
        }),
        _ => {
            let bytes = fs::read(path).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let none = |(name, tensor): (&str, TensorView<'_>)| {
                let shape: Vec<_> = tensor.shape().iter().map(|&len| if len == size { 0 } else { len }).collect();
                let bytes = if shape.contains(&0) { vec![] } else { tensor.data().to_vec() };
                (name.to_string(), shape, bytes)
            };
            let tensors: Vec<_> = tensors.iter().map(none).collect();
            write_safetensors(path, &tensors);
        }
    }
}

fn write_safetensors(path: &Path, tensors: &[(String, Vec<usize>, Vec<u8>)]) {
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name, view)
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
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
    // A tensor of no numbers has any width.
    let rest = [("b_E", vec![0]), ("W_D", vec![0, 1 << 62])];
    let tensors = [("W_E", vec![1 << 62, 0])].into_iter().chain(rest);
    let tensors: Vec<_> = tensors.map(|(name, shape)| (name.to_string(), shape, vec![])).collect();
    write_safetensors(&folder.join("sae_weights.safetensors"), &tensors);
    let message = of_sizes("4611686018427387904", "0");
    assert!(message.contains("of 1 or more, found `4611686018427387904 and 0`"), "{message}");
}

#[test]
fn what_overflows_when_weights_are_folded_is_refused() {
    // A decoder row whose norm is past the largest float.
    let large = 1e30f32.to_le_bytes();
    let (_dir, folder) = copy("dictionary-learning-AutoEncoder");
    rewrite(&folder.join("ae.pt"), |_, mut bytes| {
        if bytes.len() == 10 * 24 * 4 {
            bytes[..4].copy_from_slice(&large);
        }
        Some(bytes)
    });
    let message = refused(&folder);
    assert!(message.contains("ae.pt") && message.contains("finite numbers in W_enc"), "{message}");
    for (name, decoder) in [("saelens-topk-rescaled", "W_dec"), ("llamascopium-topk", "W_D")] {
        let (_dir, folder) = copy(name);
        let path = folder.join("sae_weights.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let at = SafeTensors::deserialize(&bytes).unwrap().tensor(decoder).unwrap().data().as_ptr() as usize;
        let at = at - bytes.as_ptr() as usize;
        bytes[at..at + 4].copy_from_slice(&large);
        fs::write(&path, bytes).unwrap();
        let message = refused(&folder);
        assert!(message.contains("sae_weights") && message.contains("finite numbers in W_enc"), "{name}: {message}");
    }
}

#[test]
fn thresholds_that_are_no_numbers_are_refused_before_they_are_scaled() {
    let (_dir, folder) = copy("llamascopium-jumprelu");
    let path = folder.join("sae_weights.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for log in [f32::NAN, 100.0] {
        let spoilt = |(name, tensor): (&str, TensorView<'_>)| {
            let mut bytes = tensor.data().to_vec();
            if name.ends_with("log_jumprelu_threshold") {
                bytes[..4].copy_from_slice(&log.to_le_bytes());
            }
            (name.to_string(), tensor.shape().to_vec(), bytes)
        };
        write_safetensors(&path, &tensors.iter().map(spoilt).collect::<Vec<_>>());
        let name = if log.is_nan() { "activation_function.log_jumprelu_threshold" } else { "threshold" };
        let message = refused(&folder);
        assert!(message.contains(&format!("finite numbers in {name}, found")), "{log}: {message}");
    }
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
    assert!(refused(&folder).contains("at most 20 times the file, found 4194304 bytes"), "{}", refused(&folder));
}

#[test]
fn numbers_that_are_none_and_wrong_sizes_are_named() {
    let (_dir, folder) = copy("gemma-scope-res");
    rewrite(&folder.join("params.npz"), |name, mut bytes| {
        if name == "b_dec.npy" {
            let last = bytes.len() - 4;
            bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        Some(bytes)
    });
    assert!(refused(&folder).contains("finite numbers in b_dec, found NaN at index 9"), "{}", refused(&folder));

    let (_dir, folder) = copy("dictionary-learning-AutoEncoderTopK");
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let with = |from: &str, to: &str| {
        fs::write(folder.join("config.json"), config.replace(from, to)).unwrap();
        refused(&folder)
    };
    assert!(
        with("\"dict_size\": 24", "\"dict_size\": 25").contains("encoder.weight of shape [25, 10], found [24, 10]")
    );
    assert!(with("\"k\": 4", "\"k\": 5").contains("k 5, as config.json has it, found 4"));
    assert!(with("AutoEncoderTopK", "CrossCoder").contains("`CrossCoder`"));
}

#[test]
fn a_threshold_that_was_never_set_is_refused() {
    let (_dir, folder) = copy("dictionary-learning-BatchTopKSAE");
    let path = folder.join("ae.pt");
    let set = 0.6f32.to_le_bytes();
    rewrite(&path, |_, bytes| Some(if bytes == set { (-1f32).to_le_bytes().to_vec() } else { bytes }));
    let message = refused(&folder);
    assert!(message.contains("threshold of 0 or more, found -1"), "{message}");
}

/// What reading says of a copy of `name` after a change of the text of a config.
fn refused_with(name: &str, file: &str, from: &str, to: &str) -> String {
    let (_dir, folder) = copy(name);
    edit(&folder.join(file), from, to);
    refused(&folder)
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_config_that_lacks_k_or_has_none_of_any_use_is_named() {
    let message = refused_with("sparsify-sae", "cfg.json", "\"k\": 4, ", "");
    assert!(
        message.contains("cfg.json: expected `k`, the active latents of a token, found no such key. Add"),
        "{message}"
    );
    for (name, file, key) in [
        ("sparsify-sae", "cfg.json", "\"k\": "),
        ("saelens-topk", "cfg.json", "\"k\": "),
        ("llamascopium-topk", "config.json", "\"top_k\": "),
    ] {
        let message = refused_with(name, file, &format!("{key}4"), &format!("{key}0"));
        assert!(
            message.contains(&format!("{file}: expected k from 1 to d_sae = 24, found k = 0")),
            "{name}: {message}"
        );
    }
    let (_dir, folder) = copy("dictionary-learning-AutoEncoderTopK");
    edit(&folder.join("config.json"), "\"k\": 4", "\"k\": null");
    rewrite(&folder.join("ae.pt"), |_, bytes| Some(if bytes == 4i32.to_le_bytes() { vec![0; 4] } else { bytes }));
    let message = refused(&folder);
    assert!(message.contains("ae.pt: expected k of 1 or more, found 0"), "{message}");
}

#[test]
fn a_value_of_another_type_is_named_by_file_and_key() {
    for (name, file, from, to, expected) in [
        ("saelens-topk", "cfg.json", "\"d_sae\": 24", "\"d_sae\": \"24\"", "d_sae: invalid type: string \"24\""),
        ("saelens-topk", "cfg.json", "\"context_size\": 64", "\"context_size\": []", "context_size: invalid type"),
        ("saelens-legacy", "cfg.json", "\"d_in\": 10", "\"d_in\": -10", "d_in: invalid value: integer `-10`"),
        (
            "sparsify-sae",
            "cfg.json",
            "\"transcode\": false",
            "\"transcode\": 0",
            "transcode: invalid type: integer `0`",
        ),
        (
            "dictionary-learning-AutoEncoder",
            "config.json",
            "\"dict_size\": 24",
            "\"dict_size\": 2.5",
            "dict_size: invalid",
        ),
        ("llamascopium-relu", "config.json", "\"act_fn\": \"relu\"", "\"act_fn\": 1", "act_fn: invalid type: integer"),
        (
            "gemma-scope-2-res",
            "config.json",
            "\"affine_connection\": false",
            "\"affine_connection\": {}",
            "affine_conn",
        ),
        ("llama-scope", "hyperparams.json", "{\"in\": 5.0, \"out\": 5.0}", "7", "expected a JSON object"),
    ] {
        let message = refused_with(name, file, from, to);
        assert!(message.contains(file) && message.contains(expected), "{name}: {message}");
        assert!(!message.contains("struct "), "{message}");
    }
    let message = refused_with("llamascopium-relu", "config.json", "\"act_fn\": \"relu\"", "\"act_fn\": \"BatchTopK\"");
    assert!(
        message.contains("config.json: expected act_fn `relu`, `jumprelu` or `topk`, found `BatchTopK`"),
        "{message}"
    );
}

#[test]
fn keys_of_saelens_that_change_the_computation_are_refused_and_those_of_training_are_not() {
    let with =
        |key: &str| refused_with("saelens-jumprelu", "cfg.json", "\"d_in\": 10", &format!("\"d_in\": 10, {key}"));
    let message = with("\"sigmoid_gate\": true");
    assert!(message.contains("cfg.json") && message.contains("unknown field `sigmoid_gate`"), "{message}");
    let in_metadata = |key: &str| {
        let to = format!("\"metadata\": {{\"{key}\": 3, ");
        refused_with("saelens-jumprelu", "cfg.json", "\"metadata\": {", &to)
    };
    for key in ["hook_head_index", "hook_head_index_out"] {
        let message = in_metadata(key);
        assert!(
            message.contains(&format!("expected metadata.{key} `null`")) && message.contains("found `3`"),
            "{message}"
        );
    }
    let legacy = ("\"hook_point_head_index\": null", "\"hook_point_head_index\": 3");
    let message = refused_with("saelens-legacy", "cfg.json", legacy.0, legacy.1);
    assert!(message.contains("metadata.hook_head_index `null`"), "{message}");
    let reshaped = ("\"reshape_activations\": \"none\"", "\"reshape_activations\": \"hook_q\"");
    assert!(
        refused_with("saelens-jumprelu", "cfg.json", reshaped.0, reshaped.1).contains("reshape_activations `none`")
    );

    let (_dir, folder) = copy("saelens-jumprelu");
    let plain = Sae::load(&folder).unwrap();
    // SAELens' jumprelu has no such key as the second, and passes over it.
    let keys = "\"d_in\": 10, \"l0_coefficient\": 2.0, \"rescale_acts_by_decoder_norm\": true, \"d_head\": null";
    edit(&folder.join("cfg.json"), "\"d_in\": 10", keys);
    edit(&folder.join("cfg.json"), "\"metadata\": {", "\"metadata\": {\"final_l0\": 4.5, ");
    assert_eq!(Sae::load(&folder).unwrap(), plain);
}

/// Changes the numbers of one tensor of a safetensors file.
fn change_tensor(path: &Path, changed: &str, change: impl Fn(&mut Vec<u8>)) {
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let copied = |(name, tensor): (&str, TensorView<'_>)| {
        let mut bytes = tensor.data().to_vec();
        if name == changed {
            change(&mut bytes);
        }
        (name.to_string(), tensor.shape().to_vec(), bytes)
    };
    write_safetensors(path, &tensors.iter().map(copied).collect::<Vec<_>>());
}

#[test]
fn numbers_that_are_none_are_named_as_the_file_names_them_before_they_are_folded() {
    for (name, file, tensor) in [
        ("saelens-topk-rescaled", "sae_weights.safetensors", "W_dec"),
        ("llamascopium-topk", "sae_weights.safetensors", "W_D"),
        ("llama-scope", "checkpoints/final.safetensors", "decoder.weight"),
        ("sparsify-skip", "sae.safetensors", "W_skip"),
        ("gemma-scope-2-affine", "params.safetensors", "affine_skip_connection"),
    ] {
        for value in [f32::NAN, f32::INFINITY] {
            let (_dir, folder) = copy(name);
            change_tensor(&folder.join(file), tensor, |bytes| bytes[4..8].copy_from_slice(&value.to_le_bytes()));
            let message = refused(&folder);
            let expected = format!("{file}: expected finite numbers in {tensor}, found {value} at index 1");
            assert!(message.contains(&expected), "{name}: {message}");
        }
    }
    let (_dir, folder) = copy("dictionary-learning-AutoEncoder");
    rewrite(&folder.join("ae.pt"), |_, mut bytes| {
        if bytes.len() == 10 * 24 * 4 {
            bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        Some(bytes)
    });
    let message = refused(&folder);
    assert!(message.contains("finite numbers in") && message.contains(".weight, found NaN at index 0"), "{message}");
}

#[test]
fn doubles_are_refused_with_what_to_do() {
    let (_dir, folder) = copy("saelens-standard");
    let path = folder.join("sae_weights.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let doubled = tensors.iter().map(|(name, tensor)| (name, tensor.shape().to_vec(), [tensor.data(); 2].concat()));
    let doubled: Vec<_> = doubled.collect();
    let views = doubled.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F64, shape.clone(), bytes).unwrap();
        (name, view)
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let message = refused(&folder);
    assert!(message.contains("W_enc in F32, F16 or BF16, found F64. Save it again"), "{message}");
}

#[test]
fn all_that_a_file_holds_is_named_where_a_tensor_is_missing() {
    let (_dir, folder) = copy("dictionary-learning-GatedAutoEncoder");
    edit(&folder.join("config.json"), "GatedAutoEncoder", "AutoEncoderTopK");
    let message = refused(&folder);
    let all = "found only decoder.weight, decoder_bias, encoder.weight, gate_bias, mag_bias, r_mag.";
    assert!(message.contains(all), "{message}");
    let (_dir, folder) = copy("openai-topk");
    let path = folder.join("3.pt");
    rewrite(&path, |name, bytes| {
        Some(if name.ends_with("data.pkl") { replaced(&bytes, b"pre_bias", b"pre_bent") } else { bytes })
    });
    let message = refused(&folder);
    assert!(
        message.contains("an array pre_bias, found only decoder.weight, encoder.weight, latent_bias,"),
        "{message}"
    );
    assert!(message.contains("activation (a text)"), "{message}");
}

#[test]
fn parameters_of_a_module_are_tensors() {
    let (_dir, folder) = copy("dictionary-learning-AutoEncoder");
    let sae = Sae::load(&folder).unwrap();
    // `_rebuild_parameter(bias, True, OrderedDict())` in place of the first tensor, as pickle writes a Parameter.
    let (tensor, parameter) = (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n(");
    let as_parameter = |bytes: &[u8]| {
        let begun = replaced(bytes, tensor, &[&parameter[..], tensor].concat());
        replaced(&begun, b"Rq\x0d", b"Rq\x0d\x88h\x00)RtR")
    };
    rewrite(&folder.join("ae.pt"), |name, bytes| {
        Some(if name.ends_with("data.pkl") { as_parameter(&bytes) } else { bytes })
    });
    assert_eq!(Sae::load(&folder).unwrap(), sae);
}
