//! [`VectorData`]: vectors that any program wrote, as [`TrainingData`]. They have no texts, so there is no position 0
//! and no attention sink to drop. The held-out rows are drawn one by one, because files may be sorted.
//!
//! ```text
//! row i is held out  <=>  splitmix64(seed)[i] < held_out_fraction * 2^64
//! ```

use harvester::{Location, VectorDataset};

use crate::{
    Error, Result,
    data::{
        rows::{Column, RowSource, Rows},
        training_data::{ColumnSummary, HeldOut, Label, Provenance, Split, TrainingData, VectorsIdentity},
    },
    sae::HookPoints,
};

/// A dataset of vectors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VectorData<'a>(pub(crate) &'a VectorDataset);

impl TrainingData for VectorData<'_> {
    fn location(&self) -> &Location {
        &self.0.location
    }

    fn hook_points(&self) -> HookPoints {
        HookPoints::Autoencoder(None)
    }

    fn columns(&self) -> Result<Vec<ColumnSummary<'_>>> {
        Ok(vec![ColumnSummary { name: self.0.column.clone(), mean: &self.0.mean, std: &self.0.std }])
    }

    fn split(&self, draw: HeldOut) -> Result<Split<'_>> {
        let [training, held_out] = [false, true].map(|held_out| VectorRows::new(self.0, draw, held_out));
        if training.n_rows == 0 {
            let found = format!("{} rows, of which all are held out", self.0.n_rows);
            let hint = "Train on more rows, or hold out a smaller `held_out_fraction`";
            return Err(Error::malformed(self.location().to_string(), "rows to train on", found, hint));
        }
        Ok(Split { training: Box::new(training), held_out: Box::new(held_out), held_out_contexts: 0..0 })
    }

    fn provenance(&self) -> Result<Provenance> {
        Ok(Provenance {
            manifest_sha256: None,
            model: None,
            vectors: Some(VectorsIdentity { column: self.0.column.clone(), files: self.0.files.clone() }),
            sink_norm: f32::MAX,
            bos: None,
        })
    }

    fn label(&self) -> Label {
        let dataset = self.0.location.file_name();
        Label { model_name: String::new(), ctx_len: None, prepend_bos: false, dataset }
    }
}

impl HeldOut {
    /// True if `row` is held out. Each row is decided independently.
    fn holds_out(self, row: u64) -> bool {
        // The upper 53 bits: an f64 holds no more.
        ((splitmix64(self.seed, row) >> 11) as f64 / (1u64 << 53) as f64) < self.fraction
    }
}

/// Number `i` of the generator SplitMix64 (Steele, Lea and Flood 2014) that starts at `seed`.
fn splitmix64(seed: u64, i: u64) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let z = seed.wrapping_add(STEP.wrapping_mul(i.wrapping_add(1)));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The held-out rows, or all others.
#[derive(Debug)]
struct VectorRows<'a> {
    vectors: &'a VectorDataset,
    draw: HeldOut,
    held_out: bool,
    widths: [usize; 1],
    n_rows: u64,
}

impl<'a> VectorRows<'a> {
    fn new(vectors: &'a VectorDataset, draw: HeldOut, held_out: bool) -> Self {
        let n_rows = (0..vectors.n_rows).filter(|row| draw.holds_out(*row) == held_out).count() as u64;
        Self { vectors, draw, held_out, widths: [vectors.width], n_rows }
    }
}

impl RowSource for VectorRows<'_> {
    fn widths(&self) -> &[usize] {
        &self.widths
    }

    fn row_bytes(&self) -> usize {
        self.vectors.dtype.row_bytes(self.vectors.width)
    }

    fn group_sizes(&self) -> Vec<usize> {
        self.vectors.groups.iter().map(|rows| (rows.end - rows.start) as usize).collect()
    }

    /// Exact: the draw gives the number without reading.
    fn n_rows_at_most(&self) -> u64 {
        self.n_rows
    }

    fn read(&self, group: usize) -> Result<Rows> {
        let width = self.vectors.width;
        let keep: Vec<bool> =
            self.vectors.groups[group].clone().map(|row| self.draw.holds_out(row) == self.held_out).collect();
        Ok(Rows::kept(vec![Column { values: self.vectors.read(group)?, width }], &keep))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The first outputs of the authors' C program for seed 1234567.
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!([0, 1, 2, 3, 4].map(|i| splitmix64(1_234_567, i)), expected);
    }

    #[test]
    fn about_the_fraction_is_held_out_and_another_seed_holds_out_others() {
        let held_out = |seed, fraction| -> Vec<u64> {
            let draw = HeldOut { seed, fraction };
            (0..100_000).filter(|row| draw.holds_out(*row)).collect()
        };
        let rows = held_out(0, 0.05);
        // Five standard deviations are 345.
        assert!(rows.len().abs_diff(5000) < 345, "{}", rows.len());
        let both = held_out(1, 0.05).iter().filter(|row| rows.contains(row)).count();
        assert!(both.abs_diff(250) < 80, "{both}");
        assert_eq!((held_out(0, 0.0).len(), held_out(0, 1.0).len()), (0, 100_000));
    }
}
