//! [`Contexts`]: documents become token contexts of one length, all of them full. Documents are tokenised one at a
//! time, joined by the separator token and cut into contexts, so no position is wasted on padding.
//!
//! ```text
//! stream   = doc[0] sep doc[1] sep doc[2] sep ..            (documents cut to document_tokens; empty ones add nothing)
//! context  = [bos]? followed by the next ctx_len (- 1) tokens of the stream
//! ```
//!
//! A [`ContextCursor`] is a place in that stream: a run that starts again from one reads no earlier document.

use serde::{Deserialize, Serialize};

use crate::{Corpus, Error, Result};

/// How documents are packed. Token ids, resolved from the tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextOptions {
    /// Tokens a context.
    pub ctx_len: usize,
    /// Follows every document.
    pub separator: Option<u32>,
    /// At position 0 of every context.
    pub bos: Option<u32>,
    /// Tokens used of a document at most; the whole document when absent.
    pub document_tokens: Option<usize>,
}

/// A place in the stream of tokens, before which everything is in finished contexts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextCursor {
    /// Finished contexts.
    pub contexts: u64,
    /// Documents used up, in the harvest's order.
    pub documents: u64,
    /// Tokens of the next document, its separator included, that are used up.
    pub tokens: u64,
}

/// A full context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Its number, from 0.
    pub index: u64,
    /// Token ids. `[ctx_len]`
    pub tokens: Vec<u32>,
    /// The document each token is from; BOS counts to the token after it, a separator to the one before. `[ctx_len]`
    pub documents: Vec<u64>,
    /// Where the next context starts.
    pub next: ContextCursor,
}

/// Yields contexts until the corpus ends; what is left then is less than a context and dropped.
pub struct Contexts<'a, E> {
    corpus: &'a Corpus,
    order: &'a [u64],
    options: ContextOptions,
    encode: E,
    cursor: ContextCursor,
    /// The document at the cursor with its separator, once it is tokenised.
    current: Option<Vec<u32>>,
    dropped_tokens: u64,
}

impl<'a, E: FnMut(&str) -> Result<Vec<u32>>> Contexts<'a, E> {
    /// Contexts from `cursor` on. `order` is the corpus' documents in the order of use, `encode` a tokenizer that adds
    /// no special token.
    ///
    /// # Errors
    /// When a context is too short to hold a position that is not the first.
    pub fn new(
        corpus: &'a Corpus,
        order: &'a [u64],
        options: ContextOptions,
        cursor: ContextCursor,
        encode: E,
    ) -> Result<Self> {
        if options.ctx_len < 2 {
            return Err(Error::invalid("context length", "at least 2 tokens", options.ctx_len.to_string()));
        }
        Ok(Self { corpus, order, options, encode, cursor, current: None, dropped_tokens: 0 })
    }

    /// Where the next context starts.
    pub fn cursor(&self) -> ContextCursor {
        self.cursor
    }

    /// Tokens at the end of the corpus that did not fill a context; known once the iterator is exhausted.
    pub fn dropped_tokens(&self) -> u64 {
        self.dropped_tokens
    }

    /// The next full context, or `None` when the corpus ends before it is full.
    fn pack(&mut self) -> Result<Option<Context>> {
        let ctx_len = self.options.ctx_len;
        let mut tokens = Vec::with_capacity(ctx_len);
        let mut documents = Vec::with_capacity(ctx_len);
        tokens.extend(self.options.bos);
        while tokens.len() < ctx_len {
            let Some(document) = self.load()? else {
                self.dropped_tokens = documents.len() as u64;
                return Ok(None);
            };
            let taken = self.take(ctx_len - tokens.len(), &mut tokens);
            documents.resize(documents.len() + taken, document);
        }
        if self.options.bos.is_some() {
            documents.insert(0, documents[0]);
        }
        let index = self.cursor.contexts;
        self.cursor.contexts += 1;
        Ok(Some(Context { index, tokens, documents, next: self.cursor }))
    }

    /// Makes the document at the cursor current, passing over those without tokens. Its number, or `None` at the end.
    fn load(&mut self) -> Result<Option<u64>> {
        while let Some(document) = self.order.get(self.cursor.documents as usize) {
            if self.current.is_none() {
                let mut tokens = (self.encode)(&self.corpus.document(*document)?)?;
                tokens.truncate(self.options.document_tokens.unwrap_or(usize::MAX));
                if !tokens.is_empty() {
                    tokens.extend(self.options.separator);
                    self.current = Some(tokens);
                }
            }
            if self.current.is_some() {
                return Ok(Some(*document));
            }
            self.cursor.documents += 1;
        }
        Ok(None)
    }

