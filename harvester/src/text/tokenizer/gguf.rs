//! The tokenizer inside a GGUF file. Vocabulary, merges and token types come from its metadata. GGUF only names the
//! splitting rules (`tokenizer.ggml.pre`); `splitter.rs` defines them.

mod sentence_piece;
mod special_tokens;
mod splitter;
mod stop_tokens;

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::OnceLock,
};

use candle_core::quantized::gguf_file::Value;
use sha2::{Digest, Sha256};
use tokenizers::{
    Tokenizer,
    decoders::byte_level::ByteLevel,
    models::bpe::{BPE, Vocab},
};

use self::{
    sentence_piece::SentencePieces,
    special_tokens::{CONTROL, NORMAL, SpecialTokens, always_control},
    splitter::Splitter,
    stop_tokens::stop_tokens,
};
use super::TextTokenizer;
use crate::{Error, Result, model::GgufMetadata, store::hex};

/// Reads the tokenizer of a GGUF file. The weights are not read.
pub(super) fn read(path: &Path) -> Result<TextTokenizer> {
    let metadata = GgufMetadata::read(path)?;
    let (tokenizer, sha256, adds_bos) = match metadata.string("tokenizer.ggml.model")? {
        "gpt2" => byte_level(&metadata)?,
        "llama" => sentence_piece(&metadata)?,
        other => {
            let expected = "tokenizer.ggml.model to be gpt2 (byte-level BPE) or llama (SentencePiece)";
            return Err(Error::malformed(path, expected, format!("`{other}`"), OTHER_TOKENIZERS));
        }
    };
    let n_tokens = tokenizer.get_vocab_size(true);
    let named = |name: &str| token_id(&metadata, &format!("tokenizer.ggml.{name}_id"), n_tokens);
    let add_bos = match metadata.get("tokenizer.ggml.add_bos_token") {
        Some(Value::Bool(flag)) => *flag,
        _ => adds_bos,
    };
    let mut template_tokens = BTreeMap::new();
    for name in ["bos_token", "eos_token", "unknown_token", "padding_token"] {
        let text = named(name)?.and_then(|id| tokenizer.id_to_token(id));
        let name = name.replace("unknown", "unk").replace("padding", "pad");
        template_tokens.extend(text.map(|text| (name, text)));
    }
    let stop = stop_tokens(&metadata, &tokenizer, n_tokens)?;
    Ok(TextTokenizer {
        path: path.to_path_buf(),
        bos: named("bos_token")?,
        eos: named("eos_token")?,
        stop,
        add_bos,
        chat_template: metadata.string("tokenizer.chat_template").ok().map(str::to_owned),
        template_tokens,
        sha256,
        warned: OnceLock::new(),
        tokenizer,
    })
}

const OTHER_TOKENIZERS: &str =
    "A folder with tokenizer.json works for any tokenizer: name the original model instead of the GGUF";

/// The tokenizer, its fingerprint, and whether BOS is added if the header does not say.
fn byte_level(metadata: &GgufMetadata) -> Result<(Tokenizer, String, bool)> {
    let splitter = Splitter::of(metadata)?;
    let tokens = strings(metadata, "tokenizer.ggml.tokens")?;
    let merges = strings(metadata, "tokenizer.ggml.merges")?;
    let types = token_types(metadata, &tokens, &merges)?;
    let mut tokenizer = build(splitter, &tokens, &merges)
        .map_err(|source| damaged(metadata.path(), "a usable vocabulary", source.to_string()))?;
    let special = SpecialTokens::of(metadata, &tokens, &types);
    special
        .add_to(&mut tokenizer)
        .map_err(|source| damaged(metadata.path(), "a usable vocabulary", source.to_string()))?;
    let rules = special.named(metadata.string("tokenizer.ggml.pre")?);
    Ok((tokenizer, fingerprint(&rules, &tokens, &merges, &types, &[]), splitter.adds_bos()))
}

