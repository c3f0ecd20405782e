//! SAEs of other tools, against what those tools compute: `interop/formats.py` made the folders and the numbers beside
//! them. Then back into each format that can hold them, and files that are broken or malicious.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use tempfile::TempDir;
use trainer::{Architecture, FeatureActs, Sae, SaeFormat};
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
    let transcoder = sae.config.is_transcoder();
    let folder = match format {
        SaeFormat::Sparsify => dir.join(if transcoder { "layers.3.mlp" } else { "layers.3" }),
        SaeFormat::GemmaScope if transcoder => dir.join("gemma-scope-2b-pt-transcoders/layer_3"),
        _ => dir.join("sae"),
    };
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
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    (dir, folder)
}

/// Writes a zip file again with some members changed; `change` gives the new bytes, or nothing to leave one out.
fn rewrite(path: &Path, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) {
    let mut archive = ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut members = vec![];
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).unwrap();
        let name = member.name().unwrap().into_owned();
        let mut bytes = vec![];
        std::io::Read::read_to_end(&mut member, &mut bytes).unwrap();
        members.extend(change(&name, bytes).map(|bytes| (name, bytes)));
    }
    let mut writer = ZipWriter::new(fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        writer.start_file(name, options).unwrap();
        writer.write_all(&bytes).unwrap();
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
    std::io::Read::read_to_end(&mut archive.by_name(like).unwrap(), &mut bytes).unwrap();
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
    for (name, file) in [("dictionary-learning-AutoEncoder", "ae.pt"), ("gemma-scope-packed", "params.npz")] {
        let (_dir, folder) = copy(name);
        let path = folder.join(file);
        let bytes = fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(3) {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 0x55;
            fs::write(&path, spoilt).unwrap();
            // The numbers have a checksum in the zip file; what is left are bytes that mean nothing.
            drop(Sae::load(&folder));
        }
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
    assert!(refused(&folder).contains("4194304 bytes, many times the file"), "{}", refused(&folder));
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
