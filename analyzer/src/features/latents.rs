//! [`LATENTS`]: the sparse activations of a text, a row for each token and each latent that is active on it.

use std::path::Path;

use harvester::{Cell, Column, Monitor, Table, TableWriter, human};

use crate::{EncodedRows, Result};

/// Bytes of a row on disk, measured: the columns of a token are nearly free, because they repeat.
const ROW_BYTES: f64 = 7.0;
/// Rows that are written and read together.
const GROUP: usize = 1 << 20;

/// A token and a latent that is active on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LatentRow {
    document: u64,
    context: u64,
    position: u32,
    token: u32,
    latent: u32,
    activation: f32,
}

/// A row is an active latent of a token. Position 0 and attention sinks have none.
pub(crate) const LATENTS: Table<LatentRow> = Table {
    file: "latents.parquet",
    command: "refract index --latents",
    columns: &[
        Column::new("document", Cell::U64(|row| row.document), "number from 0", "the token's document"),
        Column::new("context", Cell::U64(|row| row.context), "number from 0", "its context"),
        Column::new("position", Cell::U32(|row| row.position), "number from 0", "its position in the context"),
        Column::new("token", Cell::U32(|row| row.token), "token id", "the token"),
        Column::new("latent", Cell::U32(|row| row.latent), "number from 0", "a latent that is active on it"),
        Column::new("activation", Cell::F32(|row| row.activation), "activation", "its activation there"),
    ],
};

/// [`LATENTS`] being written; the file appears when it is finished.
pub(crate) struct LatentsWriter<'a> {
    table: TableWriter<LatentRow>,
    /// Tokens of the whole text, about.
    tokens: u64,
    is_size_said: bool,
    monitor: &'a dyn Monitor,
}

impl<'a> LatentsWriter<'a> {
    pub(crate) fn create(dir: &Path, tokens: u64, monitor: &'a dyn Monitor) -> Result<Self> {
        Ok(Self { table: LATENTS.writer(dir, GROUP)?, tokens, is_size_said: false, monitor })
    }

    /// Adds rows. Before the first, it says how large the table becomes.
    pub(crate) fn add(&mut self, encoded: &EncodedRows) -> Result<()> {
        if !std::mem::replace(&mut self.is_size_said, true) {
            let l0 = encoded.acts.n_active() as f64 / encoded.len().max(1) as f64;
            let (tokens, bytes) = (human::grouped(self.tokens), self.tokens as f64 * l0 * ROW_BYTES);
            let size = human::bytes(bytes as u64);
            let file = LATENTS.file;
            self.monitor.say(&format!("{file}: {tokens} tokens x {l0:.1} latents x {ROW_BYTES} bytes: about {size}"));
        }
        let rows: Vec<LatentRow> = (0..encoded.len()).flat_map(|row| rows_of(encoded, row)).collect();
        Ok(self.table.add(&rows)?)
    }

    /// Publishes the file. Returns its SHA-256.
    pub(crate) fn finish(self) -> Result<String> {
        Ok(self.table.finish()?)
    }
}

fn rows_of(encoded: &EncodedRows, row: usize) -> impl Iterator<Item = LatentRow> {
    let (rows, (latents, values)) = (&encoded.rows, encoded.acts.row(row));
    latents.iter().zip(values).map(move |(&latent, &activation)| LatentRow {
        document: rows.document[row],
        context: rows.context[row],
        position: rows.position[row],
        token: rows.token[row],
        latent,
        activation,
    })
}
