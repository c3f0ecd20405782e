//! [`Splitter`]: the rules that GGUF names and does not define, by which a text is cut into words before byte-pair
//! merging.
//!
//! Only rules known exactly are listed. An almost correct tokenizer gives activations of token sequences that the model
//! never saw in training, and nothing downstream would notice.

use tokenizers::{
    NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
    normalizers::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::OTHER_TOKENIZERS;
use crate::{Error, Result, model::GgufMetadata};

/// Rule that splits text into words before byte-pair merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Splitter {
    /// Single digits, then GPT-2's words.
    SmolLm,
    /// GPT-2's words.
    Gpt2,
    /// Unicode NFC, then GPT-2's words.
    Olmo,
    /// Unicode NFC, then words by [`QWEN2_WORDS`].
    Qwen2,
    /// Words by [`LLAMA3_WORDS`]; a word that is itself a token is not merged from its bytes.
    Llama3,
    /// Words by [`LLAMA3_WORDS`]: OLMo 2, and everything that shares OpenAI's cl100k vocabulary.
    Dbrx,
    /// Words by [`TEKKEN_WORDS`], taken whole like Llama 3's: Mistral Nemo.
    Tekken,
    /// Words by [`GPT4O_WORDS`]: Phi-4-mini.
    Gpt4o,
    /// Words by [`SEED_CODER_WORDS`].
    SeedCoder,
    /// Cut by each of [`DEEPSEEK_CODER_WORDS`] in turn.
    DeepseekCoder,
}

// As in the `tokenizer.json` files of Qwen/Qwen2-7B and meta-llama/Meta-Llama-3-8B. They differ in the digits.
const QWEN2_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3_WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

// As in the `tokenizer.json` files of mistralai/Mistral-Nemo-Base-2407, of OpenAI's o200k vocabulary, and of
// ByteDance-Seed/Seed-Coder-8B-Base and deepseek-ai/deepseek-coder-6.7b-base.
const TEKKEN_WORDS: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const GPT4O_WORDS: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const SEED_CODER_WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}",
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const DEEPSEEK_CODER_WORDS: [&str; 5] = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\u{d7ff}]+", r"\p{N}"];

impl Splitter {
    /// llama.cpp's names and their rules, for the families that are read.
    const NAMES: [(&'static str, Self); 23] = [
        ("smollm", Self::SmolLm),
        ("starcoder", Self::SmolLm),
        ("refact", Self::SmolLm),
        ("gpt-2", Self::Gpt2),
        ("olmo", Self::Olmo),
        ("minerva-7b", Self::SmolLm),
        ("mellum", Self::Gpt2),
        ("a.x-4.0", Self::Gpt2),
        ("trillion", Self::Gpt2),
        ("qwen2", Self::Qwen2),
        ("deepseek-r1-qwen", Self::Qwen2),
        ("megrez", Self::Qwen2),
        ("llama3", Self::Llama3),
        ("llama-v3", Self::Llama3),
        ("llama-bpe", Self::Llama3),
        ("falcon3", Self::Llama3),
        ("midm-2.0", Self::Llama3),
        ("dbrx", Self::Dbrx),
        ("smaug-bpe", Self::Dbrx),
        ("tekken", Self::Tekken),
        ("gpt-4o", Self::Gpt4o),
        ("seed-coder", Self::SeedCoder),
        ("deepseek-coder", Self::DeepseekCoder),
    ];

    /// The splitting rule, if it is known exactly. `default` is not: a converter writes it for a tokenizer that it does not
    /// recognize, whose rule may be any.
    pub(super) fn of(metadata: &GgufMetadata) -> Result<Self> {
        let Some(pre) =
            metadata.get("tokenizer.ggml.pre").map(|_| metadata.string("tokenizer.ggml.pre")).transpose()?
        else {
            let expected = "tokenizer.ggml.pre, the name of the rule that cuts texts into words";
            let hint =
                "Converters before April 2024 left it out: get a newer file of the model, or name the original model";
            return Err(Error::malformed(metadata.path(), expected, "no such key", hint));
        };
        Self::NAMES.iter().find(|(name, _)| *name == pre).map(|(_, splitter)| *splitter).ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            let expected = format!("tokenizer.ggml.pre to be one of {}", names.join(", "));
            Error::malformed(metadata.path(), expected, format!("`{pre}`"), OTHER_TOKENIZERS)
        })
    }

    /// True if a word that is itself a token is not merged from its bytes.
    pub(super) fn takes_words_whole(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }

    /// True if BOS is added where the header does not say: llama.cpp's default for this rule.
    pub(super) fn adds_bos(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }

    pub(super) fn normalizer(self) -> Option<NormalizerWrapper> {
        matches!(self, Self::Olmo | Self::Qwen2).then(|| NFC.into())
    }

    pub(super) fn pre_tokenizer(self) -> tokenizers::Result<PreTokenizerWrapper> {
        // (add_prefix_space, trim_offsets, use_regex): the regex is GPT-2's.
        let gpt2_words = ByteLevel::new(false, true, true);
        let bytes_only = ByteLevel::new(false, true, false);
        let split = |regex: &&str| -> tokenizers::Result<PreTokenizerWrapper> {
            let pattern = SplitPattern::Regex((*regex).to_owned());
            Ok(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into())
        };
        let each = |regexes: &[&str]| {
            let splits = regexes.iter().map(split).chain([Ok(bytes_only.into())]);
            Ok(Sequence::new(splits.collect::<tokenizers::Result<_>>()?).into())
        };
        let words = |regex| each(&[regex]);
        match self {
            Self::SmolLm => Ok(Sequence::new(vec![Digits::new(true).into(), gpt2_words.into()]).into()),
            Self::Gpt2 | Self::Olmo => Ok(gpt2_words.into()),
            Self::Qwen2 => words(QWEN2_WORDS),
            Self::Llama3 | Self::Dbrx => words(LLAMA3_WORDS),
            Self::Tekken => words(TEKKEN_WORDS),
            Self::Gpt4o => words(GPT4O_WORDS),
            Self::SeedCoder => words(SEED_CODER_WORDS),
            Self::DeepseekCoder => each(&DEEPSEEK_CODER_WORDS),
        }
    }
}
