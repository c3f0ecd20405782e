//! [`FewQueries`]: attention of a few queries over many cached keys, which are read where they lie: to lay them out in
//! panels would cost more than to multiply them once.

use rayon::prelude::*;

use super::{Scores, View, softmax::ExpRows};
use crate::numbers::simd::{Kernel, wide};

/// One call's operands.
pub(super) struct FewQueries<'a> {
    pub(super) rule: Scores,
    pub(super) q: View<'a>,
    pub(super) k: View<'a>,
    pub(super) v: View<'a>,
}

impl FewQueries<'_> {
    /// All heads of all queries. -> `[batch, pos, n_heads * d_head]`
    pub(super) fn run(&self) -> Vec<f32> {
        let [batch, pos, n_heads, d_head] = self.q.dims;
        let mut z = vec![0f32; batch * pos * n_heads * d_head];
        z.par_chunks_mut(d_head).enumerate().for_each(|(i, z)| {
            let (batch, query, head) = (i / n_heads / pos, i / n_heads % pos, i % n_heads);
            wide(OneHead { all: self, batch, query, head, z });
        });
        z
    }
}

/// One head of one query.
struct OneHead<'a> {
    all: &'a FewQueries<'a>,
    batch: usize,
    query: usize,
    head: usize,
    /// `[d_head]`, zeros.
    z: &'a mut [f32],
}

impl Kernel for OneHead<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let FewQueries { rule, q, k, v } = *self.all;
        let ([_, pos, n_heads, d_head], [_, keys, n_kv_heads, _]) = (q.dims, k.dims);
        let kv_head = self.head / (n_heads / n_kv_heads);
        let query = keys - pos + self.query; // its position
        let from = rule.first_key(query);
        let q = &q.head_from(self.batch, self.query, self.head)[..d_head];
        let mut scores: Vec<f32> =
            (from..=query).map(|key| dot(q, &k.head_from(self.batch, key, kv_head)[..d_head])).collect();
        let (width, mut inverse) = (scores.len(), 0.0);
        let inverses = std::slice::from_mut(&mut inverse);
        ExpRows { scores: &mut scores, width, from, query, rule, inverses }.run();
        for (key, weight) in (from..).zip(&scores) {
            for (z, v) in self.z.iter_mut().zip(v.head_from(self.batch, key, kv_head)) {
                *z = weight.mul_add(*v, *z);
            }
        }
        self.z.iter_mut().for_each(|z| *z *= inverse);
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Lanes of their own, since the compiler must not reorder a floating-point sum by itself.
    let mut lanes = [0f32; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = a.mul_add(*b, *lane);
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}
