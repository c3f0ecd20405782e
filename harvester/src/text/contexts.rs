//! [`Contexts`]: turns documents into token contexts. Documents are tokenized one at a time, so that at most one of
//! them is in memory.
//!
//! ```text
//! document     = its tokens, cut to document_tokens, then the separator     (a document without tokens adds nothing)
//! concatenate:   doc doc doc .. is one stream;  context = [bos]? and the next ctx_len (- 1) tokens; all are full
//! document:      context = [bos]? and a document's first ctx_len (- 1) tokens; the rest is another context or dropped;
//!                a rest that is only the separator is dropped
//! ```
//!
//! `packing.rs` holds the choice between the two and the other options. If the next token is already BOS, as chat
//! templates write it, no BOS is put before it.
//!
//! A [`ContextCursor`] is a position in that stream: a run that resumes from a cursor reads no earlier document.

use std::{collections::HashSet, path::Path};

use super::{
    context::{Context, ContextCursor},
    corpus::{Corpus, Document, DocumentHash, DocumentOrder, WhyLeftOut},
    packing::{ContextOptions, LongDocuments, Packing},
    read_log::{ReadDocument, ReadLog},
    tokenizer::{Encoded, Role, bos_before},
};
use crate::{Error, Result};

/// Yields contexts until the corpus ends. In concatenate mode, the remaining tokens that do not fill a context are
/// dropped.
pub(crate) struct Contexts<'a, E> {
    corpus: &'a Corpus,
    order: &'a DocumentOrder,
    options: ContextOptions,
    encode: E,
    cursor: ContextCursor,
    /// The document at the cursor with its separator, once it is tokenized.
    current: Option<Encoded>,
    /// Hashes of the rows of tables read so far, if repeated ones are left out.
    seen: Option<HashSet<DocumentHash>>,
    /// The results of reading each document.
    log: Option<ReadLog>,
    dropped_tokens: u64,
}

impl<'a, E: FnMut(&Document) -> Result<Encoded>> Contexts<'a, E> {
    /// Contexts from `cursor` on. `order` holds the corpus' documents in the order of use; `encode` is a tokenizer that
    /// adds no special tokens. `log` is the file in which a resumed run finds what it has read; where it lacks something,
    /// the run reads those documents again.
    ///
    /// # Errors
    /// If a context is too short to hold a position other than the first, or a file cannot be read.
    pub(crate) fn new(
        corpus: &'a Corpus,
        order: &'a DocumentOrder,
        options: ContextOptions,
        cursor: ContextCursor,
        log: Option<&Path>,
        encode: E,
    ) -> Result<Self> {
        if options.ctx_len < 2 {
            return Err(Error::invalid("context length", "at least 2 tokens", options.ctx_len.to_string()));
        }
        let mut seen = corpus.finds_repeated_later().then(HashSet::new);
        let mut remember = |read: &ReadDocument| {
            if let Some(seen) = &mut seen {
                seen.extend(read.hash);
            }
        };
        let log = log.map(|path| ReadLog::open(path, cursor.documents, &mut remember)).transpose()?;
        let mut contexts = Self { corpus, order, options, encode, cursor, current: None, seen, log, dropped_tokens: 0 };
        contexts.read_again()?;
        Ok(contexts)
    }

    /// Reads the documents before the cursor that are not in the log. Without a log, only hashes of rows are needed.
    fn read_again(&mut self) -> Result<()> {
        let known = self.log.as_ref().map_or(0, ReadLog::len);
        for document in (known..self.cursor.documents).map_while(|index| self.order.get(index)) {
            if self.log.is_some() {
                self.read(document)?.ok();
            } else if let Some(seen) = self.seen.as_mut().filter(|_| self.corpus.is_streamed(document)) {
                seen.extend(hash_of_row(self.corpus, document, &self.corpus.document(document)?));
            }
        }
        Ok(())
    }

