//! Output head and embedding.

use tritburn_kernels::head::WideActivations;
use tritburn_kernels::memory::Region;
use tritburn_kernels::{DenseMatrix, Exec, Int6Matrix, Int8Matrix, Pool, Result};

/// How output head and embedding are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadFormat {
    /// As f32, for comparisons.
    F32,
    /// As int8 with one scale a row: a quarter of the bytes.
    Int8,
    /// In six bits with a scale for 16 columns, 6.5 bits a weight: a fifth of the bytes.
    Int6,
}

impl HeadFormat {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::F32, Self::Int8, Self::Int6];

    /// Name for options and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
            Self::Int6 => "int6",
        }
    }
}

/// A matrix `[vocab, hidden]`.
#[derive(Debug)]
pub(crate) enum Table {
    F32(DenseMatrix),
    Int8(Int8Matrix),
    Int6(Int6Matrix),
}

impl Table {
    /// Takes rows that `row` writes, on all threads of `pool` and in any order.
    pub(crate) fn from_rows(
        pool: &Pool,
        [rows, cols]: [usize; 2],
        format: HeadFormat,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Self> {
        Ok(match format {
            HeadFormat::F32 => Self::F32(DenseMatrix::from_rows(pool, rows, cols, row)?),
            HeadFormat::Int8 => Self::Int8(Int8Matrix::quantize(pool, rows, cols, row)?),
            HeadFormat::Int6 => Self::Int6(Int6Matrix::quantize(pool, rows, cols, row)?),
        })
    }

    pub(crate) fn format(&self) -> HeadFormat {
        match self {
            Self::F32(_) => HeadFormat::F32,
            Self::Int8(_) => HeadFormat::Int8,
            Self::Int6(_) => HeadFormat::Int6,
        }
    }

    /// Bytes that a product reads.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(table) => table.bytes(),
            Self::Int8(table) => table.bytes(),
            Self::Int6(table) => table.bytes(),
        }
    }

    /// Where the weights lie.
    pub(crate) fn region(&self) -> Region<'_> {
        match self {
            Self::F32(table) => table.region(),
            Self::Int8(table) => table.region(),
            Self::Int6(table) => table.region(),
        }
    }

    /// Writes the embedding of a token to `out`, `[hidden]`.
    pub(crate) fn row(&self, token: usize, out: &mut [f32]) {
        match self {
            Self::F32(table) => out.copy_from_slice(table.row(token)),
            Self::Int8(table) => table.row(token, out),
            Self::Int6(table) => table.row(token, out),
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
            Self::Int6(table) => {
                wide.quantize(exec, x, hidden);
                table.gemm(exec, wide, out);
            }
        }
    }
}
