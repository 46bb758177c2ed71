//! Kernels for 64-bit Arm. The one call from plain code into each file's loops, and loads, stores and
//! instructions without stable intrinsics, are the only `unsafe` parts. The loops need nothing but
//! `core`.
#![allow(unsafe_code)]

mod base3;
mod bytes;
mod dense;
pub(crate) mod halves;
mod int6;
mod lookup;
mod neon;
mod planes;
mod registers;
mod sparse;

use std::arch::is_aarch64_feature_detected;

use crate::activations::ActBlock;
use crate::arrays::{inputs_of, tokens_from, vectors_of, word};
use crate::kernel::{ColumnTile, DenseTile, Int6Tile, Kernel, LookupTile, PackedTile, RowPart};
use crate::layout::LANES;
use crate::planes::Planes;
use crate::sparse::SparseLimits;

/// Which products of bytes the processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Products {
    /// Widening ones: every 64-bit Arm processor.
    Widening,
    /// `sdot`: four columns of four rows.
    Dot,
    /// `smmla`: eight columns of two rows and two tokens; for the last token `sdot`.
    Matrix,
}

/// A processor with NEON.
#[derive(Debug, Clone, Copy)]
pub struct Neon(Products);

impl Neon {
    /// The kernels that this processor can run, best first.
    #[must_use]
    pub fn detect() -> Vec<Self> {
        let dot = is_aarch64_feature_detected!("dotprod");
        let all = [
            (
                Products::Matrix,
                dot && is_aarch64_feature_detected!("i8mm"),
            ),
            (Products::Dot, dot),
            (Products::Widening, is_aarch64_feature_detected!("neon")),
        ];
        let found = all.into_iter().filter(|(_, found)| *found);
        found.map(|(products, _)| Self(products)).collect()
    }
}

impl Kernel for Neon {
    fn name(&self) -> &'static str {
        match self.0 {
            Products::Widening => "neon",
            Products::Dot => "neondot",
            Products::Matrix => "neoni8mm",
        }
    }

    fn ternary_tile(&self, planes: Planes, tile: PackedTile<'_>, acc: &mut [i32]) {
        // As many tokens at once as leave registers for what a format is taken apart with.
        // SAFETY: `detect` has found these instructions.
        unsafe {
            match (self.0, planes) {
                (Products::Widening, Planes::TwoBit) => neon::widening::<4>(tile, acc),
                (Products::Widening, Planes::Base3) => neon::widening::<5>(tile, acc),
                (Products::Dot, Planes::TwoBit) => neon::dot::<4, 4, 4>(tile, acc),
                (Products::Dot, Planes::Base3) => neon::dot::<5, 3, 1>(tile, acc),
                (Products::Matrix, Planes::TwoBit) => neon::matrix::<4, 4, 4>(tile, acc),
                (Products::Matrix, Planes::Base3) => neon::matrix::<5, 3, 1>(tile, acc),
            }
        }
    }

    fn byte_tile(&self, tile: PackedTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found these instructions.
        unsafe {
            match self.0 {
                Products::Widening => bytes::widening_tile(tile, acc),
                Products::Dot | Products::Matrix => bytes::dot_tile(tile, acc),
            }
        }
    }

    fn int6_tile(&self, tile: Int6Tile<'_>, acc: &mut [[i32; LANES]; 2]) {
        // SAFETY: `detect` has found these instructions.
        unsafe {
            match self.0 {
                Products::Widening => int6::widening_tile(tile, acc),
                Products::Dot | Products::Matrix => int6::dot_tile(tile, acc),
            }
        }
    }

    fn column_tile(&self, tile: ColumnTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found these instructions.
        unsafe {
            match self.0 {
                Products::Widening => sparse::widening_columns(tile, acc),
                Products::Dot | Products::Matrix => sparse::dot_columns(tile, acc),
            }
        }
    }

    fn row_sums(&self, part: RowPart<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found these instructions.
        unsafe {
            match self.0 {
                Products::Widening => sparse::widening_rows(part, acc),
                Products::Dot | Products::Matrix => sparse::dot_rows(part, acc),
            }
        }
    }

    fn sparse_limits(&self) -> SparseLimits {
        sparse::LIMITS
    }

    fn lookup_tile(&self, tile: LookupTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found NEON.
        unsafe { lookup::lookup_tile(tile, acc) }
    }

    fn dense_tile(&self, tile: DenseTile<'_>, acc: &mut [f32]) {
        // SAFETY: `detect` has found NEON.
        unsafe { dense::dense_tile(tile, acc) }
    }
}

/// Block `d` of some tokens: see [`crate::arrays`].
#[inline(always)]
fn blocks_of<'a, const T: usize>(x: &[&'a [ActBlock]; T], d: usize) -> [&'a ActBlock; T] {
    x.map(|x| &x[d])
}
