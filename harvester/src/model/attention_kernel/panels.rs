//! [`Panels`]: the keys and values of one sequence in one layer, in the layout of a product's inner loop. The cache
//! stores them in this form: a new token is packed once, and a query's result has the same bits whether its keys were
//! computed in this pass or in an earlier one.

use super::super::{ModelConfig, packed::PANEL};

/// Keys and values of every head, for at most `capacity` positions.
#[derive(Debug)]
pub(crate) struct Panels {
    d_head: usize,
    capacity: usize,
    /// Transposed, already rotated. `[n_kv_heads, capacity / PANEL rounded up, d_head, PANEL]`
    keys: Vec<f32>,
    /// `[n_kv_heads, d_head / PANEL rounded up, capacity, PANEL]`
    values: Vec<f32>,
}

impl Panels {
    /// All zeros; the system gives the memory only when tokens fill it.
    pub(crate) fn new(config: &ModelConfig, capacity: usize) -> Self {
        Self::of_heads(config.n_kv_heads, config.d_head, capacity)
    }

    pub(super) fn of_heads(n_kv_heads: usize, d_head: usize, capacity: usize) -> Self {
        let keys = vec![0.0; n_kv_heads * capacity.next_multiple_of(PANEL) * d_head];
        let values = vec![0.0; n_kv_heads * d_head.next_multiple_of(PANEL) * capacity];
        Self { d_head, capacity, keys, values }
    }

    /// A copy of one head, with its first `len` positions and space for `capacity`.
    pub(super) fn copy_of_head(&self, head: usize, len: usize, capacity: usize) -> Self {
        let mut copy = Self::of_heads(1, self.d_head, capacity);
        let keys = self.keys(head, 0..len.div_ceil(PANEL));
        copy.keys[..keys.len()].copy_from_slice(keys);
        let values = copy.values.chunks_exact_mut((PANEL * capacity).max(1));
        for (copy, values) in values.zip(self.values(head, 0..len)) {
            copy[..values.len()].copy_from_slice(values);
        }
        copy
    }

    /// The heads, one by one, for writing.
    pub(super) fn heads_mut(&mut self) -> impl Iterator<Item = HeadMut<'_>> {
        let (d_head, capacity) = (self.d_head, self.capacity);
        let keys = self.keys.chunks_exact_mut((capacity.next_multiple_of(PANEL) * d_head).max(1));
        let values = self.values.chunks_exact_mut((d_head.next_multiple_of(PANEL) * capacity).max(1));
        keys.zip(values).map(move |(keys, values)| HeadMut { d_head, capacity, keys, values })
    }

    /// The keys of a head from panel `panels.start` to before `panels.end`, 32 positions each.
    /// `[panels, d_head, PANEL]`
    pub(super) fn keys(&self, head: usize, panels: std::ops::Range<usize>) -> &[f32] {
        let head = &self.keys[head * self.capacity.next_multiple_of(PANEL) * self.d_head..];
        &head[panels.start * PANEL * self.d_head..panels.end * PANEL * self.d_head]
    }

    /// For each 32 dimensions of a head, their values at some positions. `[positions, PANEL]` each
    pub(super) fn values(&self, head: usize, positions: std::ops::Range<usize>) -> impl Iterator<Item = &[f32]> {
        let size = self.d_head.next_multiple_of(PANEL) * self.capacity;
        let panels = self.values[head * size..][..size].chunks_exact(PANEL * self.capacity);
        panels.map(move |panel| &panel[positions.start * PANEL..positions.end * PANEL])
    }
}

/// One head.
pub(super) struct HeadMut<'a> {
    d_head: usize,
    capacity: usize,
    keys: &'a mut [f32],
    values: &'a mut [f32],
}

impl HeadMut<'_> {
    /// Packs the key and the value at a position. `[d_head]` each
    pub(super) fn set(&mut self, position: usize, key: &[f32], value: &[f32]) {
        let panel = &mut self.keys[position / PANEL * PANEL * self.d_head..][..PANEL * self.d_head];
        for (row, value) in panel.chunks_exact_mut(PANEL).zip(key) {
            row[position % PANEL] = *value;
        }
        for (panel, values) in self.values.chunks_exact_mut(PANEL * self.capacity).zip(value.chunks(PANEL)) {
            panel[position * PANEL..][..values.len()].copy_from_slice(values);
        }
    }
}
