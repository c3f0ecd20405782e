//! [`Rotary`]: positions as rotations of queries and keys.
//!
//! With `half = rotary_dim / 2`, position `p` and `angle_i = p f_i`, `f_i = 1 / base^(i / half)` before scaling:
//! ```text
//! x'[i]        = x[i] cos(angle_i) - x[i + half] sin(angle_i)
//! x'[i + half] = x[i] sin(angle_i) + x[i + half] cos(angle_i)         for i < half; other dimensions stay unchanged
//! ```

use std::{collections::HashMap, f64::consts::TAU};

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Tensor, bail};
use rayon::prelude::*;

use super::{ModelConfig, Positions, RopeScaling, batch::Span};
use crate::{
    Error, Result,
    numbers::simd::{Kernel, wide},
};

/// The frequencies of a model.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    rotary_dim: usize,
    /// `[rotary_dim / 2]`
    frequencies: Vec<f32>,
    /// LongRoPE: the frequencies for longer texts.
    long: Option<LongFrequencies>,
    /// Multiplies cosines and sines.
    amplitude: f32,
}

#[derive(Debug, Clone)]
struct LongFrequencies {
    /// Longest text that uses the short frequencies.
    original_ctx_len: usize,
    /// `[rotary_dim / 2]`
    frequencies: Vec<f32>,
}

/// Cosines and sines of a batch's rows.
#[derive(Debug)]
pub(crate) struct Rotation {
    rotary_dim: usize,
    /// Cosines of each distinct angle. `[angles, rotary_dim / 2]`, row-major.
    cos: Vec<f32>,
    /// `[angles, rotary_dim / 2]`, row-major.
    sin: Vec<f32>,
    /// Index of the angle by which each row of the batch is rotated. `[rows]`
    angles: Vec<usize>,
}

impl Rotary {
    /// The frequencies of a model's layers, if it has rotary positions.
    pub(crate) fn of(config: &ModelConfig) -> Option<Self> {
        match &config.positions {
            Positions::Rotary { base, rotary_dim, scaling } => Some(Self::new(*base, *rotary_dim, scaling)),
            Positions::Learned => None,
        }
    }

    /// The frequencies of its local layers, if they differ.
    pub(crate) fn of_local_layers(config: &ModelConfig) -> Option<Self> {
        let base = config.local.as_ref()?.rotary_base?;
        match config.positions {
            Positions::Rotary { rotary_dim, .. } => Some(Self::new(base, rotary_dim, &RopeScaling::None)),
            Positions::Learned => None,
        }
    }

