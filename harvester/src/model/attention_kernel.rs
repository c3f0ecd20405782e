//! Causal attention on the CPU, twelve queries of a head at a time: their scores stay in the first caches, no
//! `[heads, pos, pos]` tensor ever exists, and masked keys are not computed.

use candle_core::{CpuStorage, CustomOp3, D, Device, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    packed::{Instructions, MAX_ROWS, Operands, Output, PANEL},
    simd::{Kernel, exp, tanh, wide},
};
use crate::Result;

/// How scores come from products of queries and keys: `cap(scale q k^T)`, `cap(s) = softcap * tanh(s / softcap)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scores {
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
    /// How many keys a query sees, its own included; `None`: all up to its own.
    pub(crate) window: Option<usize>,
}

impl Scores {
    /// The first key that the query at a position sees.
    #[inline(always)]
    fn first_key(&self, query: usize) -> usize {
        self.window.map_or(0, |window| (query + 1).saturating_sub(window))
    }
}

/// `z = softmax(scores) v`, each query seeing the keys up to its own position, or the last `window` of them; the
/// queries are the last `pos` of the `keys` positions.
///
/// # Shapes
/// `q`: `[batch, pos, n_heads, d_head]`; `k`, `v`: `[batch, keys, n_kv_heads, d_head]`
/// -> `[batch, pos, n_heads * d_head]`
pub(crate) fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor, scores: Scores) -> Result<Tensor> {
    if matches!(q.device(), Device::Cpu) {
        return Ok(q.apply_op3_no_bwd(k, v, &CausalAttention(scores))?);
    }
    causal_attention_plain(q, k, v, scores)
}

/// The same with plain tensor operations: other devices, and the reference of the tests.
fn causal_attention_plain(q: &Tensor, k: &Tensor, v: &Tensor, rule: Scores) -> Result<Tensor> {
    let (batch, pos, n_heads, d_head) = q.dims4()?;
    let (_, keys, n_kv_heads, _) = k.dims4()?;
    let by_head = |x: &Tensor| -> Result<Tensor> {
        let x = x.transpose(1, 2)?.contiguous()?; // [batch, n_kv_heads, keys, d_head]
        let x = x.unsqueeze(2)?.broadcast_as((batch, n_kv_heads, n_heads / n_kv_heads, keys, d_head))?;
        Ok(x.reshape((batch, n_heads, keys, d_head))?)
    };
    let scores = q.transpose(1, 2)?.contiguous()?.matmul(&by_head(k)?.transpose(2, 3)?)?;
    let scores = (scores * f64::from(rule.scale))?;
    let scores = match rule.softcap.map(f64::from) {
        Some(cap) => ((scores / cap)?.tanh()? * cap)?,
        None => scores,
    };
    let sees = |query: usize, key: usize| key <= query && key >= rule.first_key(query);
    let hidden = |i: usize| if sees(keys - pos + i / keys, i % keys) { 0.0 } else { f32::NEG_INFINITY };
    let mask = Tensor::from_vec((0..pos * keys).map(hidden).collect(), (pos, keys), q.device())?;
    let scores = scores.broadcast_add(&mask)?; // [batch, n_heads, pos, keys]
    let pattern = candle_nn::ops::softmax(&scores, D::Minus1)?;
    let z = pattern.matmul(&by_head(v)?)?; // [batch, n_heads, pos, d_head]
    Ok(z.transpose(1, 2)?.reshape((batch, pos, n_heads * d_head))?)
}

/// A `[batch, pos, heads, d_head]` tensor where it lies.
#[derive(Clone, Copy)]
struct View<'a> {
    values: &'a [f32],
    offset: usize,
    /// In values: from one batch row, position and head to the next; `d_head` is dense.
    strides: [usize; 3],
    dims: [usize; 4],
}

impl<'a> View<'a> {
    fn new(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<Self> {
        let CpuStorage::F32(values) = storage else { bail!("attention needs f32") };
        let (batch, pos, heads, d_head) = layout.shape().dims4()?;
        let &[by_batch, by_pos, by_head, 1] = layout.stride() else { bail!("attention needs dense heads") };
        let dims = [batch, pos, heads, d_head];
        Ok(Self { values, offset: layout.start_offset(), strides: [by_batch, by_pos, by_head], dims })
    }

    /// From the first value of a head at a position to the end of the tensor.
    fn head_from(&self, batch: usize, pos: usize, head: usize) -> &'a [f32] {
        let [by_batch, by_pos, by_head] = self.strides;
        &self.values[self.offset + batch * by_batch + pos * by_pos + head * by_head..]
    }
}

