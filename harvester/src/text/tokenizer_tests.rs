//! Token ids and chat prompts against those of Hugging Face transformers, saved by the programs in `tests/fixtures`. An
//! almost correct tokenizer would spoil every activation without any visible sign.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::quantized::gguf_file::{self, Content, Value};
use serde::Deserialize;

use super::tokenizer::TextStream;
use crate::{ChatDate, ModelSource, Silent, TextTokenizer, text::ChatMessage};

#[derive(Deserialize)]
struct Reference {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    name: String,
    text: String,
    ids: Vec<u32>,
    /// The decoded ids, if they differ from the text: the vocabulary lacks some bytes.
    decoded: Option<String>,
    messages: Option<Vec<ChatMessage>>,
}

#[derive(Deserialize)]
struct TinyReference {
    texts: Vec<Encoded>,
    chat: Chat,
}

#[derive(Deserialize)]
struct Encoded {
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Chat {
    messages: Vec<ChatMessage>,
    rendered: String,
    ids: Vec<u32>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    serde_json::from_str(&fs::read_to_string(fixtures().join(name)).unwrap()).unwrap()
}

fn default_tokenizer() -> TextTokenizer {
    let model = ModelSource::Default.resolve(&Silent).unwrap();
    TextTokenizer::open(&model.path).unwrap()
}

#[test]
fn the_default_models_ids_are_transformers_ids() {
    let tokenizer = default_tokenizer();
    let reference: Reference = read("reference/smollm2.json");
    assert!(reference.prompts.len() >= 8);
    for Prompt { name, text, ids, decoded, messages } in reference.prompts {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{name}");
        assert_eq!(tokenizer.decode(&ids), decoded.unwrap_or_else(|| text.clone()), "{name}");
        if let Some(messages) = messages {
            assert_eq!(tokenizer.render_chat(ChatDate::default(), &messages, true).unwrap(), text, "{name}");
        }
    }
}

#[derive(Deserialize)]
struct Rules {
    texts: Vec<String>,
    /// Per rule, the ids of each text.
    ids: HashMap<String, Vec<Vec<u32>>>,
}

/// `tests/fixtures/gguf/make_rules.py` asked llama.cpp.
#[test]
fn every_rule_that_a_gguf_header_names_cuts_as_llama_cpp_does() {
    let model = ModelSource::Default.resolve(&Silent).unwrap();
    let mut content = Content::read(&mut fs::File::open(model.path).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let rules: Rules = read("gguf/rules.json");
    assert_eq!(rules.ids.len(), 23);
    for (rule, ids) in rules.ids {
        content.metadata.insert("tokenizer.ggml.pre".into(), Value::String(rule.clone()));
        let header: Vec<_> = content.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        gguf_file::write(&mut fs::File::create(&path).unwrap(), &header, &[]).unwrap();
        let tokenizer = TextTokenizer::open(&path).unwrap();
        for (text, ids) in rules.texts.iter().zip(ids) {
            assert_eq!(tokenizer.encode(text).unwrap(), ids, "{rule}: {text}");
        }
    }
}

#[test]
fn the_default_models_special_tokens_are_known() {
    let tokenizer = default_tokenizer();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(1), Some(2), false));
    assert_eq!(tokenizer.d_vocab(), 49_152);
    for id in 0..=16 {
        assert_eq!(tokenizer.encode(&tokenizer.token_text(id)).unwrap(), [id]);
    }
    assert_eq!(tokenizer.token_text(1), "<|im_start|>");
    assert_eq!(tokenizer.token_text(60_000), "[60000]");
    assert_eq!(tokenizer.sha256().len(), 64);
}

