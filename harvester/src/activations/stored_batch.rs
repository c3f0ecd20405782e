//! [`StoredBatch`]: the contexts of one forward pass and their activations as stored, rounded to the dtype and without
//! padding. The journal stores it, row groups are filled from it, and a live stream yields it.

use serde::{Deserialize, Serialize};

use super::rows::{TokenRows, Values};
use crate::{Context, ContextCursor, CorpusPart, Error, HookPoint, Result, Role, StorageDtype, numbers::norm};

/// Contexts and their activations.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredBatch {
    pub(crate) contexts: Vec<Context>,
    /// One entry per hook point: the contexts' rows, concatenated. `[rows, width]`
    pub(crate) values: Vec<Values>,
}

/// The JSON at the start of a batch's bytes.
#[derive(Serialize, Deserialize)]
struct Heading {
    index: u64,
    next: ContextCursor,
    tokens: usize,
    /// True if its tokens have roles.
    roles: bool,
}

impl StoredBatch {
    /// Rounds computed activations.
    ///
    /// # Shapes
    /// `activations`: for each of `points` `[rows, width]`, the rows of all contexts concatenated
    ///
    /// # Errors
    /// If a value does not fit the dtype.
    pub(crate) fn round(
        points: &[(HookPoint, usize)],
        dtype: StorageDtype,
        contexts: &[Context],
        activations: &[Vec<f32>],
    ) -> Result<Self> {
        let rows = contexts.iter().map(|context| context.tokens.len()).sum();
        let mut values = Vec::with_capacity(points.len());
        for ((hook_point, width), computed) in points.iter().zip(activations) {
            let mut stored = Values::with_capacity(dtype, rows, *width);
            assert_eq!(computed.len(), rows * width, "a row for each token of the contexts");
            let mut rest = &computed[..];
            for context in contexts {
                let computed;
                (computed, rest) = rest.split_at(context.tokens.len() * width);
                stored.extend_finite(computed, *width).map_err(|place| Error::NotStorable {
                    hook_point: hook_point.to_string(),
                    value: computed[place],
                    context: context.index,
                    position: place / width,
                    dtype: dtype.to_string(),
                })?;
            }
            values.push(stored);
        }
        Ok(Self { contexts: contexts.to_vec(), values })
    }

    /// Number of tokens.
    pub(crate) fn rows(&self) -> usize {
        self.contexts.iter().map(|context| context.tokens.len()).sum()
    }

    /// Token, document, context and position of each row. `part` determines the numbers of the contexts.
    pub(crate) fn token_rows(&self, part: Option<CorpusPart>) -> TokenRows {
        let mut rows = TokenRows::default();
        self.contexts.iter().for_each(|context| push_tokens(&mut rows, context, part));
        rows
    }

    /// The batch in bytes: length of the headings, headings, tokens, documents, roles, values, scales; all little-endian.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let heading = |context: &Context| Heading {
            index: context.index,
            next: context.next,
            tokens: context.tokens.len(),
            roles: !context.roles.is_empty(),
        };
        let headings: Vec<_> = self.contexts.iter().map(heading).collect();
        let headings = serde_json::to_vec(&headings).expect("numbers can be written as JSON");
        let mut bytes = (headings.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(&headings);
        for context in &self.contexts {
            context.tokens.iter().for_each(|token| bytes.extend_from_slice(&token.to_le_bytes()));
            context.documents.iter().for_each(|document| bytes.extend_from_slice(&document.to_le_bytes()));
            bytes.extend(context.roles.iter().map(|role| role.map_or(0, |role| role as u8)));
        }
        for values in &self.values {
            values.append_bytes(0..values.len(), &mut bytes);
            values.scales().into_iter().flatten().for_each(|scale| bytes.extend_from_slice(&scale.to_le_bytes()));
        }
        bytes
    }

    /// The batch written by [`Self::to_bytes`]; `None` if the bytes are anything else.
    pub(super) fn from_bytes(bytes: &[u8], widths: &[usize], dtype: StorageDtype) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let (headings, mut rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let headings: Vec<Heading> = serde_json::from_slice(headings).ok()?;
        let mut contexts = vec![];
        for Heading { index, next, tokens: n, roles } in headings {
            let tokens = take(&mut rest, n.checked_mul(4)?)?.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b));
            let documents = take(&mut rest, n.checked_mul(8)?)?.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b));
            let (tokens, documents) = (tokens.collect(), documents.collect());
            let roles = take(&mut rest, if roles { n } else { 0 })?.iter().map(|role| Role::numbered(*role)).collect();
            contexts.push(Context { index, tokens, documents, roles, next });
        }
        let mut batch = Self { contexts, values: vec![] };
        let rows = batch.rows();
        for width in widths {
            let mut values = Values::with_capacity(dtype, rows, *width);
            values.extend_from_bytes(take(&mut rest, rows.checked_mul(width * dtype.bytes())?)?);
            if let Values::I8 { scales, .. } = &mut values {
                scales.extend(take(&mut rest, 4 * rows)?.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)));
            }
            batch.values.push(values);
        }
        rest.is_empty().then_some(batch)
    }
}

