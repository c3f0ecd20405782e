//! The tokenizer of a model folder: `tokenizer.json`, and the files beside it that name the special tokens and hold the
//! chat template.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::TextTokenizer;
use crate::{
    Error, Result,
    source::stand_in,
    store::{hex, python_json},
};

/// The fields used from `tokenizer_config.json`.
#[derive(Debug, Default, Deserialize)]
struct TokenizerConfig {
    bos_token: Option<NamedToken>,
    eos_token: Option<NamedToken>,
    add_bos_token: Option<bool>,
    chat_template: Option<ChatTemplates>,
    /// All others: `unk_token` and more.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// The names by which transformers passes special tokens to a chat template.
const TEMPLATE_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A special token: its text, or a record that holds its text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum NamedToken {
    Text(String),
    Record { content: String },
}

impl NamedToken {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Record { content: text } => text,
        }
    }
}

/// One template, or several by name (`default`, `tool_use`).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ChatTemplates {
    One(String),
    Several(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// The fields used from `config.json` and `generation_config.json`.
#[derive(Debug, Default, Deserialize)]
struct TokenIds {
    bos_token_id: Option<OneOrMore>,
    eos_token_id: Option<OneOrMore>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a token id or a list of them")]
enum OneOrMore {
    One(i64),
    More(Vec<i64>),
}

impl OneOrMore {
    /// Older files write -1 for none.
    fn ids(&self) -> impl Iterator<Item = u32> {
        let ids = match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::More(ids) => ids,
        };
        ids.iter().filter_map(|id| u32::try_from(*id).ok())
    }
}

/// Reads the tokenizer of a model folder.
pub(super) fn read(folder: &Path) -> Result<TextTokenizer> {
    let path = folder.join("tokenizer.json");
    let bytes = fs::read(&path).map_err(|source| missing(folder, &path, source))?;
    let tokenizer = parse(&path, &bytes)?;
    let config: TokenizerConfig = read_optional(&folder.join("tokenizer_config.json"))?;
    let files: [TokenIds; 2] =
        [read_optional(&folder.join("config.json"))?, read_optional(&folder.join("generation_config.json"))?];
    let bos_ids = files.iter().filter_map(|file| file.bos_token_id.as_ref()).flat_map(OneOrMore::ids);
    let eos_ids = || files.iter().filter_map(|file| file.eos_token_id.as_ref()).flat_map(OneOrMore::ids);
    let bos = special_token(&tokenizer, config.bos_token.as_ref(), bos_ids);
    let eos = special_token(&tokenizer, config.eos_token.as_ref(), eos_ids());
    Ok(TextTokenizer {
        stop: eos.into_iter().chain(eos_ids()).collect(),
        add_bos: config.add_bos_token.unwrap_or(false) || template_adds_bos(&tokenizer, bos),
        template_tokens: template_tokens(&config),
        chat_template: chat_template(folder, config.chat_template)?,
        sha256: hex(&Sha256::digest(&bytes)),
        warned: OnceLock::new(),
        path,
        tokenizer,
        bos,
        eos,
    })
}

/// The special tokens that `tokenizer_config.json` names: transformers passes no others to a template.
fn template_tokens(config: &TokenizerConfig) -> BTreeMap<String, String> {
    let text = |name: &str| match name {
        "bos_token" => config.bos_token.as_ref().map(NamedToken::text),
        "eos_token" => config.eos_token.as_ref().map(NamedToken::text),
        _ => config.others.get(name).and_then(|token| token.as_str().or(token["content"].as_str())),
    };
    TEMPLATE_TOKENS.into_iter().filter_map(|name| Some((name.to_owned(), text(name)?.to_owned()))).collect()
}

fn missing(folder: &Path, path: &Path, source: std::io::Error) -> Error {
    if source.kind() != ErrorKind::NotFound {
        return Error::io("read", path)(source);
    }
    let hint =
        "If the model has only a SentencePiece file, write one with save_pretrained of transformers' AutoTokenizer";
    Error::malformed(folder, "tokenizer.json beside the weights", "no such file", hint)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Tokenizer> {
    let damaged = |source: tokenizers::Error| {
        let is_cut = source.downcast_ref::<serde_json::Error>().is_some_and(serde_json::Error::is_eof);
        let (found, hint) = match stand_in(path) {
            Some((found, hint)) => (found.to_owned(), hint),
            None if is_cut => (source.to_string(), "Download it again: it has been cut short"),
            None => (source.to_string(), "It is damaged, or written for a newer version of the tokenizers library"),
        };
        Error::malformed(path, "a Hugging Face tokenizer", found, hint)
    };
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(damaged)?;
    // Files saved for batched classification may cut or pad the tokens; a corpus must be encoded whole.
    tokenizer.with_truncation(None).map_err(damaged)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// Reads a file that may be absent, but not damaged.
fn read_optional<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    let Some(text) = read_text_if_there(path)? else { return Ok(T::default()) };
    python_json(&text).map_err(|source| {
        let hint =
            if source.is_eof() { "Download it again: it has been cut short" } else { "Mend it, or get it again" };
        Error::malformed(path, "JSON in the format of transformers", source.to_string(), hint)
    })
}

fn read_text_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io("read", path)(source)),
    }
}

