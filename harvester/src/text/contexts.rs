//! [`Contexts`]: documents become token contexts. Documents are tokenised one at a time, so that no more than one of
//! them is in memory.
//!
//! ```text
//! document     = its tokens, cut to document_tokens, and the separator      (one without tokens adds nothing)
//! concatenate:   doc doc doc .. is one stream;  context = [bos]? and the next ctx_len (- 1) tokens: all of them full
//! document:      context = [bos]? and a document's first ctx_len (- 1) tokens; the rest is another context or dropped,
//!                and a rest that is the separator alone is dropped
//! ```
//!
//! Which of the two, and what else can be asked for, is in `packing.rs`. Where the next token is BOS itself, as chat
//! templates write it, none is put before it: no model has seen two.
//!
//! A [`ContextCursor`] is a place in that stream: a run that starts again from one reads no earlier document.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    corpus::{Corpus, Document, DocumentOrder, SeenDocuments},
    packing::{ContextOptions, LongDocuments, Packing},
};
use crate::{Error, Result};

/// A place in the stream of tokens, before which everything is in finished contexts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextCursor {
    /// Finished contexts.
    pub contexts: u64,
    /// Documents used up, in the harvest's order.
    pub documents: u64,
    /// Tokens of the next document, its separator included, that are used up.
    pub tokens: u64,
    /// What was left out of the documents used up, and of the next one once a token of it is.
    #[serde(default, skip_serializing_if = "LeftOut::is_nothing")]
    pub left_out: LeftOut,
}

/// What no context holds, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeftOut {
    /// Documents without a token.
    pub empty_documents: u64,
    /// Documents of fewer than `min_document_tokens` tokens.
    pub short_documents: u64,
    /// Rows of a parquet file that repeat an earlier one.
    pub repeated_documents: u64,
    /// Conversations that the model's chat template refuses, or that have a turn whose content is null.
    pub refused_documents: u64,
    /// Tokens beyond `document_tokens`, or beyond a context of the document's own.
    pub truncated_tokens: u64,
}

impl LeftOut {
    /// Whether nothing was left out.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whole documents.
    pub fn documents(&self) -> u64 {
        self.empty_documents + self.short_documents + self.repeated_documents + self.refused_documents
    }

    /// The sum of both.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            empty_documents: self.empty_documents + other.empty_documents,
            short_documents: self.short_documents + other.short_documents,
            repeated_documents: self.repeated_documents + other.repeated_documents,
            refused_documents: self.refused_documents + other.refused_documents,
            truncated_tokens: self.truncated_tokens + other.truncated_tokens,
        }
    }
}

/// A context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Its number, from 0.
    pub index: u64,
    /// Token ids, `ctx_len` of them unless each document has a context of its own.
    pub tokens: Vec<u32>,
    /// The document each token is from; BOS counts to the token after it, a separator to the one before. As many as
    /// `tokens`.
    pub documents: Vec<u64>,
    /// Where the next context starts.
    pub next: ContextCursor,
}

/// Yields contexts until the corpus ends; what is left then of a stream is less than a context and dropped.
pub struct Contexts<'a, E> {
    corpus: &'a Corpus,
    order: &'a DocumentOrder,
    options: ContextOptions,
    encode: E,
    cursor: ContextCursor,
    /// The document at the cursor with its separator, once it is tokenised.
    current: Option<Vec<u32>>,
    /// What came before, where repetitions are left out.
    seen: Option<SeenDocuments>,
    dropped_tokens: u64,
}

impl<'a, E: FnMut(&Document) -> Result<Vec<u32>>> Contexts<'a, E> {
    /// Contexts from `cursor` on. `order` is the corpus' documents in the order of use, `encode` a tokenizer that adds
    /// no special token. `seen` is a file that a run which starts again finds what it had seen in; without it, it reads
    /// that anew.
    ///
    /// # Errors
    /// When a context is too short to hold a position that is not the first, or a file cannot be read.
    pub fn new(
        corpus: &'a Corpus,
        order: &'a DocumentOrder,
        options: ContextOptions,
        cursor: ContextCursor,
        seen: Option<&Path>,
        encode: E,
    ) -> Result<Self> {
        if options.ctx_len < 2 {
            return Err(Error::invalid("context length", "at least 2 tokens", options.ctx_len.to_string()));
        }
        let seen = SeenDocuments::before(cursor.documents, corpus, order, seen)?;
        Ok(Self { corpus, order, options, encode, cursor, current: None, seen, dropped_tokens: 0 })
    }

    /// Where the next context starts.
    pub fn cursor(&self) -> ContextCursor {
        self.cursor
    }

    /// Tokens at the end of the corpus that did not fill a context; known once the iterator is exhausted.
    pub fn dropped_tokens(&self) -> u64 {
        self.dropped_tokens
    }