/// Keys and values of every head, in panels as the inner loop of a product reads them.
struct Panels {
    /// Transposed. `[batch, n_kv_heads, keys / PANEL rounded up, d_head, PANEL]`; zeros fill the last panel.
    keys: Vec<f32>,
    /// `[batch, n_kv_heads, d_head / PANEL rounded up, keys, PANEL]`; zeros fill the last panel.
    values: Vec<f32>,
    /// Values of one head in either.
    per_head: [usize; 2],
}

impl Panels {
    /// `first`: the first key that any query sees; the panels before it stay zeros.
    fn new(k: View<'_>, v: View<'_>, first: usize) -> Self {
        let [batch, keys, n_kv_heads, d_head] = k.dims;
        let per_head = [keys.next_multiple_of(PANEL) * d_head, d_head.next_multiple_of(PANEL) * keys];
        let heads = batch * n_kv_heads;
        let mut panels =
            Self { keys: vec![0.0; heads * per_head[0]], values: vec![0.0; heads * per_head[1]], per_head };
        let (k_heads, v_heads) = (panels.keys.par_chunks_mut(per_head[0]), panels.values.par_chunks_mut(per_head[1]));
        k_heads.zip(v_heads).enumerate().for_each(|(i, (k_panels, v_panels))| {
            let (batch, head) = (i / n_kv_heads, i % n_kv_heads);
            for key in first / PANEL * PANEL..keys {
                let panel = &mut k_panels[key / PANEL * PANEL * d_head..][..PANEL * d_head];
                for (row, value) in panel.chunks_exact_mut(PANEL).zip(k.head_from(batch, key, head)) {
                    row[key % PANEL] = *value;
                }
                let values = v.head_from(batch, key, head)[..d_head].chunks(PANEL);
                for (panel, values) in v_panels.chunks_exact_mut(PANEL * keys).zip(values) {
                    panel[key * PANEL..][..values.len()].copy_from_slice(values);
                }
            }
        });
        panels
    }
}

/// Queries that one task takes: enough that a head's keys and values are worth fetching into the second-level cache.
const TASK_QUERIES: usize = 4 * MAX_ROWS;

/// One call's operands.
struct Attending<'a> {
    instructions: Instructions,
    rule: Scores,
    q: View<'a>,
    /// Of keys and values.
    n_kv_heads: usize,
    keys: usize,
    panels: Panels,
    /// `[batch * pos, n_heads * d_head]`
    z: Output,
}