/// The name in `tokenizer_config.json` comes first: transformers derives `tokenizer.bos_token_id` from it.
fn special_token(tokenizer: &Tokenizer, named: Option<&NamedToken>, mut ids: impl Iterator<Item = u32>) -> Option<u32> {
    let by_name = named.and_then(|token| tokenizer.token_to_id(token.text()));
    by_name.or_else(|| ids.next())
}

/// True if the post-processor in `tokenizer.json` adds BOS, as for Llama 3 and others; `tokenizer_config.json` then
/// does not say so.
fn template_adds_bos(tokenizer: &Tokenizer, bos: Option<u32>) -> bool {
    let first = tokenizer.encode_fast("a", true).ok().and_then(|encoding| encoding.get_ids().first().copied());
    bos.is_some() && first == bos
}

fn chat_template(folder: &Path, configured: Option<ChatTemplates>) -> Result<Option<String>> {
    let own_file: PathBuf = folder.join("chat_template.jinja");
    if let Some(template) = read_text_if_there(&own_file)? {
        return Ok(Some(template));
    }
    Ok(configured.and_then(|templates| match templates {
        ChatTemplates::One(template) => Some(template),
        ChatTemplates::Several(list) => {
            list.into_iter().find(|entry| entry.name == "default").map(|entry| entry.template)
        }
    }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A model folder with a vocabulary of words and the given other files.
    fn folder_with(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = r#"{
            "version": "1.0",
            "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "padding": null, "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": null,
            "post_processor": {
                "type": "TemplateProcessing", "pair": [],
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}
            },
            "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                              "normalized": false, "special": true}],
            "model": {"type": "WordLevel", "vocab": {"<s>": 0, "a": 1, "b": 2, "</s>": 3}, "unk_token": "a"}
        }"#;
        for (name, content) in [("tokenizer.json", tokenizer)].iter().chain(files) {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    #[test]
    fn a_text_is_neither_cut_nor_given_a_beginning() {
        let folder = folder_with(&[]);
        assert_eq!(read(folder.path()).unwrap().encode("a b a b").unwrap(), [1, 2, 1, 2]);
    }

    #[test]
    fn special_tokens_are_found_wherever_a_model_names_them() {
        let cases = [
            ("tokenizer_config.json", r#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}}"#),
            ("config.json", r#"{"bos_token_id": 0, "eos_token_id": 3, "vocab_size": 4}"#),
            ("generation_config.json", r#"{"bos_token_id": 0, "eos_token_id": [3, 1]}"#),
        ];
        for file in cases {
            let folder = folder_with(&[file]);
            let tokenizer = read(folder.path()).unwrap();
            assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), Some(3)), "{}", file.0);
            assert!(tokenizer.add_bos(), "the post-processor adds it");
        }
        assert_eq!(read(folder_with(&[]).path()).unwrap().bos(), None);
    }

    #[test]
    fn every_token_that_the_files_name_ends_generation() {
        let folder = folder_with(&[
            ("tokenizer_config.json", r#"{"eos_token": "</s>"}"#),
            ("config.json", r#"{"eos_token_id": -1, "scale": NaN}"#),
            ("generation_config.json", r#"{"eos_token_id": [1, 2]}"#),
        ]);
        let tokenizer = read(folder.path()).unwrap();
        let stop: Vec<_> = (0..4).filter(|id| tokenizer.is_stop(*id)).collect();
        assert_eq!((tokenizer.eos(), stop), (Some(3), vec![1, 2, 3]));
        let none = folder_with(&[("config.json", r#"{"eos_token_id": -1}"#)]);
        assert_eq!(read(none.path()).unwrap().eos(), None);
    }

    #[test]
    fn a_chat_template_has_three_places() {
        let several =
            r#"{"chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]}"#;
        let cases: [&[(&str, &str)]; 3] = [
            &[("tokenizer_config.json", r#"{"chat_template": "yes"}"#)],
            &[("tokenizer_config.json", several)],
            &[("tokenizer_config.json", r#"{"chat_template": "no"}"#), ("chat_template.jinja", "yes")],
        ];
        for files in cases {
            let folder = folder_with(files);
            assert_eq!(
                read(folder.path()).unwrap().render_chat(crate::ChatDate::default(), &[], false).unwrap(),
                "yes"
            );
        }
    }

    #[test]
    fn a_damaged_file_beside_the_tokenizer_is_named() {
        let folder = folder_with(&[("config.json", "{\"bos_token_id\": ")]);
        let message = read(folder.path()).unwrap_err().to_string();
        assert!(message.contains("config.json: expected JSON"), "{message}");
    }
}
