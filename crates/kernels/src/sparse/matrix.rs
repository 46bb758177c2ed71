//! What both sparse layouts have in common.

use std::marker::PhantomData;

use super::{LINE, check_scales};
use crate::activations::Activations;
use crate::blocks::{Blocks, filled};
use crate::columns::Columns;
use crate::epilogue::Factor;
use crate::error::Result;
use crate::exec::Exec;
use crate::layout::{Format, WeightBlock};
use crate::memory::Region;
use crate::packed::PackedCodes;
use crate::pool::Pool;
use crate::scales::Scales;
use crate::shape::assert_width;
use crate::ternary::{Target, TernaryMatrix, multiply_spread};

/// Rows of a row tile of [`Format::TwoBit`], which lines are spread into.
pub(crate) const TILE_ROWS: usize = Format::TwoBit.tile_rows();

/// A ternary matrix `[rows, cols]` in lines of 64 bytes, 256 codes `w + 1` each, in the order `O`.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseMatrix<O> {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) scales: Scales,
    pub(super) data: Blocks,
    order: PhantomData<O>,
}

/// Where the codes of a matrix lie.
pub trait Order: Send + Sync {
    /// Lines of a matrix.
    fn lines(rows: usize, cols: usize) -> usize;

    /// Lines that [`Self::pack`] fills at once.
    fn part(cols: usize) -> usize;

    /// Packs the lines of part `part`.
    fn pack(codes: &PackedCodes<'_>, part: usize, lines: &mut [WeightBlock]);

    /// Row tile `tile` of [`Format::TwoBit`] from the lines of a matrix of so many columns.
    fn spread(lines: &[WeightBlock], cols: usize, tile: usize, out: &mut Vec<WeightBlock>);
}

impl<O: Order> SparseMatrix<O> {
    /// The same matrix in this layout.
    ///
    /// # Errors
    /// [`crate::KernelError::Shape`] where it has scales per group.
    pub fn new(matrix: &TernaryMatrix) -> Result<Self> {
        Self::pack(&Pool::new(1)?, &matrix.to_packed()?)
    }

    /// From codes as they are stored, on all threads of `pool`.
    ///
    /// # Errors
    /// [`crate::KernelError::Shape`] where they have scales per group.
    pub fn pack(pool: &Pool, codes: &PackedCodes<'_>) -> Result<Self> {
        let (rows, cols, scales) = (codes.rows(), codes.cols(), codes.scales().clone());
        check_scales(&scales, rows, cols)?;
        let (lines, part) = (O::lines(rows, cols), O::part(cols));
        let data = filled(pool, lines, part, &|part, lines| {
            O::pack(codes, part, lines);
        });
        Ok(Self {
            rows,
            cols,
            scales,
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
        size_of_val(&*self.data) + self.scales.bytes()
    }

    /// Where the weights lie.
    #[must_use]
    pub fn region(&self) -> Region<'_> {
        Region::of(&self.data)
    }

    /// What a code of 1 stands for.
    #[must_use]
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// `out[t, r] = Σ w[r, c] · x[t, c]` with nothing left out: [`TernaryMatrix::gemm`] bit for bit.
    /// Row tiles are brought into the layout of [`Format::TwoBit`] one by one, which many tokens
    /// share.
    ///
    /// # Panics
    /// Where the widths of matrix and activations or the length of `out` do not fit, or activations have steps per
    /// group.
    pub fn gemm(&self, exec: &Exec, x: &Activations, out: &mut [f32]) {
        assert_width(x.width(), self.cols);
        let out = Columns::new(out, x.tokens(), self.rows);
        exec.pool.run(self.rows.div_ceil(TILE_ROWS), &|tile| {
            // SAFETY: each task has a row tile of its own.
            #[allow(unsafe_code)]
            let out = unsafe { Target::store(&out, tile * TILE_ROWS) };
            self.multiply_tile(exec, x, tile, out);
        });
    }

    /// One row tile for all tokens.
    pub(crate) fn multiply_tile(&self, exec: &Exec, x: &Activations, tile: usize, out: Target<'_>) {
        let spread = |out: &mut Vec<WeightBlock>| O::spread(&self.data, self.cols, tile, out);
        let factor = |step: f32| self.factor(step, tile * TILE_ROWS);
        multiply_spread(exec, x, spread, factor, out);
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

/// Four planes of 64 codes each as the bytes of a line.
#[inline(always)]
pub(super) fn line(plane: impl Fn(usize) -> [u8; 64]) -> [u8; 64] {
    let mut line = [0; 64];
    for k in 0..LINE / 64 {
        for (byte, code) in line.iter_mut().zip(plane(k)) {
            *byte |= code << (2 * k);
        }
    }
    line
}