    /// Number of documents read in the harvest's order, all of which are in the log now.
    pub(crate) fn end_log(&mut self) -> Result<u64> {
        let read = self.cursor.documents + u64::from(self.cursor.tokens > 0);
        let known = self.log.as_ref().map_or(read, ReadLog::len);
        for document in (known..read).map_while(|index| self.order.get(index)) {
            self.read(document)?.ok();
        }
        Ok(read)
    }

    /// Position at which the next context starts.
    pub(crate) fn cursor(&self) -> ContextCursor {
        self.cursor
    }

    /// Tokens at the end of the corpus that did not fill a context; known once the iterator is exhausted.
    pub(crate) fn dropped_tokens(&self) -> u64 {
        self.dropped_tokens
    }

    /// The next context, or `None` if the corpus ends before it.
    fn pack(&mut self) -> Result<Option<Context>> {
        let bos = self.bos()?;
        let mut filled = Encoded { tokens: bos.into_iter().collect(), roles: vec![] };
        let mut documents = vec![];
        let packed = match self.options.packing {
            Packing::Concatenate => self.fill(&mut filled, &mut documents)?,
            Packing::Document => self.fill_from_one(&mut filled, &mut documents)?,
        };
        let Encoded { tokens, mut roles } = filled;
        if !packed {
            self.dropped_tokens = documents.len() as u64;
            return Ok(None);
        }
        if bos.is_some() {
            documents.insert(0, documents[0]);
            if let Some(first) = roles.first() {
                roles.insert(0, first.and(Some(Role::Template)));
            }
        }
        let index = self.cursor.contexts;
        self.cursor.contexts += 1;
        Ok(Some(Context { index, tokens, documents, roles, next: self.cursor }))
    }

    /// The BOS at the start of the next context; `None` if its text begins with BOS already.
    fn bos(&mut self) -> Result<Option<u32>> {
        self.load()?;
        let next = self.current.as_ref().and_then(|current| current.tokens.get(self.cursor.tokens as usize).copied());
        Ok(bos_before(self.options.bos, next))
    }

    /// Fills a context from as many documents as needed; `false` if the corpus ends before it is full.
    fn fill(&mut self, filled: &mut Encoded, documents: &mut Vec<u64>) -> Result<bool> {
        while filled.tokens.len() < self.options.ctx_len {
            let Some(document) = self.load()? else { return Ok(false) };
            let taken = self.take(self.options.ctx_len - filled.tokens.len(), filled);
            documents.resize(documents.len() + taken, document);
        }
        Ok(true)
    }

    /// Fills a context from one document; `false` if no document is left.
    fn fill_from_one(&mut self, filled: &mut Encoded, documents: &mut Vec<u64>) -> Result<bool> {
        let Some(document) = self.load()? else { return Ok(false) };
        let taken = self.take(self.options.ctx_len - filled.tokens.len(), filled);
        documents.resize(taken, document);
        // A separator alone makes no context. If it is also BOS (GPT-2), that would be a context of one token.
        let rest = self.current.as_ref().map(|current| current.tokens.len() as u64 - self.cursor.tokens);
        if rest == Some(1) && self.options.separator.is_some() {
            self.next_document();
        }
        if self.options.long_documents == LongDocuments::Truncate
            && let Some(current) = &self.current
        {
            self.cursor.left_out.truncated_tokens += current.tokens.len() as u64 - self.cursor.tokens;
            self.next_document();
        }
        Ok(true)
    }

    /// Makes the document at the cursor current, skipping those that add nothing. Returns its number, or `None` at the
    /// end.
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

    /// The tokens of a document and its separator; `None` if it adds nothing. Counts each left-out document once: a run
    /// that resumes in the middle of a document has already counted it.
    fn tokens_of(&mut self, document: u64) -> Result<Option<Encoded>> {
        let Encoded { mut tokens, mut roles } = match self.read(document)? {
            Ok(encoded) => encoded,
            Err(why) => {
                self.cursor.left_out.count(why);
                return Ok(None);
            }
        };
        let whole = tokens.len();
        tokens.truncate(self.options.document_tokens.unwrap_or(usize::MAX));
        let used = tokens.len();
        if self.cursor.tokens == 0 {
            self.cursor.left_out.truncated_tokens += (whole - used) as u64;
        }
        tokens.extend(self.options.separator);
        if self.corpus.options().chat_field.is_some() {
            // A plain text in a corpus of conversations has no roles.
            let of_separator = roles.first().copied().flatten().and(Some(Role::Template));
            roles.resize(used, None);
            roles.resize(tokens.len(), of_separator);
        }
        Ok(Some(Encoded { tokens, roles }))
    }

