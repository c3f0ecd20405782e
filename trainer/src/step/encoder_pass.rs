//! [`EncoderPass`]: runs the encoder over a batch, tile by tile, so that no `[batch, d_sae]` array exists. From each
//! tile's pre-activations, the architecture keeps the active latents, and the auxiliary loss keeps the strongest dead
//! ones.

use crate::{
    kernels::{
        feature_acts::FeatureActs,
        product::product_transposed,
        select::{self, Threshold},
    },
    step::{
        auxiliary::Auxiliary,
        times::{StepTimes, timed},
        weights::Weights,
    },
};

/// Rows whose pre-activations exist at one time. Fewer rows save memory, but each tile makes the product pack W_enc
/// once more (measured at d_in 576: no cost at 512 rows, 7 % at 256).
pub(crate) const ROWS_PER_TILE: usize = 512;

/// Inputs and outputs of a pass.
#[derive(Debug)]
pub(crate) struct EncoderPass<'a> {
    pub(crate) weights: &'a Weights,
    /// `[n, d_in]`
    pub(crate) x_c: &'a [f32],
    /// Buffer for the pre-activations of a tile, without bias. `[ROWS_PER_TILE, d_sae]`
    pub(crate) hidden: &'a mut Vec<f32>,
    pub(crate) acts: &'a mut FeatureActs,
    pub(crate) auxiliary: &'a mut Auxiliary,
    pub(crate) times: &'a mut StepTimes,
}

impl EncoderPass<'_> {
    pub(crate) fn n_rows(&self) -> usize {
        self.x_c.len() / self.weights.d_in
    }

    /// Encodes the batch; `select(hidden, b_enc, acts)` appends each tile's active latents.
    ///
    /// # Shapes
    /// `select` gets `hidden` `[rows of the tile, d_sae]` and `b_enc` `[d_sae]`.
    pub(crate) fn run(&mut self, select: impl Fn(&[f32], &[f32], &mut FeatureActs)) {
        let Weights { d_in, d_sae, w_enc, b_enc, .. } = self.weights;
        self.acts.clear();
        self.auxiliary.acts.clear();
        for x_c in self.x_c.chunks(ROWS_PER_TILE * d_in) {
            let n_values = x_c.len() / d_in * d_sae;
            self.hidden.resize(self.hidden.len().max(n_values), 0.0);
            let hidden = &mut self.hidden[..n_values];
            timed(&mut self.times.encode, || product_transposed(x_c, w_enc, *d_in, hidden));
            timed(&mut self.times.select, || select(hidden, b_enc, self.acts));
            if !self.auxiliary.dead.is_empty() {
                timed(&mut self.times.auxiliary, || self.auxiliary.select(hidden, b_enc));
            }
        }
    }

    /// Changes the latents that [`Self::run`] selected; the time counts as selection.
    pub(crate) fn timed_select<T>(&mut self, change: impl FnOnce(&mut FeatureActs) -> T) -> T {
        timed(&mut self.times.select, || change(self.acts))
    }

    /// The threshold at which k latents per token are active on the first `n_rows` rows of `x_c`; 0 if fewer are
    /// positive.
    ///
    /// # Shapes
    /// `x_c` `[n, d_in]`
    pub(crate) fn threshold(weights: &Weights, x_c: &[f32], k: usize, n_rows: usize) -> f32 {
        let Weights { d_in, d_sae, w_enc, b_enc, .. } = weights;
        let x_c = &x_c[..x_c.len().min(n_rows * d_in)];
        let n = x_c.len() / d_in;
        let (mut hidden, mut acts) = (vec![0.0; n * d_sae], FeatureActs::default());
        product_transposed(x_c, w_enc, *d_in, &mut hidden);
        select::above(&hidden, b_enc, Threshold::Global(0.0), &mut acts);
        if acts.n_active() < k * n {
            return 0.0;
        }
        select::keep_largest(&mut acts, k * n).unwrap_or(0.0)
    }
}