/// The same for a SentencePiece vocabulary, with llama.cpp's defaults.
fn sentence_piece(metadata: &GgufMetadata) -> Result<(Tokenizer, String, bool)> {
    let path = metadata.path();
    let tokens = strings(metadata, "tokenizer.ggml.tokens")?;
    let types = token_types(metadata, &tokens, &[])?;
    let scores = scores(metadata, tokens.len())?;
    let add_space_prefix = !matches!(metadata.get("tokenizer.ggml.add_space_prefix"), Some(Value::Bool(false)));
    let unknown = token_id(metadata, "tokenizer.ggml.unknown_token_id", tokens.len())?.unwrap_or(0) as usize;
    let distinct: HashSet<_> = tokens.iter().collect();
    if distinct.len() != tokens.len() {
        let found = format!("{} tokens, of which only {} are distinct", tokens.len(), distinct.len());
        return Err(damaged(path, "a usable vocabulary", found));
    }
    let pieces = SentencePieces { tokens: &tokens, scores: &scores, types: &types, unknown, add_space_prefix };
    let special = SpecialTokens::of(metadata, &tokens, &types);
    let built = pieces.build().and_then(|mut tokenizer| special.add_to(&mut tokenizer).map(|()| tokenizer));
    let tokenizer = built.map_err(|source| damaged(path, "a usable vocabulary", source.to_string()))?;
    let rules = special.named(if add_space_prefix { "sentencepiece, space before" } else { "sentencepiece" });
    Ok((tokenizer, fingerprint(&rules, &tokens, &[], &types, &scores), true))
}

fn build(splitter: Splitter, tokens: &[&str], merges: &[&str]) -> tokenizers::Result<Tokenizer> {
    let vocab: Vocab = tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), id)).collect();
    if vocab.len() != tokens.len() {
        return Err(format!("{} tokens, of which only {} are distinct", tokens.len(), vocab.len()).into());
    }
    let pairs = merges.iter().map(|merge| {
        let (left, right) = merge.split_once(' ').ok_or_else(|| format!("the merge `{merge}`, which is not a pair"))?;
        Ok((left.to_owned(), right.to_owned()))
    });
    let merges: Vec<_> = pairs.collect::<tokenizers::Result<_>>()?;
    let bpe = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(splitter.takes_words_whole()).build()?;
    let mut tokenizer = Tokenizer::new(bpe);
    tokenizer.with_normalizer(splitter.normalizer())?;
    tokenizer.with_pre_tokenizer(Some(splitter.pre_tokenizer()?));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

/// SHA-256 of everything that decides the ids. Each list and each text is preceded by its length, so that no two
/// vocabularies give the same bytes.
fn fingerprint(pre: &str, tokens: &[&str], merges: &[&str], types: &[i64], scores: &[f32]) -> String {
    let mut hash = Sha256::new();
    for list in [&[pre][..], tokens, merges] {
        hash.update((list.len() as u64).to_le_bytes());
        for text in list {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
    }
    types.iter().for_each(|kind| hash.update(kind.to_le_bytes()));
    scores.iter().for_each(|score| hash.update(score.to_le_bytes()));
    hex(&hash.finalize())
}

fn list<'a>(metadata: &'a GgufMetadata, key: &str) -> Result<&'a [Value]> {
    match metadata.get(key) {
        Some(Value::Array(values)) => Ok(values),
        _ => Err(damaged(metadata.path(), &format!("a list `{key}`"), "none")),
    }
}

fn strings<'a>(metadata: &'a GgufMetadata, key: &str) -> Result<Vec<&'a str>> {
    let text = |value: &'a Value| match value {
        Value::String(text) => Ok(text.as_str()),
        other => Err(damaged(metadata.path(), &format!("strings in `{key}`"), format!("{other:?}"))),
    };
    list(metadata, key)?.iter().map(text).collect()
}

