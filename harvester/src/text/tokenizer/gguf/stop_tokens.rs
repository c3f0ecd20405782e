//! [`stop_tokens`]: the tokens that end a generated text, in a GGUF file. Its header names one to three of them;
//! llama.cpp knows the others by their spelling, and so do we (`src/llama-vocab.cpp`).

use std::collections::HashSet;

use tokenizers::Tokenizer;

use super::token_id;
use crate::{Result, model::GgufMetadata};

/// The keys that name such a token: end of text, of a turn, of a message.
const KEYS: [&str; 3] = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// The spellings that are such a token in every vocabulary that has them.
pub(super) const SPELLINGS: [&str; 32] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
    // Between files and repositories of code.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
    "[e~[",
];

/// The ids of these tokens in a vocabulary of `n_tokens`.
pub(super) fn stop_tokens(metadata: &GgufMetadata, tokenizer: &Tokenizer, n_tokens: usize) -> Result<HashSet<u32>> {
    let named: Vec<_> = KEYS.iter().map(|key| token_id(metadata, key, n_tokens)).collect::<Result<_>>()?;
    let spelt = SPELLINGS.iter().filter_map(|spelling| tokenizer.token_to_id(spelling));
    let mut stop: HashSet<u32> = named.into_iter().flatten().chain(spelt).collect();
    // In OpenAI's Harmony format `<|end|>` only ends a message.
    let id = |spelling| tokenizer.token_to_id(spelling);
    if let (Some(end), Some(_), Some(_)) = (id("<|end|>"), id("<|return|>"), id("<|call|>")) {
        stop.remove(&end);
    }
    Ok(stop)
}
