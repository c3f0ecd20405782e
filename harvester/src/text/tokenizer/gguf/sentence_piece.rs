//! SentencePiece vocabularies in GGUF files (Llama 2, Gemma): tokens with scores, and no merges. SentencePiece merges
//! the adjacent pair whose union scores highest. That is byte-pair encoding with the merges derived here.

use std::collections::HashMap;

use tokenizers::{
    NormalizerWrapper, Tokenizer,
    decoders::{DecoderWrapper, byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders, strip::Strip},
    models::bpe::{BPE, Vocab},
    normalizers::{Prepend, Replace, utils::Sequence as Normalizers},
};

use super::special_tokens::NORMAL;

/// The entries of a GGUF header that describe such a tokenizer.
pub(super) struct SentencePieces<'a> {
    pub(super) tokens: &'a [&'a str],
    /// One per token: a token with a higher score is merged earlier.
    pub(super) scores: &'a [f32],
    /// One per token, numbered as in the GGUF specification.
    pub(super) types: &'a [i64],
    pub(super) unknown: usize,
    /// True if texts are encoded as if a space stood before them.
    pub(super) add_space_prefix: bool,
}

impl SentencePieces<'_> {
    /// The tokenizer, without its special tokens.
    pub(super) fn build(&self) -> tokenizers::Result<Tokenizer> {
        let vocab: Vocab = self.tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), id)).collect();
        let unknown = self.tokens.get(self.unknown).copied().unwrap_or_default().to_owned();
        let bpe = BPE::builder().vocab_and_merges(vocab, self.merges());
        let mut tokenizer = Tokenizer::new(bpe.unk_token(unknown).fuse_unk(true).byte_fallback(true).build()?);
        let spaces: NormalizerWrapper = Replace::new(" ", "▁")?.into();
        let prefix: Option<NormalizerWrapper> = self.add_space_prefix.then(|| Prepend::new("▁".to_owned()).into());
        tokenizer.with_normalizer(Some(Normalizers::new(prefix.into_iter().chain([spaces]).collect())))?;
        tokenizer.with_decoder(Some(self.decoder()?));
        Ok(tokenizer)
    }

    /// Every way to build a token from two others, best token first: the order in which SentencePiece merges.
    fn merges(&self) -> Vec<(String, String)> {
        let normal = |id: usize| self.types.get(id) == Some(&NORMAL);
        let ids: HashMap<&str, usize> =
            self.tokens.iter().enumerate().filter(|(id, _)| normal(*id)).map(|(id, token)| (*token, id)).collect();
        let mut by_score: Vec<usize> = ids.values().copied().collect();
        // A NaN sorts somewhere; the order stays total, and that is enough.
        by_score.sort_unstable_by(|a, b| self.scores[*b].total_cmp(&self.scores[*a]).then(a.cmp(b)));
        let splits = |id: &usize| {
            let token = self.tokens[*id];
            let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
            let mut pairs: Vec<_> = cuts.filter_map(|(a, b)| Some(((*ids.get(a)?, *ids.get(b)?), (a, b)))).collect();
            pairs.sort_unstable_by_key(|(pair, _)| *pair);
            pairs.into_iter().map(|(_, (a, b))| (a.to_owned(), b.to_owned()))
        };
        by_score.iter().flat_map(splits).collect()
    }

    fn decoder(&self) -> tokenizers::Result<DecoderWrapper> {
        let mut steps: Vec<DecoderWrapper> =
            vec![Replace::new("▁", " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
        if self.add_space_prefix {
            steps.push(Strip::new(' ', 1, 0).into());
        }
        Ok(Decoders::new(steps).into())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::text::tokenizer::gguf::special_tokens::SpecialTokens;

    /// Token n has id n; 6 is the type of byte tokens.
    const TOKENS: [&str; 10] = ["<unk>", "<s>", "▁", "a", "b", "ab", "▁a", "ba", "<0xC3>", "<0xA9>"];
    const TYPES: [i64; 10] = [2, 3, 1, 1, 1, 1, 1, 1, 6, 6];

    fn encode(scores: [f32; 10], add_space_prefix: bool, text: &str) -> Vec<u32> {
        let pieces = SentencePieces { tokens: &TOKENS, scores: &scores, types: &TYPES, unknown: 0, add_space_prefix };
        let mut tokenizer = pieces.build().unwrap();
        SpecialTokens { tokens: &TOKENS, types: &TYPES, strip_right: false }.add_to(&mut tokenizer).unwrap();
        tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
    }

    #[test]
    fn the_best_scored_union_is_merged_first() {
        let scores = |ab, space_a, ba| [0., 0., -9., -9., -9., ab, space_a, ba, 0., 0.];
        assert_eq!(encode(scores(-1., -2., -3.), false, "aba"), [5, 3]);
        assert_eq!(encode(scores(-3., -2., -1.), false, "aba"), [3, 7]);
        assert_eq!(encode(scores(-1., -2., -3.), true, "ab"), [2, 5]);
        assert_eq!(encode(scores(-2., -1., -3.), true, "ab"), [6, 4]);
    }

    #[test]
    fn what_is_not_in_the_vocabulary_is_spelled_in_bytes() {
        assert_eq!(encode([0.; 10], false, "é"), [8, 9]);
        assert_eq!(encode([0.; 10], false, "x<s>"), [0, 1]);
    }
}