/// The type of each token. One that marks a turn or a gap is a control token whatever its type: converters of early 2024
/// called some of them words, and llama.cpp corrects that too. But a token that is merged from others is a word, such as
/// Qwen's `</s>`, which llama.cpp cuts out and Hugging Face does not.
fn token_types(metadata: &GgufMetadata, tokens: &[&str], merges: &[&str]) -> Result<Vec<i64>> {
    let is_merged = |token: &str| {
        merges.iter().any(|merge| merge.split_once(' ').is_some_and(|(a, b)| token.strip_prefix(a) == Some(b)))
    };
    let key = "tokenizer.ggml.token_type";
    let values = list(metadata, key)?;
    if values.len() != tokens.len() {
        let expected = format!("{} entries in `{key}`, one per token", tokens.len());
        return Err(damaged(metadata.path(), &expected, values.len().to_string()));
    }
    let kind = |(value, token): (&Value, &&str)| match integer(value) {
        Some(NORMAL) if always_control(token) && !is_merged(token) => Ok(CONTROL),
        Some(kind) => Ok(kind),
        None => Err(damaged(metadata.path(), &format!("numbers in `{key}`"), format!("{value:?}"))),
    };
    values.iter().zip(tokens).map(kind).collect()
}

fn scores(metadata: &GgufMetadata, n_tokens: usize) -> Result<Vec<f32>> {
    let key = "tokenizer.ggml.scores";
    let values = list(metadata, key)?;
    if values.len() != n_tokens {
        let expected = format!("{n_tokens} entries in `{key}`, one per token");
        return Err(damaged(metadata.path(), &expected, values.len().to_string()));
    }
    let number = |value: &Value| match value {
        Value::F32(score) => Ok(*score),
        other => Err(damaged(metadata.path(), &format!("real numbers in `{key}`"), format!("{other:?}"))),
    };
    values.iter().map(number).collect()
}

/// The id of a special token; it may be absent, or -1, but not outside the vocabulary.
fn token_id(metadata: &GgufMetadata, key: &str, n_tokens: usize) -> Result<Option<u32>> {
    let Some(value) = metadata.get(key).filter(|value| !matches!(integer(value), Some(-1 | 0xFFFF_FFFF))) else {
        return Ok(None);
    };
    let id = integer(value).and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < n_tokens);
    id.map(Some).ok_or_else(|| damaged(metadata.path(), &format!("`{key}` below {n_tokens}"), format!("{value:?}")))
}

/// Reads an integer of any width: converters disagree on the width and the sign of ids and types.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::U8(number) => Some(i64::from(*number)),
        Value::I8(number) => Some(i64::from(*number)),
        Value::U16(number) => Some(i64::from(*number)),
        Value::I16(number) => Some(i64::from(*number)),
        Value::U32(number) => Some(i64::from(*number)),
        Value::I32(number) => Some(i64::from(*number)),
        Value::U64(number) => i64::try_from(*number).ok(),
        Value::I64(number) => Some(*number),
        _ => None,
    }
}

