//! [`LatentsPieces`]: `latents.parquet` of an unfinished run, in pieces. Each holds the rows from one saved state to the
//! next; a run that goes on adds pieces, and the last one joins them.

use std::{fs, path::PathBuf};

use harvester::Monitor;

use crate::{
    EncodedRows, Error, Result,
    features::{IndexedFile, LATENTS, LatentsWriter, say_size},
};

/// The pieces of a table.
pub(crate) struct LatentsPieces<'a> {
    /// The folder of the unfinished run.
    partial: PathBuf,
    /// The pieces so far, in order.
    pieces: Vec<IndexedFile>,
    /// The rows since the last piece.
    next: Option<LatentsWriter>,
    /// Tokens of the whole text, about, until the size of the table was said.
    tokens: Option<u64>,
    monitor: &'a dyn Monitor,
}

impl<'a> LatentsPieces<'a> {
    /// The pieces `pieces` of a text of about `tokens` tokens, and those that follow.
    pub(crate) fn new(partial: PathBuf, pieces: Vec<IndexedFile>, tokens: u64, monitor: &'a dyn Monitor) -> Self {
        Self { partial, pieces, next: None, tokens: Some(tokens), monitor }
    }

    /// Adds the rows of the next tokens.
    pub(crate) fn add(&mut self, encoded: &EncodedRows) -> Result<()> {
        if let Some(tokens) = self.tokens.take() {
            say_size(tokens, encoded, self.monitor);
            self.monitor.say("until it is finished, it takes twice the space");
        }
        let writer = match &mut self.next {
            Some(writer) => writer,
            none => {
                let dir = self.partial.join(folder(self.pieces.len()));
                fs::create_dir_all(&dir).map_err(harvester::Error::io("create", &dir))?;
                none.insert(LatentsWriter::create(&dir)?)
            }
        };
        writer.add(encoded)
    }

    /// The pieces with all rows so far, which are on disk then.
    pub(crate) fn save(&mut self) -> Result<Vec<IndexedFile>> {
        if let Some(writer) = self.next.take() {
            let file = format!("{}/{}", folder(self.pieces.len()), LATENTS.file);
            self.pieces.push(IndexedFile { file, sha256: writer.finish()? });
        }
        Ok(self.pieces.clone())
    }

    /// Writes the pieces that were saved as one table into `out`.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the user asked to stop.
    pub(crate) fn join(&self, out: &std::path::Path) -> Result<()> {
        let mut writer = LatentsWriter::create(out)?;
        self.monitor.start(LATENTS.file, self.pieces.len() as u64, "pieces");
        for piece in 0..self.pieces.len() {
            if self.monitor.cancelled() {
                return Err(Error::Stopped);
            }
            writer.add_table(&self.partial.join(folder(piece)))?;
            self.monitor.advance(1);
        }
        self.monitor.finish();
        writer.finish()?;
        Ok(())
    }
}

/// The folder of a piece.
fn folder(piece: usize) -> String {
    format!("latents-{piece:05}")
}
