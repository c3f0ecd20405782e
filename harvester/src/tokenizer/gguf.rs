//! The tokenizer inside a GGUF file: vocabulary, merges and token types from its metadata; the splitting rules, which
//! GGUF only names (`tokenizer.ggml.pre`), from the table here.
//!
//! Only rules known exactly are listed. A tokenizer that is almost right gives activations of texts the model never
//! saw in that form, and nothing downstream would notice.

use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use sha2::{Digest, Sha256};
use tokenizers::{
    AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    decoders::byte_level::ByteLevel,
    models::bpe::{BPE, Vocab},
    normalizers::NFC,
    pre_tokenizers::{
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::TextTokenizer;
use crate::{Error, GgufMetadata, Result, atomic::hex};

/// How text is cut into words before byte-pair merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Splitter {
    /// Single digits, then GPT-2's words.
    SmolLm,
    /// GPT-2's words.
    Gpt2,
    /// Unicode NFC, then GPT-2's words.
    Olmo,
    /// Unicode NFC, then words by [`QWEN2_WORDS`].
    Qwen2,
    /// Words by [`LLAMA3_WORDS`]; a word that is a token is not merged from its bytes.
    Llama3,
}

// As in the `tokenizer.json` files of Qwen/Qwen2-7B and meta-llama/Meta-Llama-3-8B. They differ in the digits.
const QWEN2_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

// `tokenizer.ggml.token_type`, from the GGUF specification.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

impl Splitter {
    /// llama.cpp's names, and what each means.
    const NAMES: [(&'static str, Self); 7] = [
        ("smollm", Self::SmolLm),
        ("gpt-2", Self::Gpt2),
        ("olmo", Self::Olmo),
        ("qwen2", Self::Qwen2),
        ("llama3", Self::Llama3),
        ("llama-v3", Self::Llama3),
        ("llama-bpe", Self::Llama3),
    ];

    fn normalizer(self) -> Option<NormalizerWrapper> {
        matches!(self, Self::Olmo | Self::Qwen2).then(|| NFC.into())
    }

    fn pre_tokenizer(self) -> tokenizers::Result<PreTokenizerWrapper> {
        // (add_prefix_space, trim_offsets, use_regex): the regex is GPT-2's.
        let gpt2_words = ByteLevel::new(false, true, true);
        let bytes_only = ByteLevel::new(false, true, false);
        let words = |regex: &str| {
            let split = Split::new(SplitPattern::Regex(regex.to_owned()), SplitDelimiterBehavior::Isolated, false)?;
            Ok(Sequence::new(vec![split.into(), bytes_only.into()]).into())
        };
        match self {
            Self::SmolLm => Ok(Sequence::new(vec![Digits::new(true).into(), gpt2_words.into()]).into()),
            Self::Gpt2 | Self::Olmo => Ok(gpt2_words.into()),
            Self::Qwen2 => words(QWEN2_WORDS),
            Self::Llama3 => words(LLAMA3_WORDS),
        }
    }
}

/// Reads the tokenizer of a GGUF file. The weights are not touched.
pub(super) fn read(path: &Path) -> Result<TextTokenizer> {
    let metadata = GgufMetadata::read(path)?;
    let splitter = splitter(&metadata)?;
    let tokens = strings(&metadata, "tokenizer.ggml.tokens")?;
    let merges = strings(&metadata, "tokenizer.ggml.merges")?;
    let types = token_types(&metadata, tokens.len())?;
    let tokenizer = build(splitter, &tokens, &merges, &types)
        .map_err(|source| damaged(path, "a usable vocabulary", source.to_string()))?;
    Ok(TextTokenizer {
        path: path.to_path_buf(),
        special: super::special_ids(&tokenizer),
        tokenizer,
        bos: token_id(&metadata, "tokenizer.ggml.bos_token_id", tokens.len())?,
        eos: token_id(&metadata, "tokenizer.ggml.eos_token_id", tokens.len())?,
        add_bos: matches!(metadata.get("tokenizer.ggml.add_bos_token"), Some(Value::Bool(true))),
        chat_template: metadata.string("tokenizer.chat_template").ok().map(str::to_owned),
        sha256: fingerprint(metadata.string("tokenizer.ggml.pre")?, &tokens, &merges, &types),
    })
}

fn build(splitter: Splitter, tokens: &[&str], merges: &[&str], types: &[i64]) -> tokenizers::Result<Tokenizer> {
    let vocab: Vocab = tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), id)).collect();
    if vocab.len() != tokens.len() {
        return Err(format!("{} tokens of which only {} differ", tokens.len(), vocab.len()).into());
    }
    let pairs = merges.iter().map(|merge| {
        let (left, right) = merge.split_once(' ').ok_or_else(|| format!("the merge `{merge}`, which is not a pair"))?;
        Ok((left.to_owned(), right.to_owned()))
    });
    let merges: Vec<_> = pairs.collect::<tokenizers::Result<_>>()?;
    let ignore_merges = splitter == Splitter::Llama3;
    let bpe = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(ignore_merges).build()?;
    let mut tokenizer = Tokenizer::new(bpe);
    tokenizer.with_normalizer(splitter.normalizer())?;
    tokenizer.with_pre_tokenizer(Some(splitter.pre_tokenizer()?));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let of_type =
        |wanted: i64| tokens.iter().zip(types).filter(move |(_, kind)| **kind == wanted).map(|(token, _)| *token);
    tokenizer.add_special_tokens(of_type(CONTROL).map(|token| AddedToken::from(token, true)))?;
    tokenizer.add_tokens(of_type(USER_DEFINED).map(|token| AddedToken::from(token, false).normalized(false)))?;
    Ok(tokenizer)
}

