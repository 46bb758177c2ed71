//! Rows of keys or values in few bits.

use std::cell::RefCell;

use super::Prefix;
use super::low_bit::{self, LowBits};
use crate::columns::Columns;
use crate::room::Room;

thread_local! {
    /// Codes of the row that is stored, kept so that decoding allocates nothing.
    static CODES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Packed rows `[heads, positions, width]`.
#[derive(Debug)]
pub(super) struct LowRows {
    bits: LowBits,
    heads: usize,
    width: usize,
    /// `[heads, positions, bits.bytes(width)]`.
    packed: Room<u8>,
    /// `[heads, positions]`.
    steps: Room<f32>,
    /// The first position of each head in four bits, where the others have three.
    first: Room<u8>,
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
            heads,
            width,
            packed: Room::zeros(rows * bits.bytes(width)),
            steps: Room::zeros(rows),
            first: Room::zeros(first * LowBits::Four.bytes(width)),
        }
    }

    /// Bytes that the rows take.
    pub(super) fn bytes(&self) -> usize {
        self.packed.len() + size_of_val(&*self.steps) + self.first.len()
    }

    /// [`super::KvRows::copy_positions`].
    pub(super) fn copy_positions(&mut self, other: &Self, copy: &Prefix) {
        assert_eq!(self.bits, other.bits, "rows of one cache");
        copy.rows(&mut self.packed, &other.packed, self.bits.bytes(self.width));
        copy.rows(&mut self.steps, &other.steps, 1);
        if !self.first.is_empty() && copy.n > 0 {
            self.first.copy_from_slice(&other.first);
        }
    }

    /// The rows of a head.
    pub(super) fn head(&self, head: usize) -> LowHead<'_> {
        fn part<T>(all: &[T], head: usize, heads: usize) -> &[T] {
            let n = all.len() / heads;
            &all[head * n..][..n]
        }
        LowHead {
            bits: self.bits,
            width: self.width,
            packed: part(&self.packed, head, self.heads),
            steps: part(&self.steps, head, self.heads),
            first: part(&self.first, head, self.heads),
        }
    }

    /// All heads, to be written.
    pub(super) fn heads_mut(&mut self) -> LowColumns<'_> {
        let heads = self.heads;
        fn columns<T>(all: &mut [T], heads: usize) -> Columns<'_, T> {
            let n = all.len().checked_div(heads).unwrap_or(0);
            Columns::new(all, heads, n)
        }
        LowColumns {
            bits: self.bits,
            width: self.width,
            packed: columns(&mut self.packed, heads),
            steps: columns(&mut self.steps, heads),
            first: columns(&mut self.first, heads),
        }
    }
}

/// A head in each row.
pub(super) struct LowColumns<'a> {
    bits: LowBits,
    width: usize,
    packed: Columns<'a, u8>,
    steps: Columns<'a, f32>,
    first: Columns<'a, u8>,
}

impl LowColumns<'_> {
    /// The rows of a head.
    ///
    /// # Safety
    /// No head may be borrowed twice at the same time.
    #[allow(unsafe_code)]
    pub(super) unsafe fn head(&self, head: usize) -> LowHeadMut<'_> {
        // SAFETY: nobody else has this row, by the caller's promise.
        let (packed, steps, first) = unsafe {
            (
                self.packed.row(head),
                self.steps.row(head),
                self.first.row(head),
            )
        };
        LowHeadMut {
            bits: self.bits,
            width: self.width,
            packed,
            steps,
            first,
        }
    }
}

/// The rows of one head.
#[derive(Clone, Copy)]
pub(crate) struct LowHead<'a> {
    bits: LowBits,
    width: usize,
    packed: &'a [u8],
    steps: &'a [f32],
    /// The first in four bits, where the others have three.
    first: &'a [u8],
}

impl LowHead<'_> {
    /// The values of `n` rows from `row` on.
    pub(super) fn read(self, mut row: usize, n: usize, mut out: &mut [f32]) {
        let end = row + n;
        if n > 0 && row == 0 && self.bits == LowBits::Three {
            let (first, rest) = out.split_at_mut(self.width);
            low_bit::read(LowBits::Four, self.first, &self.steps[..1], first);
            (row, out) = (1, rest);
        }
        if row < end {
            let bytes = self.bits.bytes(self.width);
            let packed = &self.packed[row * bytes..end * bytes];
            low_bit::read(self.bits, packed, &self.steps[row..end], out);
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl<'a> LowHead<'a> {
    /// The steps of `n` rows from `row` on.
    pub(crate) fn steps(self, row: usize, n: usize) -> &'a [f32] {
        &self.steps[row..row + n]
    }

    /// The codes of `n` rows from `row` on, less that of 0.
    pub(crate) fn signed(self, mut row: usize, n: usize, mut out: &mut [i8]) {
        let end = row + n;
        if n > 0 && row == 0 && self.bits == LowBits::Three {
            let (first, rest) = out.split_at_mut(self.width);
            low_bit::signed(LowBits::Four, self.first, self.width, first);
            (row, out) = (1, rest);
        }
        let bytes = self.bits.bytes(self.width);
        let packed = &self.packed[row * bytes..end.max(row) * bytes];
        low_bit::signed(self.bits, packed, self.width, out);
    }
}

/// The rows of one head, to be written.
pub(super) struct LowHeadMut<'a> {
    bits: LowBits,
    width: usize,
    packed: &'a mut [u8],
    steps: &'a mut [f32],
    first: &'a mut [u8],
}

impl LowHeadMut<'_> {
    /// The same to be read.
    pub(super) fn rows(&self) -> LowHead<'_> {
        LowHead {
            bits: self.bits,
            width: self.width,
            packed: self.packed,
            steps: self.steps,
            first: self.first,
        }
    }

    /// Stores a row.
    pub(super) fn set(&mut self, row: usize, values: &[f32]) {
        CODES.with_borrow_mut(|codes| {
            codes.resize(values.len(), 0);
            let (bits, packed) = if row == 0 && self.bits == LowBits::Three {
                (LowBits::Four, &mut *self.first)
            } else {
                let bytes = self.bits.bytes(self.width);
                (self.bits, &mut self.packed[row * bytes..][..bytes])
            };
            self.steps[row] = low_bit::quantize(bits, values, codes);
            low_bit::pack(bits, codes, packed);
        });
    }
}
