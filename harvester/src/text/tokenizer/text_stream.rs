//! [`TextStream`]: text in pieces, as its tokens arrive. A piece never holds half a character.

use super::TextTokenizer;

/// Turns tokens into text one by one. The joined pieces equal [`TextTokenizer::decode`] of all the tokens.
#[derive(Debug)]
pub(crate) struct TextStream<'a> {
    tokenizer: &'a TextTokenizer,
    begins_text: bool,
    /// Bytes of a character that is not complete yet.
    pending: Vec<u8>,
}

impl<'a> TextStream<'a> {
    /// A text from its beginning.
    pub(crate) fn new(tokenizer: &'a TextTokenizer) -> Self {
        Self { tokenizer, begins_text: true, pending: vec![] }
    }

    /// The rest of a text that began elsewhere, such as a model's continuation of a prompt.
    pub(crate) fn continuing(tokenizer: &'a TextTokenizer) -> Self {
        Self { begins_text: false, ..Self::new(tokenizer) }
    }

    /// The text that the next token adds. Empty if the token ends inside a character, which then comes with a later
    /// token. Bytes that cannot become a character are shown as U+FFFD.
    pub(crate) fn push(&mut self, token: u32) -> String {
        self.pending.extend(self.tokenizer.bytes(token, self.begins_text));
        self.begins_text = false;
        let whole = self.pending.len() - unfinished(&self.pending);
        let rest = self.pending.split_off(whole);
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending = rest;
        text
    }

    /// The rest when no token follows: U+FFFD if the last character is not complete.
    pub(crate) fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// Number of bytes at the end that may be the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let Some(last) = bytes.utf8_chunks().last() else { return 0 };
    let invalid = last.invalid();
    match std::str::from_utf8(invalid) {
        Err(error) if error.error_len().is_none() => invalid.len(),
        _ => 0,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use rand_chacha::{
        ChaCha8Rng,
        rand_core::{RngCore, SeedableRng},
    };

    use super::*;

    fn open(fixture: &str) -> TextTokenizer {
        TextTokenizer::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(fixture)).unwrap()
    }

    /// The pieces of a stream and the rest.
    fn pieces(tokenizer: &TextTokenizer, ids: &[u32]) -> Vec<String> {
        let mut stream = TextStream::new(tokenizer);
        let pieces: Vec<_> = ids.iter().map(|id| stream.push(*id)).collect();
        [pieces, vec![stream.finish()]].concat()
    }

    /// The oracle is the library's decoder. If bytes have their own characters, it is compared on arbitrary tokens.
    /// If bytes have their own tokens, it is compared on the tokens of a text, because for one broken byte it
    /// replaces all bytes in a row.
    #[test]
    fn the_pieces_of_any_tokens_are_their_text() {
        let text = "Hà Nội — xin chào,  bạn!\n\tNguyễn 👍🏽👨‍👩‍👧 e\u{301} ﬁ \u{a0}x é€😀 <0xE2> ▁ 日本語";
        for (name, any) in [
            ("tiny/llama", true),
            ("tiny/gpt_neox", true),
            ("gguf/sentence_piece.gguf", false),
            ("gguf/sentence_piece_prefix.gguf", false),
        ] {
            let tokenizer = open(name);
            let oracle = |ids: &[u32]| tokenizer.tokenizer.decode(ids, false).unwrap();
            let ids = tokenizer.encode(text).unwrap();
            let got = pieces(&tokenizer, &ids);
            assert_eq!(got.concat(), oracle(&ids), "{name}");
            assert!(any || got.iter().all(|piece| !piece.contains('\u{fffd}')), "{name}: {got:?}");
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            for _ in 0..200 {
                let ids: Vec<u32> = (0..20).map(|_| rng.next_u32() % tokenizer.d_vocab() as u32).collect();
                assert_eq!(pieces(&tokenizer, &ids).concat(), tokenizer.decode(&ids), "{name}: {ids:?}");
                assert!(!any || tokenizer.decode(&ids) == oracle(&ids), "{name}: {ids:?}");
            }
        }
    }

    #[test]
    fn what_continues_a_text_keeps_its_space() {
        let tokenizer = open("gguf/sentence_piece_prefix.gguf");
        let ids = tokenizer.encode("the the").unwrap();
        let mut stream = TextStream::continuing(&tokenizer);
        let text: String = ids.iter().map(|id| stream.push(*id)).collect();
        assert_eq!((text.as_str(), tokenizer.decode(&ids).as_str()), (" the the", "the the"));
    }

    #[test]
    fn only_the_beginning_of_a_character_waits() {
        let emoji = "👍".as_bytes();
        for (bytes, waiting) in
            [(&b"a"[..], 0), (b"", 0), (&emoji[..1], 1), (&emoji[..3], 3), (emoji, 0), (&emoji[1..], 0), (b"\xff", 0)]
        {
            assert_eq!(unfinished(bytes), waiting, "{bytes:?}");
        }
        assert_eq!(unfinished(&[emoji, &emoji[..2]].concat()), 2);
        assert_eq!(unfinished(&[&emoji[..2], &emoji[..3]].concat()), 3);
    }
}
