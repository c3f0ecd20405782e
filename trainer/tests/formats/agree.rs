//! Every SAE of another tool gives the tool's own results, both as it is and after being written in each other format.

use std::{
    fs,
    path::{Path, PathBuf},
};

use trainer::{Architecture, HookPoints, Sae, SaeConfig, SaeFormat};

use crate::case::{assert_agrees, case, cases, difference};

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

fn is_transcoder(sae: &Sae) -> bool {
    matches!(sae.config().hook_points, HookPoints::Transcoder { .. })
}

/// The folder whose names a format needs.
fn folder_for(format: SaeFormat, sae: &Sae, dir: &Path) -> PathBuf {
    let is_resid_post = sae.config().hook_points.reads() == ["blocks.3.hook_resid_post".parse().unwrap()];
    let folder = dir.join(match (format, is_transcoder(sae)) {
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
            assert_eq!(back.d_out(), sae.d_out());
            if folder.ends_with("sae") {
                assert_eq!(is_transcoder(&back), is_transcoder(&sae), "{} as {format}", case.name);
            } else {
                assert_eq!(back.config().hook_points, sae.config().hook_points, "{} as {format}", case.name);
            }
            if (format, back.architecture()) == (SaeFormat::DictionaryLearning, Architecture::Standard) {
                // Its loader scales decoder rows to norm 1, which changes the size of the activations.
                let (_, x_hat) = back.reconstruct(&case.x).unwrap();
                assert!(difference(&x_hat, &case.x_hat) < 1e-5, "{} as {format}", case.name);
            } else {
                assert_agrees(&back, &case, &format!(" as {format}"));
            }
        }
    }
    // In the order of SaeFormat::ALL. SAELens' format takes all of them; the read-only format takes none. Another count
    // means that a writer refuses, or accepts, other SAEs than before.
    assert_eq!(written, [38, 9, 23, 20, 23, 7, 26, 0]);
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
    // No folder name stands for the hook point before a block.
    assert!(sparsify("saelens-legacy", "layers.3").unwrap_err().contains("whose name gives no hook point"));
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
    let (config, weights) = sae.into_parts();
    let hook_points = HookPoints::Transcoder { from: None, to: "hook_embed".parse().ok() };
    let unplaced = Sae::new(SaeConfig { hook_points, ..config }, weights).unwrap();
    let message = unplaced.save_as(SaeFormat::Sparsify, dir.path()).unwrap_err().to_string();
    assert!(message.contains("in a folder such as layers.10.mlp"), "{message}");
}

#[test]
fn an_sae_is_known_by_each_of_its_files() {
    for case in cases() {
        let sae = Sae::load(&case.path).unwrap();
        for file in SaeFormat::files_of(&case.path).unwrap() {
            assert_eq!(Sae::load(&file).unwrap(), sae, "{}", file.display());
            assert_eq!(SaeFormat::files_of(&file).unwrap().len(), SaeFormat::files_of(&case.path).unwrap().len());
        }
    }
}

#[test]
fn what_a_format_says_about_the_origin_is_kept() {
    let load = |name: &str| Sae::load(&case(name).path).unwrap().config().clone();
    let at = |text: &str| HookPoints::Autoencoder(Some(text.parse().unwrap()));
    let writes = |name: &str| load(name).hook_points.writes();
    let mlp_out = ["blocks.3.hook_mlp_out".parse().unwrap()];
    let config = load("saelens-jumprelu-transcoder");
    assert_eq!(config.hook_points.reads(), ["blocks.3.ln2.hook_normalized".parse().unwrap()]);
    assert_eq!(config.hook_points.writes(), mlp_out);
    assert_eq!((config.model_name.as_str(), config.ctx_len, config.prepend_bos), ("tiny", Some(64), Some(true)));
    assert_eq!(load("saelens-legacy").hook_points, at("blocks.3.hook_resid_pre"));
    assert_eq!(load("dictionary-learning-BatchTopKSAE").hook_points, at("blocks.3.hook_resid_post"));
    assert_eq!(load("gemma-scope-packed").hook_points, at("blocks.3.hook_mlp_out"));
    assert_eq!(writes("gemma-scope-2-affine"), mlp_out);
    assert_eq!(load("openai-topk").hook_points, at("blocks.3.hook_resid_post"));
    assert_eq!(writes("llamascopium-transcoder"), mlp_out);
    assert_eq!(load("sparsify-sae").hook_points, at("blocks.3.hook_resid_post"));
}
