//! [`Tiles`]: attention of many queries, twelve of a head at a time, by the inner loop of the packed product.

use rayon::prelude::*;

use super::{
    super::packed::{Instructions, MAX_ROWS, Operands, Output, PANEL},
    Scores, View,
    softmax::ExpRows,
};
use crate::numbers::simd::wide;

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
pub(super) struct Tiles<'a> {
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

impl<'a> Tiles<'a> {
    pub(super) fn new(rule: Scores, q: View<'a>, k: View<'_>, v: View<'_>) -> Self {
        let [batch, pos, n_heads, d_head] = q.dims;
        let [_, keys, n_kv_heads, _] = k.dims;
        Self {
            instructions: Instructions::of_this_machine().unwrap_or(Instructions::Plain),
            rule,
            q,
            n_kv_heads,
            keys,
            panels: Panels::new(k, v, rule.first_key(keys - pos)),
            z: Output::new(batch * pos, n_heads * d_head),
        }
    }

    /// All heads of all queries. -> `[batch, pos, n_heads * d_head]`
    pub(super) fn run(self) -> Vec<f32> {
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
