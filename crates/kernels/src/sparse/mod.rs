//! Products that leave out zeros: the sparse path of BitNet a4.8 (arXiv 2411.04965, §2.1).
//!
//! Of a gated feed-forward block the gate is computed first; `up` then only for the channels that
//! the gate lets through ([`RowMatrix`]), and `down` reads only the columns whose input is not zero
//! ([`ColumnMatrix`]). The layout of [`crate::TernaryMatrix`] interleaves 64 rows and four columns,
//! where single rows and columns cannot be left out, so both are layouts of their own, of 2 bits a
//! weight. A product of many tokens brings them into that of [`crate::TernaryMatrix`] tile by tile, so
//! that no matrix is held twice. Results are those of [`crate::TernaryMatrix::gemm`] bit for bit.

mod columns;
mod inputs;
mod matrix;
mod rows;

pub use columns::{ByColumn, ColumnMatrix};
pub use inputs::NonZero;
pub use matrix::{Order, SparseMatrix};
pub use rows::{ByRow, RowMatrix};

use crate::error::{KernelError, Result};
use crate::scales::Scales;

/// From which share of zeros on the sparse products of a kernel take less time than its dense ones,
/// measured with weights that do not fit the cache, where a machine was at hand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SparseLimits {
    /// Share of inputs that are zero for [`ColumnMatrix`].
    pub columns: f32,
    /// Share of rows that are left out for [`RowMatrix`].
    pub rows: f32,
}

/// Tokens up to which leaving out for each by itself takes less time than leaving out nothing for all
/// together.
pub const FEW: usize = 4;

/// A line of packed codes: 256 of them.
pub(crate) const LINE: usize = 256;

/// Scales that sums of whole rows can be multiplied with.
fn check_scales(scales: &Scales, rows: usize, cols: usize) -> Result<()> {
    if matches!(scales, Scales::Group(_)) {
        return Err(KernelError::Shape(
            "sparse products take scales per tensor or row, not per group".into(),
        ));
    }
    scales.check(rows, cols)
}
