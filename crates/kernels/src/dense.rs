//! Full-precision matrices: what is not ternary, and the output head.

use crate::error::{KernelError, Result};
use crate::gemm::{self, Product};
use crate::kernel::{DenseTile, Kernel};

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
    /// [`KernelError::Shape`] where the values do not fill the shape.
    pub fn new(data: Vec<f32>, rows: usize, cols: usize) -> Result<Self> {
        if rows.checked_mul(cols) != Some(data.len()) {
            return Err(KernelError::Shape(format!(
                "{} values cannot fill a matrix of {rows} × {cols}",
                data.len()
            )));
        }
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
    /// Runs on the current rayon pool; the result depends neither on it nor on how many tokens
    /// are computed at once.
    ///
    /// # Panics
    /// Where the lengths of `x` and `out` are not those of the same number of tokens.
    pub fn gemm(&self, kernel: &dyn Kernel, x: &[f32], out: &mut [f32]) {
        let tokens = out.len().checked_div(self.rows).unwrap_or(0);
        assert_eq!(
            x.len(),
            tokens * self.cols,
            "activations as wide as the matrix"
        );
        gemm::run(&Dense { w: self, x, kernel }, self.rows, tokens, out);
    }
}

struct Dense<'a> {
    w: &'a DenseMatrix,
    x: &'a [f32],
    kernel: &'a dyn Kernel,
}

impl Product for Dense<'_> {
    type Acc = f32;

    fn work_per_row(&self) -> usize {
        // A f32 weight costs about four times a ternary one.
        self.w.cols * 4
    }

    fn tile(&self, row: usize, rows: usize, token: usize, tokens: usize, acc: &mut [f32]) {
        let cols = self.w.cols;
        let tile = DenseTile {
            weights: &self.w.data[row * cols..][..rows * cols],
            x: &self.x[token * cols..][..tokens * cols],
            cols,
            rows,
            tokens,
        };
        self.kernel.dense_tile(tile, acc);
    }

    fn finish(&self, _: usize, acc: &[f32], out: &mut [f32]) {
        out.copy_from_slice(acc);
    }
}
