//! [`SpecialTokens`]: the tokens of a GGUF vocabulary that are cut out of a text before anything else. Its header gives
//! their type, but not whether they take white space with them; llama.cpp knows that by the model's name, and so do we.

use tokenizers::{AddedToken, Tokenizer};

use super::stop_tokens::SPELLINGS;
use crate::model::GgufMetadata;

// `tokenizer.ggml.token_type`, from the GGUF specification.
pub(super) const NORMAL: i64 = 1;
pub(super) const UNKNOWN: i64 = 2;
pub(super) const CONTROL: i64 = 3;
pub(super) const USER_DEFINED: i64 = 4;

/// Tokens around a place to fill in, and one more, that llama.cpp takes for control tokens besides those that end a text.
const MARKS: [&str; 22] = [
    "<|tool_response>",
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
];

/// Tokens of Phi-3 that keep the white space after them.
const PHI3_KEEP_SPACE: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// True if `token` is a control token even if its type is that of a word, as in llama.cpp (`src/llama-vocab.cpp`).
pub(super) fn always_control(token: &str) -> bool {
    SPELLINGS.contains(&token) || MARKS.contains(&token)
}

/// The special tokens of a vocabulary.
pub(super) struct SpecialTokens<'a> {
    pub(super) tokens: &'a [&'a str],
    /// One per token.
    pub(super) types: &'a [i64],
    /// True if the white space after them belongs to them, as in Phi-3.
    pub(super) strip_right: bool,
}

impl<'a> SpecialTokens<'a> {
    /// The special tokens of the file that `metadata` is from.
    pub(super) fn of(metadata: &GgufMetadata, tokens: &'a [&'a str], types: &'a [i64]) -> Self {
        let names = ["general.name", "general.basename", "general.base_model.0.name"];
        let named = |key: &&str| metadata.string(key).is_ok_and(is_phi3);
        Self { tokens, types, strip_right: names.iter().any(named) }
    }

    /// `rules`, with a rule of these tokens that their types do not tell.
    pub(super) fn named(&self, rules: &str) -> String {
        if self.strip_right { format!("{rules}, no space after special tokens") } else { rules.to_owned() }
    }

    /// Makes `tokenizer` cut them out.
    pub(super) fn add_to(&self, tokenizer: &mut Tokenizer) -> tokenizers::Result<()> {
        let of_types = |wanted: &'static [i64]| {
            let chosen = self.tokens.iter().zip(self.types).filter(move |(_, kind)| wanted.contains(kind));
            chosen.map(|(token, _)| *token)
        };
        let added = |token: &str, special| {
            let strips = self.strip_right && !PHI3_KEEP_SPACE.contains(&token);
            AddedToken::from(token, special).normalized(false).rstrip(strips)
        };
        tokenizer.add_special_tokens(of_types(&[CONTROL, UNKNOWN]).map(|token| added(token, true)))?;
        tokenizer.add_tokens(of_types(&[USER_DEFINED]).map(|token| added(token, false)))?;
        Ok(())
    }
}

/// True for every spelling of Phi-3 and Phi-3.5 in the names of models.
fn is_phi3(name: &str) -> bool {
    let letters: String = name.chars().filter(|c| c.is_alphanumeric()).collect();
    letters.to_lowercase().contains("phi3")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokenizers::models::wordlevel::WordLevel;

    use super::*;

    const TOKENS: [&str; 7] = ["<unk>", "<s>", "</s>", "<|user|>", "<|end|>", "\n", "hi"];
    const TYPES: [i64; 7] = [UNKNOWN, CONTROL, CONTROL, CONTROL, USER_DEFINED, NORMAL, NORMAL];

    fn encode(text: &str, strip_right: bool) -> Vec<u32> {
        let vocab = TOKENS.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), id)).collect();
        let words = WordLevel::builder().vocab(vocab).unk_token("<unk>".into()).build().unwrap();
        let mut tokenizer = Tokenizer::new(words);
        SpecialTokens { tokens: &TOKENS, types: &TYPES, strip_right }.add_to(&mut tokenizer).unwrap();
        tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
    }

    /// As llama.cpp does for "Phi-3-mini-4k-instruct", whose tokenizer.json says the same.
    #[test]
    fn phi_3_takes_the_space_after_a_mark_with_it_but_not_after_those_of_a_text() {
        let chat = "<|user|>\nhi<|end|> \n<|user|>hi";
        assert_eq!(encode(chat, true), [3, 6, 4, 3, 6]);
        assert_eq!(encode(chat, false), [3, 0, 4, 0, 3, 6]);
        assert_eq!(encode("<s>\n</s>\n<unk>\n", true), [1, 5, 2, 0, 5]);
    }

    #[test]
    fn phi_3_is_known_by_its_names() {
        for name in ["Phi3", "Phi-3-mini-4k-instruct", "Phi 3.5 Mini Instruct", "microsoft_Phi-3-medium"] {
            assert!(is_phi3(name), "{name}");
        }
        for name in ["Phi-4-mini", "phi-2", "tiny", "Llama 3"] {
            assert!(!is_phi3(name), "{name}");
        }
    }

    #[test]
    fn marks_of_turns_and_gaps_are_never_words() {
        for token in ["<end_of_turn>", "<|im_end|>", "<|fim_prefix|>", "</s>"] {
            assert!(always_control(token), "{token}");
        }
        assert!(!always_control("<b>") && !always_control("hi"));
    }
}
