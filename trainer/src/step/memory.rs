//! [`learner_bytes`]: the memory that an SAE needs while it is trained, estimated from its widths before anything is
//! allocated. The estimate is printed before a run, and decides how many runs a sweep trains together.
//!
//! ```text
//! held   = 4 (weight, two moments, gradient) * 4 * d_sae * (d_in + d_out)  +  4 * ROWS_PER_TILE * d_sae (hidden_pre)
//! saving = 3 (weight, two moments) * 4 * d_sae * (d_in + d_out), the file  +  4 * d_sae * max(d_in, d_out), a tensor
//! ```
//!
//! The buffers of a batch and the biases are small beside these. The shuffle buffer is not included.

use crate::step::encoder_pass::ROWS_PER_TILE;

/// Memory of a learner, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LearnerMemory {
    /// During the whole run.
    pub(crate) held: u64,
    /// In addition, while a checkpoint is written.
    pub(crate) saving: u64,
}

impl LearnerMemory {
    /// For `d_sae` latents that read `d_in` values and write `d_out`.
    pub(crate) fn of(d_in: usize, d_out: usize, d_sae: usize) -> Self {
        let [d_in, d_out, d_sae] = [d_in, d_out, d_sae].map(|width| width as u64);
        let weights = 4 * d_sae * (d_in + d_out);
        Self { held: 4 * weights + 4 * ROWS_PER_TILE as u64 * d_sae, saving: 3 * weights + 4 * d_sae * d_in.max(d_out) }
    }

    /// The total for learners that are trained together. They are saved one after the other.
    pub(crate) fn of_all(learners: impl Iterator<Item = Self>) -> u64 {
        let (held, saving) = learners.fold((0, 0), |(held, saving), next| (next.held + held, next.saving.max(saving)));
        held + saving
    }
}

/// Peak memory in bytes of training `d_sae` latents, without the shuffle buffer. The peak is while a checkpoint is
/// saved. `d_in` is the width of all inputs together, `d_out` the width of the reconstruction.
pub(crate) fn learner_bytes(d_in: usize, d_out: usize, d_sae: usize) -> u64 {
    LearnerMemory::of_all(std::iter::once(LearnerMemory::of(d_in, d_out, d_sae)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // 4 latents with 2 inputs and 3 outputs: 20 weights, 80 bytes.
        let small = LearnerMemory::of(2, 3, 4);
        assert_eq!(small, LearnerMemory { held: 4 * 80 + 4 * 512 * 4, saving: 3 * 80 + 4 * 4 * 3 });
        assert_eq!(learner_bytes(2, 3, 4), small.held + small.saving);
        let large = LearnerMemory::of(2, 3, 40);
        let together = LearnerMemory::of_all([small, large, small].into_iter());
        assert_eq!(together, 2 * small.held + large.held + large.saving, "one is saved at a time");
    }
}