    /// Reads the next document of the log, or the one that was read last: its tokens, or why it is left out.
    fn read(&mut self, document: u64) -> Result<std::result::Result<Encoded, WhyLeftOut>> {
        let record = self.corpus.record(document)?;
        let hash = self.seen.is_some().then(|| hash_of_row(self.corpus, document, &record.document)).flatten();
        let sha256 = self.log.is_some().then(|| record.document.text_sha256());
        let mut read = ReadDocument { kept: record.kept, hash, sha256, ..ReadDocument::default() };
        let is_repeated = hash.is_some_and(|hash| self.seen.as_mut().is_some_and(|seen| !seen.insert(hash)));
        let encoded = if is_repeated {
            Err(WhyLeftOut::Repeated)
        } else {
            match (self.encode)(&record.document) {
                // One malformed conversation among millions must not end a harvest.
                Err(error @ Error::ChatTemplate { .. }) => {
                    if self.cursor.left_out.refused_documents == 0 {
                        let place = self.corpus.place_of(document);
                        tracing::warn!("{place} is left out, and so is any other like it: {error}");
                    }
                    Err(WhyLeftOut::Refused)
                }
                encoded => {
                    let encoded = encoded.map_err(|error| self.named(document, error))?;
                    read.tokens = Some(encoded.tokens.len() as u64);
                    match encoded.tokens.len() {
                        0 => Err(WhyLeftOut::Empty),
                        few if few < self.options.min_document_tokens => Err(WhyLeftOut::Short),
                        _ => Ok(encoded),
                    }
                }
            }
        };
        read.left_out = encoded.as_ref().err().copied();
        if let Some(log) = &mut self.log {
            log.append(&read)?;
        }
        Ok(encoded)
    }

    /// Adds the file and the line or row of the document to `error`.
    fn named(&self, document: u64, error: Error) -> Error {
        Error::Document { place: self.corpus.place_of(document), source: error.into() }
    }

    /// Moves up to `wanted` tokens of the current document to `filled`, and moves the cursor past them.
    fn take(&mut self, wanted: usize, filled: &mut Encoded) -> usize {
        let Some(current) = &self.current else { return 0 };
        let length = current.tokens.len();
        let start = (self.cursor.tokens as usize).min(length);
        let taken = wanted.min(length - start);
        filled.tokens.extend_from_slice(&current.tokens[start..start + taken]);
        filled.roles.extend_from_slice(current.roles.get(start..start + taken).unwrap_or_default());
        self.cursor.tokens += taken as u64;
        if start + taken == length {
            self.next_document();
        }
        taken
    }

    fn next_document(&mut self) {
        self.current = None;
        self.cursor = ContextCursor { documents: self.cursor.documents + 1, tokens: 0, ..self.cursor };
    }
}

/// The hash of a document that is a row: repeated documents of other files were left out on opening.
fn hash_of_row(corpus: &Corpus, index: u64, document: &Document) -> Option<DocumentHash> {
    corpus.is_streamed(index).then(|| document.hash()).filter(|_| !document.is_empty())
}

impl<E: FnMut(&Document) -> Result<Encoded>> Iterator for Contexts<'_, E> {
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
    use crate::{CorpusOptions, text::LeftOut};

    /// One token per letter: its code.
    fn encode(document: &Document) -> Result<Encoded> {
        let Document::Text(letters) = document else { panic!("a text") };
        Ok(Encoded::of_text(letters.chars().map(u32::from).collect()))
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
