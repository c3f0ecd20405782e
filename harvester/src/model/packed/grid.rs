//! [`Grid`]: a product's tiles, distributed over threads; [`Output`]: the matrix that they fill.

use std::ops::Range;

use rayon::prelude::*;

use super::kernel::{MAX_ROWS, PANEL, tile_rows};

/// Rows per task: enough to be worth reading the whole matrix from the shared cache, few enough that no thread waits
/// long for the last task.
const TASK_ROWS: usize = 4 * MAX_ROWS;

/// Tasks per thread, if there are enough rows or panels.
const TASKS_PER_THREAD: usize = 4;

/// Tiles of a `[rows, panels * PANEL]` matrix. Rows are divided into groups; if these are too few for all threads, as
/// when generating single tokens, panels are divided into groups too. The content of a tile does not depend on the
/// thread that computes it.
pub(crate) struct Grid {
    rows: usize,
    panels: usize,
    panels_per_task: usize,
}

impl Grid {
    pub(crate) fn new(rows: usize, panels: usize) -> Self {
        let wanted = TASKS_PER_THREAD * rayon::current_num_threads();
        let panel_groups = wanted.div_ceil(rows.div_ceil(TASK_ROWS).max(1));
        let panels_per_task = if rows >= wanted / 2 * TASK_ROWS { panels } else { panels.div_ceil(panel_groups) };
        Self { rows, panels, panels_per_task: panels_per_task.max(1) }
    }

    /// Calls `work(first row, rows, panel)` for every tile, once.
    pub(crate) fn for_each_tile(&self, work: impl Fn(usize, usize, usize) + Sync) {
        let panel_groups = self.panels.div_ceil(self.panels_per_task);
        let tasks = self.rows.div_ceil(TASK_ROWS) * panel_groups;
        (0..tasks).into_par_iter().for_each(|task| {
            let rows = part(task / panel_groups, TASK_ROWS, self.rows);
            // Panels in the outer loop: a panel stays in the second-level cache for all rows of the task.
            for panel in part(task % panel_groups, self.panels_per_task, self.panels) {
                let mut first = rows.start;
                while first < rows.end {
                    let count = tile_rows(rows.end - first);
                    work(first, count, panel);
                    first += count;
                }
            }
        });
    }
}

/// The `i`-th group of `size` out of `n`; the last may be smaller.
fn part(i: usize, size: usize, n: usize) -> Range<usize> {
    i * size..((i + 1) * size).min(n)
}

/// A `[rows, columns]` matrix that threads fill tile by tile. Not zeroed first: that would be a pass over memory.
pub(crate) struct Output {
    values: Vec<f32>,
    start: *mut f32,
    rows: usize,
    columns: usize,
}

// SAFETY: threads only `write`, whose caller promises that no two of them write the same element.
unsafe impl Sync for Output {}

impl Output {
    pub(crate) fn new(rows: usize, columns: usize) -> Self {
        let mut values = Vec::with_capacity(rows * columns);
        let start = values.as_mut_ptr();
        Self { values, start, rows, columns }
    }

    /// Writes a tile, `[rows, PANEL]`, into rows from `first` on: as many of its columns as `columns` of the matrix.
    ///
    /// # Safety
    /// No other call writes the same elements.
    pub(crate) unsafe fn write(&self, first: usize, columns: Range<usize>, tile: &[f32]) {
        let (rows, _) = tile.as_chunks::<PANEL>();
        assert!(first + rows.len() <= self.rows && columns.end <= self.columns, "a tile inside the matrix");
        for (row, values) in (first..).zip(rows) {
            let start = row * self.columns + columns.start;
            let (whole, rest) = values[..columns.len()].as_chunks::<16>();
            // Sixteen values at once are moved without a function call.
            // SAFETY: the row and its columns lie inside the allocation, as asserted.
            unsafe {
                let to = self.start.add(start);
                for (i, values) in whole.iter().enumerate() {
                    to.add(16 * i).cast::<[f32; 16]>().write(*values);
                }
                to.add(16 * whole.len()).copy_from_nonoverlapping(rest.as_ptr(), rest.len());
            }
        }
    }

    /// # Safety
    /// Every element was written.
    pub(crate) unsafe fn into_values(mut self) -> Vec<f32> {
        // SAFETY: the caller's promise; the capacity was reserved in `new`.
        unsafe { self.values.set_len(self.rows * self.columns) };
        self.values
    }
}
