//! The bytes of a token. A text is the concatenated bytes of its tokens, and a character may be spread over several of
//! them.
//!
//! Decoders have two ways to write bytes that are not text: byte-level vocabularies (GPT-2 and most others) represent
//! each byte by a character, and SentencePiece has tokens such as `<0xE2>`. Everything else is left to the decoder.

use tokenizers::{Decoder, DecoderWrapper, Tokenizer};

/// Put before a token to get its bytes inside a text: decoders treat the first token differently.
const BEFORE: &str = "x";

/// The bytes of the token `piece`. At the beginning of a text, the space that SentencePiece adds there is left out.
pub(super) fn bytes_of(tokenizer: &Tokenizer, piece: String, begins_text: bool) -> Vec<u8> {
    let Some(decoder) = tokenizer.get_decoder() else {
        return if begins_text { piece.into_bytes() } else { format!(" {piece}").into_bytes() };
    };
    if contains(decoder, |step| matches!(step, DecoderWrapper::ByteLevel(_))) {
        // Added tokens are plain text, which usually contains characters that represent no byte.
        return piece.chars().map(byte_level).collect::<Option<_>>().unwrap_or(piece.into_bytes());
    }
    if let Some(byte) = fallback_byte(&piece)
        && contains(decoder, |step| matches!(step, DecoderWrapper::ByteFallback(_)))
    {
        return vec![byte];
    }
    let before = if begins_text { "" } else { BEFORE };
    let tokens = [before.to_owned(), piece.clone()].into_iter().skip(usize::from(begins_text)).collect();
    let decoded = decoder.decode(tokens).ok();
    decoded.and_then(|text| text.strip_prefix(before).map(str::to_owned)).unwrap_or(piece).into_bytes()
}

/// True if any step of the decoder satisfies `is_wanted`.
fn contains(decoder: &DecoderWrapper, is_wanted: fn(&DecoderWrapper) -> bool) -> bool {
    match decoder {
        DecoderWrapper::Sequence(steps) => steps.get_decoders().iter().any(|step| contains(step, is_wanted)),
        step => is_wanted(step),
    }
}

/// The byte that a character of a byte-level vocabulary represents. Printable characters represent themselves; the
/// other bytes have the characters from U+0100 on, in order (`bytes_to_unicode` in OpenAI's `encoder.py`).
fn byte_level(character: char) -> Option<u8> {
    let byte = match u32::from(character) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => code,
        code @ 0x100..=0x120 => code - 0x100,        // 00 to 20
        code @ 0x121..=0x142 => code - 0x121 + 0x7f, // 7f to a0
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// `<0xE2>`
fn fallback_byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashSet;

    use tokenizers::{PreTokenizedString, PreTokenizer, pre_tokenizers::byte_level::ByteLevel};

    use super::*;

    #[test]
    fn a_byte_level_character_is_the_byte_that_the_pre_tokenizer_makes_it_of() {
        assert_eq!(ByteLevel::alphabet().into_iter().filter_map(byte_level).collect::<HashSet<_>>().len(), 256);
        let all: String = (0..0x800).filter_map(char::from_u32).collect();
        let mut split = PreTokenizedString::from(all.as_str());
        ByteLevel::new(false, true, false).pre_tokenize(&mut split).unwrap();
        let written = split.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
        let bytes: Vec<u8> =
            written.iter().flat_map(|(text, ..)| text.chars()).map(|c| byte_level(c).unwrap()).collect();
        assert_eq!(bytes, all.into_bytes());
    }
}
