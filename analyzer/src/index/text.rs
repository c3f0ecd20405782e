//! [`IndexText`]: the text that is indexed, as activations from a folder or from a running model, and [`Cursor`], a place
//! in it.

use std::{collections::HashSet, sync::mpsc::sync_channel, thread};

use harvester::{
    ActivationDataset, ActivationRows, ContextCursor, DocumentRecord, HarvestManifest, HookPoint, LiveModel, Location,
    Monitor,
};
use serde::{Deserialize, Serialize};

use crate::{EncodedRows, Error, PlacedSae, Result};

/// The text that is indexed.
#[derive(Debug, Clone, Copy)]
pub enum IndexText<'a> {
    /// Activations on disk.
    Activations(&'a ActivationDataset),
    /// A corpus over which the model runs; nothing is written to disk.
    Corpus(&'a LiveModel),
}

impl<'a> From<&'a ActivationDataset> for IndexText<'a> {
    fn from(dataset: &'a ActivationDataset) -> Self {
        Self::Activations(dataset)
    }
}

impl<'a> From<&'a LiveModel> for IndexText<'a> {
    fn from(model: &'a LiveModel) -> Self {
        Self::Corpus(model)
    }
}

/// Finds the source of a document by its number.
pub(crate) type SourceOf = dyn Fn(u64) -> Option<usize>;

/// The position up to which the text is in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cursor {
    /// Row groups of activations on disk.
    RowGroups(usize),
    /// The place in the corpus at which the next context starts.
    Corpus(ContextCursor),
}

impl IndexText<'_> {
    /// The manifest that describes the corpus and how it is made into contexts, for a folder at `out`.
    pub(crate) fn manifest(&self, out: &Location) -> Result<HarvestManifest> {
        Ok(match self {
            Self::Activations(dataset) => dataset.manifest.clone(),
            Self::Corpus(live) => live.manifest(out)?,
        })
    }

    /// A function that finds the source of a document by its number, as an index into the manifest's source names.
    pub(crate) fn source_of(&self) -> Result<Box<SourceOf>> {
        Ok(match self {
            Self::Activations(dataset) => Box::new(dataset.source_of()?),
            Self::Corpus(live) => Box::new(live.source_of()),
        })
    }

    /// Documents by number, sorted; `None` if that is not recorded.
    pub(crate) fn documents(&self, numbers: &HashSet<u64>) -> Result<Option<Vec<DocumentRecord>>> {
        let mut documents = match self {
            Self::Activations(dataset) => dataset.documents(numbers)?,
            Self::Corpus(live) => Some(live.documents(numbers)?),
        };
        documents.iter_mut().for_each(|documents| documents.sort_by_key(|record| record.document));
        Ok(documents)
    }

    /// The beginning of the text.
    pub(crate) fn start(&self) -> Cursor {
        match self {
            Self::Activations(_) => Cursor::RowGroups(0),
            Self::Corpus(_) => Cursor::Corpus(ContextCursor::default()),
        }
    }

    /// Number of tokens; estimated for a corpus.
    pub(crate) fn n_tokens(&self) -> Result<u64> {
        Ok(match self {
            Self::Activations(dataset) => dataset.manifest.counts.tokens,
            Self::Corpus(live) => live.estimated_tokens()?,
        })
    }

    /// Starts the progress; of a corpus without a token budget, it counts documents.
    pub(crate) fn start_progress(&self, what: &str, from: Cursor, monitor: &dyn Monitor) {
        match (self, from) {
            (Self::Activations(dataset), Cursor::RowGroups(done)) => {
                monitor.start(what, dataset.manifest.counts.tokens, "tokens");
                monitor.skip(dataset.row_groups[..done].iter().map(|group| group.rows as u64).sum());
            }
            (Self::Corpus(live), Cursor::Corpus(done)) => match live.n_contexts() {
                Some(contexts) => {
                    monitor.start(what, contexts, "contexts");
                    monitor.skip(done.contexts);
                }
                None => {
                    monitor.start(what, live.n_documents(), "documents");
                    monitor.skip(done.documents);
                }
            },
            _ => {}
        }
    }

    /// Calls `each` with the rows from `from` on, whole contexts, and the position after them. The next rows are read or
    /// computed meanwhile.
    pub(crate) fn for_each(
        &self,
        hook_point: HookPoint,
        from: Cursor,
        monitor: &dyn Monitor,
        mut each: impl FnMut(ActivationRows, Cursor) -> Result<()>,
    ) -> Result<()> {
        match (self, from) {
            (Self::Activations(dataset), Cursor::RowGroups(done)) => thread::scope(|scope| {
                let (sender, groups) = sync_channel(1);
                scope.spawn(move || {
                    for &group in &dataset.row_groups[done..] {
                        // The receiver is gone once the pass has stopped.
                        if sender.send(dataset.read(group, hook_point)).is_err() {
                            return;
                        }
                    }
                });
                for (group, rows) in (done + 1..).zip(groups) {
                    let rows = rows?;
                    let n = rows.rows.token.len() as u64;
                    each(rows, Cursor::RowGroups(group))?;
                    monitor.advance(n);
                }
                Ok(())
            }),
            (Self::Corpus(live), Cursor::Corpus(mut done)) => {
                let most = live.n_contexts().unwrap_or(u64::MAX);
                let mut stream = live.stream(&[hook_point], done)?;
                while done.contexts < most {
                    let Some(batch) = stream.next().transpose()? else { break };
                    let before = std::mem::replace(&mut done, batch.next);
                    let mut rows = batch.activations.into_iter().next().unwrap_or_else(nothing);
                    keep_contexts(&mut rows, (most - before.contexts) as usize);
                    each(rows, Cursor::Corpus(done))?;
                    monitor.advance(match live.n_contexts() {
                        Some(most) => done.contexts.min(most) - before.contexts,
                        None => done.documents - before.documents,
                    });
                }
                Ok(())
            }
            _ => Err(harvester::Error::invalid("saved state", "a position in this text", format!("{from:?}")).into()),
        }
    }
}

/// All of a text that fits in memory, encoded.
pub(crate) fn encode_all(sae: &PlacedSae, text: IndexText<'_>, monitor: &dyn Monitor) -> Result<EncodedRows> {
    let mut all = EncodedRows::default();
    text.start_progress("encoding", text.start(), monitor);
    text.for_each(sae.hook_point, text.start(), monitor, |rows, _| {
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        all.append(&EncodedRows::encode(&sae.sae, rows, sae.sink_norm)?);
        Ok(())
    })?;
    monitor.finish();
    Ok(all)
}

fn nothing() -> ActivationRows {
    let values = harvester::Values::F32(vec![]);
    ActivationRows { rows: harvester::TokenRows::default(), norm: vec![], values, d_model: 0 }
}

/// Drops the rows after the first `n` contexts.
pub(crate) fn keep_contexts(rows: &mut ActivationRows, n: usize) {
    let Some(end) = rows.rows.contexts().get(n).map(|context| context.start) else { return };
    let keep: Vec<bool> = (0..rows.rows.token.len()).map(|row| row < end).collect();
    rows.values.keep_rows(rows.d_model, &keep);
    rows.norm.truncate(end);
    let tokens = &mut rows.rows;
    tokens.document.truncate(end);
    tokens.context.truncate(end);
    tokens.position.truncate(end);
    tokens.token.truncate(end);
    tokens.role.truncate(end);
}
