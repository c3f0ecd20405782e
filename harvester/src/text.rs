//! From text to model input: [`Corpus`] numbers the documents, [`TextTokenizer`] turns them into tokens, and
//! [`Contexts`] packs the tokens into contexts.

mod context;
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
    context::LeftOut,
    contexts::Contexts,
    corpus::{
        Cause, Document, DocumentOrder, DocumentOrigin, DocumentSources, LeftOutDocument, RowBlock, TableFile,
        WhyLeftOut,
    },
    packing::ContextOptions,
    read_log::{ReadDocument, ReadLog},
    tokenizer::{CALLS, ChatMessage, Encoded},
};
pub use self::{
    context::{Context, ContextCursor},
    corpus::{Corpus, CorpusOptions, CorpusSource, NamedSource},
    corpus_part::CorpusPart,
    packing::{LongDocuments, Packing},
    special_token::SpecialToken,
    tokenizer::{ChatDate, Role, TextTokenizer},
};
