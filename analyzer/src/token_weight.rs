//! [`TokenWeight`]: a token and how strongly a latent moves it.

use serde::Serialize;

/// A token and the strength with which a latent promotes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenWeight {
    /// Token id.
    pub token: u32,
    /// Its text.
    pub text: String,
    /// Logit lens: change of the token's logit per unit of activation, before the final norm's scale. Measured: mean
    /// change of its log probability. In an explanation: a probability, or a change of one.
    pub weight: f32,
}

/// The `n` largest values, largest first; ties go to the one that comes first. NaN is never among them.
pub(crate) fn top(values: impl Iterator<Item = (u32, f32)>, n: usize) -> Vec<(u32, f32)> {
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(n + 1);
    let mut least = f32::NEG_INFINITY;
    for (token, value) in values {
        // Nearly all values end here.
        if top.len() < n && !value.is_nan() || value > least {
            top.insert(top.partition_point(|(_, other)| *other >= value), (token, value));
            top.truncate(n);
            least = top.last().filter(|_| top.len() == n).map_or(f32::NEG_INFINITY, |(_, value)| *value);
        }
    }
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_values_are_in_order() {
        let top_of = |values: &[f32], n| top((0..).zip(values.iter().copied()), n);
        let values = [0.5, f32::NAN, -2.0, 3.0, 3.0, -1.0];
        assert_eq!(top_of(&values, 3), [(3, 3.0), (4, 3.0), (0, 0.5)]);
        assert_eq!(top_of(&values, 9).len(), 5);
        assert_eq!(top_of(&values, 0), []);
    }
}
