//! SAEs as former versions of the tools saved them, made by `tests/interop/vintages.py`.

use trainer::{HookPoints, Sae, SaeConfig};

use crate::{
    case::{Case, assert_agrees, case_in, fixtures},
    spoil::refused,
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

fn vintage(name: &str) -> Case {
    case_in("vintages", name)
}

fn config(name: &str) -> SaeConfig {
    Sae::load(&vintage(name).path).unwrap().config().clone()
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
    let message = refused(&fixtures("vintages").join("dictionary-learning-2024-10-batch-topk/sae"));
    assert!(message.contains("ae.pt: expected a threshold, which BatchTopKSAE has since December 2024"), "{message}");
    let message = refused(&fixtures("vintages").join("dictionary-learning-2025-08-backup/sae"));
    assert!(message.contains("the backup of a training that has not ended"), "{message}");
}