/// SHA-256 of everything that decides the ids. Each list and each text is preceded by its length, so that no two
/// vocabularies run together into the same bytes.
fn fingerprint(pre: &str, tokens: &[&str], merges: &[&str], types: &[i64]) -> String {
    let mut hash = Sha256::new();
    for list in [&[pre][..], tokens, merges] {
        hash.update((list.len() as u64).to_le_bytes());
        for text in list {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
    }
    types.iter().for_each(|kind| hash.update(kind.to_le_bytes()));
    hex(&hash.finalize())
}

/// The rule by which text is cut, if it is one that is known exactly.
fn splitter(metadata: &GgufMetadata) -> Result<Splitter> {
    let hint = "A folder with tokenizer.json works for any tokenizer: name the original model instead of the GGUF";
    let model = metadata.string("tokenizer.ggml.model")?;
    if model != "gpt2" {
        let expected = "tokenizer.ggml.model to be gpt2 (byte-level BPE)";
        return Err(Error::malformed(metadata.path(), expected, format!("`{model}`"), hint));
    }
    let pre = metadata.string("tokenizer.ggml.pre")?;
    Splitter::NAMES.iter().find(|(name, _)| *name == pre).map(|(_, splitter)| *splitter).ok_or_else(|| {
        let names: Vec<_> = Splitter::NAMES.iter().map(|(name, _)| *name).collect();
        let expected = format!("tokenizer.ggml.pre to be one of {}", names.join(", "));
        Error::malformed(metadata.path(), expected, format!("`{pre}`"), hint)
    })
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

fn token_types(metadata: &GgufMetadata, n_tokens: usize) -> Result<Vec<i64>> {
    let key = "tokenizer.ggml.token_type";
    let values = list(metadata, key)?;
    if values.len() != n_tokens {
        let expected = format!("{n_tokens} entries in `{key}`, one a token");
        return Err(damaged(metadata.path(), &expected, values.len().to_string()));
    }
    let kind = |value: &Value| {
        value.to_i64().or_else(|_| value.to_i32().map(i64::from)).or_else(|_| value.to_u32().map(i64::from))
    };
    let number =
        |value| kind(value).map_err(|_| damaged(metadata.path(), &format!("numbers in `{key}`"), format!("{value:?}")));
    values.iter().map(number).collect()
}

/// A special token's id; absent is fine, outside the vocabulary is not.
fn token_id(metadata: &GgufMetadata, key: &str, n_tokens: usize) -> Result<Option<u32>> {
    if metadata.get(key).is_none() {
        return Ok(None);
    }
    let id = metadata.integer(key)?;
    let fits = u32::try_from(id).ok().filter(|_| id < n_tokens);
    fits.map(Some).ok_or_else(|| damaged(metadata.path(), &format!("`{key}` below {n_tokens}"), id.to_string()))
}

fn damaged(path: &Path, expected: &str, found: impl Into<String>) -> Error {
    Error::malformed(path, expected, found, "Download the file again, or name another model")
}
