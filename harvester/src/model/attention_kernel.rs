//! Causal attention on the CPU: no `[heads, pos, pos]` tensor ever exists, and masked keys are not computed.
//! [`Tiles`] is for texts, [`FewQueries`] for the next token of a text whose keys are cached.

mod few_queries;
mod softmax;
mod tiles;

use super::packed::MAX_ROWS;
use crate::Result;
use candle_core::{CpuStorage, CustomOp3, D, Device, Layout, Shape, Tensor, bail};
use few_queries::FewQueries;
use tiles::Tiles;

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
    let mask = Tensor::from_vec((0..pos * keys).map(hidden).collect(), (pos, keys), q.device())?.to_dtype(q.dtype())?;
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
        let z = if k.dims[1] > pos && pos < MAX_ROWS {
            FewQueries { rule: self.0, q, k, v }.run()
        } else {
            Tiles::new(self.0, q, k, v).run()
        };
        Ok((CpuStorage::F32(z), Shape::from((batch, pos, n_heads * d_head))))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::DType;

    use super::{super::packed::testing::values, *};

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
        let tensor = |seed, n, heads| {
            let values = values(batch * n * heads * d_head, seed);
            Tensor::from_vec(values, (batch, n, heads, d_head), &Device::Cpu).unwrap()
        };
        let (q, k, v) = (tensor(1, pos, n_heads), tensor(2, keys, n_kv_heads), tensor(3, keys, n_kv_heads));
        let got = causal_attention(&q, &k, &v, rule).unwrap();
        let exact = |x: &Tensor| x.to_dtype(DType::F64).unwrap();
        let want = causal_attention_plain(&exact(&q), &exact(&k), &exact(&v), rule).unwrap();
        let diff = (exact(&got) - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        // Sums in f32 of weights that add up to one and values up to one: a few units of 6e-8.
        assert!(diff < 1e-6, "{batch} x {pos} of {keys}, {n_heads}/{n_kv_heads} heads, {rule:?}: {diff}");
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
