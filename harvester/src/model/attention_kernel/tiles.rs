//! [`Tiles`]: attention of up to twelve queries of a head at a time, with the inner loop of the packed product.

use rayon::prelude::*;

use super::{
    super::{
        batch::Span,
        packed::{MAX_ROWS, Operands, Output, PANEL, tile_rows},
    },
    Heads, Scores,
    panels::Panels,
    softmax::ExpRows,
};
use crate::numbers::simd::{Instructions, wide};

/// Queries per task: enough to make loading a head's keys and values into the second-level cache worthwhile.
const TASK_QUERIES: usize = 4 * MAX_ROWS;

/// Operands of one call.
pub(super) struct Tiles<'a> {
    instructions: Instructions,
    rule: Scores,
    heads: Heads,
    /// `[rows, n_heads + 2 n_kv_heads, d_head]`
    qkv: &'a [f32],
    /// `[rows, n_heads * d_head]`
    z: Output,
}

/// Queries of one head of one sequence.
#[derive(Clone, Copy)]
struct Task<'a> {
    span: &'a Span,
    panels: &'a Panels,
    head: usize,
    /// Index of the first query in the span.
    first: usize,
}

impl<'a> Tiles<'a> {
    pub(super) fn new(rule: Scores, heads: Heads, qkv: &'a [f32]) -> Self {
        let instructions = Instructions::of_this_machine();
        let rows = qkv.len() / heads.row_width();
        Self { instructions, rule, heads, qkv, z: Output::new(rows, heads.n_heads * heads.d_head) }
    }

    /// Computes all heads of all queries. `spans`, each with its keys and values, cover all rows.
    pub(super) fn run<'s>(self, spans: impl Iterator<Item = (&'s Span, &'s Panels)>) -> Vec<f32> {
        // Blocks of one head come together, so that its keys and values stay in the processor's cache.
        let tasks: Vec<Task<'_>> = spans
            .flat_map(|(span, panels)| {
                let blocks = move |head| (0..span.rows.len()).step_by(TASK_QUERIES).map(move |first| (head, first));
                let task = move |(head, first)| Task { span, panels, head, first };
                (0..self.heads.n_heads).flat_map(blocks).map(task)
            })
            .collect();
        tasks.into_par_iter().for_each(|task| {
            let (mut scores, mut first) = (vec![], task.first);
            let end = task.span.rows.len().min(first + TASK_QUERIES);
            while first < end {
                let rows = tile_rows(end - first);
                self.tile(Task { first, ..task }, rows, &mut scores);
                first += rows;
            }
        });
        // SAFETY: the tasks wrote every head of every query.
        unsafe { self.z.into_values() }
    }

    /// Computes `rows` queries of one head, from the task's first on. `scores` is a buffer shared by calls.
    fn tile(&self, task: Task<'_>, rows: usize, scores: &mut Vec<f32>) {
        let Task { span, panels, head, first } = task;
        let Heads { n_heads, n_kv_heads, d_head } = self.heads;
        let (first, query) = (span.rows.start + first, span.start + first); // the first query's row and position
        let kv_head = head / (n_heads / n_kv_heads);
        // Panels of keys that some query of the tile sees; those entirely outside the window are not read.
        let (from, to) = (self.rule.first_key(query) / PANEL, query + rows);
        let width = (to.div_ceil(PANEL) - from) * PANEL;
        scores.resize(scores.len().max(rows * width), 0.0);
        let scores = &mut scores[..rows * width];
        let q = &self.qkv[first * self.heads.row_width() + head * d_head..];
        let k_panels = panels.keys(kv_head, from..to.div_ceil(PANEL));
        for (b, column) in k_panels.chunks_exact(PANEL * d_head).zip((0..).step_by(PANEL)) {
            let c = &mut scores[column..];
            let operands = Operands { a: q, a_row: self.heads.row_width(), b, c, c_row: width, add: false };
            operands.product(self.instructions, rows);
        }
        let from = from * PANEL;
        let mut inverses = [0f32; MAX_ROWS];
        wide(ExpRows { scores, width, from, query, rule: self.rule, inverses: &mut inverses });
        for (b, column) in panels.values(kv_head, from..to).zip((0..).step_by(PANEL)) {
            let mut tile = [0f32; MAX_ROWS * PANEL];
            let operands = Operands { a: scores, a_row: width, b, c: &mut tile, c_row: PANEL, add: false };
            operands.product(self.instructions, rows);
            for (row, inverse) in tile.chunks_exact_mut(PANEL).zip(inverses) {
                row.iter_mut().for_each(|z| *z *= inverse);
            }
            let columns = head * d_head + column..head * d_head + d_head.min(column + PANEL);
            // SAFETY: no other tile has these queries of this head.
            unsafe { self.z.write(first, columns, &tile[..rows * PANEL]) };
        }
    }
}