    fn new(base: f64, rotary_dim: usize, scaling: &RopeScaling) -> Self {
        let half = rotary_dim / 2;
        let exact = |i: usize| 1.0 / base.powf(i as f64 / half as f64);
        // Frequencies are rounded to f32 first, as in Hugging Face transformers: otherwise the angle at position 8,000
        // differs by more than 1e-4.
        let scaled = |scale: &dyn Fn(usize, f64) -> f64| (0..half).map(|i| scale(i, exact(i)) as f32).collect();
        let (mut long, mut amplitude) = (None, 1.0);
        let frequencies = match scaling {
            RopeScaling::None => scaled(&|_, f| f),
            RopeScaling::Linear { factor } => scaled(&|_, f| f / factor),
            RopeScaling::Divisors(divisors) => scaled(&|i, f| f / f64::from(divisors[i])),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_ctx_len } => {
                scaled(&|_, f| llama3(f, *factor, [*low_freq_factor, *high_freq_factor], *original_ctx_len))
            }
            RopeScaling::LongRope { short, long: stretched, original_ctx_len, attention_factor } => {
                amplitude = *attention_factor as f32;
                let frequencies = scaled(&|i, f| f / f64::from(stretched[i]));
                long = Some(LongFrequencies { original_ctx_len: *original_ctx_len, frequencies });
                scaled(&|i, f| f / f64::from(short[i]))
            }
        };
        Self { rotary_dim, frequencies, long, amplitude }
    }

    /// The rotation of the rows of some sequences.
    ///
    /// # Errors
    /// As for [`Self::frequencies_of`].
    pub(crate) fn at(&self, spans: &[Span]) -> Result<Rotation> {
        let (mut cos, mut sin, mut angles) = (vec![], vec![], vec![]);
        let mut known: HashMap<(bool, usize), usize> = HashMap::new();
        for span in spans {
            let (is_long, frequencies) = self.frequencies_of(span)?;
            for position in span.start..span.end() {
                let new = known.len();
                angles.push(*known.entry((is_long, position)).or_insert_with(|| {
                    let angle = frequencies.iter().map(|f| position as f32 * f);
                    cos.extend(angle.clone().map(|angle| angle.cos() * self.amplitude));
                    sin.extend(angle.map(|angle| angle.sin() * self.amplitude));
                    new
                }));
            }
        }
        Ok(Rotation { rotary_dim: self.rotary_dim, cos, sin, angles })
    }

    /// The frequencies of a sequence, and whether they are those for long texts.
    ///
    /// # Errors
    /// A cached text grows past the length at which LongRoPE's frequencies change: its keys would have to be rotated
    /// again.
    fn frequencies_of(&self, span: &Span) -> Result<(bool, &[f32])> {
        match &self.long {
            Some(long) if span.end() > long.original_ctx_len => {
                if (1..=long.original_ctx_len).contains(&span.start) {
                    let expected = format!("to stay within {} tokens, or to start with more", long.original_ctx_len);
                    return Err(Error::invalid("generated text", expected, format!("{} tokens", span.end())));
                }
                Ok((true, &long.frequencies))
            }
            _ => Ok((false, &self.frequencies)),
        }
    }
}

/// Llama 3.1's rule for a frequency, by its wavelength `2 pi / f` relative to the original context length.
fn llama3(f: f64, factor: f64, [low, high]: [f64; 2], original_ctx_len: usize) -> f64 {
    let turns = original_ctx_len as f64 * f / TAU; // in the original context
    let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
    (1.0 - smooth) * f / factor + smooth * f
}

impl Rotation {
    /// Rotates the first `n_rotated` heads of every token, in place if the device is the CPU.
    ///
    /// # Shapes
    /// `x`: `[rows, heads, d_head]`, contiguous and not shared; the batch's rows once, or once for each variant
    pub(crate) fn apply(&self, x: Tensor, n_rotated: usize) -> Result<Tensor> {
        if matches!(x.device(), Device::Cpu) {
            x.inplace_op1(&RotateHeads { rotation: self, n_rotated })?;
            return Ok(x);
        }
        self.apply_plain(&x, n_rotated)
    }

    /// The same with plain tensor operations: for other devices, and as the reference of the tests.
    fn apply_plain(&self, x: &Tensor, n_rotated: usize) -> Result<Tensor> {
        let (rows, heads, d_head) = x.dims3()?;
        let half = self.rotary_dim / 2;
        let table = |values: &[f32]| {
            let of_row = |row: usize| &values[self.angles[row % self.angles.len()] * half..][..half];
            let values: Vec<f32> = (0..rows).flat_map(of_row).copied().collect();
            Tensor::from_vec(values, (rows, 1, half), x.device())
        };
        let (cos, sin) = (table(&self.cos)?, table(&self.sin)?);
        let rotated = x.narrow(1, 0, n_rotated)?;
        let (a, b) = (rotated.narrow(2, 0, half)?, rotated.narrow(2, half, half)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
        let rest = rotated.narrow(2, self.rotary_dim, d_head - self.rotary_dim)?;
        let rotated = Tensor::cat(&[&first, &second, &rest], 2)?; // [rows, n_rotated, d_head]
        Ok(Tensor::cat(&[&rotated, &x.narrow(1, n_rotated, heads - n_rotated)?], 1)?)
    }
}

struct RotateHeads<'a> {
    rotation: &'a Rotation,
    n_rotated: usize,
}

