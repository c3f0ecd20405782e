//! [`ActivationRows`]: consecutive tokens and their activations in memory, in their storage dtype.

use std::{borrow::Cow, ops::Range};

use half::{f16, slice::HalfFloatSliceExt};

use crate::{Role, StorageDtype};

/// Token, document, context and position of each row. All columns have the same length, but `role` may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenRows {
    /// Document number in corpus order.
    pub document: Vec<u64>,
    /// Context number, from 0 in the order of harvesting.
    pub context: Vec<u64>,
    /// Position in the context, from 0.
    pub position: Vec<u32>,
    /// Token id.
    pub token: Vec<u32>,
    /// Who said the token, in a conversation; empty if the corpus has none.
    pub role: Vec<Option<Role>>,
}

impl TokenRows {
    /// The rows of each context, in order.
    pub fn contexts(&self) -> Vec<Range<usize>> {
        let mut end = 0;
        let lengths = self.context.chunk_by(|a, b| a == b).map(<[u64]>::len);
        let ranges = lengths.map(|len| {
            end += len;
            end - len..end
        });
        ranges.collect()
    }
}

/// Activation values, row-major `[n, d_model]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// As computed.
    F32(Vec<f32>),
    /// Rounded to half precision.
    F16(Vec<f16>),
    /// `x[row, i] = values[row, i] * scales[row]`, with `scales[row] = max_i |x[row, i]| / 127`.
    I8 {
        /// -127 to 127. `[n, d_model]`
        values: Vec<i8>,
        /// Size of one step, per row. `[n]`
        scales: Vec<f32>,
    },
}

impl Values {
    /// No values, with space for `rows` of `width`.
    pub(crate) fn with_capacity(dtype: StorageDtype, rows: usize, width: usize) -> Self {
        match dtype {
            StorageDtype::F32 => Self::F32(Vec::with_capacity(rows * width)),
            StorageDtype::F16 => Self::F16(Vec::with_capacity(rows * width)),
            StorageDtype::I8 => Self::I8 { values: Vec::with_capacity(rows * width), scales: Vec::with_capacity(rows) },
        }
    }

