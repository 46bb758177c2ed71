//! What both sparse layouts have in common.

use std::marker::PhantomData;

use super::{LINE, check_scales};
use crate::activations::Activations;
use crate::columns::Columns;
use crate::epilogue::Factor;
use crate::error::Result;
use crate::exec::Exec;
use crate::layout::{Format, WeightBlock};
use crate::scales::Scales;
use crate::shape::{assert_width, check_width};
use crate::ternary::{TernaryMatrix, multiply_spread};

/// Rows of a row tile of [`Format::TwoBit`], which lines are spread into.
pub(crate) const TILE_ROWS: usize = Format::TwoBit.tile_rows();

/// A ternary matrix `[rows, cols]` in lines of 64 bytes, 256 codes `w + 1` each, in the order `O`.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseMatrix<O> {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) scales: Scales,
    pub(super) data: Vec<WeightBlock>,
    order: PhantomData<O>,
}

/// Where the codes of a matrix lie.
pub trait Order: Send + Sync {
    /// Lines of a matrix.
    fn lines(rows: usize, cols: usize) -> usize;

    /// Writes the codes of row `row` into the lines.
    fn write(lines: &mut [WeightBlock], cols: usize, row: usize, codes: &[i8]);

    /// Row tile `tile` of [`Format::TwoBit`] from the lines of a matrix of so many columns.
    fn spread(lines: &[WeightBlock], cols: usize, tile: usize, out: &mut Vec<WeightBlock>);
}

impl<O: Order> SparseMatrix<O> {
    /// The same matrix in this layout.
    ///
    /// # Errors
    /// [`crate::KernelError::Shape`] where it has scales per group.
    pub fn new(matrix: &TernaryMatrix) -> Result<Self> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        check_scales(matrix.scales(), rows, cols)?;
        check_width("ternary weights", cols)?;
        let mut data = vec![WeightBlock::ZERO; O::lines(rows, cols)];
        let mut codes = vec![0i8; cols];
        for row in 0..rows {
            matrix.row_codes(row, &mut codes);
            O::write(&mut data, cols, row, &codes);
        }
        Ok(Self {
            rows,
            cols,
            scales: matrix.scales().clone(),
            data,
            order: PhantomData,
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

    /// `out[t, r] = Σ w[r, c] · x[t, c]` with nothing left out: [`TernaryMatrix::gemm`] bit for bit.
    /// Row tiles are brought into the layout of [`Format::TwoBit`] one by one, which many tokens
    /// share.
    ///
    /// # Panics
    /// Where the widths of matrix and activations or the length of `out` do not fit.
    pub fn gemm(&self, exec: &Exec, x: &Activations, out: &mut [f32]) {
        assert_width(x.width(), self.cols);
        let out = Columns::new(out, x.tokens(), self.rows);
        exec.pool.run(self.rows.div_ceil(TILE_ROWS), &|tile| {
            self.multiply_tile(exec, x, tile, &out, tile * TILE_ROWS);
        });
    }

    /// One row tile for all tokens, to `at` and the following columns of `out`.
    pub(crate) fn multiply_tile(
        &self,
        exec: &Exec,
        x: &Activations,
        tile: usize,
        out: &Columns<'_, f32>,
        at: usize,
    ) {
        let spread = |out: &mut Vec<WeightBlock>| O::spread(&self.data, self.cols, tile, out);
        let factor = |step: f32| self.factor(step, tile * TILE_ROWS);
        multiply_spread(exec, x, spread, factor, out, at);
    }

    /// What the sums of a token with this step are multiplied with, from row `first` on.
    pub(super) fn factor(&self, step: f32, first: usize) -> Factor<'_> {
        match &self.scales {
            Scales::Tensor(scale) => Factor::Step(step * scale),
            Scales::Row(scales) => Factor::Rows(step, &scales[first..]),
            Scales::Group(_) => unreachable!("refused by `new`"),
        }
    }
}

/// Bits of plane `k` of a line.
pub(super) fn put(line: &mut WeightBlock, place: usize, code: i8) {
    debug_assert!(place < LINE);
    line.0[place % 64] |= ((code + 1) as u8) << (2 * (place / 64));
}
