//! A matrix stored column by column, of which a product reads only some.

use std::cell::RefCell;

use super::{LINE, NonZero, SparseLimits, check_scales, enough};
use crate::columns::Columns;
use crate::epilogue::{self, Factor};
use crate::error::Result;
use crate::exec::Exec;
use crate::kernel::ColumnTile;
use crate::layout::WeightBlock;
use crate::scales::Scales;
use crate::shape::{assert_width, check_width};
use crate::ternary::TernaryMatrix;

thread_local! {
    /// Sums of one row tile, kept by each thread.
    static SUMS: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
}

/// A ternary matrix `[rows, cols]` as `[row tiles of 256, cols]` lines of 64 bytes: byte `j` of a
/// line holds in bits `2k` and `2k + 1` the code `w + 1` of row `64 k + j` of the tile. A column
/// that is left out is a line of the cache that is not read.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnMatrix {
    rows: usize,
    cols: usize,
    scales: Scales,
    data: Vec<WeightBlock>,
}

impl ColumnMatrix {
    /// The same matrix in this layout.
    ///
    /// # Errors
    /// [`crate::KernelError::Shape`] where it has scales per group.
    pub fn new(matrix: &TernaryMatrix) -> Result<Self> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        check_scales(matrix.scales(), rows, cols)?;
        check_width("ternary weights", cols)?;
        let mut data = vec![WeightBlock::ZERO; rows.div_ceil(LINE) * cols];
        let mut codes = vec![0i8; cols];
        for r in 0..rows {
            matrix.row_codes(r, &mut codes);
            let (plane, byte) = (r % LINE / 64, r % 64);
            let lines = &mut data[r / LINE * cols..][..cols];
            for (line, code) in lines.iter_mut().zip(&codes) {
                line.0[byte] |= ((code + 1) as u8) << (2 * plane);
            }
        }
        Ok(Self {
            rows,
            cols,
            scales: matrix.scales().clone(),
            data,
        })
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

    /// Bytes of the weights.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(self.data.as_slice()) + self.scales.bytes()
    }

    /// Whether [`Self::gemv`] takes less time than the dense product for so many non-zero inputs:
    /// [`SparseLimits::columns`] of the kernel.
    #[must_use]
    pub fn wins(&self, exec: &Exec, non_zero: usize) -> bool {
        let SparseLimits { columns, .. } = exec.kernel.sparse_limits();
        enough(non_zero, self.cols, columns)
    }

    /// `out[r] = Σ w[r, c] · x[c]` over the columns of `x`, `[rows]`; what
    /// [`TernaryMatrix::gemm`] gives for the same token, whatever `exec` is.
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
                let factor = match &self.scales {
                    Scales::Row(scales) => Factor::Rows(x.step(), &scales[first..]),
                    Scales::Tensor(scale) => Factor::Step(x.step() * scale),
                    Scales::Group(_) => unreachable!("refused by `new`"),
                };
                // SAFETY: each task has a row tile of its own.
                #[allow(unsafe_code)]
                let out = unsafe { out.strip(0, first, LINE) };
                epilogue::scale(acc, x.sum(), factor, out);
            });
        });
    }
}
