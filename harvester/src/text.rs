//! From text to model input: [`Corpus`] numbers the documents, [`TextTokenizer`] turns them into tokens, and
//! [`Contexts`] packs the tokens into contexts.

mod contexts;
#[cfg(test)]
mod corpora_tests;
mod corpus;
mod corpus_part;
mod packing;
mod read_log;
mod special_token;
mod tokenizer;
#[cfg(test)]
mod tokenizer_tests;

pub(crate) use self::{
    contexts::Contexts,
    corpus::{Cause, Document, DocumentOrder, DocumentOrigin, RowBlock, TableFile, WhyLeftOut},
    packing::ContextOptions,
    read_log::{ReadDocument, ReadLog},
    tokenizer::Encoded,
};
pub use self::{
    contexts::{Context, ContextCursor, LeftOut},
    corpus::{Corpus, CorpusOptions, CorpusSource, DocumentSources, NamedSource},
    corpus_part::CorpusPart,
    packing::{LongDocuments, Packing},
    special_token::SpecialToken,
    tokenizer::{ChatDate, ChatMessage, Role, TextTokenizer},
};
