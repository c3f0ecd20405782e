//! [`Passes`]: the passes of an explanation. The text without edits is run once; then its last token, or all of it,
//! runs in many copies.

use candle_core::Tensor;
use harvester::{LanguageModel, Monitor, human};
use trainer::FeatureActs;

use super::PartEffect;
use crate::{
    Error, Result, SaeSite,
    neutral::Fork,
    next_token::{Prediction, Reference},
    tensor_rows::with_rows,
};

/// Rows of one pass over several copies of a text.
const ROWS: usize = 2048;

/// Copies whose logits are in memory together.
const HEAD_ROWS: usize = 128;

/// What a copy of the last token continues with.
pub(super) enum Edited {
    /// Without these latents.
    Without(Vec<u32>),
    /// With the SAE's reconstruction.
    Reconstructed,
}

/// A text, its latents, and its next token.
pub(super) struct Passes<'a> {
    model: &'a LanguageModel,
    site: SaeSite<'a>,
    pub(super) tokens: Vec<u32>,
    /// Copies of the last token.
    of_last: Fork<'a>,
    /// Copies of all tokens but the first, which no SAE is trained on.
    of_all: Fork<'a>,
    /// The SAE's input on all tokens but the first. `[tokens - 1, d_in]`
    x: Vec<f32>,
    /// The active latents of every token; none of those that are not ordinary.
    acts: FeatureActs,
    pub(super) ordinary: Vec<bool>,
    /// The next token without edits.
    pub(super) reference: Reference,
    /// The last residual stream. `[1, d_model]`
    resid: Tensor,
    pub(super) target: u32,
}

