//! Output head and embedding.

use tritburn_kernels::head::WideActivations;
use tritburn_kernels::{DenseMatrix, Exec, Int8Matrix};

/// How output head and embedding are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadFormat {
    /// As f32, for comparisons.
    F32,
    /// As int8 with one scale a row: a quarter of the bytes.
    Int8,
}

/// A matrix `[vocab, hidden]`.
#[derive(Debug)]
pub(crate) enum Table {
    F32(DenseMatrix),
    Int8(Int8Matrix),
}

impl Table {
    pub(crate) fn format(&self) -> HeadFormat {
        match self {
            Self::F32(_) => HeadFormat::F32,
            Self::Int8(_) => HeadFormat::Int8,
        }
    }

    /// Bytes that a product reads.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(table) => table.bytes(),
            Self::Int8(table) => table.bytes(),
        }
    }

    /// Writes the embedding of a token to `out`, `[hidden]`.
    pub(crate) fn row(&self, token: usize, out: &mut [f32]) {
        match self {
            Self::F32(table) => out.copy_from_slice(table.row(token)),
            Self::Int8(table) => table.row(token, out),
        }
    }

    /// Logits, `[tokens, vocab]`, of `x`, `[tokens, hidden]`.
    pub(crate) fn logits(
        &self,
        exec: &Exec,
        x: &[f32],
        hidden: usize,
        wide: &mut WideActivations,
        out: &mut [f32],
    ) {
        match self {
            Self::F32(table) => table.gemm(exec, x, out),
            Self::Int8(table) => {
                wide.quantize(exec, x, hidden);
                table.gemm(exec, wide, out);
            }
        }
    }
}
