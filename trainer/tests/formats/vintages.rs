//! SAEs as former versions of the tools saved them, made by `tests/interop/vintages.py`.

use std::fs;

use trainer::{HookPoints, Sae, SaeConfig};

use crate::{
    case::{Case, assert_agrees, case_in, fixtures},
    spoil::{copy_of, edit, refused},
};

/// Every case that is to be read.
const READ: [&str; 11] = [
    "dictionary-learning-2024-05-standard",
    "dictionary-learning-2024-10-topk",
    "dictionary-learning-2024-12-topk",
    "llamascopium-2025-02-jumprelu",
    "llamascopium-2025-05-jumprelu",
    "openai-2023-relu",
    "saelens-3-runner",
    "saelens-5-checkpoint",
    "saelens-5-jumprelu",
    "saelens-6-checkpoint",
    "sparsify-2024-11-transcoder",
];

/// Every case that is to be refused.
const REFUSED: [&str; 2] = ["dictionary-learning-2024-10-batch-topk", "dictionary-learning-2025-08-backup"];

fn vintage(name: &str) -> Case {
    case_in("vintages", name)
}

fn config(name: &str) -> SaeConfig {
    Sae::load(&vintage(name).path).unwrap().config().clone()
}

#[test]
fn every_case_is_tested() {
    let entries = fs::read_dir(fixtures("vintages")).unwrap();
    let mut there: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    let mut tested = [&READ[..], &REFUSED[..]].concat();
    tested.sort();
    assert_eq!(there, tested);
}

#[test]
fn what_former_versions_saved_computes_what_they_computed() {
    for name in READ {
        let case = vintage(name);
        assert_agrees(&Sae::load(&case.path).unwrap(), &case, "");
    }
}

#[test]
fn the_place_is_the_one_that_was_trained_on() {
    let point = |text: &str| Some(text.parse().unwrap());
    let at = |text: &str| HookPoints::Autoencoder(point(text));
    assert_eq!(config("dictionary-learning-2024-10-topk").hook_points, at("blocks.3.hook_resid_post"));
    // `io` in: the input of the module that it names, for which there is no name.
    assert_eq!(config("dictionary-learning-2024-12-topk").hook_points, HookPoints::Autoencoder(None));
    let [from, to] = ["blocks.3.ln2.hook_normalized", "blocks.3.hook_mlp_out"].map(point);
    assert_eq!(config("sparsify-2024-11-transcoder").hook_points, HookPoints::Transcoder { from, to });
    assert_eq!(config("openai-2023-relu").hook_points, at("blocks.3.mlp.hook_post"));
    assert_eq!(config("saelens-3-runner").hook_points, at("blocks.3.hook_resid_pre"));
}

#[test]
fn a_version_that_centered_its_models_is_said() {
    let [note] = &config("saelens-3-runner").notes[..] else { panic!("one note, for no setting is unknown") };
    assert!(note.contains("which centered the weights of models with layer norms (GPT-2, Pythia"), "{note}");
    for name in READ.into_iter().filter(|name| *name != "saelens-3-runner") {
        assert_eq!(config(name).notes, [""; 0], "{name}");
    }
}

#[test]
fn files_without_what_the_computation_needs_are_named() {
    let [batch_topk, backup] = REFUSED.map(|name| refused(&fixtures("vintages").join(name).join("sae")));
    let expected = "ae.pt: expected a threshold, which BatchTopKSAE has since December 2024";
    assert!(batch_topk.contains(expected), "{batch_topk}");
    assert!(backup.contains("the backup of a training that has not ended"), "{backup}");
}

#[test]
fn a_jumprelu_needs_its_threshold() {
    let (_dir, folder) = copy_of(&vintage("llamascopium-2025-02-jumprelu"));
    edit(&folder.join("config.json"), "\"jump_relu_threshold\": 0.5, ", "");
    let message = refused(&folder);
    assert!(message.contains("or `jump_relu_threshold` in config.json, found neither"), "{message}");
}