impl<'a> Passes<'a> {
    /// The default target is the most likely token.
    pub(super) fn new(
        model: &'a LanguageModel,
        site: SaeSite<'a>,
        tokens: Vec<u32>,
        target: Option<u32>,
    ) -> Result<Self> {
        if tokens.len() < 2 {
            let found = human::counted(tokens.len() as u64, "token");
            return Err(harvester::Error::invalid("text", "at least two tokens", found).into());
        }
        let mut of_all = Fork::new(model, site, &[tokens.split_at(1)])?;
        let of_last = Fork::new(model, site, &[tokens.split_at(tokens.len() - 1)])?;
        let (mut x, mut ordinary) = (vec![], vec![false]);
        let resid = of_all.run(1, &mut |row, input, _| {
            x.extend_from_slice(input);
            ordinary.push(site.is_ordinary(row, input));
        })?;
        let encoded = site.sae.encode(&x)?;
        let mut acts = FeatureActs { offsets: vec![0, 0], ..FeatureActs::default() };
        for row in 0..encoded.n_rows() {
            let (latents, values) = encoded.row(row);
            let n = if ordinary[row + 1] { latents.len() } else { 0 };
            acts.latents.extend_from_slice(&latents[..n]);
            acts.values.extend_from_slice(&values[..n]);
            acts.offsets.push(acts.latents.len());
        }
        let reference = Reference::new(model.unembed(&resid)?.flatten_all()?.to_vec1()?);
        let likeliest = (0..).zip(reference.p()).max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(token, _)| token);
        let target = target.unwrap_or(likeliest);
        Ok(Self { model, site, tokens, of_last, of_all, x, acts, ordinary, reference, resid, target })
    }

    /// Position of the last token.
    pub(super) fn last(&self) -> usize {
        self.tokens.len() - 1
    }

    /// The active latents of a token.
    pub(super) fn active(&self, position: usize) -> impl Iterator<Item = (u32, f32)> + '_ {
        let (latents, values) = self.acts.row(position);
        latents.iter().copied().zip(values.iter().copied())
    }

    /// The `n` positions at which a latent is most active, with its activations.
    pub(super) fn peaks(&self, latent: u32, n: usize) -> Vec<(usize, f32)> {
        let of = |position| self.active(position).find(|(active, _)| *active == latent).map(|it| (position, it.1));
        let mut peaks: Vec<(usize, f32)> = (0..self.tokens.len()).filter_map(of).collect();
        peaks.sort_by(|a, b| b.1.total_cmp(&a.1));
        peaks.truncate(n);
        peaks
    }

    /// The active latents of the text, each with the sum of the norms of what it writes, largest first.
    pub(super) fn strongest(&self) -> Vec<(u32, f32)> {
        let mut sums = std::collections::BTreeMap::<u32, f32>::new();
        for (latent, f) in self.acts.latents.iter().zip(&self.acts.values) {
            *sums.entry(*latent).or_default() += f;
        }
        let written =
            |(latent, sum): (u32, f32)| (latent, sum * harvester::norm(self.site.sae.decoder_row(latent as usize)));
        let mut strongest: Vec<(u32, f32)> = sums.into_iter().map(written).collect();
        strongest.sort_by(|a, b| b.1.total_cmp(&a.1));
        strongest
    }

    /// What changed from the model's own next token to `q`.
    pub(super) fn effect(&self, q: &Prediction<'_>) -> PartEffect {
        let p = self.reference.prediction();
        let effect = p.log_p(self.target) - q.log_p(self.target);
        PartEffect { effect, kl: Some(self.reference.kl(p.log_sum, q)) }
    }

    /// Runs the last token once with each edit. `read` is called with each prediction.
    pub(super) fn of_last_token<T>(
        &mut self,
        edits: &[Edited],
        read: impl Fn(&Self, &Prediction<'_>) -> T,
    ) -> Result<Vec<T>> {
        let (site, last, d_in) = (self.site, self.last(), self.site.sae.d_in());
        let (acts, x) = (&self.acts, &self.x[(last - 1) * d_in..]);
        let (_, x_hat) = site.sae.reconstruct(x)?;
        let resid = self.of_last.run(edits.len(), &mut |row, x, y| match &edits[row.variant] {
            Edited::Without(latents) => {
                latents.iter().for_each(|latent| remove(site, (*latent, acts.get(last, *latent)), x, y));
            }
            Edited::Reconstructed if site.is_ordinary(row, x) => y.copy_from_slice(&x_hat),
            Edited::Reconstructed => (),
        })?;
        let mut results = vec![];
        for first in (0..edits.len()).step_by(HEAD_ROWS) {
            let rows = resid.narrow(0, first, HEAD_ROWS.min(edits.len() - first))?;
            with_rows(&self.model.unembed(&rows)?, |logits| {
                let predictions = logits.chunks_exact(self.reference.p().len()).map(Prediction::new);
                results.extend(predictions.map(|q| read(self, &q)));
            })?;
        }
        Ok(results)
    }

    /// Runs the whole text once without each latent, on every token or only at one position.
    pub(super) fn of_whole_text(
        &mut self,
        latents: &[(u32, Option<usize>)],
        monitor: &dyn Monitor,
    ) -> Result<Vec<PartEffect>> {
        let (site, acts) = (self.site, &self.acts);
        let mut effects = vec![];
        for latents in latents.chunks((ROWS / self.last()).clamp(1, HEAD_ROWS)) {
            if monitor.cancelled() {
                return Err(Error::Stopped);
            }
            let resid = self.of_all.run(latents.len(), &mut |row, x, y| {
                let (latent, at) = latents[row.variant];
                if at.is_none_or(|position| position == row.position) {
                    remove(site, (latent, acts.get(row.position, latent)), x, y);
                }
            })?;
            with_rows(&self.model.unembed(&resid)?, |logits| {
                let predictions = logits.chunks_exact(self.reference.p().len()).map(Prediction::new);
                effects.extend(predictions.map(|q| self.effect(&q)));
            })?;
            monitor.advance(latents.len() as u64);
        }
        Ok(effects)
    }

    /// How much each latent of the last token adds to the target's logit, with the scale of the final norm held.
    ///
    /// The scale is what turns the lens of the last residual stream into its logits. Of a model that caps them, the part
    /// is that in the logit before the cap.
    pub(super) fn direct(&self, latents: &[(u32, f32)]) -> Result<Vec<f64>> {
        let place_reaches_head = self.of_last.place().writes_to_resid();
        if !place_reaches_head || self.site.sae.d_out() != self.model.config().d_model {
            let expected = "an SAE that writes to the residual stream, for direct effects";
            return Err(harvester::Error::invalid("`method`", expected, self.of_last.place().to_string()).into());
        }
        let d_vocab = self.reference.p().len() as u32;
        let some: Vec<u32> = (0..d_vocab).step_by((d_vocab as usize / 1024).max(1)).collect();
        let values = |x: &Tensor| -> Result<Vec<f32>> { Ok(x.flatten_all()?.to_vec1()?) };
        let lens = |rows: &[f32], tokens: &[u32]| -> Result<Vec<f32>> {
            let (directions, unembed) = self.model.logit_lens(rows, tokens)?;
            values(&directions.matmul(&unembed.t()?)?)
        };
        let bias = values(&self.model.unembed(&self.resid.zeros_like()?)?)?;
        let logits = self.reference.prediction().logits;
        let of_resid = lens(&values(&self.resid)?, &some)?;
        let logit = |token: &u32| f64::from(logits[*token as usize] - bias[*token as usize]);
        let points: Vec<(f64, f64)> =
            some.iter().zip(of_resid).map(|(token, lens)| (f64::from(lens), logit(token))).collect();
        let norm = self.site.sae.config().input_norm.scale(&self.x[(self.last() - 1) * self.site.sae.d_in()..]);
        let rows: Vec<f32> =
            latents.iter().flat_map(|(latent, _)| self.site.sae.decoder_row(*latent as usize)).copied().collect();
        let scale = f64::from(norm) * slope_below_cap(&points);
        let of_latents = lens(&rows, &[self.target])?;
        Ok(latents.iter().zip(of_latents).map(|((_, f), lens)| scale * f64::from(*f) * f64::from(lens)).collect())
    }
}