    /// The next context, or `None` when the corpus ends before it.
    fn pack(&mut self) -> Result<Option<Context>> {
        let bos = self.bos()?;
        let mut tokens: Vec<u32> = bos.into_iter().collect();
        let mut documents = vec![];
        let packed = match self.options.packing {
            Packing::Concatenate => self.fill(&mut tokens, &mut documents)?,
            Packing::Document => self.fill_from_one(&mut tokens, &mut documents)?,
        };
        if !packed {
            self.dropped_tokens = documents.len() as u64;
            return Ok(None);
        }
        if bos.is_some() {
            documents.insert(0, documents[0]);
        }
        let index = self.cursor.contexts;
        self.cursor.contexts += 1;
        Ok(Some(Context { index, tokens, documents, next: self.cursor }))
    }

    /// The BOS that the next context begins with, unless its text does.
    fn bos(&mut self) -> Result<Option<u32>> {
        self.load()?;
        let next = self.current.as_ref().and_then(|current| current.get(self.cursor.tokens as usize).copied());
        Ok(self.options.bos.filter(|bos| next != Some(*bos)))
    }

    /// Fills a context from as many documents as it takes; `false` when the corpus ends before it is full.
    fn fill(&mut self, tokens: &mut Vec<u32>, documents: &mut Vec<u64>) -> Result<bool> {
        while tokens.len() < self.options.ctx_len {
            let Some(document) = self.load()? else { return Ok(false) };
            let taken = self.take(self.options.ctx_len - tokens.len(), tokens);
            documents.resize(documents.len() + taken, document);
        }
        Ok(true)
    }

    /// Fills a context from one document; `false` when there is none left.
    fn fill_from_one(&mut self, tokens: &mut Vec<u32>, documents: &mut Vec<u64>) -> Result<bool> {
        let Some(document) = self.load()? else { return Ok(false) };
        let taken = self.take(self.options.ctx_len - tokens.len(), tokens);
        documents.resize(taken, document);
        // No context for a separator alone. Where it is BOS too (GPT-2) that would be a context of one token.
        let rest = self.current.as_ref().map(|current| current.len() as u64 - self.cursor.tokens);
        if rest == Some(1) && self.options.separator.is_some() {
            self.next_document();
        }
        if self.options.long_documents == LongDocuments::Truncate
            && let Some(current) = &self.current
        {
            self.cursor.left_out.truncated_tokens += current.len() as u64 - self.cursor.tokens;
            self.next_document();
        }
        Ok(true)
    }

    /// Makes the document at the cursor current, passing over those that add nothing. Its number, or `None` at the end.
    fn load(&mut self) -> Result<Option<u64>> {
        while let Some(document) = self.order.get(self.cursor.documents) {
            if self.current.is_none() {
                self.current = self.tokens_of(document)?;
            }
            if self.current.is_some() {
                return Ok(Some(document));
            }
            self.next_document();
        }
        Ok(None)
    }

    /// The tokens of a document and its separator; `None` where it adds nothing. Counts what is left out, once: a run
    /// that starts again in the middle of a document has counted it before.
    fn tokens_of(&mut self, document: u64) -> Result<Option<Vec<u32>>> {
        let read = self.corpus.document(document)?;
        if self.is_repeated(document, &read)? {
            self.cursor.left_out.repeated_documents += 1;
            return Ok(None);
        }
        let mut tokens = match (self.encode)(&read) {
            // One odd conversation among millions must not end a harvest.
            Err(error @ Error::ChatTemplate { .. }) => {
                if self.cursor.left_out.refused_documents == 0 {
                    let place = self.corpus.place_of(document);
                    tracing::warn!("{place} is left out, and any other like it: {error}");
                }
                self.cursor.left_out.refused_documents += 1;
                return Ok(None);
            }
            encoded => encoded.map_err(|error| self.named(document, error))?,
        };
        let (whole, most) = (tokens.len(), self.options.document_tokens.unwrap_or(usize::MAX));
        tokens.truncate(most);
        let left_out = &mut self.cursor.left_out;
        if whole == 0 {
            left_out.empty_documents += 1;
            return Ok(None);
        }
        if whole < self.options.min_document_tokens {
            left_out.short_documents += 1;
            return Ok(None);
        }
        if self.cursor.tokens == 0 {
            left_out.truncated_tokens += (whole - tokens.len()) as u64;
        }
        tokens.extend(self.options.separator);
        Ok(Some(tokens))
    }

    fn is_repeated(&mut self, document: u64, read: &Document) -> Result<bool> {
        match &mut self.seen {
            None => Ok(false),
            Some(seen) if self.corpus.is_streamed(document) => Ok(!seen.is_new(read)?),
            Some(seen) => seen.pass().map(|()| false),
        }
    }

