//! Full-precision matrices: what is not ternary, and the output head.

use crate::columns::Columns;
use crate::error::Result;
use crate::exec::Exec;
use crate::kernel::DenseTile;
use crate::memory::Region;
use crate::pool::Pool;
use crate::shape::{assert_width, check_fill};

/// Rows that one task computes for one token.
const ROWS: usize = 16;
/// Rows that one task computes for many tokens: their weights stay in the second-level cache, and
/// all tokens are read that much less often.
const MANY_ROWS: usize = 32;
/// Most tokens in a tile.
const TILE_TOKENS: usize = 12;

/// A matrix `[rows, cols]` of f32, row major.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseMatrix {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl DenseMatrix {
    /// From row major values.
    ///
    /// # Errors
    /// [`crate::KernelError::Shape`] where the values do not fill the shape.
    pub fn new(data: Vec<f32>, rows: usize, cols: usize) -> Result<Self> {
        check_fill(data.len(), rows, cols)?;
        Ok(Self { rows, cols, data })
    }

    /// From rows that `row` writes, on all threads of `pool` and in any order.
    ///
    /// # Errors
    /// [`crate::KernelError::Shape`] where there are more values than can be counted.
    pub fn from_rows(
        pool: &Pool,
        rows: usize,
        cols: usize,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Self> {
        let len = rows.saturating_mul(cols);
        check_fill(len, rows, cols)?;
        let mut data = vec![0f32; len];
        let all = Columns::new(&mut data, rows, cols);
        pool.run(rows.div_ceil(ROWS), &|task| {
            for r in task * ROWS..rows.min((task + 1) * ROWS) {
                // SAFETY: each task has rows of its own, one at a time.
                #[allow(unsafe_code)]
                let values = unsafe { all.strip(r, 0, cols) };
                row(r, values);
            }
        });
        Ok(Self { rows, cols, data })
    }

    /// Number of rows: the output width.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: the input width.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes that the weights take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }

    /// Where the weights lie.
    #[must_use]
    pub fn region(&self) -> Region<'_> {
        Region::of_floats(&self.data)
    }

    /// One row.
    ///
    /// # Panics
    /// Where there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..][..self.cols]
    }

    /// `out[t, r] = Σ w[r, c] · x[t, c]`, `x` row major `[tokens, cols]`, `out` `[tokens, rows]`.
    ///
    /// The result depends neither on the number of threads nor on how many tokens are computed at
    /// once.
    ///
    /// # Panics
    /// Where the lengths of `x` and `out` are not those of the same number of tokens.
    pub fn gemm(&self, exec: &Exec, x: &[f32], out: &mut [f32]) {
        let tokens = out.len().checked_div(self.rows).unwrap_or(0);
        assert_width(x.len(), tokens * self.cols);
        let columns = Columns::new(out, tokens, self.rows);
        let rows = if tokens > 1 { MANY_ROWS } else { ROWS };
        exec.pool.run(self.rows.div_ceil(rows), &|task| {
            let first = task * rows;
            let n = rows.min(self.rows - first);
            let mut acc = [0f32; MANY_ROWS * TILE_TOKENS];
            for token in (0..tokens).step_by(TILE_TOKENS) {
                let some = TILE_TOKENS.min(tokens - token);
                let acc = &mut acc[..n * some];
                let tile = DenseTile {
                    weights: &self.data[first * self.cols..][..n * self.cols],
                    x: &x[token * self.cols..][..some * self.cols],
                    cols: self.cols,
                    rows: n,
                    tokens: some,
                };
                exec.kernel.dense_tile(tile, acc);
                for (t, acc) in acc.chunks_exact(n).enumerate() {
                    // SAFETY: each task has rows of its own.
                    #[allow(unsafe_code)]
                    let out = unsafe { columns.strip(token + t, first, n) };
                    out.copy_from_slice(acc);
                }
            }
        });
    }
}
