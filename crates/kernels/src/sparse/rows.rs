//! A matrix stored row by row, of which a product computes only some.

use std::cell::RefCell;

use super::LINE;
use super::matrix::{Order, SparseMatrix, TILE_ROWS, line};
use crate::activations::Activations;
use crate::columns::Columns;
use crate::epilogue::{self, Factor};
use crate::exec::Exec;
use crate::kernel::RowPart;
use crate::layout::{LANES, QUAD, WeightBlock, tile_blocks};
use crate::packed::PackedCodes;
use crate::scales::Scales;
use crate::shape::assert_width;
use crate::vectors::vectorized;

/// Rows that one task computes.
const TASK: usize = 64;

thread_local! {
    /// Sums and scales of the rows of one task, kept by each thread.
    static SCRATCH: RefCell<(Vec<i32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// `[rows, lines of 256 columns]`: byte `j` of a line holds in bits `2k` and `2k + 1` the code of
/// column `64 k + j` of the line.
#[derive(Debug, Clone, PartialEq)]
pub struct ByRow;

/// A matrix of which rows can be left out.
pub type RowMatrix = SparseMatrix<ByRow>;

/// 32-bit words of the lines of 16 rows, `[word, row]`.
type Words = [[u32; LANES]; LANES];

impl Order for ByRow {
    fn lines(rows: usize, cols: usize) -> usize {
        rows * cols.div_ceil(LINE)
    }

    fn part(cols: usize) -> usize {
        TASK * cols.div_ceil(LINE)
    }

    fn pack(codes: &PackedCodes<'_>, part: usize, lines: &mut [WeightBlock]) {
        let width = codes.cols().div_ceil(LINE).max(1);
        vectorized(
            #[inline(always)]
            || {
                for (r, lines) in lines.chunks_mut(width).enumerate() {
                    for (i, out) in lines.iter_mut().enumerate() {
                        out.0 = line(
                            #[inline(always)]
                            |k| codes.chunk(part * TASK + r, i * LINE + k * 64),
                        );
                    }
                }
            },
        );
    }

    fn spread(lines: &[WeightBlock], cols: usize, tile: usize, out: &mut Vec<WeightBlock>) {
        let width = cols.div_ceil(LINE);
        let rows = &lines[tile * TILE_ROWS * width..];
        out.resize(tile_blocks(cols), WeightBlock::ZERO);
        vectorized(
            #[inline(always)]
            || {
                for (i, out) in out.chunks_mut(LINE / QUAD).enumerate() {
                    let mut planes: [Words; TILE_ROWS / LANES] = [[[0; LANES]; LANES]; 4];
                    let lines = rows.iter().skip(i).step_by(width).take(TILE_ROWS);
                    for (r, line) in lines.enumerate() {
                        for (words, word) in planes[r / LANES].iter_mut().zip(line.0.as_chunks().0)
                        {
                            words[r % LANES] = u32::from_le_bytes(*word);
                        }
                    }
                    for (q, block) in out.iter_mut().enumerate() {
                        let (shift, q) = (2 * (q / LANES), q % LANES);
                        let bytes = block.0.as_chunks_mut::<QUAD>().0;
                        for (lane, bytes) in bytes.iter_mut().enumerate() {
                            let codes =
                                |plane: usize| planes[plane][q][lane] >> shift & 0x0303_0303;
                            let word = codes(0) | codes(1) << 2 | codes(2) << 4 | codes(3) << 6;
                            *bytes = word.to_le_bytes();
                        }
                    }
                }
            },
        );
    }
}

impl RowMatrix {
    /// `out[i] = Σ w[rows[i], c] · x[c]` for token `token` of `x`; what
    /// [`crate::TernaryMatrix::gemm`] gives for these rows, whatever `exec` is.
    ///
    /// # Panics
    /// Where `x` is not as wide as the matrix, has steps per group or has no such token, `out` is not as long as `rows`,
    /// or there is no such row.
    pub fn gemv(&self, exec: &Exec, x: &Activations, token: usize, rows: &[u32], out: &mut [f32]) {
        assert_width(x.width(), self.cols);
        x.assert_step_per_token();
        let (step, sum) = (x.steps()[token], x.sums()[token]);
        let x = &x.rows(token)[..self.cols.div_ceil(64)];
        let lines = self.cols.div_ceil(LINE);
        let out = Columns::new(out, 1, rows.len());
        exec.pool.run(rows.len().div_ceil(TASK), &|task| {
            SCRATCH.with_borrow_mut(|(acc, scales)| {
                let first = task * TASK;
                let rows = &rows[first..];
                let part = RowPart {
                    weights: &self.data,
                    lines,
                    rows,
                    x,
                };
                let rows = &rows[..rows.len().min(TASK)];
                acc.clear();
                acc.resize(rows.len(), 0);
                exec.kernel.row_sums(part, acc);
                let factor = match &self.scales {
                    Scales::Row(all) => {
                        scales.clear();
                        scales.extend(rows.iter().map(|&r| all[r as usize]));
                        Factor::Rows(step, scales)
                    }
                    _ => self.factor(step, 0),
                };
                // SAFETY: each task has outputs of its own.
                #[allow(unsafe_code)]
                let out = unsafe { out.strip(0, first, TASK) };
                epilogue::scale(acc, sum, factor, out);
            });
        });
    }
}
