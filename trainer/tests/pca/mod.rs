//! [`principal_variances`]: the variance that each principal component explains, computed without any of the tested
//! code.

/// Eigenvalues of a symmetric matrix `[d, d]`, largest first, by Jacobi rotations.
fn eigenvalues(mut a: Vec<Vec<f64>>) -> Vec<f64> {
    let d = a.len();
    for _ in 0..30 {
        for (p, q) in (0..d).flat_map(|p| (p + 1..d).map(move |q| (p, q))) {
            if a[p][q] == 0.0 {
                continue;
            }
            let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
            let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
            let c = 1.0 / (t * t + 1.0).sqrt();
            let s = t * c;
            for row in &mut a {
                (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
            }
            let (above, below) = a.split_at_mut(q);
            for (p, q) in above[p].iter_mut().zip(&mut below[0]) {
                (*p, *q) = (c * *p - s * *q, s * *p + c * *q);
            }
        }
    }
    let mut values: Vec<f64> = (0..d).map(|i| a[i][i]).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    values
}

/// Eigenvalues of the covariance of rows `[n, d]`, largest first.
pub(crate) fn principal_variances(rows: &[f32], d: usize) -> Vec<f64> {
    let n = (rows.len() / d) as f64;
    let mean: Vec<f64> =
        (0..d).map(|i| rows.iter().skip(i).step_by(d).map(|x| f64::from(*x)).sum::<f64>() / n).collect();
    let mut covariance = vec![vec![0.0; d]; d];
    for x in rows.chunks(d) {
        for (i, row) in covariance.iter_mut().enumerate() {
            for (j, sum) in row.iter_mut().enumerate() {
                *sum += (f64::from(x[i]) - mean[i]) * (f64::from(x[j]) - mean[j]) / n;
            }
        }
    }
    eigenvalues(covariance)
}