    /// Storage type of the values.
    pub fn dtype(&self) -> StorageDtype {
        match self {
            Self::F32(_) => StorageDtype::F32,
            Self::F16(_) => StorageDtype::F16,
            Self::I8 { .. } => StorageDtype::I8,
        }
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::I8 { values, .. } => values.len(),
        }
    }

    /// All values in f32; copies only if they are not f32 already.
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        match self {
            Self::F32(values) => Cow::Borrowed(values),
            Self::F16(values) => {
                let mut wide = vec![0.0; values.len()];
                values.convert_to_f32_slice(&mut wide);
                Cow::Owned(wide)
            }
            Self::I8 { values, scales } => {
                let width = values.len() / scales.len().max(1);
                let rows = values.chunks_exact(width.max(1)).zip(scales);
                Cow::Owned(
                    rows.flat_map(|(row, scale)| row.iter().map(move |value| f32::from(*value) * scale)).collect(),
                )
            }
        }
    }

    /// Copies row `row` to `to` `[width]`, as f32.
    pub fn copy_row(&self, row: usize, to: &mut [f32]) {
        let range = row * to.len()..(row + 1) * to.len();
        match self {
            Self::F32(values) => to.copy_from_slice(&values[range]),
            Self::F16(values) => values[range].convert_to_f32_slice(to),
            Self::I8 { values, scales } => {
                let scale = scales[row];
                to.iter_mut().zip(&values[range]).for_each(|(to, value)| *to = f32::from(*value) * scale);
            }
        }
    }

    /// Drops the rows of `width` values that `keep` does not mark, and frees their memory.
    pub fn keep_rows(&mut self, width: usize, keep: &[bool]) {
        match self {
            Self::F32(values) => keep_rows(values, width, keep),
            Self::F16(values) => keep_rows(values, width, keep),
            Self::I8 { values, scales } => {
                keep_rows(values, width, keep);
                keep_rows(scales, 1, keep);
            }
        }
    }

    /// Index of the first value that is not finite.
    pub(crate) fn first_not_finite(&self) -> Option<usize> {
        match self {
            Self::F32(values) => first(values, |value| !value.is_finite()).err(),
            Self::F16(values) => first(values, |value| !value.is_finite()).err(),
            Self::I8 { values, scales } => {
                let width = values.len() / scales.len().max(1);
                first(scales, |scale| !scale.is_finite()).err().map(|row| row * width)
            }
        }
    }

    /// Appends rows of `width` values, rounded to this dtype. `Err(i)` if value `i` is not finite after rounding; the
    /// appended values must then not be used.
    pub(crate) fn extend_finite(&mut self, rows: &[f32], width: usize) -> Result<(), usize> {
        match self {
            Self::F32(stored) => {
                stored.extend_from_slice(rows);
                first(rows, |value| !value.is_finite())
            }
            Self::F16(stored) => {
                let start = stored.len();
                stored.resize(start + rows.len(), f16::ZERO);
                stored[start..].convert_from_f32_slice(rows);
                first(&stored[start..], |value| !value.is_finite())
            }
            Self::I8 { values, scales } => {
                first(rows, |value| !value.is_finite())?;
                for row in rows.chunks_exact(width) {
                    scales.push(quantize(row, values));
                }
                Ok(())
            }
        }
    }

    /// Appends rows `rows` of `other`, which has the same dtype.
    pub(crate) fn extend_rows(&mut self, other: &Self, rows: Range<usize>, width: usize) {
        let range = rows.start * width..rows.end * width;
        match (self, other) {
            (Self::F32(to), Self::F32(from)) => to.extend_from_slice(&from[range]),
            (Self::F16(to), Self::F16(from)) => to.extend_from_slice(&from[range]),
            (Self::I8 { values, scales }, Self::I8 { values: from, scales: from_scales }) => {
                values.extend_from_slice(&from[range]);
                scales.extend_from_slice(&from_scales[rows]);
            }
            _ => unreachable!("one schema has one dtype"),
        }
    }

    /// Removes the values and keeps the memory.
    pub(crate) fn clear(&mut self) {
        match self {
            Self::F32(values) => values.clear(),
            Self::F16(values) => values.clear(),
            Self::I8 { values, scales } => {
                values.clear();
                scales.clear();
            }
        }
    }

    /// Appends the values in `range` as stored on disk, little-endian, without the scales.
    pub(crate) fn append_bytes(&self, range: Range<usize>, bytes: &mut Vec<u8>) {
        match self {
            Self::F32(values) => append(&values[range], f32::to_le_bytes, bytes),
            Self::F16(values) => append(&values[range], f16::to_le_bytes, bytes),
            Self::I8 { values, .. } => append(&values[range], i8::to_le_bytes, bytes),
        }
    }

    /// Appends values written by [`Self::append_bytes`]; the caller appends the scales.
    pub(crate) fn extend_from_bytes(&mut self, bytes: &[u8]) {
        match self {
            Self::F32(values) => extend(values, bytes, f32::from_le_bytes),
            Self::F16(values) => extend(values, bytes, f16::from_le_bytes),
            Self::I8 { values, .. } => extend(values, bytes, i8::from_le_bytes),
        }
    }

    /// One scale per row, if the dtype has scales.
    pub(crate) fn scales(&self) -> Option<&[f32]> {
        match self {
            Self::I8 { scales, .. } => Some(scales),
            Self::F32(_) | Self::F16(_) => None,
        }
    }
}

/// Appends a row to `values` and returns its scale: `q = round(x / scale)`, ties to even.
fn quantize(row: &[f32], values: &mut Vec<i8>) -> f32 {
    let max = row.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
    let scale = max / 127.0;
    if scale == 0.0 {
        values.resize(values.len() + row.len(), 0);
    } else {
        // The sum has no bits left for a fraction, so adding rounds, ties to even, without a function call per value.
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
        let round = |value: &f32| (value / scale).clamp(-127.0, 127.0) + ROUND - ROUND;
        values.extend(row.iter().map(|value| round(value) as i8));
    }
    scale
}

fn append<T: Copy, const N: usize>(values: &[T], to_bytes: impl Fn(T) -> [u8; N], bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.resize(start + N * values.len(), 0);
    bytes[start..].chunks_exact_mut(N).zip(values).for_each(|(to, value)| to.copy_from_slice(&to_bytes(*value)));
}

fn extend<T, const N: usize>(values: &mut Vec<T>, bytes: &[u8], from_bytes: impl Fn([u8; N]) -> T) {
    values.extend(bytes.as_chunks::<N>().0.iter().map(|bytes| from_bytes(*bytes)));
}

