//! A matrix stored row by row, of which a product computes only some.

use std::cell::RefCell;

use super::{LINE, SparseLimits, check_scales, enough};
use crate::activations::Activations;
use crate::columns::Columns;
use crate::epilogue::{self, Factor};
use crate::error::Result;
use crate::exec::Exec;
use crate::kernel::RowPart;
use crate::layout::WeightBlock;
use crate::scales::Scales;
use crate::shape::assert_width;
use crate::ternary::TernaryMatrix;

/// Rows that one task computes.
const TASK: usize = 64;

thread_local! {
    /// Sums and scales of the rows of one task, kept by each thread.
    static SCRATCH: RefCell<(Vec<i32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// A ternary matrix `[rows, cols]` as `[rows, lines of 256 columns]` of 64 bytes each: byte `j` of a
/// line holds in bits `2k` and `2k + 1` the code `w + 1` of column `64 k + j` of the line.
#[derive(Debug, Clone, PartialEq)]
pub struct RowMatrix {
    rows: usize,
    cols: usize,
    scales: Scales,
    data: Vec<WeightBlock>,
}

impl RowMatrix {
    /// The same matrix in this layout.
    ///
    /// # Errors
    /// [`crate::KernelError::Shape`] where it has scales per group.
    pub fn new(matrix: &TernaryMatrix) -> Result<Self> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        check_scales(matrix.scales(), rows, cols)?;
        let lines = cols.div_ceil(LINE);
        let mut data = vec![WeightBlock::ZERO; rows * lines];
        let mut codes = vec![0i8; cols];
        for (r, lines) in data.chunks_exact_mut(lines.max(1)).enumerate() {
            matrix.row_codes(r, &mut codes);
            for (line, codes) in lines.iter_mut().zip(codes.chunks(LINE)) {
                for (plane, codes) in codes.chunks(64).enumerate() {
                    for (byte, code) in line.0.iter_mut().zip(codes) {
                        *byte |= ((code + 1) as u8) << (2 * plane);
                    }
                }
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

    /// Whether [`Self::gemv`] takes less time for so many rows than the dense product for all:
    /// [`SparseLimits::rows`] of the kernel.
    #[must_use]
    pub fn wins(&self, exec: &Exec, rows: usize) -> bool {
        let SparseLimits { rows: limit, .. } = exec.kernel.sparse_limits();
        enough(rows, self.rows, limit)
    }

    /// `out[i] = Σ w[rows[i], c] · x[c]` for the one token of `x`; what [`TernaryMatrix::gemm`]
    /// gives for these rows, whatever `exec` is.
    ///
    /// # Panics
    /// Where `x` is not one token as wide as the matrix, `out` is not as long as `rows`, or there is
    /// no such row.
    pub fn gemv(&self, exec: &Exec, x: &Activations, rows: &[u32], out: &mut [f32]) {
        assert_width(x.width(), self.cols);
        assert_eq!(x.tokens(), 1, "one token");
        let lines = self.cols.div_ceil(LINE);
        let out = Columns::new(out, 1, rows.len());
        exec.pool.run(rows.len().div_ceil(TASK), &|task| {
            SCRATCH.with_borrow_mut(|(acc, scales)| {
                let first = task * TASK;
                let rows = &rows[first..rows.len().min(first + TASK)];
                acc.clear();
                acc.resize(rows.len(), 0);
                let part = RowPart {
                    weights: &self.data,
                    lines,
                    rows,
                    x: &x.rows(0)[..self.cols.div_ceil(64)],
                };
                exec.kernel.row_sums(part, acc);
                let step = x.steps()[0];
                let factor = match &self.scales {
                    Scales::Row(all) => {
                        scales.clear();
                        scales.extend(rows.iter().map(|&r| all[r as usize]));
                        Factor::Rows(step, scales)
                    }
                    Scales::Tensor(scale) => Factor::Step(step * scale),
                    Scales::Group(_) => unreachable!("refused by `new`"),
                };
                // SAFETY: each task has outputs of its own.
                #[allow(unsafe_code)]
                let out = unsafe { out.strip(0, first, TASK) };
                epilogue::scale(acc, x.sums()[0], factor, out);
            });
        });
    }
}
