//! Causal attention on the CPU: no `[heads, pos, pos]` tensor is ever made, and masked keys are not computed. Each
//! sequence of a batch attends to its own keys; the bits of a query's result depend on nothing else.

mod panels;
mod softmax;
mod tiles;

use candle_core::{CpuStorage, D, Device, Storage, Tensor};
use rayon::prelude::*;

use super::batch::Span;
use crate::{Error, Result};
use panels::HeadMut;
pub(crate) use panels::Panels;
use tiles::Tiles;

/// Rule that turns products of queries and keys into scores: `cap(scale q k^T)`, `cap(s) = softcap * tanh(s /
/// softcap)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scores {
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
    /// Number of keys that a query sees, including its own; `None`: all keys up to its own.
    pub(crate) window: Option<usize>,
}

impl Scores {
    /// The first key that the query at a position sees.
    #[inline(always)]
    fn first_key(&self, query: usize) -> usize {
        self.window.map_or(0, |window| (query + 1).saturating_sub(window))
    }
}

/// Numbers of heads in a row of `[rows, n_heads + 2 n_kv_heads, d_head]`: queries, then keys, then values.
#[derive(Debug, Clone, Copy)]
struct Heads {
    n_heads: usize,
    n_kv_heads: usize,
    d_head: usize,
}

impl Heads {
    fn row_width(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.d_head
    }

    /// The head whose keys and values the queries of `head` read.
    fn kv_head(&self, head: usize) -> usize {
        head / (self.n_heads / self.n_kv_heads)
    }

    /// Packs the keys and values of a span's rows of one head into `held`.
    fn pack(&self, qkv: &[f32], span: &Span, kv_head: usize, held: &mut HeadMut<'_>) {
        let Self { n_heads, n_kv_heads, d_head } = *self;
        for (position, row) in (span.start..).zip(span.rows.clone()) {
            let row = &qkv[row * self.row_width()..][..self.row_width()];
            let (key, value) =
                (&row[(n_heads + kv_head) * d_head..], &row[(n_heads + n_kv_heads + kv_head) * d_head..]);
            held.set(position, &key[..d_head], &value[..d_head]);
        }
    }
}

/// `z = softmax(scores) v`. Each query sees the keys of its sequence up to its own position, or the last `window` of
/// them. The keys and values of the batch are added to those of earlier passes in `held`, one entry per span. If there
/// are fewer entries, the spans are those of several variants that share the past in `held`; then nothing is added.
///
/// # Shapes
/// `qkv`: `[rows, n_heads + 2 n_kv_heads, d_head]` -> `[rows, n_heads * d_head]`; `spans` cover all rows
pub(crate) fn causal_attention(
    qkv: &Tensor,
    n_kv_heads: usize,
    spans: &[Span],
    mut held: Vec<&mut Panels>,
    rule: Scores,
) -> Result<Tensor> {
    let (rows, all_heads, d_head) = qkv.dims3()?;
    let heads = Heads { n_heads: all_heads - 2 * n_kv_heads, n_kv_heads, d_head };
    if !matches!(qkv.device(), Device::Cpu) {
        return causal_attention_plain(qkv, heads, spans, rule);
    }
    let (storage, layout) = qkv.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) = (&*storage, layout.contiguous_offsets()) else {
        return Err(Error::invalid("attention", "contiguous numbers in f32", format!("{:?}", qkv.dtype())));
    };
    let values = &values[from..to];
    let tiles = Tiles::new(rule, heads, values);
    let z = if held.len() < spans.len() {
        let held: Vec<&Panels> = held.iter().map(|held| &**held).collect();
        tiles.run_forked(spans, &held)
    } else {
        add(values, heads, spans, &mut held);
        tiles.run(spans.iter().zip(held.iter().map(|held| &**held)))
    };
    Ok(Tensor::from_vec(z, (rows, heads.n_heads * d_head), &Device::Cpu)?)
}

/// Number of rows from which it pays to use several threads.
const MANY_ROWS: usize = 64;

