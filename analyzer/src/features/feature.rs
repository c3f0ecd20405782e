//! [`Feature`]: the facts about one latent. A row of `features.parquet`.

use serde::Serialize;

use crate::TokenWeight;

/// Bins of [`Feature::histogram`]: half-octaves from 2^-6 to 2^10. The first and last bin also count values outside
/// this range.
pub(crate) const HISTOGRAM_BINS: usize = 32;

/// The facts about one latent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Feature {
    /// Number of the latent.
    pub latent: u32,
    /// Tokens on which it is active.
    pub n_active: u64,
    /// Share of tokens on which it is active.
    pub density: f64,
    /// Largest activation.
    pub max: f32,
    /// Mean activation over the tokens on which it is active.
    pub mean: f32,
    /// Number of tokens per bin of activation; bin `i` of 32 begins at `2^(i / 2 - 6)`.
    pub histogram: Vec<u32>,
    /// [`Feature::density`] within each source of the corpus, in the manifest's order.
    pub density_by_source: Vec<f32>,
    /// The tokens whose logits it raises more than other latents do, largest difference first, among the tokens in the
    /// indexed text.
    pub promoted: Vec<TokenWeight>,
    /// The tokens whose logits it lowers more than other latents do, largest difference first.
    pub suppressed: Vec<TokenWeight>,
    /// Latents with similar decoder directions, nearest first, with their cosine.
    pub nearest: Vec<(u32, f32)>,
}

impl Feature {
    /// Activation at which bin `bin` of a histogram begins.
    pub(crate) fn bin_start(bin: usize) -> f32 {
        2f32.powf(bin as f32 / 2.0 - 6.0)
    }

    /// The bins of the histogram that are not empty as a row of blocks, with the activations at its ends.
    pub fn histogram_line(&self) -> String {
        const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let filled = |count: &u32| *count > 0;
        let ends = self.histogram.iter().position(filled).zip(self.histogram.iter().rposition(filled));
        let Some((first, last)) = ends else { return String::new() };
        let most = self.histogram.iter().copied().max().unwrap_or(1);
        let block = |count: &u32| match *count {
            0 => ' ',
            count => BLOCKS[(count as usize * (BLOCKS.len() - 1)).div_ceil(most as usize)],
        };
        let bars: String = self.histogram[first..=last].iter().map(block).collect();
        format!("{:.2} {bars} {:.0}", Self::bin_start(first), Self::bin_start(last + 1))
    }

    /// The bin that `activation` falls in.
    pub(crate) fn bin(activation: f32) -> usize {
        let bin = ((activation.log2() + 6.0) * 2.0).floor();
        (bin.max(0.0) as usize).min(HISTOGRAM_BINS - 1)
    }
}

/// An example of a latent's activity in the text. A row of `examples.parquet`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    /// The latent.
    pub latent: u32,
    /// 0 for the strongest.
    pub rank: u32,
    /// The latent's activation at the peak.
    pub activation: f32,
    /// Document of the peak.
    pub document: u64,
    /// Context of the peak.
    pub context: u64,
    /// Position of the peak in its context.
    pub position: u32,
    /// Index of the peak in the window.
    pub peak: u32,
    /// Token ids around the peak.
    pub tokens: Vec<u32>,
    /// Text of each token.
    pub texts: Vec<String>,
    /// The latent's activation on each token; 0 if it is not active, and on attention sinks, on which no SAE is
    /// trained.
    pub activations: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_begins_where_it_says() {
        for bin in 0..HISTOGRAM_BINS {
            assert_eq!(Feature::bin(Feature::bin_start(bin) * 1.001), bin);
        }
        assert_eq!(Feature::bin(1e-9), 0);
        assert_eq!(Feature::bin(1e9), HISTOGRAM_BINS - 1);
    }
}
