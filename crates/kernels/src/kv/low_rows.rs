//! Rows of keys or values in few bits.

use std::cell::RefCell;

use super::low_bit::{self, LowBits};

thread_local! {
    /// Codes of the row that is stored, kept so that decoding allocates nothing.
    static CODES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Packed rows `[heads, positions, width]`.
#[derive(Debug, Clone)]
pub(super) struct LowRows {
    bits: LowBits,
    positions: usize,
    width: usize,
    /// `[rows, bits.bytes(width)]`.
    packed: Vec<u8>,
    /// `[rows]`.
    steps: Vec<f32>,
    /// The first position of each head in four bits, where the others have three.
    first: Vec<u8>,
}

impl LowRows {
    /// Zeros.
    pub(super) fn new(bits: LowBits, heads: usize, positions: usize, width: usize) -> Self {
        let rows = heads * positions;
        let first = if bits == LowBits::Three && positions > 0 {
            heads
        } else {
            0
        };
        Self {
            bits,
            positions,
            width,
            packed: vec![0; rows * bits.bytes(width)],
            steps: vec![0.0; rows],
            first: vec![0; first * LowBits::Four.bytes(width)],
        }
    }

    /// Bytes that the rows take.
    pub(super) fn bytes(&self) -> usize {
        self.packed.len() + size_of_val(self.steps.as_slice()) + self.first.len()
    }

    /// Whether the row has four bits though the others have three, and which of those it is.
    #[inline(always)]
    fn first(&self, row: usize) -> Option<usize> {
        let is_first = self.bits == LowBits::Three && row.is_multiple_of(self.positions);
        is_first.then(|| row / self.positions)
    }

    /// Width of its codes and the row.
    #[inline(always)]
    fn row(&self, row: usize) -> (LowBits, &[u8]) {
        let (bits, data, row) = match self.first(row) {
            Some(head) => (LowBits::Four, &self.first, head),
            None => (self.bits, &self.packed, row),
        };
        let bytes = bits.bytes(self.width);
        (bits, &data[row * bytes..][..bytes])
    }

    fn row_mut(&mut self, row: usize) -> (LowBits, &mut [u8]) {
        let (bits, data, row) = match self.first(row) {
            Some(head) => (LowBits::Four, &mut self.first, head),
            None => (self.bits, &mut self.packed, row),
        };
        let bytes = bits.bytes(self.width);
        (bits, &mut data[row * bytes..][..bytes])
    }

    /// Stores a row.
    pub(super) fn set(&mut self, row: usize, values: &[f32]) {
        CODES.with_borrow_mut(|codes| {
            codes.resize(values.len(), 0);
            let (bits, packed) = self.row_mut(row);
            let step = low_bit::quantize(bits, values, codes);
            low_bit::pack(bits, codes, packed);
            self.steps[row] = step;
        });
    }

    /// Copies row `from` of `other` to row `to`.
    pub(super) fn copy_row(&mut self, to: usize, other: &Self, from: usize) {
        let (bits, source) = other.row(from);
        self.steps[to] = other.steps[from];
        let (own, row) = self.row_mut(to);
        assert_eq!(own, bits, "first positions stay first");
        row.copy_from_slice(source);
    }

    /// The values of `n` rows from `row` on.
    pub(super) fn read(&self, mut row: usize, n: usize, mut out: &mut [f32]) {
        let end = row + n;
        while row < end {
            // Rows that lie together: all up to the next first position.
            let rows = match self.bits {
                LowBits::Four => end - row,
                LowBits::Three if row.is_multiple_of(self.positions) => 1,
                LowBits::Three => (self.positions - row % self.positions).min(end - row),
            };
            let (bits, one) = self.row(row);
            let packed = match rows {
                1 => one,
                _ => &self.packed[row * one.len()..][..rows * one.len()],
            };
            let (now, later) = out.split_at_mut(rows * self.width);
            low_bit::read(bits, packed, &self.steps[row..][..rows], now);
            (row, out) = (row + rows, later);
        }
    }
}