impl Attending<'_> {
    /// All heads of all queries. -> `[batch, pos, n_heads * d_head]`
    fn run(self) -> Vec<f32> {
        let [batch, pos, n_heads, _] = self.q.dims;
        let blocks = pos.div_ceil(TASK_QUERIES);
        (0..batch * n_heads * blocks).into_par_iter().for_each(|task| {
            let (batch, head, block) = (task / blocks / n_heads, task / blocks % n_heads, task % blocks);
            let mut scores = vec![];
            let (mut first, end) = (block * TASK_QUERIES, pos.min((block + 1) * TASK_QUERIES));
            while first < end {
                let rows = Instructions::tile_rows(end - first);
                self.tile([batch, head], first, rows, &mut scores);
                first += rows;
            }
        });
        // SAFETY: the tasks wrote every head of every query.
        unsafe { self.z.into_values() }
    }

    /// `rows` queries of one head, from `first` on. `scores` is room that calls share.
    fn tile(&self, [batch, head]: [usize; 2], first: usize, rows: usize, scores: &mut Vec<f32>) {
        let [_, pos, n_heads, d_head] = self.q.dims;
        let kv_head = batch * self.n_kv_heads + head / (n_heads / self.n_kv_heads);
        let query = self.keys - pos + first; // the first query's position
        // Panels of keys that some query of the tile sees; those wholly outside the window are never touched.
        let (from, to) = (self.rule.first_key(query) / PANEL, query + rows);
        let panels = from..to.div_ceil(PANEL);
        let width = panels.len() * PANEL;
        scores.resize(scores.len().max(rows * width), 0.0);
        let scores = &mut scores[..rows * width];
        let (q, q_row) = (self.q.head_from(batch, first, head), self.q.strides[1]);
        let [k_size, v_size] = self.panels.per_head;
        let k_panels =
            &self.panels.keys[kv_head * k_size..][panels.start * PANEL * d_head..panels.end * PANEL * d_head];
        for (b, column) in k_panels.chunks_exact(PANEL * d_head).zip((0..).step_by(PANEL)) {
            let operands = Operands { a: q, a_row: q_row, b, c: &mut scores[column..], c_row: width, add: false };
            self.instructions.product(rows, operands);
        }
        let from = from * PANEL;
        let mut inverses = [0f32; MAX_ROWS];
        wide(ExpRows { scores, width, from, query, rule: self.rule, inverses: &mut inverses });
        let v_panels = &self.panels.values[kv_head * v_size..][..v_size];
        for (panel, column) in v_panels.chunks_exact(PANEL * self.keys).zip((0..).step_by(PANEL)) {
            let mut tile = [0f32; MAX_ROWS * PANEL];
            let b = &panel[from * PANEL..to * PANEL];
            let operands = Operands { a: scores, a_row: width, b, c: &mut tile, c_row: PANEL, add: false };
            self.instructions.product(rows, operands);
            for (row, inverse) in tile.chunks_exact_mut(PANEL).zip(inverses) {
                row.iter_mut().for_each(|z| *z *= inverse);
            }
            let columns = head * d_head + column..head * d_head + d_head.min(column + PANEL);
            // SAFETY: no other tile has these queries of this head.
            unsafe { self.z.write(batch * pos + first, columns, &tile[..rows * PANEL]) };
        }
    }
}

/// `exp(score - largest score)` of each row of a tile of scores, zero where the query does not see the key, and the
/// inverse of each row's sum: a softmax whose last multiplication is left to the shorter rows of `z`.
struct ExpRows<'a> {
    /// `[rows, width]`, of keys from `from` on and queries from `query` on.
    scores: &'a mut [f32],
    width: usize,
    from: usize,
    query: usize,
    rule: Scores,
    /// `[rows]`
    inverses: &'a mut [f32],
}

impl Kernel for ExpRows<'_> {
    #[inline(always)]
    fn run(self) {
        let rows = self.scores.chunks_exact_mut(self.width).zip(self.inverses);
        for (query, (scores, inverse)) in (self.query..).zip(rows) {
            let (past, rest) = scores.split_at_mut(self.rule.first_key(query) - self.from);
            let (visible, future) = rest.split_at_mut(query + 1 - self.from - past.len());
            past.fill(0.0);
            future.fill(0.0);
            let scale = match self.rule.softcap {
                Some(cap) => {
                    for score in visible.iter_mut() {
                        *score = cap * tanh(*score * self.rule.scale / cap);
                    }
                    1.0
                }
                None => self.rule.scale,
            };
            *inverse = 1.0 / exp_row(visible, scale);
        }
    }
}

/// `exp(scale (score - largest score))` in place; returns the sum.
#[inline(always)]
fn exp_row(seen: &mut [f32], scale: f32) -> f32 {
    // Lanes of their own, since the compiler must not reorder a floating-point reduction by itself.
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = seen.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &score) in lanes.iter_mut().zip(chunk) {
            *lane = if score > *lane { score } else { *lane };
        }
    }
    let max = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let mut lanes = [0f32; 16];
    let mut chunks = seen.chunks_exact_mut(16);
    for chunk in &mut chunks {
        for (lane, score) in lanes.iter_mut().zip(chunk) {
            *score = exp((*score - max) * scale);
            *lane += *score;
        }
    }
    for score in chunks.into_remainder() {
        *score = exp((*score - max) * scale);
        lanes[0] += *score;
    }
    lanes.iter().sum()
}

struct CausalAttention(Scores);

