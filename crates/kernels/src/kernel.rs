//! What an instruction set has to provide.

use crate::activations::ActBlock;
use crate::ternary::WeightBlock;

/// A block of a ternary product: `rows` rows of weights against `tokens` rows of activations.
#[derive(Debug, Clone, Copy)]
pub struct TernaryTile<'a> {
    /// `rows × blocks` packed weights.
    pub weights: &'a [WeightBlock],
    /// `tokens × blocks` activation codes.
    pub x: &'a [ActBlock],
    /// Blocks of 128 along the shared dimension.
    pub blocks: usize,
    /// Rows of weights.
    pub rows: usize,
    /// Rows of activations.
    pub tokens: usize,
}

impl<'a> TernaryTile<'a> {
    /// `R` rows of weights from `first` on.
    #[inline]
    pub(crate) fn rows<const R: usize>(&self, first: usize) -> [&'a [WeightBlock]; R] {
        std::array::from_fn(|r| &self.weights[(first + r) * self.blocks..][..self.blocks])
    }

    /// `T` rows of activations from `first` on.
    #[inline]
    pub(crate) fn tokens<const T: usize>(&self, first: usize) -> [&'a [ActBlock]; T] {
        std::array::from_fn(|t| &self.x[(first + t) * self.blocks..][..self.blocks])
    }
}

/// A block of an f32 product: `rows` rows of weights against `tokens` rows of activations.
#[derive(Debug, Clone, Copy)]
pub struct DenseTile<'a> {
    /// `rows × cols` weights.
    pub weights: &'a [f32],
    /// `tokens × cols` activations.
    pub x: &'a [f32],
    /// Width of both.
    pub cols: usize,
    /// Rows of weights.
    pub rows: usize,
    /// Rows of activations.
    pub tokens: usize,
}

impl<'a> DenseTile<'a> {
    /// `R` rows of weights from `first` on.
    #[inline]
    pub(crate) fn rows<const R: usize>(&self, first: usize) -> [&'a [f32]; R] {
        std::array::from_fn(|r| &self.weights[(first + r) * self.cols..][..self.cols])
    }

    /// `T` rows of activations from `first` on.
    #[inline]
    pub(crate) fn tokens<const T: usize>(&self, first: usize) -> [&'a [f32]; T] {
        std::array::from_fn(|t| &self.x[(first + t) * self.cols..][..self.cols])
    }
}

/// The inner loops of one instruction set.
///
/// A value that implements this proves that the processor can run it: it is only to be had from
/// its `detect`, through [`crate::select`].
pub trait Kernel: Send + Sync + std::fmt::Debug {
    /// Name for `TRITBURN_KERNEL`, logs and benchmarks.
    fn name(&self) -> &'static str;

    /// `acc[t · rows + r] = Σ (w[r] + 1) · x[t]`, exact in i32: the weights enter as their codes 0,
    /// 1, 2, and the caller takes the sum of the activations off.
    fn ternary_tile(&self, tile: TernaryTile<'_>, acc: &mut [i32]);

    /// `acc[t · rows + r] = Σ w[r] · x[t]`, in an order of additions that does not depend on the
    /// tile's shape.
    fn dense_tile(&self, tile: DenseTile<'_>, acc: &mut [f32]);

    /// `out += Σ weights[i] · rows[i]`, where row `i` has the length of `out`.
    fn add_weighted_rows(&self, weights: &[f32], rows: &[f32], out: &mut [f32]);

    /// [`tritburn_quant::act::absmax_int8`].
    fn quantize(&self, x: &[f32], codes: &mut [i8]) -> f32;
}

/// Plain code for [`Kernel::add_weighted_rows`], compiled for each instruction set.
#[inline(always)]
pub(crate) fn add_weighted_rows(weights: &[f32], rows: &[f32], out: &mut [f32]) {
    for (weight, row) in weights.iter().zip(rows.chunks_exact(out.len().max(1))) {
        for (o, v) in out.iter_mut().zip(row) {
            *o += weight * v;
        }
    }
}
