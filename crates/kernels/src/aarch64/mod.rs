//! Kernels for 64-bit Arm. The loops are in `neon`, which needs nothing but `core`; the calls into
//! it and its loads, stores and instructions without stable intrinsics are the only `unsafe` parts.
#![allow(unsafe_code)]

mod neon;

use std::arch::is_aarch64_feature_detected;

use crate::activations::ActBlock;
use crate::kernel::{DenseTile, Kernel, PackedTile};
use crate::layout::{DEPTH, LANES, QUAD, WeightBlock};
use crate::planes::Planes;
use crate::scalar::Scalar;

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

/// A processor with NEON. Has loops of its own for [`Planes::TwoBit`]; the rest is [`Scalar`].
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
        if planes != Planes::TwoBit {
            return Scalar.ternary_tile(planes, tile, acc);
        }
        let tile = neon::Tile {
            weights: tile.weights,
            x: tile.x,
            stride: tile.stride,
            tokens: tile.tokens,
        };
        // SAFETY: `detect` has found these instructions.
        unsafe {
            match self.0 {
                Products::Widening => neon::widening(tile, acc),
                Products::Dot => neon::dot(tile, 0, acc),
                Products::Matrix => neon::matrix(tile, acc),
            }
        }
    }

    fn byte_tile(&self, tile: PackedTile<'_>, acc: &mut [i32]) {
        Scalar.byte_tile(tile, acc);
    }

    fn dense_tile(&self, tile: DenseTile<'_>, acc: &mut [f32]) {
        Scalar.dense_tile(tile, acc);
    }
}

impl AsRef<[u8; LANES * QUAD]> for WeightBlock {
    fn as_ref(&self) -> &[u8; LANES * QUAD] {
        &self.0
    }
}

impl AsRef<[i8; DEPTH]> for ActBlock {
    fn as_ref(&self) -> &[i8; DEPTH] {
        &self.0
    }
}
