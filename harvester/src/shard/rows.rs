//! [`ActivationRows`]: consecutive tokens and their activations in memory, in the dtype they are stored in.

use std::{borrow::Cow, ops::Range};

use half::{f16, slice::HalfFloatSliceExt};

use super::schema::StorageDtype;

/// What token each row is, and where it was. All columns have the same length.
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
}

impl TokenRows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.token.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.token.is_empty()
    }

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
}

impl Values {
    /// No values, with room for `capacity`.
    pub(crate) fn with_capacity(dtype: StorageDtype, capacity: usize) -> Self {
        match dtype {
            StorageDtype::F32 => Self::F32(Vec::with_capacity(capacity)),
            StorageDtype::F16 => Self::F16(Vec::with_capacity(capacity)),
        }
    }

    /// How the values are stored.
    pub fn dtype(&self) -> StorageDtype {
        match self {
            Self::F32(_) => StorageDtype::F32,
            Self::F16(_) => StorageDtype::F16,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values in f32; copies only what is not f32 already.
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        match self {
            Self::F32(values) => Cow::Borrowed(values),
            Self::F16(values) => {
                let mut wide = vec![0.0; values.len()];
                values.convert_to_f32_slice(&mut wide);
                Cow::Owned(wide)
            }
        }
    }

    /// Place of the first value that is not finite.
    pub(crate) fn first_not_finite(&self) -> Option<usize> {
        match self {
            Self::F32(values) => first(values, |value| !value.is_finite()).err(),
            Self::F16(values) => first(values, |value| !value.is_finite()).err(),
        }
    }

    /// Appends `values`, rounded to the dtype of these. `Err(i)` when value `i` is not finite after rounding; what was
    /// appended must then not be used.
    pub(crate) fn extend_finite(&mut self, values: &[f32]) -> Result<(), usize> {
        match self {
            Self::F32(stored) => {
                stored.extend_from_slice(values);
                first(values, |value| !value.is_finite())
            }
            Self::F16(stored) => {
                let start = stored.len();
                stored.resize(start + values.len(), f16::ZERO);
                stored[start..].convert_from_f32_slice(values);
                first(&stored[start..], |value| !value.is_finite())
            }
        }
    }

    /// Copies values `start..` into `row`, as f32.
    pub(crate) fn copy_row(&self, start: usize, row: &mut [f32]) {
        match self {
            Self::F32(values) => row.copy_from_slice(&values[start..start + row.len()]),
            Self::F16(values) => values[start..start + row.len()].convert_to_f32_slice(row),
        }
    }

    /// Forgets the values and keeps the room.
    pub(crate) fn clear(&mut self) {
        match self {
            Self::F32(values) => values.clear(),
            Self::F16(values) => values.clear(),
        }
    }
}

/// `Err` of the first place where `bad` holds. Looks for the place only after a pass without branches found one.
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
    /// What each row is.
    pub rows: TokenRows,
    /// Euclidean norm of each row's stored values. `[n]`
    pub norm: Vec<f32>,
    /// Row-major. `[n, d_model]`
    pub values: Values,
    /// Values a row.
    pub d_model: usize,
}

impl ActivationRows {
    /// The values in f32, row-major `[n, d_model]`; copies only what is not f32 already.
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        self.values.to_f32()
    }

    /// Whether a row is one that SAEs are trained on: neither at position 0 nor an attention sink, whose norm is above
    /// `sink_norm`. Training, the index and evaluation all ask here.
    pub fn is_ordinary(&self, row: usize, sink_norm: f32) -> bool {
        self.rows.position[row] > 0 && self.norm[row] <= sink_norm
    }
}