impl CustomOp3 for CausalAttention {
    fn name(&self) -> &'static str {
        "causal-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (q, k, v) = (View::new(q, q_layout)?, View::new(k, k_layout)?, View::new(v, v_layout)?);
        let [batch, pos, n_heads, d_head] = q.dims;
        if k.dims != v.dims || k.dims[0] != batch || k.dims[1] < pos || k.dims[3] != d_head || n_heads % k.dims[2] != 0
        {
            bail!("attention: q {:?}, k {:?} and v {:?} do not fit together", q.dims, k.dims, v.dims);
        }
        let attending = Attending {
            instructions: Instructions::of_this_machine().unwrap_or(Instructions::Plain),
            rule: self.0,
            q,
            n_kv_heads: k.dims[2],
            keys: k.dims[1],
            panels: Panels::new(k, v, self.0.first_key(k.dims[1] - pos)),
            z: Output::new(batch * pos, n_heads * d_head),
        };
        Ok((CpuStorage::F32(attending.run()), Shape::from((batch, pos, n_heads * d_head))))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn plain_scale(d_head: usize) -> Scores {
        Scores { scale: 1.0 / (d_head as f32).sqrt(), softcap: None, window: None }
    }

    fn assert_equal_to_plain(rule: Scores, shape: [usize; 3], n_heads: usize, n_kv_heads: usize) {
        assert_equal_to_plain_of(32, rule, shape, n_heads, n_kv_heads);
    }

    fn assert_equal_to_plain_of(
        d_head: usize,
        rule: Scores,
        [batch, pos, keys]: [usize; 3],
        n_heads: usize,
        n_kv_heads: usize,
    ) {
        let random = |heads, n| Tensor::randn(0f32, 1., (batch, n, heads, d_head), &Device::Cpu).unwrap();
        let (q, k, v) = (random(n_heads, pos), random(n_kv_heads, keys), random(n_kv_heads, keys));
        let got = causal_attention(&q, &k, &v, rule).unwrap();
        let want = causal_attention_plain(&q, &k, &v, rule).unwrap();
        let diff = (got - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(diff < 2e-6, "{batch} x {pos} of {keys}, {n_heads}/{n_kv_heads} heads, {rule:?}: {diff}");
    }

    #[test]
    fn kernel_equals_plain_tensor_operations() {
        assert_equal_to_plain(plain_scale(32), [2, 150, 150], 6, 2); // blocks of queries, the last one partial
        assert_equal_to_plain(plain_scale(32), [1, 1, 77], 4, 4); // a generated token
        assert_equal_to_plain(plain_scale(32), [3, 5, 9], 4, 1); // a few tokens after a cache
    }

    #[test]
    fn heads_of_any_width_equal_plain_tensor_operations() {
        for d_head in [1, 16, 40, 64, 80, 96] {
            assert_equal_to_plain_of(d_head, plain_scale(d_head), [2, 50, 70], 4, 2);
        }
    }

    #[test]
    fn windows_and_caps_equal_plain_tensor_operations() {
        for window in [1, 3, 64, 65, 100, 1_000] {
            let rule = Scores { window: Some(window), ..plain_scale(32) };
            assert_equal_to_plain(rule, [2, 150, 150], 4, 2);
            assert_equal_to_plain(rule, [1, 1, 77], 4, 4);
            assert_equal_to_plain(rule, [1, 70, 210], 2, 1);
        }
        let capped = Scores { scale: 0.3, softcap: Some(1.5), window: Some(20) };
        assert_equal_to_plain(capped, [2, 90, 100], 4, 2);
    }

    #[test]
    fn a_window_of_one_returns_the_value_itself() {
        let x = Tensor::randn(0f32, 1., (1, 70, 2, 8), &Device::Cpu).unwrap();
        let z = causal_attention(&x, &x, &x, Scores { window: Some(1), ..plain_scale(8) }).unwrap();
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&z), values(&x));
    }

    #[test]
    fn the_first_token_sees_only_itself() {
        let x = Tensor::randn(0f32, 1., (1, 9, 2, 8), &Device::Cpu).unwrap();
        let z = causal_attention(&x, &x, &x, plain_scale(8)).unwrap();
        let first = |t: &Tensor| t.narrow(1, 0, 1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(first(&z), first(&x));
    }
}