fn damaged(path: &Path, expected: &str, found: impl Into<String>) -> Error {
    Error::malformed(path, expected, found, "Not as llama.cpp's converter writes it: get another file of the model")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs::File;

    use candle_core::quantized::gguf_file;
    use tempfile::TempDir;

    use super::*;

    fn texts(list: &[&str]) -> Value {
        Value::Array(list.iter().map(|text| Value::String((*text).to_owned())).collect())
    }

    /// Token n has id n: control tokens, then letters, digits and two merges of digits.
    const TOKENS: [&str; 13] = ["<s>", "</s>", "<|user|>", "a", "b", "1", "2", "3", "Ġ", "12", "123", "Ã", "©"];

    /// A GGUF file without weights; `changed` replaces an entry, or removes it if the value is `None`.
    fn file_with(changed: &[(&str, Option<Value>)]) -> (TempDir, std::path::PathBuf) {
        let types = TOKENS.iter().enumerate().map(|(id, _)| Value::I32(if id < 3 { 3 } else { 1 }));
        let mut entries = vec![
            ("tokenizer.ggml.model", Value::String("gpt2".into())),
            ("tokenizer.ggml.pre", Value::String("smollm".into())),
            ("tokenizer.ggml.tokens", texts(&TOKENS)),
            ("tokenizer.ggml.merges", texts(&["1 2", "12 3"])),
            ("tokenizer.ggml.token_type", Value::Array(types.collect())),
            ("tokenizer.ggml.bos_token_id", Value::U32(0)),
            ("tokenizer.ggml.eos_token_id", Value::I32(1)),
            ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
        ];
        entries.retain(|(key, _)| changed.iter().all(|(changed, _)| changed != key));
        entries.extend(changed.iter().filter_map(|(key, value)| Some((*key, value.clone()?))));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let borrowed: Vec<_> = entries.iter().map(|(key, value)| (*key, value)).collect();
        gguf_file::write(&mut File::create(&path).unwrap(), &borrowed, &[]).unwrap();
        (folder, path)
    }

    fn with_pre(pre: &str) -> (TempDir, std::path::PathBuf) {
        file_with(&[("tokenizer.ggml.pre", Some(Value::String(pre.into())))])
    }

    fn refusal(changed: &[(&str, Option<Value>)]) -> String {
        let (_folder, path) = file_with(changed);
        read(&path).unwrap_err().to_string()
    }

    #[test]
    fn special_tokens_come_from_the_metadata() {
        let (_folder, path) = file_with(&[]);
        let tokenizer = read(&path).unwrap();
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(0), Some(1), true));
        assert!(tokenizer.is_stop(1) && !tokenizer.is_stop(0) && !tokenizer.is_stop(2));
        assert_eq!(tokenizer.encode("a<|user|>b").unwrap(), [3, 2, 4]);
        assert_eq!(tokenizer.decode(&[3, 2, 8, 11, 12]), "a<|user|> é");
        let message = tokenizer.render_chat(crate::ChatDate::default(), &[], true).unwrap_err().to_string();
        assert!(message.contains("expected a chat template"), "{message}");
    }

    #[test]
    fn every_token_that_ends_a_turn_ends_generation() {
        let mut tokens = TOKENS;
        (tokens[2], tokens[3], tokens[4]) = ("<end_of_turn>", "<|eot_id|>", "<turn>");
        let changes = [
            ("tokenizer.ggml.tokens", Some(texts(&tokens))),
            ("tokenizer.ggml.eot_token_id", Some(Value::U32(4))),
            ("tokenizer.ggml.eos_token_id", Some(Value::I32(-1))),
        ];
        let (_folder, path) = file_with(&changes);
        let tokenizer = read(&path).unwrap();
        let stop: Vec<_> = (0..13).filter(|id| tokenizer.is_stop(*id)).collect();
        assert_eq!((tokenizer.eos(), stop), (None, vec![1, 2, 3, 4]));
    }

    /// llama.cpp's defaults for files of early 2024, which do not say; xllamacpp gives the same.
    #[test]
    fn a_header_that_does_not_say_whether_bos_is_added_leaves_it_to_the_rule() {
        let unsaid = ("tokenizer.ggml.add_bos_token", None);
        for (pre, adds) in [
            ("llama3", true),
            ("llama-v3", true),
            ("llama-bpe", true),
            ("tekken", true),
            ("gpt-2", false),
            ("qwen2", false),
        ] {
            let (_folder, path) = file_with(&[unsaid.clone(), ("tokenizer.ggml.pre", Some(Value::String(pre.into())))]);
            assert_eq!(read(&path).unwrap().text_bos(), adds.then_some(0), "{pre}");
        }
        let said = ("tokenizer.ggml.add_bos_token", Some(Value::Bool(false)));
        let (_folder, path) = file_with(&[said, ("tokenizer.ggml.pre", Some(Value::String("llama-bpe".into())))]);
        assert_eq!(read(&path).unwrap().text_bos(), None);
    }

    #[test]
    fn a_mark_of_a_turn_is_no_word_even_if_its_type_says_so() {
        let mut tokens = TOKENS;
        tokens[2] = "<end_of_turn>";
        let types = (0..13).map(|id| Value::I32(if id < 2 { 3 } else { 1 }));
        let types = ("tokenizer.ggml.token_type", Some(Value::Array(types.collect())));
        let (_folder, path) = file_with(&[("tokenizer.ggml.tokens", Some(texts(&tokens))), types.clone()]);
        assert_eq!(read(&path).unwrap().encode("a<end_of_turn>b").unwrap(), [3, 2, 4]);
        // A word of the vocabulary that looks like a mark is one only where the splitting rule and the merges make it.
        tokens[2..5].copy_from_slice(&["<eos>", "<eo", "s>"]);
        let merges = ("tokenizer.ggml.merges", Some(texts(&["<eo s>"])));
        let (_folder, path) = file_with(&[("tokenizer.ggml.tokens", Some(texts(&tokens))), types, merges]);
        assert_eq!(read(&path).unwrap().encode("1<eos>2").unwrap(), [5, 6]);
    }

    #[test]
    fn each_rule_cuts_digits_in_its_own_way() {
        let cases: [(&str, &[u32]); 7] = [
            ("smollm", &[3, 8, 5, 6, 7, 5, 6, 7]),
            ("starcoder", &[3, 8, 5, 6, 7, 5, 6, 7]),
            ("dbrx", &[3, 8, 10, 10]),
            ("gpt-2", &[3, 8, 10, 10]),
            ("olmo", &[3, 8, 10, 10]),
            ("qwen2", &[3, 8, 5, 6, 7, 5, 6, 7]),
            ("llama-bpe", &[3, 8, 10, 10]),
        ];
        for (pre, ids) in cases {
            let (_folder, path) = with_pre(pre);
            assert_eq!(read(&path).unwrap().encode("a 123123").unwrap(), ids, "{pre}");
        }
        let (_folder, path) = with_pre("llama3");
        assert_eq!(read(&path).unwrap().encode("12312").unwrap(), [10, 9], "three digits at a time");
    }

    #[test]
    fn some_rules_compose_accents_first() {
        for (pre, ids) in [("smollm", &[][..]), ("olmo", &[11, 12]), ("qwen2", &[11, 12])] {
            let (_folder, path) = with_pre(pre);
            // The bytes of the accent and `e`, if decomposed, are not in this vocabulary and are dropped.
            assert_eq!(read(&path).unwrap().encode("e\u{301}").unwrap(), ids, "{pre}");
        }
    }

    #[test]
    fn rules_that_are_not_known_exactly_are_refused() {
        let message = refusal(&[("tokenizer.ggml.pre", Some(Value::String("brand-new".into())))]);
        assert!(message.contains("`brand-new`") && message.contains("smollm, starcoder"), "{message}");
        let message = refusal(&[("tokenizer.ggml.pre", Some(Value::String("default".into())))]);
        assert!(message.contains("`default`"), "{message}");
        let message = refusal(&[("tokenizer.ggml.model", Some(Value::String("rwkv".into())))]);
        assert!(message.contains("`rwkv`") && message.contains("gpt2"), "{message}");
    }

    #[test]
    fn damaged_vocabularies_are_refused_by_name() {
        let one_type = Value::Array(vec![Value::I32(1)]);
        let cases = [
            (("tokenizer.ggml.tokens", None), "tokenizer.ggml.tokens"),
            (("tokenizer.ggml.merges", Some(texts(&["1 2", "zz"]))), "`zz`, which is not a pair"),
            (("tokenizer.ggml.merges", Some(texts(&["x y"]))), "a usable vocabulary"),
            (("tokenizer.ggml.tokens", Some(texts(&["a"; 13]))), "only 1 are distinct"),
            (("tokenizer.ggml.token_type", Some(one_type)), "13 entries"),
            (("tokenizer.ggml.bos_token_id", Some(Value::U32(13))), "below 13"),
        ];
        for (change, expected) in cases {
            let message = refusal(&[change]);
            assert!(message.contains(expected) && message.contains("model.gguf"), "{message}");
        }
    }

    #[test]
    fn the_fingerprint_tells_vocabularies_apart() {
        let base = fingerprint("smollm", &["a", "bc"], &[], &[1, 1], &[]);
        assert_ne!(base, fingerprint("smollm", &["ab", "c"], &[], &[1, 1], &[]));
        assert_ne!(base, fingerprint("gpt-2", &["a", "bc"], &[], &[1, 1], &[]));
        assert_ne!(base, fingerprint("smollm", &["a", "bc"], &[], &[1, 3], &[]));
        assert_eq!(base, fingerprint("smollm", &["a", "bc"], &[], &[1, 1], &[]));
    }
}