    /// `error`, with the file and the line or row that the document is in.
    fn named(&self, document: u64, error: Error) -> Error {
        Error::Document { place: self.corpus.place_of(document), source: error.into() }
    }

    /// Moves up to `wanted` tokens of the current document to `tokens` and the cursor past them.
    fn take(&mut self, wanted: usize, tokens: &mut Vec<u32>) -> usize {
        let Some(current) = &self.current else { return 0 };
        let start = (self.cursor.tokens as usize).min(current.len());
        let taken = wanted.min(current.len() - start);
        tokens.extend_from_slice(&current[start..start + taken]);
        self.cursor.tokens += taken as u64;
        if start + taken == current.len() {
            self.next_document();
        }
        taken
    }

    fn next_document(&mut self) {
        self.current = None;
        self.cursor = ContextCursor { documents: self.cursor.documents + 1, tokens: 0, ..self.cursor };
    }
}

impl<E: FnMut(&Document) -> Result<Vec<u32>>> Iterator for Contexts<'_, E> {
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
    fn encode(document: &Document) -> Result<Vec<u32>> {
        let Document::Text(letters) = document else { panic!("a text") };
        Ok(letters.chars().map(u32::from).collect())
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
        let mut contexts = Contexts::new(corpus, &order, options, cursor, None, encode).unwrap();
        let packed = contexts.by_ref().map(Result::unwrap).collect();
        (packed, contexts.dropped_tokens())
    }

    fn text(context: &Context) -> String {
        context.tokens.iter().filter_map(|token| char::from_u32(*token)).collect()
    }

    #[test]
    fn packing_on_paper() {
        let (_folder, corpus) = corpus(&["abcde", "", "fg", "hij"]);
        let options = ContextOptions { ctx_len: 4, separator: Some('|'.into()), ..ContextOptions::default() };
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
        let options =
            ContextOptions { ctx_len: 4, separator: None, bos: Some('^'.into()), ..ContextOptions::default() };
        let (packed, dropped) = pack(&corpus, options, ContextCursor::default());
        assert_eq!(packed.iter().map(text).collect::<Vec<_>>(), ["^abc", "^def"]);
        assert_eq!(packed[1].documents, [0, 0, 0, 1]);
        assert_eq!(dropped, 2);
    }

    #[test]
    fn a_text_that_begins_with_bos_gets_no_second_one() {
        let (_folder, corpus) = corpus(&["^abc", "^de", "fgh"]);
        for (packing, expected) in [
            (Packing::Concatenate, ["^abc", "^def"].as_slice()),
            (Packing::Document, ["^abc", "^de", "^fgh"].as_slice()),
        ] {
            let options = ContextOptions { ctx_len: 4, bos: Some('^'.into()), packing, ..ContextOptions::default() };
            let (packed, _) = pack(&corpus, options, ContextCursor::default());
            assert_eq!(packed.iter().map(text).collect::<Vec<_>>(), expected);
            assert!(packed.iter().all(|context| context.documents.len() == context.tokens.len()));
        }
    }

    #[test]
    fn a_conversation_that_the_template_refuses_is_left_out_and_counted() {
        let (_folder, corpus) = corpus(&["ab", "refused", "cd", "refused too"]);
        let encode = |document: &Document| match document {
            Document::Text(text) if text.starts_with("refused") => {
                Err(Error::ChatTemplate { path: "t".into(), reason: "roles must alternate".into() })
            }
            _ => encode(document),
        };
        let order = corpus.order(None);
        let options = ContextOptions { ctx_len: 4, ..ContextOptions::default() };
        let mut contexts = Contexts::new(&corpus, &order, options, ContextCursor::default(), None, encode).unwrap();
        let packed: Vec<_> = contexts.by_ref().map(Result::unwrap).collect();
        assert_eq!(packed.iter().map(text).collect::<Vec<_>>(), ["abcd"]);
        assert_eq!(contexts.cursor().left_out.refused_documents, 2);
    }

    #[test]
    fn long_documents_are_cut_and_still_followed_by_a_separator() {
        let (_folder, corpus) = corpus(&["abcde", "fg"]);
        let options = ContextOptions {
            ctx_len: 3,
            separator: Some('|'.into()),
            bos: None,
            document_tokens: Some(2),
            ..ContextOptions::default()
        };
        let (packed, dropped) = pack(&corpus, options, ContextCursor::default());
        assert_eq!(packed.iter().map(text).collect::<Vec<_>>(), ["ab|", "fg|"]);
        assert_eq!(dropped, 0);
    }

    #[test]
    fn a_document_a_context_on_paper() {
        let (_folder, corpus) = corpus(&["abcdef", "", "g", "hij"]);
        let split = ContextOptions {
            ctx_len: 4,
            bos: Some('^'.into()),
            separator: Some('|'.into()),
            packing: Packing::Document,
            ..ContextOptions::default()
        };
        let (packed, dropped) = pack(&corpus, split, ContextCursor::default());
        assert_eq!(packed.iter().map(text).collect::<Vec<_>>(), ["^abc", "^def", "^g|", "^hij"]);
        assert_eq!(dropped, 0);
        assert_eq!(packed[2].documents, [2, 2, 2]);
        let cut = ContextOptions { long_documents: LongDocuments::Truncate, separator: None, ..split };
        let (packed, _) = pack(&corpus, cut, ContextCursor::default());
        assert_eq!(packed.iter().map(text).collect::<Vec<_>>(), ["^abc", "^g", "^hij"]);
        let left_out = packed[2].next.left_out;
        assert_eq!((left_out.truncated_tokens, left_out.empty_documents), (3, 1));
    }

    #[test]
    fn no_context_is_a_separator_alone_where_that_is_bos_too() {
        let (_folder, corpus) = corpus(&["abc", "de", "fghi"]);
        for long_documents in [LongDocuments::Split, LongDocuments::Truncate] {
            let options = ContextOptions {
                ctx_len: 4,
                bos: Some('|'.into()),
                separator: Some('|'.into()),
                packing: Packing::Document,
                long_documents,
                ..ContextOptions::default()
            };
            let (packed, _) = pack(&corpus, options, ContextCursor::default());
            let rest = if long_documents == LongDocuments::Split { vec!["|i|"] } else { vec![] };
            let expected = [vec!["|abc", "|de|", "|fgh"], rest].concat();
            assert_eq!(packed.iter().map(text).collect::<Vec<_>>(), expected);
            for (done, context) in packed.iter().enumerate() {
                assert_eq!(pack(&corpus, options, context.next).0, packed[done + 1..]);
            }
        }
    }

    #[test]
    fn what_is_left_out_is_counted_once() {
        let (_folder, corpus) = corpus(&["abcdefgh", "", "i", "jk", "lmnop"]);
        let options = ContextOptions {
            ctx_len: 2,
            document_tokens: Some(4),
            min_document_tokens: 2,
            ..ContextOptions::default()
        };
        let (all, _) = pack(&corpus, options, ContextCursor::default());
        assert_eq!(all.iter().map(text).collect::<Vec<_>>(), ["ab", "cd", "jk", "lm", "no"]);
        let expected = LeftOut { empty_documents: 1, short_documents: 1, truncated_tokens: 5, ..LeftOut::default() };
        assert_eq!(all[4].next.left_out, expected);
        for context in &all {
            let (rest, _) = pack(&corpus, options, context.next);
            assert_eq!(rest.last().map_or(context.next, |last| last.next).left_out, expected);
        }
    }

    #[test]
    fn going_on_from_any_cursor_gives_the_rest() {
        let (_folder, corpus) = corpus(&["abcde", "", "fg", "hijklmnop", "q", "rstuvwxyz"]);
        for (bos, packing) in
            [(None, Packing::Concatenate), (Some('^'.into()), Packing::Concatenate), (None, Packing::Document)]
        {
            let options =
                ContextOptions { ctx_len: 3, separator: Some('|'.into()), bos, packing, ..ContextOptions::default() };
            let (all, dropped) = pack(&corpus, options, ContextCursor::default());
            for (done, context) in all.iter().enumerate() {
                let (rest, rest_dropped) = pack(&corpus, options, context.next);
                assert_eq!(rest, all[done + 1..], "after context {done}");
                assert_eq!(rest_dropped, dropped);
            }
        }
    }

    #[test]
    fn a_document_that_the_tokenizer_refuses_is_named_with_its_line() {
        let (folder, _) = corpus(&["ab", "cd"]);
        let path = folder.path().join("c.jsonl");
        fs::write(&path, "{\"text\":\"ab\"}\n\n{\"text\":\"odd\"}\n").unwrap();
        let corpus = Corpus::open(&[path], &CorpusOptions::default()).unwrap();
        let encode = |document: &Document| match document {
            Document::Text(text) if text == "odd" => {
                Err(Error::Tokenizer { path: "tokenizer.json".into(), source: "no such token".into() })
            }
            _ => encode(document),
        };
        let (order, options) = (corpus.order(None), ContextOptions { ctx_len: 4, ..ContextOptions::default() });
        let mut contexts = Contexts::new(&corpus, &order, options, ContextCursor::default(), None, encode).unwrap();
        let error = contexts.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("c.jsonl:3: "), "{error}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("tokenizer.json"), "{cause}");
    }

    #[test]
    fn a_context_needs_a_position_after_the_first() {
        let (_folder, corpus) = corpus(&["a"]);
        let options = ContextOptions { ctx_len: 1, ..ContextOptions::default() };
        let order = corpus.order(None);
        assert!(Contexts::new(&corpus, &order, options, ContextCursor::default(), None, encode).is_err());
    }
}