    /// Moves up to `wanted` tokens of the current document to `tokens` and the cursor past them.
    fn take(&mut self, wanted: usize, tokens: &mut Vec<u32>) -> usize {
        let Some(current) = &self.current else { return 0 };
        let start = (self.cursor.tokens as usize).min(current.len());
        let taken = wanted.min(current.len() - start);
        tokens.extend_from_slice(&current[start..start + taken]);
        self.cursor.tokens += taken as u64;
        if start + taken == current.len() {
            self.current = None;
            self.cursor = ContextCursor { documents: self.cursor.documents + 1, tokens: 0, ..self.cursor };
        }
        taken
    }
}

impl<E: FnMut(&str) -> Result<Vec<u32>>> Iterator for Contexts<'_, E> {
    type Item = Result<Context>;

    fn next(&mut self) -> Option<Self::Item> {
        self.pack().transpose()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;
    use crate::CorpusOptions;

    /// A token a letter: its code.
    fn encode(text: &str) -> Result<Vec<u32>> {
        Ok(text.chars().map(u32::from).collect())
    }

    fn corpus(documents: &[&str]) -> (tempfile::TempDir, Corpus) {
        let folder = tempfile::tempdir().unwrap();
        let lines: String = documents.iter().map(|text| format!("{{\"text\":\"{text}\"}}\n")).collect();
        let path = folder.path().join("c.jsonl");
        fs::write(&path, lines).unwrap();
        let corpus = Corpus::open(&[path], &CorpusOptions::default()).unwrap();
        (folder, corpus)
    }

    fn pack(corpus: &Corpus, options: ContextOptions, cursor: ContextCursor) -> (Vec<Context>, u64) {
        let order = corpus.order(None);
        let mut contexts = Contexts::new(corpus, &order, options, cursor, encode).unwrap();
        let packed = contexts.by_ref().map(Result::unwrap).collect();
        (packed, contexts.dropped_tokens())
    }

    fn text(context: &Context) -> String {
        context.tokens.iter().filter_map(|token| char::from_u32(*token)).collect()
    }

    #[test]
    fn packing_on_paper() {
        let (_folder, corpus) = corpus(&["abcde", "", "fg", "hij"]);
        let options = ContextOptions { ctx_len: 4, separator: Some('|'.into()), bos: None, document_tokens: None };
        let (packed, dropped) = pack(&corpus, options, ContextCursor::default());
        // abcd | e|fg | |hij, and the last separator is left over
        assert_eq!(packed.iter().map(text).collect::<Vec<_>>(), ["abcd", "e|fg", "|hij"]);
        assert_eq!(dropped, 1);
        let documents: Vec<_> = packed.iter().map(|context| context.documents.clone()).collect();
        assert_eq!(documents, [[0, 0, 0, 0], [0, 0, 2, 2], [2, 3, 3, 3]]);
        let next: Vec<_> = packed.iter().map(|c| (c.next.contexts, c.next.documents, c.next.tokens)).collect();
        assert_eq!(next, [(1, 0, 4), (2, 2, 2), (3, 3, 3)]);
    }

    #[test]
    fn bos_opens_every_context() {
        let (_folder, corpus) = corpus(&["abcde", "fgh"]);
        let options = ContextOptions { ctx_len: 4, separator: None, bos: Some('^'.into()), document_tokens: None };
        let (packed, dropped) = pack(&corpus, options, ContextCursor::default());
        assert_eq!(packed.iter().map(text).collect::<Vec<_>>(), ["^abc", "^def"]);
        assert_eq!(packed[1].documents, [0, 0, 0, 1]);
        assert_eq!(dropped, 2);
    }

    #[test]
    fn long_documents_are_cut_and_still_followed_by_a_separator() {
        let (_folder, corpus) = corpus(&["abcde", "fg"]);
        let options = ContextOptions { ctx_len: 3, separator: Some('|'.into()), bos: None, document_tokens: Some(2) };
        let (packed, dropped) = pack(&corpus, options, ContextCursor::default());
        assert_eq!(packed.iter().map(text).collect::<Vec<_>>(), ["ab|", "fg|"]);
        assert_eq!(dropped, 0);
    }

    #[test]
    fn going_on_from_any_cursor_gives_the_rest() {
        let (_folder, corpus) = corpus(&["abcde", "", "fg", "hijklmnop", "q", "rstuvwxyz"]);
        for bos in [None, Some('^'.into())] {
            let options = ContextOptions { ctx_len: 3, separator: Some('|'.into()), bos, document_tokens: None };
            let (all, dropped) = pack(&corpus, options, ContextCursor::default());
            for (done, context) in all.iter().enumerate() {
                let (rest, rest_dropped) = pack(&corpus, options, context.next);
                assert_eq!(rest, all[done + 1..], "after context {done}");
                assert_eq!(rest_dropped, dropped);
            }
        }
    }

    #[test]
    fn a_context_needs_a_position_after_the_first() {
        let (_folder, corpus) = corpus(&["a"]);
        let options = ContextOptions { ctx_len: 1, separator: None, bos: None, document_tokens: None };
        assert!(Contexts::new(&corpus, &[0], options, ContextCursor::default(), encode).is_err());
    }
}