/// The `s` of `y = c tanh(s x / c)`, where the cap `c` is not known and may be infinite.
///
/// With `u = 1/c^2`, `c atanh(y / c)` is a multiple of `x`: the `u` for which it comes closest to one is found by
/// golden-section search.
fn slope_below_cap(points: &[(f64, f64)]) -> f64 {
    let most = points.iter().map(|(_, y)| y.abs()).fold(0.0, f64::max);
    // Those near the cap say little.
    let points: Vec<(f64, f64)> = points.iter().copied().filter(|(_, y)| y.abs() <= most / 2.0).collect();
    let fit = |u: f64| {
        let uncapped = |y: f64| if u > 0.0 { (y * u.sqrt()).atanh() / u.sqrt() } else { y };
        let sum = |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|(x, y)| of(*x, uncapped(*y))).sum::<f64>();
        let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
        (1.0 - xy * xy / (xx * yy).max(f64::MIN_POSITIVE), xy / xx.max(f64::MIN_POSITIVE))
    };
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (0.0, 1.0 / (most * most).max(f64::MIN_POSITIVE));
    for _ in 0..60 {
        let reach = golden * (high - low);
        if fit(high - reach).0 <= fit(low + reach).0 { high = low + reach } else { low = high - reach }
    }
    fit(low).1
}

/// Takes a latent out of a row.
fn remove(site: SaeSite<'_>, (latent, f): (u32, f32), x: &[f32], y: &mut [f32]) {
    // A change of 0 must not alter anything, not even the sign of a zero.
    if f != 0.0 {
        let change = site.sae.config().input_norm.scale(x) * f;
        y.iter_mut().zip(site.sae.decoder_row(latent as usize)).for_each(|(y, d)| *y -= change * d);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_found_with_and_without_a_cap() {
        let x = |i: i32| f64::from(i - 50) / 10.0;
        for (cap, slope) in [(4.0, 2.0), (30.0, 1.5), (1e9, 3.0)] {
            let points: Vec<(f64, f64)> = (0..100).map(|i| (x(i), cap * (slope * x(i) / cap).tanh())).collect();
            assert!((slope_below_cap(&points) / slope - 1.0).abs() < 1e-6, "{cap} {}", slope_below_cap(&points));
        }
    }
}