impl RotateHeads<'_> {
    /// Rotates one head.
    #[inline(always)]
    fn rotate(&self, head: &mut [f32], angle: usize) {
        let half = self.rotation.rotary_dim / 2;
        let cos = &self.rotation.cos[angle * half..][..half];
        let sin = &self.rotation.sin[angle * half..][..half];
        let (first, rest) = head.split_at_mut(half);
        for (((a, b), cos), sin) in first.iter_mut().zip(&mut rest[..half]).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        }
    }
}

/// Rotates the heads of one token.
struct RotateToken<'a> {
    op: &'a RotateHeads<'a>,
    heads: &'a mut [f32],
    angle: usize,
    d_head: usize,
}

impl Kernel for RotateToken<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for head in self.heads.chunks_exact_mut(self.d_head) {
            self.op.rotate(head, self.angle);
        }
    }
}

impl InplaceOp1 for RotateHeads<'_> {
    fn name(&self) -> &'static str {
        "rotate-heads"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (_, heads, d_head) = layout.shape().dims3()?;
        let angles = &self.rotation.angles;
        let Some((from, to)) = layout.contiguous_offsets() else { bail!("rotate-heads needs a contiguous tensor") };
        let CpuStorage::F32(values) = storage else { bail!("rotate-heads needs f32") };
        values[from..to].par_chunks_mut(heads * d_head).enumerate().for_each(|(row, values)| {
            let angle = angles[row % angles.len()];
            wide(RotateToken { op: self, heads: &mut values[..self.n_rotated * d_head], angle, d_head });
        });
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn span(start: usize, len: usize) -> Span {
        Span { rows: 0..len, start }
    }

    fn rotary(rotary_dim: usize, scaling: RopeScaling) -> Rotary {
        Rotary::new(10_000.0, rotary_dim, &scaling)
    }

    #[test]
    fn in_place_rotation_equals_plain_tensor_operations() {
        // Two sequences, followed by a hook's second variant of them.
        let rotation = rotary(6, RopeScaling::None).at(&[span(7, 3), span(0, 2)]).unwrap();
        let x = Tensor::randn(0f32, 1., (10, 4, 8), &Device::Cpu).unwrap();
        let want = rotation.apply_plain(&x, 3).unwrap();
        let got = rotation.apply(x.copy().unwrap(), 3).unwrap();
        let diff = (got - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(diff < 1e-6, "{diff}");
    }

    #[test]
    fn a_quarter_turn_is_a_quarter_turn() {
        // rotary_dim 2 has one frequency, 1: position p rotates by p radians.
        let rotation = rotary(2, RopeScaling::None).at(&[span(1, 2)]).unwrap();
        let x = Tensor::new(&[[[1f32, 0.]], [[1., 0.]]], &Device::Cpu).unwrap();
        let y = rotation.apply(x, 1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (got, want) in y.iter().zip([1f32.cos(), 1f32.sin(), 2f32.cos(), 2f32.sin()]) {
            assert!((got - want).abs() < 1e-7);
        }
    }

    #[test]
    fn a_long_text_cannot_grow_out_of_a_cached_short_one() {
        let (short, long) = (vec![1.0; 4], vec![8.0; 4]);
        let rotary = rotary(8, RopeScaling::LongRope { short, long, original_ctx_len: 10, attention_factor: 1.5 });
        let at = |start, len| rotary.at(&[span(start, len)]);
        assert!(at(0, 10).unwrap().cos[8..12] != at(0, 11).unwrap().cos[8..12]);
        assert_eq!(at(0, 1).unwrap().cos, [1.5; 4]);
        assert!(at(9, 1).is_ok() && at(11, 5).is_ok());
        // The frequencies of each sequence of a batch depend on its own length.
        let both = rotary.at(&[span(0, 10), span(0, 11)]).unwrap();
        assert_eq!(both.cos, [at(0, 10).unwrap().cos, at(0, 11).unwrap().cos].concat());
        let message = at(10, 1).unwrap_err().to_string();
        assert!(message.contains("10 tokens"), "{message}");
    }
}
