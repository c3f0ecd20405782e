//! Conversions between raw units and training units (`export` uses one direction, `initial_weights` the other) and
//! changes of decoder norms (`fold`).

/// Multiplies, or divides, each column of each row by its scale.
///
/// # Shapes
/// `widths` and `scales` `[columns]`; each of `multiplied` and `divided` `[n, sum of widths]`.
pub(crate) fn scale_columns(
    widths: &[usize],
    scales: &[f32],
    multiplied: &mut [&mut [f32]],
    divided: &mut [&mut [f32]],
) {
    let scale_of = || widths.iter().zip(scales).flat_map(|(width, scale)| std::iter::repeat_n(*scale, *width)).cycle();
    for rows in multiplied {
        rows.iter_mut().zip(scale_of()).for_each(|(value, scale)| *value *= scale);
    }
    for rows in divided {
        rows.iter_mut().zip(scale_of()).for_each(|(value, scale)| *value /= scale);
    }
}

/// bias_j += sign * rows_j . x, in f64.
///
/// # Shapes
/// `bias` `[n]`, `rows` `[n, width]`, `x` `[width]`.
pub(crate) fn add_product(bias: &mut [f32], rows: &[f32], x: &[f32], sign: f64) {
    for (b, row) in bias.iter_mut().zip(rows.chunks_exact(x.len())) {
        let product: f64 = row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        *b = (f64::from(*b) + sign * product) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let (mut w_dec, mut w_enc, mut bias) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [8.0, 8.0, 8.0], [1.0, -1.0]);
        scale_columns(&[1, 2], &[2.0, 4.0], &mut [&mut w_dec], &mut [&mut w_enc]);
        assert_eq!((w_dec, w_enc), ([2.0, 8.0, 12.0, 8.0, 20.0, 24.0], [4.0, 2.0, 2.0]));
        add_product(&mut bias, &[1.0, 2.0, 3.0, 4.0], &[10.0, 1.0], -1.0);
        assert_eq!(bias, [-11.0, -35.0]);
    }
}
