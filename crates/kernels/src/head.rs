//! The int8 matrix of the output head and the embedding, and the activations that all heads take.

use std::cell::RefCell;

use crate::activations::Activations;
use crate::blocks::{Blocks, filled};
use crate::columns::Columns;
use crate::epilogue;
use crate::error::Result;
use crate::exec::Exec;
use crate::kernel::PackedTile;
use crate::layout::{DEPTH, DEPTH_BLOCKS, LANES, read_lane, tile_blocks, write_lanes};
use crate::memory::Region;
use crate::ops;
use crate::pool::Pool;
use crate::room::Room;
use crate::shape::{assert_width, check_width};

/// Row tiles that one task computes.
const TASK: usize = 4;
/// Added to a code, so that a weight is an unsigned byte.
const OFFSET: u8 = 128;

thread_local! {
    /// Sums of one row tile, kept by each thread.
    static SUMS: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
}

/// A matrix `[rows, cols]` of int8 with one scale a row: `w ≈ code · max|w| / 127`, code rounded
/// half to even. An error of at most half a step a weight, a quarter of what [`crate::Int6Matrix`] leaves
/// on normally distributed weights when squared and summed over a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Int8Matrix {
    rows: usize,
    cols: usize,
    scales: Room<f32>,
    data: Blocks,
}

impl Int8Matrix {
    /// Quantises rows that `row` writes, on all threads of `pool` and in any order.
    ///
    /// # Errors
    /// [`crate::KernelError::Shape`] where it is too wide.
    pub fn quantize(
        pool: &Pool,
        rows: usize,
        cols: usize,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Self> {
        check_width("int8 weights", cols)?;
        let blocks = tile_blocks(cols);
        let mut scales = Room::zeros(rows);
        let some = Columns::new(&mut scales, 1, rows);
        let data = filled(pool, rows.div_ceil(LANES) * blocks, blocks, &|tile, out| {
            let first = tile * LANES;
            // SAFETY: each task has rows of its own.
            #[allow(unsafe_code)]
            let scales = unsafe { some.strip(0, first, LANES) };
            let mut values = vec![0f32; cols];
            let mut codes = vec![0i8; cols];
            // Bytes of 64 columns of all rows, one after another; zeros where the matrix ends.
            let mut chunks = vec![[[0u8; DEPTH]; LANES]; cols.div_ceil(DEPTH)];
            for (lane, scale) in scales.iter_mut().enumerate() {
                row(first + lane, &mut values);
                *scale = ops::absmax_codes(&values, &mut codes);
                for (chunk, codes) in chunks.iter_mut().zip(codes.chunks(DEPTH)) {
                    for (byte, code) in chunk[lane].iter_mut().zip(codes) {
                        *byte = code.cast_unsigned().wrapping_add(OFFSET);
                    }
                }
            }
            for (rows, out) in chunks.iter().zip(out.chunks_mut(DEPTH_BLOCKS)) {
                write_lanes(rows, out);
            }
        });
        Ok(Self {
            rows,
            cols,
            scales,
            data,
        })
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes that a product reads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data) + size_of_val(&*self.scales)
    }

    /// Where the weights lie.
    #[must_use]
    pub fn region(&self) -> Region<'_> {
        Region::of(&self.data)
    }

    /// Writes the values of one row to `out`, `[cols]`.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let blocks = tile_blocks(self.cols);
        let tile = &self.data[row / LANES * blocks..][..blocks];
        let scale = self.scales[row];
        read_lane(tile, row % LANES, out, |out, byte| {
            *out = (i32::from(byte) - i32::from(OFFSET)) as f32 * scale;
        });
    }

    /// `out[t, r] = Σ w[r, c] · x[t, c]`, `out` row major `[tokens, rows]`.
    ///
    /// The activations have 15 bits, so the error is that of the weights. Sums are exact and the
    /// result does not depend on `exec`.
    ///
    /// # Panics
    /// Where the widths of matrix and activations or the length of `out` do not fit.
    pub fn gemm(&self, exec: &Exec, x: &WideActivations, out: &mut [f32]) {
        let digits = &x.digits;
        assert_width(digits.width(), self.cols);
        let tokens = digits.tokens() / 2;
        let out = Columns::new(out, tokens, self.rows);
        let tiles = self.rows.div_ceil(LANES);
        let blocks = tile_blocks(self.cols);
        exec.pool.run(tiles.div_ceil(TASK), &|task| {
            SUMS.with_borrow_mut(|acc| {
                acc.resize(2 * tokens * LANES, 0);
                for tile in task * TASK..tiles.min((task + 1) * TASK) {
                    let part = PackedTile {
                        weights: &self.data[tile * blocks..][..blocks],
                        x: digits.rows(0),
                        stride: digits.stride(),
                        tokens: 2 * tokens,
                    };
                    exec.kernel.byte_tile(part, acc);
                    let first = tile * LANES;
                    for (t, acc) in acc.chunks_exact(2 * LANES).enumerate() {
                        // SAFETY: each task has row tiles of its own.
                        #[allow(unsafe_code)]
                        let out = unsafe { out.strip(t, first, LANES) };
                        let (high, low) = acc.split_at(LANES);
                        let sums = &digits.sums()[2 * t..][..2];
                        let (high, low) = ((high, sums[0]), (low, sums[1]));
                        let step = digits.steps()[2 * t];
                        epilogue::scale_wide(high, low, step, &self.scales[first..], out);
                    }
                }
            });
        });
    }
}

/// Activations of 15 bits as two int8 digits: `x ≈ step · (128 · high + low)`.
#[derive(Debug, Default)]
pub struct WideActivations {
    /// High and low digits of each token in turn.
    digits: Activations,
}

impl WideActivations {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// High and low digits of each token in turn.
    pub(crate) fn digits(&self) -> &Activations {
        &self.digits
    }

    /// Quantises `x`, row major `[tokens, width]`, with one step per token: `max|x| / 16256`.
    pub fn quantize(&mut self, exec: &Exec, x: &[f32], width: usize) {
        let tokens = x.len().checked_div(width).unwrap_or(0);
        self.digits.fill(exec, 2 * tokens, width, |row, codes| {
            let x = &x[row / 2 * width..][..width];
            ops::wide_digits(x, row % 2 == 0, codes)
        });
    }
}