/// Packs the keys and values of the batch after those held.
fn add(qkv: &[f32], heads: Heads, spans: &[Span], held: &mut [&mut Panels]) {
    let by_head =
        spans.iter().zip(held).flat_map(|(span, held)| held.heads_mut().enumerate().map(move |it| (span, it)));
    let add_head = |(span, (head, mut held)): (&Span, (usize, HeadMut<'_>))| heads.pack(qkv, span, head, &mut held);
    if qkv.len() < MANY_ROWS * heads.row_width() {
        by_head.for_each(add_head);
    } else {
        by_head.collect::<Vec<_>>().into_par_iter().for_each(add_head);
    }
}

/// The same with plain tensor operations, for texts from their beginning: for other devices, and as the reference of
/// the tests.
fn causal_attention_plain(qkv: &Tensor, heads: Heads, spans: &[Span], rule: Scores) -> Result<Tensor> {
    let of_span = |span: &Span| {
        if span.start > 0 {
            return Err(Error::invalid("cached text", "a model on the CPU", format!("{:?}", qkv.device().location())));
        }
        plain(&qkv.narrow(0, span.rows.start, span.rows.len())?, heads, rule)
    };
    Ok(Tensor::cat(&spans.iter().map(of_span).collect::<Result<Vec<_>>>()?, 0)?)
}

/// One text. `qkv`: `[pos, n_heads + 2 n_kv_heads, d_head]` -> `[pos, n_heads * d_head]`
fn plain(qkv: &Tensor, heads: Heads, rule: Scores) -> Result<Tensor> {
    let Heads { n_heads, n_kv_heads, d_head } = heads;
    let pos = qkv.dim(0)?;
    let by_head = |first: usize| -> Result<Tensor> {
        let x = qkv.narrow(1, first, n_kv_heads)?.transpose(0, 1)?.unsqueeze(1)?; // [n_kv_heads, 1, pos, d_head]
        let x = x.broadcast_as((n_kv_heads, n_heads / n_kv_heads, pos, d_head))?;
        Ok(x.reshape((n_heads, pos, d_head))?)
    };
    let (k, v) = (by_head(n_heads)?, by_head(n_heads + n_kv_heads)?);
    let q = qkv.narrow(1, 0, n_heads)?.transpose(0, 1)?.contiguous()?; // [n_heads, pos, d_head]
    let scores = (q.matmul(&k.transpose(1, 2)?)? * f64::from(rule.scale))?;
    let scores = match rule.softcap.map(f64::from) {
        Some(cap) => ((scores / cap)?.tanh()? * cap)?,
        None => scores,
    };
    let sees = |query: usize, key: usize| key <= query && key >= rule.first_key(query);
    let hidden = |i: usize| if sees(i / pos, i % pos) { 0.0 } else { f32::NEG_INFINITY };
    let mask =
        Tensor::from_vec((0..pos * pos).map(hidden).collect(), (pos, pos), qkv.device())?.to_dtype(qkv.dtype())?;
    let pattern = candle_nn::ops::softmax(&scores.broadcast_add(&mask)?, D::Minus1)?; // [n_heads, pos, pos]
    Ok(pattern.matmul(&v)?.transpose(0, 1)?.reshape((pos, n_heads * d_head))?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::DType;

    use super::{super::packed::testing::values, *};

    fn plain_scale(d_head: usize) -> Scores {
        Scores { scale: 1.0 / (d_head as f32).sqrt(), softcap: None, window: None }
    }

    /// Texts of the given lengths, concatenated. `[rows, n_heads + 2 n_kv_heads, d_head]`
    fn qkv(lengths: &[usize], heads: Heads) -> Tensor {
        let rows: usize = lengths.iter().sum();
        let shape = (rows, heads.n_heads + 2 * heads.n_kv_heads, heads.d_head);
        Tensor::from_vec(values(rows * heads.row_width(), 1), shape, &Device::Cpu).unwrap()
    }

    fn spans(lengths: &[usize]) -> Vec<Span> {
        let mut end = 0;
        let span = |len: &usize| {
            end += len;
            Span { rows: end - len..end, start: 0 }
        };
        lengths.iter().map(span).collect()
    }

    fn attention(qkv: &Tensor, heads: Heads, spans: &[Span], rule: Scores) -> Tensor {
        let new = |span: &Span| Panels::of_heads(heads.n_kv_heads, heads.d_head, span.end());
        let mut panels: Vec<_> = spans.iter().map(new).collect();
        causal_attention(qkv, heads.n_kv_heads, spans, panels.iter_mut().collect(), rule).unwrap()
    }

    fn bits(x: &Tensor) -> Vec<u32> {
        x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    }

    fn assert_equal_to_plain(rule: Scores, lengths: &[usize], heads: Heads) {
        let (x, spans) = (qkv(lengths, heads), spans(lengths));
        let got = attention(&x, heads, &spans, rule);
        let exact = |x: &Tensor| x.to_dtype(DType::F64).unwrap();
        let want = causal_attention_plain(&exact(&x), heads, &spans, rule).unwrap();
        let diff = (exact(&got) - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        // f32 sums of weights that add up to one, times values up to one: a few units of 6e-8.
        assert!(diff < 1e-6, "{lengths:?}, {heads:?}, {rule:?}: {diff}");
        assert_same_bits_however_it_is_cut(&x, &got, rule, lengths, heads);
    }

    /// Checks each text alone, in two passes, and with its last token in a separate pass.
    fn assert_same_bits_however_it_is_cut(x: &Tensor, whole: &Tensor, rule: Scores, lengths: &[usize], heads: Heads) {
        for span in spans(lengths) {
            let len = span.rows.len();
            let mut panels = Panels::of_heads(heads.n_kv_heads, heads.d_head, len + 3);
            let cuts = [0, len / 3, len - 1, len];
            for cut in cuts.windows(2).filter(|cut| cut[0] < cut[1]) {
                let (start, n) = (span.rows.start + cut[0], cut[1] - cut[0]);
                let part = x.narrow(0, start, n).unwrap().copy().unwrap();
                let at = [Span { rows: 0..n, start: cut[0] }];
                let got = causal_attention(&part, heads.n_kv_heads, &at, vec![&mut panels], rule).unwrap();
                let same = bits(&got) == bits(&whole.narrow(0, start, n).unwrap());
                assert!(same, "{lengths:?}, {heads:?}, {rule:?}, rows {start} and {n} more");
            }
        }
    }

    fn heads(n_heads: usize, n_kv_heads: usize, d_head: usize) -> Heads {
        Heads { n_heads, n_kv_heads, d_head }
    }

    #[test]
    fn kernel_equals_plain_tensor_operations() {
        assert_equal_to_plain(plain_scale(32), &[150, 3, 77], heads(6, 2, 32)); // blocks of queries, the last partial
        assert_equal_to_plain(plain_scale(32), &[1], heads(4, 4, 32));
        assert_equal_to_plain(plain_scale(32), &[5, 9, 1, 64, 65], heads(4, 1, 32));
    }

    #[test]
    fn heads_of_any_width_equal_plain_tensor_operations() {
        for d_head in [1, 16, 40, 64, 80, 96] {
            assert_equal_to_plain(plain_scale(d_head), &[50, 70], heads(4, 2, d_head));
        }
    }

    #[test]
    fn windows_and_caps_equal_plain_tensor_operations() {
        for window in [1, 3, 64, 65, 100, 1_000] {
            let rule = Scores { window: Some(window), ..plain_scale(32) };
            assert_equal_to_plain(rule, &[150, 40, 210], heads(4, 2, 32));
        }
        let capped = Scores { scale: 0.3, softcap: Some(1.5), window: Some(20) };
        assert_equal_to_plain(capped, &[90, 100], heads(4, 2, 32));
    }

    /// Equal queries, keys and values.
    fn same(pos: usize) -> (Tensor, Tensor) {
        let x = Tensor::randn(0f32, 1., (pos, 2, 8), &Device::Cpu).unwrap();
        (Tensor::cat(&[&x, &x, &x], 1).unwrap(), x)
    }

    #[test]
    fn a_window_of_one_returns_the_value_itself() {
        let (qkv, x) = same(70);
        let rule = Scores { window: Some(1), ..plain_scale(8) };
        assert_eq!(bits(&attention(&qkv, heads(2, 2, 8), &spans(&[70]), rule)), bits(&x));
    }

    #[test]
    fn the_first_token_sees_only_itself() {
        let (qkv, x) = same(9);
        let z = attention(&qkv, heads(2, 2, 8), &spans(&[9]), plain_scale(8));
        assert_eq!(bits(&z.narrow(0, 0, 1).unwrap()), bits(&x.narrow(0, 0, 1).unwrap()));
    }
}
