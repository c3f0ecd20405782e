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

/// Variants of one task: enough to make the copy of their past cheap.
const TASK_VARIANTS: usize = 16;

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
    /// The head's keys and values in `panels`.
    kv_head: usize,
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
                let task = move |(head, first)| Task { span, panels, kv_head: self.heads.kv_head(head), head, first };
                (0..self.heads.n_heads).flat_map(blocks).map(task)
            })
            .collect();
        tasks.into_par_iter().for_each(|task| self.tiles(task, &mut vec![]));
        // SAFETY: the tasks wrote every head of every query.
        unsafe { self.z.into_values() }
    }

    /// Computes all heads of all queries of variants that share a past. `spans`, those of the first variant first,
    /// cover all rows; `past` holds the keys and values before them, one entry per sequence.
    pub(super) fn run_forked(self, spans: &[Span], past: &[&Panels]) -> Vec<f32> {
        let Heads { n_heads, n_kv_heads, .. } = self.heads;
        let variants: Vec<&[Span]> = spans.chunks_exact(past.len()).collect();
        let of_sequence = |sequence| (0..n_kv_heads).map(move |kv_head| (sequence, kv_head));
        let tasks: Vec<_> = (0..past.len())
            .flat_map(of_sequence)
            .flat_map(|it| variants.chunks(TASK_VARIANTS).map(move |variants| (it, variants)))
            .collect();
        tasks.into_par_iter().for_each(|((sequence, kv_head), variants)| {
            let (mut scores, first) = (vec![], &variants[0][sequence]);
            // A copy of the past, in which each variant overwrites the rows of the one before.
            let mut panels = past[sequence].copy_of_head(kv_head, first.start, first.end());
            for span in variants.iter().map(|variant| &variant[sequence]) {
                panels.heads_mut().for_each(|mut head| self.heads.pack(self.qkv, span, kv_head, &mut head));
                for head in (0..n_heads).filter(|head| self.heads.kv_head(*head) == kv_head) {
                    for first in (0..span.rows.len()).step_by(TASK_QUERIES) {
                        self.tiles(Task { span, panels: &panels, kv_head: 0, head, first }, &mut scores);
                    }
                }
            }
        });
        // SAFETY: the tasks wrote every head of every query of every variant.
        unsafe { self.z.into_values() }
    }

    /// Computes the queries of a task.
    fn tiles(&self, task: Task<'_>, scores: &mut Vec<f32>) {
        let mut first = task.first;
        let end = task.span.rows.len().min(first + TASK_QUERIES);
        while first < end {
            let rows = tile_rows(end - first);
            self.tile(Task { first, ..task }, rows, scores);
            first += rows;
        }
    }

    /// Computes `rows` queries of one head, from the task's first on. `scores` is a buffer shared by calls.
    fn tile(&self, task: Task<'_>, rows: usize, scores: &mut Vec<f32>) {
        let Task { span, panels, kv_head, head, first } = task;
        let d_head = self.heads.d_head;
        let (first, query) = (span.rows.start + first, span.start + first); // the first query's row and position
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