/// Appends the tokens of a context.
pub(super) fn push_tokens(rows: &mut TokenRows, context: &Context, part: Option<CorpusPart>) {
    let length = rows.token.len() + context.tokens.len();
    let number = part.map_or(context.index, |part| part.context_number(context.index));
    rows.document.extend_from_slice(&context.documents);
    rows.context.resize(length, number);
    rows.position.extend(0..context.tokens.len() as u32);
    rows.token.extend_from_slice(&context.tokens);
    rows.role.extend_from_slice(&context.roles);
}

/// The norm of each row of `values`. `[rows]`
pub(crate) fn norms(values: &Values, width: usize) -> Vec<f32> {
    let mut row = vec![0.0; width];
    let norm = |i| {
        values.copy_row(i, &mut row);
        norm(&row)
    };
    (0..values.len() / width).map(norm).collect()
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use super::*;

    /// Two contexts, the first of them shorter, and their computed activations.
    pub(crate) fn uneven() -> (Vec<Context>, Vec<Vec<f32>>) {
        let context = |index: u64, tokens: &[u32]| Context {
            index,
            tokens: tokens.to_vec(),
            documents: vec![index; tokens.len()],
            // A context of plain text, then one of a conversation with a text in it.
            roles: tokens.iter().map(|token| (*token > 20).then_some(Role::User)).filter(|_| index > 0).collect(),
            next: ContextCursor { contexts: index + 1, documents: index + 1, tokens: 0, ..ContextCursor::default() },
        };
        let computed = (1..=8).map(|i| i as f32).collect();
        (vec![context(0, &[10]), context(1, &[20, 21, 22])], vec![computed])
    }

    #[test]
    fn rows_know_their_context_and_position() {
        let (contexts, computed) = uneven();
        let points = [(HookPoint::Embed, 2)];
        let batch = StoredBatch::round(&points, StorageDtype::F32, &contexts, &computed).unwrap();
        assert_eq!(batch.values, [Values::F32((1..=8).map(|i| i as f32).collect())]);
        let rows = batch.token_rows(None);
        assert_eq!((rows.context, rows.position), (vec![0, 1, 1, 1], vec![0, 0, 1, 2]));
        let rows = batch.token_rows(Some("2/5".parse().unwrap()));
        assert_eq!(rows.context, [2, 7, 7, 7]);
        let mut computed = computed;
        computed[0][5] = f32::NAN;
        let message = StoredBatch::round(&points, StorageDtype::F32, &contexts, &computed).unwrap_err().to_string();
        assert!(message.contains("context 1, position 1"), "{message}");
    }

    #[test]
    fn a_batch_survives_its_bytes_and_no_others_are_taken_for_one() {
        let (contexts, computed) = uneven();
        for dtype in [StorageDtype::F32, StorageDtype::F16, StorageDtype::I8] {
            let batch = StoredBatch::round(&[(HookPoint::Embed, 2)], dtype, &contexts, &computed).unwrap();
            let bytes = batch.to_bytes();
            assert_eq!(StoredBatch::from_bytes(&bytes, &[2], dtype).unwrap(), batch);
            assert!((0..bytes.len()).all(|end| StoredBatch::from_bytes(&bytes[..end], &[2], dtype).is_none()));
            assert!(StoredBatch::from_bytes(&bytes, &[3], dtype).is_none());
        }
    }
}
