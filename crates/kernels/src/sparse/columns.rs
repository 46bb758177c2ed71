//! A matrix stored column by column, of which a product reads only some.

use std::cell::RefCell;

use super::matrix::{Order, SparseMatrix, TILE_ROWS, line};
use super::{FEW, LINE, NonZero};
use crate::activations::Activations;
use crate::columns::Columns;
use crate::epilogue;
use crate::exec::Exec;
use crate::kernel::ColumnTile;
use crate::layout::{LANES, QUAD, WeightBlock, tile_blocks};
use crate::packed::PackedCodes;
use crate::shape::assert_width;
use crate::vectors::vectorized;

thread_local! {
    /// Sums of one row tile, kept by each thread.
    static SUMS: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
}

/// `[row tiles of 256, cols]` lines: byte `j` of a line holds in bits `2k` and `2k + 1` the code of
/// row `64 k + j` of the tile.
#[derive(Debug, Clone, PartialEq)]
pub struct ByColumn;

/// A matrix of which a column that is left out is a line of the cache that is not read.
pub type ColumnMatrix = SparseMatrix<ByColumn>;

impl Order for ByColumn {
    fn lines(rows: usize, cols: usize) -> usize {
        rows.div_ceil(LINE) * cols
    }

    fn part(cols: usize) -> usize {
        cols
    }

    fn pack(codes: &PackedCodes<'_>, part: usize, lines: &mut [WeightBlock]) {
        vectorized(
            #[inline(always)]
            || {
                for (i, lines) in lines.chunks_mut(64).enumerate() {
                    for eight in 0..8 {
                        let mut rows = [[0; 8]; 8];
                        for (j, row) in rows.iter_mut().enumerate() {
                            let first = part * LINE + 8 * eight + j;
                            let bytes = line(
                                #[inline(always)]
                                |k| codes.chunk(first + 64 * k, 64 * i),
                            );
                            for (word, bytes) in row.iter_mut().zip(bytes.as_chunks().0) {
                                *word = u64::from_le_bytes(*bytes);
                            }
                        }
                        transpose(&mut rows);
                        for (c, line) in lines.iter_mut().enumerate() {
                            line.0.as_chunks_mut().0[eight] = rows[c % 8][c / 8].to_le_bytes();
                        }
                    }
                }
            },
        );
    }

    fn spread(lines: &[WeightBlock], cols: usize, tile: usize, out: &mut Vec<WeightBlock>) {
        let lines = &lines[tile * TILE_ROWS / LINE * cols..][..cols];
        let shift = 2 * (tile % (LINE / TILE_ROWS));
        out.resize(tile_blocks(cols), WeightBlock::ZERO);
        vectorized(
            #[inline(always)]
            || {
                let mut quads = lines.chunks(QUAD);
                for block in out.iter_mut() {
                    let mut words = [0u32; LANES];
                    for (i, line) in quads.next().unwrap_or_default().iter().enumerate() {
                        let planes = line.0.as_chunks::<LANES>().0;
                        for (lane, word) in words.iter_mut().enumerate() {
                            let code = |plane: usize| planes[plane][lane] >> shift & 3;
                            let byte = code(0) | code(1) << 2 | code(2) << 4 | code(3) << 6;
                            *word |= u32::from(byte) << (8 * i);
                        }
                    }
                    for (bytes, word) in block.0.as_chunks_mut::<QUAD>().0.iter_mut().zip(words) {
                        *bytes = word.to_le_bytes();
                    }
                }
            },
        );
    }
}

/// The bytes of 64 columns.
type Words = [u64; 8];

/// Byte `j` of word `c / 8` of result `c % 8` is byte `c` of row `j`: rows and columns of eight bytes
/// change places in each word, by halves, quarters and single bytes.
#[inline(always)]
fn transpose(rows: &mut [Words; 8]) {
    for (step, mask) in [
        (4, 0x0000_0000_ffff_ffff),
        (2, 0x0000_ffff_0000_ffff),
        (1, 0x00ff_00ff_00ff_00ff),
    ] {
        for first in (0..8).filter(|j| j & step == 0) {
            let (before, after) = rows.split_at_mut(first + step);
            for (low, high) in before[first].iter_mut().zip(&mut after[0]) {
                let halves = (*low, *high);
                *low = halves.0 & mask | (halves.1 & mask) << (8 * step);
                *high = halves.0 >> (8 * step) & mask | halves.1 & !mask;
            }
        }
    }
}

impl ColumnMatrix {
    /// [`Self::gemm`], of up to [`FEW`] tokens with only the columns that each has an input for.
    /// Returns how many columns that were, for all tokens together.
    ///
    /// # Panics
    /// As [`Self::gemm`].
    pub fn gemm_non_zero(
        &self,
        exec: &Exec,
        x: &Activations,
        non_zero: &mut NonZero,
        out: &mut [f32],
    ) -> usize {
        if x.tokens() > FEW {
            self.gemm(exec, x, out);
            return x.tokens() * self.cols;
        }
        assert_eq!(out.len(), x.tokens() * self.rows, "a full matrix");
        let mut read = 0;
        for (token, out) in out.chunks_exact_mut(self.rows.max(1)).enumerate() {
            non_zero.take(x, token);
            read += non_zero.len();
            self.gemv(exec, non_zero, out);
        }
        read
    }

    /// `out[r] = Σ w[r, c] · x[c]` over the columns of `x`, `[rows]`; what
    /// [`crate::TernaryMatrix::gemm`] gives for the same token, whatever `exec` is.
    ///
    /// # Panics
    /// Where the widths of matrix and input or the length of `out` do not fit.
    pub fn gemv(&self, exec: &Exec, x: &NonZero, out: &mut [f32]) {
        assert_width(x.width(), self.cols);
        let out = Columns::new(out, 1, self.rows);
        exec.pool.run(self.rows.div_ceil(LINE), &|tile| {
            SUMS.with_borrow_mut(|acc| {
                acc.clear();
                acc.resize(LINE, 0);
                let part = ColumnTile {
                    lines: &self.data[tile * self.cols..][..self.cols],
                    columns: x.columns(),
                    codes: x.codes(),
                };
                exec.kernel.column_tile(part, acc);
                let first = tile * LINE;
                // SAFETY: each task has a row tile of its own.
                #[allow(unsafe_code)]
                let out = unsafe { out.strip(0, first, LINE) };
                epilogue::scale(acc, x.sum(), self.factor(x.step(), first), out);
            });
        });
    }
}