/// Moves the kept rows to the front and drops the rest.
fn keep_rows<T: Copy>(values: &mut Vec<T>, width: usize, keep: &[bool]) {
    let mut kept = 0;
    for (row, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
        values.copy_within(row * width..(row + 1) * width, kept * width);
        kept += 1;
    }
    values.truncate(kept * width);
    values.shrink_to_fit();
}

/// `Err` with the first index where `bad` holds. Searches for the index only after a pass without branches found one.
fn first<T: Copy>(values: &[T], bad: impl Fn(T) -> bool) -> Result<(), usize> {
    let any = values.iter().fold(false, |any, value| any | bad(*value));
    match values.iter().position(|value| any && bad(*value)) {
        Some(place) if any => Err(place),
        _ => Ok(()),
    }
}

/// Consecutive rows of one hook point.
#[derive(Debug, Clone, PartialEq)]
pub struct ActivationRows {
    /// Token, document, context and position of each row.
    pub rows: TokenRows,
    /// Euclidean norm of each row's stored values. `[n]`
    pub norm: Vec<f32>,
    /// Row-major. `[n, d_model]`
    pub values: Values,
    /// Values per row.
    pub d_model: usize,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn int8_on_paper() {
        let mut values = Values::with_capacity(StorageDtype::I8, 2, 4);
        values.extend_finite(&[254.0, -3.0, 1.0, 2.9, 0.0, 0.0, 0.0, 0.0], 4).unwrap();
        // The first row's step is 254 / 127 = 2: -1.5 goes to the even -2, 0.5 to 0, 1.45 to 1.
        assert_eq!(values, Values::I8 { values: vec![127, -2, 0, 1, 0, 0, 0, 0], scales: vec![2.0, 0.0] });
        assert_eq!(values.to_f32().as_ref(), [254.0, -4.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
        let mut row = [9.0; 4];
        values.copy_row(0, &mut row);
        assert_eq!(row, [254.0, -4.0, 0.0, 2.0]);
        values.keep_rows(4, &[false, true]);
        assert_eq!(values, Values::I8 { values: vec![0; 4], scales: vec![0.0] });
    }

    #[test]
    fn int8_is_within_half_a_step_and_refuses_what_is_not_finite() {
        let rows: Vec<f32> = (0..96).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.173).collect();
        let mut values = Values::with_capacity(StorageDtype::I8, 3, 32);
        values.extend_finite(&rows, 32).unwrap();
        let (stored, scales) = (values.to_f32(), values.scales().unwrap());
        for (i, (stored, row)) in stored.iter().zip(&rows).enumerate() {
            assert!((stored - row).abs() <= 0.5001 * scales[i / 32], "{row} became {stored}");
        }
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(values.clone().extend_finite(&[1.0, bad], 2), Err(1));
        }
    }

    #[test]
    fn tiny_rows_are_kept_as_well_as_f32_can_say_them() {
        let mut values = Values::with_capacity(StorageDtype::I8, 1, 2);
        values.extend_finite(&[1e-45, -1e-40], 2).unwrap();
        assert!(values.to_f32().iter().all(|value| value.is_finite()));
    }

    #[test]
    fn values_survive_their_bytes() {
        for dtype in [StorageDtype::F32, StorageDtype::F16, StorageDtype::I8] {
            let mut values = Values::with_capacity(dtype, 2, 3);
            values.extend_finite(&[1.5, -2.25, 0.0, 100.0, 3.0, -7.0], 3).unwrap();
            let mut bytes = vec![];
            values.append_bytes(0..6, &mut bytes);
            assert_eq!(bytes.len(), 6 * dtype.bytes());
            let mut back = Values::with_capacity(dtype, 2, 3);
            back.extend_from_bytes(&bytes);
            if let (Values::I8 { scales, .. }, Some(of)) = (&mut back, values.scales()) {
                scales.extend_from_slice(of);
            }
            assert_eq!(back, values);
        }
    }

    #[test]
    fn rows_to_keep_move_to_the_front() {
        let mut values = Values::F32((0..8).map(|i| i as f32).collect());
        values.keep_rows(2, &[false, true, false, true]);
        assert_eq!(values, Values::F32(vec![2.0, 3.0, 6.0, 7.0]));
    }
}
