//! [`LATENTS`]: the sparse activations of a text, a row for each token and each latent that is active on it.

use std::path::Path;

use harvester::{Cell, Column, Monitor, Table, TableWriter, human};

use crate::{EncodedRows, Result};

/// Bytes of a row on disk, measured: the columns of a token are nearly free, because they repeat.
const ROW_BYTES: f64 = 7.0;
/// Rows of a row group.
const GROUP: usize = 1 << 20;
/// Rows that are written together.
const PORTION: usize = 1 << 16;

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

/// Says how large the table of a text of about `tokens` tokens becomes, of which `encoded` are the first.
pub(crate) fn say_size(tokens: u64, encoded: &EncodedRows, monitor: &dyn Monitor) {
    let l0 = encoded.acts.n_active() as f64 / encoded.len().max(1) as f64;
    let (file, size) = (LATENTS.file, human::bytes((tokens as f64 * l0 * ROW_BYTES) as u64));
    let tokens = human::grouped(tokens);
    monitor.say(&format!("{file}: {tokens} tokens x {l0:.1} latents x {ROW_BYTES} bytes: about {size}"));
}

/// [`LATENTS`] being written; the file appears when it is finished. The same rows always give the same bytes, in
/// whatever portions they come.
pub(crate) struct LatentsWriter {
    table: TableWriter<LatentRow>,
    /// Rows to be written with the next ones.
    rows: Vec<LatentRow>,
}

impl LatentsWriter {
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        Ok(Self { table: LATENTS.writer(dir, GROUP)?, rows: vec![] })
    }

    /// Adds the rows of some tokens.
    pub(crate) fn add(&mut self, encoded: &EncodedRows) -> Result<()> {
        self.extend((0..encoded.len()).flat_map(|row| rows_of(encoded, row)))
    }

    /// Adds all rows of the table in `dir`.
    pub(crate) fn add_table(&mut self, dir: &Path) -> Result<()> {
        let table = LATENTS.open(dir)?;
        for start in (0..table.n_rows()).step_by(GROUP) {
            let rows = start..table.n_rows().min(start + GROUP);
            let document = table.read_rows::<u64>("document", rows.clone())?;
            let context = table.read_rows::<u64>("context", rows.clone())?;
            let position = table.read_rows::<u32>("position", rows.clone())?;
            let token = table.read_rows::<u32>("token", rows.clone())?;
            let latent = table.read_rows::<u32>("latent", rows.clone())?;
            let activation = table.read_rows::<f32>("activation", rows)?;
            self.extend((0..document.len()).map(|at| LatentRow {
                document: document[at],
                context: context[at],
                position: position[at],
                token: token[at],
                latent: latent[at],
                activation: activation[at],
            }))?;
        }
        Ok(())
    }

    fn extend(&mut self, rows: impl Iterator<Item = LatentRow>) -> Result<()> {
        self.rows.extend(rows);
        // Only whole portions: pages end with portions, and so they are the same however the rows arrive.
        let whole = self.rows.len() / PORTION * PORTION;
        for portion in self.rows[..whole].chunks(PORTION) {
            self.table.add(portion)?;
        }
        self.rows.drain(..whole);
        Ok(())
    }

    /// Publishes the file. Returns its SHA-256.
    pub(crate) fn finish(mut self) -> Result<String> {
        self.table.add(&self.rows)?;
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn rows(numbers: std::ops::Range<u64>) -> impl Iterator<Item = LatentRow> {
        numbers.map(|n| LatentRow {
            document: n / 9000,
            context: n / 700,
            position: (n / 3 % 256) as u32,
            token: (n.wrapping_mul(2_654_435_761) % 5000) as u32,
            latent: (n.wrapping_mul(40_503) % 4608) as u32,
            activation: (n % 977) as f32 * 0.37,
        })
    }

    /// More than a row group, in portions of every kind, and by way of other tables.
    #[test]
    fn the_same_rows_give_the_same_bytes_however_they_come() {
        let n = GROUP as u64 + 123_456;
        let write = |cuts: &[u64]| {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = LatentsWriter::create(dir.path()).unwrap();
            cuts.windows(2).for_each(|cut| writer.extend(rows(cut[0]..cut[1])).unwrap());
            writer.finish().unwrap();
            dir
        };
        let whole = write(&[0, n]);
        let bytes = |dir: &Path| std::fs::read(dir.join(LATENTS.file)).unwrap();
        assert!(bytes(whole.path()) == bytes(write(&[0, 1, 70_001, 70_002, 900_000, n]).path()));
        let joined = tempfile::tempdir().unwrap();
        let mut writer = LatentsWriter::create(joined.path()).unwrap();
        for cut in [[0, 5], [5, 5], [5, 200_003], [200_003, n]] {
            writer.add_table(write(&cut).path()).unwrap();
        }
        writer.finish().unwrap();
        assert!(bytes(whole.path()) == bytes(joined.path()));
    }
}
