//! From text to model input: [`Corpus`] numbers the documents, [`TextTokenizer`] turns them into tokens, and
//! [`Contexts`] packs the tokens into contexts.

mod contexts;
#[cfg(test)]
mod corpora_tests;
mod corpus;
mod corpus_part;
mod packing;
mod tokenizer;
#[cfg(test)]
mod tokenizer_tests;

pub use self::{
    contexts::{Context, ContextCursor, Contexts, LeftOut},
    corpus::{Corpus, CorpusOptions, CorpusSource, Document, DocumentOrder},
    corpus_part::CorpusPart,
    packing::{ContextOptions, LongDocuments, Packing},
    tokenizer::{ChatMessage, TextTokenizer},
};
pub(crate) use corpus::{Cause, RowBlock, TableFile};
