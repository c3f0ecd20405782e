//! The nonlinearity of a finished gated SAE. It is separate from `select` because training selects by the gate alone: a
//! latent whose magnitude is 0 still has a gate to learn.
//!
//! ```text
//! f = hidden * exp(r_mag) + b_mag   if both this and hidden + b_gate are positive, else 0
//! ```

use super::select::select_rows;
use crate::kernels::feature_acts::FeatureActs;

/// Appends to `acts`, for each row, the positive magnitudes whose gate is open.
///
/// # Shapes
/// `hidden` `[n, d_sae]`; `b_gate`, `r_mag`, `b_mag` `[d_sae]`.
pub(crate) fn gated(hidden: &[f32], b_gate: &[f32], (r_mag, b_mag): (&[f32], &[f32]), acts: &mut FeatureActs) {
    let scale: Vec<f32> = r_mag.iter().map(|r| r.exp()).collect();
    select_rows(hidden, b_gate.len(), acts, |hidden, _, acts| {
        for (latent, &hidden) in hidden.iter().enumerate() {
            let magnitude = hidden * scale[latent] + b_mag[latent];
            if hidden + b_gate[latent] > 0.0 && magnitude > 0.0 {
                acts.latents.push(latent as u32);
                acts.values.push(magnitude);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let mut acts = FeatureActs::default();
        // Gate open and magnitude positive; open and negative; closed.
        gated(&[1.0, 1.0, 1.0], &[0.0, 0.5, -1.0], (&[2f32.ln(), 0.0, 0.0], &[0.5, -3.0, 5.0]), &mut acts);
        assert_eq!((acts.latents.as_slice(), acts.values.as_slice()), ([0].as_slice(), [2.5].as_slice()));
    }
}
