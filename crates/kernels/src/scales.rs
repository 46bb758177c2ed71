//! What the codes of a ternary matrix stand for.

use crate::activations::GROUP;
use crate::error::{KernelError, Result};

/// Scales of a matrix `[rows, cols]`: weight `w[r, c]` is `code · scale`.
#[derive(Debug, Clone, PartialEq)]
pub enum Scales {
    /// One for all: BitNet b1.58 (arXiv 2402.17764).
    Tensor(f32),
    /// One a row, `[rows]`.
    Row(Vec<f32>),
    /// One for each 128 columns of a row, row major `[rows, ceil(cols / 128)]`, as models with
    /// groups of 128 carry.
    Group(Vec<f32>),
}

impl Scales {
    /// Whether there are as many scales as a matrix of this shape needs.
    pub(crate) fn check(&self, rows: usize, cols: usize) -> Result<()> {
        let (found, wanted) = match self {
            Self::Tensor(_) => return Ok(()),
            Self::Row(scales) => (scales.len(), rows),
            Self::Group(scales) => (scales.len(), rows * cols.div_ceil(GROUP)),
        };
        if found == wanted {
            return Ok(());
        }
        Err(KernelError::Shape(format!(
            "{found} scales for a matrix of {rows} × {cols}: {wanted} are needed"
        )))
    }

    /// Bytes that the scales take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Tensor(_) => size_of::<f32>(),
            Self::Row(scales) | Self::Group(scales) => size_of_val(scales.as_slice()),
        }
    }
}