#[test]
fn a_text_arrives_whole_characters_at_a_time() {
    let tokenizer = default_tokenizer();
    let text = "Hà Nội: Nguyễn  ăn\n\n\tphở 👍🏽 👨‍👩‍👧 e\u{301} 日本語, مرحبا — \u{a0}done ";
    let ids = tokenizer.encode(text).unwrap();
    let mut stream = TextStream::new(&tokenizer);
    let pieces: Vec<String> = ids.iter().map(|id| stream.push(*id)).collect();
    assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
    assert_eq!(pieces.concat() + &stream.finish(), text);
    assert_eq!(tokenizer.token_texts(&ids).concat(), text);
    // A window that begins inside a character.
    let emoji = tokenizer.encode("👍a").unwrap();
    assert!(emoji.len() > 2, "spread over several tokens");
    assert_eq!(tokenizer.token_texts(&emoji[1..]).concat(), "a");
    let mut stream = TextStream::new(&tokenizer);
    assert_eq!((stream.push(emoji[0]), stream.finish()), (String::new(), "\u{fffd}".to_string()));
}

#[test]
fn a_prompt_begins_with_bos_once_where_the_model_was_trained_so() {
    let tokenizer = TextTokenizer::open(&fixtures().join("gguf/sentence_piece.gguf")).unwrap();
    let bos = tokenizer.text_bos().unwrap();
    let plain = tokenizer.encode("the cat").unwrap();
    let prompt = tokenizer.prompt(crate::SpecialToken::FromModel, "the cat").unwrap();
    assert_eq!(prompt, [&[bos][..], &plain].concat());
    let written = tokenizer.token_text(bos) + "the cat"; // as a chat template writes it
    assert_eq!(
        tokenizer.prompt(crate::SpecialToken::FromModel, &written).unwrap(),
        tokenizer.encode(&written).unwrap()
    );
    assert_eq!(tokenizer.prompt(crate::SpecialToken::FromModel, "").unwrap(), [bos]);
    let default = default_tokenizer();
    assert_eq!(default.text_bos(), None);
    assert_eq!(default.prompt(crate::SpecialToken::FromModel, "the cat").unwrap(), default.encode("the cat").unwrap());
}

#[test]
fn every_token_has_a_text() {
    let tokenizer = default_tokenizer();
    assert!((0..49_152).all(|id| !tokenizer.token_text(id).is_empty()));
}

#[test]
fn a_folders_ids_and_chat_are_transformers() {
    let tokenizer = TextTokenizer::open(&fixtures().join("tiny/llama")).unwrap();
    let reference: TinyReference = read("tiny/tokenizer_reference.json");
    for Encoded { text, ids } in reference.texts {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
    }
    let Chat { messages, rendered, ids } = reference.chat;
    assert_eq!(tokenizer.render_chat(ChatDate::default(), &messages, true).unwrap(), rendered);
    assert_eq!(tokenizer.encode(&rendered).unwrap(), ids);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(0), Some(0), false));
}

#[test]
fn files_that_are_no_tokenizer_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let message = TextTokenizer::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("expected tokenizer.json beside the weights"), "{message}");
    fs::write(folder.path().join("tokenizer.json"), "{\"model\": 3}").unwrap();
    let message = TextTokenizer::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("expected a Hugging Face tokenizer"), "{message}");
    let gguf = folder.path().join("model.gguf");
    fs::write(&gguf, "GGUF and not much more").unwrap();
    let message = TextTokenizer::open(&gguf).unwrap_err().to_string();
    assert!(message.contains("model.gguf") && message.contains("expected a GGUF header"), "{message}");
}

#[derive(Deserialize)]
struct SentencePieceReference {
    sentence_piece: Vec<Encoded>,
    sentence_piece_prefix: Vec<Encoded>,
}

/// A GGUF file has the scores of a SentencePiece vocabulary but no merges: those are derived, and must give the same
/// tokens.
#[test]
fn a_sentence_piece_vocabulary_cuts_as_the_sentencepiece_library_does() {
    let reference: SentencePieceReference = read("gguf/sentence_piece.json");
    let files = [
        ("gguf/sentence_piece.gguf", reference.sentence_piece),
        ("gguf/sentence_piece_prefix.gguf", reference.sentence_piece_prefix),
    ];
    for (name, texts) in files {
        let tokenizer = TextTokenizer::open(&fixtures().join(name)).unwrap();
        assert!(tokenizer.add_bos(), "{name}: llama.cpp's default");
        for Encoded { text, ids } in texts {
            assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ids), text, "{name}");
        }
    }
}
