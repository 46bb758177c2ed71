//! Pieces of keys and values as one token reads them.

use std::ops::Range;

use super::CHUNK;
use crate::kv::{LANES, LowHead};
use crate::x86_64::{Later, Rows, Stored, transpose};

/// Where keys and values of a head come from.
pub(super) trait Pieces {
    /// How they are stored, or what was made of it.
    type Cell: Stored;

    /// Keys of positions from `start` on, a multiple of [`LANES`]: blocks that hold `n` of them.
    fn keys(&mut self, start: usize, n: usize) -> Rows<'_, Self::Cell>;

    /// Values of some positions.
    fn values(&mut self, positions: Range<usize>) -> Rows<'_, Self::Cell>;

    /// What [`Self::keys`] reads.
    fn later_keys(&self, _start: usize, _n: usize) -> Later {
        Later::NOTHING
    }

    /// What [`Self::values`] reads.
    fn later_values(&self, _positions: Range<usize>) -> Later {
        Later::NOTHING
    }
}

/// Cells that are used as they are stored.
pub(super) struct InPlace<'a, S> {
    pub(super) width: usize,
    pub(super) keys: Rows<'a, S>,
    pub(super) values: Rows<'a, S>,
}

impl<S: Stored> InPlace<'_, S> {
    /// The blocks of keys that hold `n` from `start` on.
    fn blocks(&self, start: usize, n: usize) -> Rows<'_, S> {
        let end = start + n.next_multiple_of(LANES);
        self.keys.part(start..end, self.width)
    }
}

impl<S: Stored> Pieces for InPlace<'_, S> {
    type Cell = S;

    fn keys(&mut self, start: usize, n: usize) -> Rows<'_, S> {
        self.blocks(start, n)
    }

    fn values(&mut self, positions: Range<usize>) -> Rows<'_, S> {
        self.values.part(positions, self.width)
    }

    fn later_keys(&self, start: usize, n: usize) -> Later {
        Later::of(self.blocks(start, n).cells)
    }

    fn later_values(&self, positions: Range<usize>) -> Later {
        Later::of(self.values.part(positions, self.width).cells)
    }
}

/// Codes of few bits, which become INT8 a piece at a time: 1 byte a value instead of 4, and the same products.
pub(super) struct Unpacked<'a> {
    pub(super) width: usize,
    pub(super) keys: LowHead<'a>,
    pub(super) values: LowHead<'a>,
    pub(super) buffers: &'a mut CodeBuffers,
}

/// Buffers of [`Unpacked`].
#[derive(Debug)]
pub(super) struct CodeBuffers {
    /// `[CHUNK, width]`.
    rows: Vec<i8>,
    /// `[CHUNK / LANES, width, LANES]`.
    lanes: Vec<i8>,
    /// Steps of a piece, and zeros where its last block ends later.
    steps: [f32; CHUNK],
}

impl CodeBuffers {
    pub(super) const NEW: Self = Self {
        rows: Vec::new(),
        lanes: Vec::new(),
        steps: [0.0; CHUNK],
    };
}

impl Pieces for Unpacked<'_> {
    type Cell = i8;

    fn keys(&mut self, start: usize, n: usize) -> Rows<'_, i8> {
        let CodeBuffers { rows, lanes, steps } = &mut *self.buffers;
        let (width, stored) = (self.width, n.next_multiple_of(LANES));
        rows.resize(CHUNK * width, 0);
        lanes.resize(CHUNK * width, 0);
        self.keys.signed(start, n, &mut rows[..n * width]);
        let blocks = rows.chunks_exact(LANES * width);
        let outs = lanes.chunks_exact_mut(LANES * width);
        for (rows, out) in blocks.zip(outs).take(stored / LANES) {
            transpose(rows, width, out);
        }
        steps[..n].copy_from_slice(self.keys.steps(start, n));
        steps[n..].fill(0.0);
        Rows {
            cells: &lanes[..stored * width],
            scales: &steps[..stored],
        }
    }

    fn values(&mut self, positions: Range<usize>) -> Rows<'_, i8> {
        let (start, n) = (positions.start, positions.len());
        let cells = &mut self.buffers.rows;
        cells.resize(CHUNK * self.width, 0);
        self.values.signed(start, n, &mut cells[..n * self.width]);
        Rows {
            cells: &cells[..n * self.width],
            scales: self.values.steps(start, n),
        }
    }
}
