//! Products of six-bit weights: a quarter of a block, four rows, at a time.
//!
//! Codes 0…63 are bytes with and without a sign, and the 16 columns of a group one register of
//! activations, of which each quad takes a lane.

use core::arch::aarch64::*;

use super::registers::{load, load_codes, sdot_lane, store};
use crate::int6::{Chunk, GROUP, GROUPS};
use crate::kernel::Int6Tile;
use crate::layout::{LANES, QUAD};

/// Quads of a group.
const QUADS: usize = GROUP / QUAD;
/// Quarters of a block.
const QUARTERS: usize = 4;

/// Sums of both digits for four rows each.
type Sums = [[int32x4_t; 2]; QUARTERS];

/// See [`crate::Kernel::int6_tile`].
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot_tile(tile: Int6Tile<'_>, acc: &mut [[i32; LANES]; 2]) {
    let mut sums = [[vdupq_n_s32(0); 2]; QUARTERS];
    for (c, chunk) in tile.chunks.iter().enumerate() {
        dot_group::<0>(chunk, tile, c, &mut sums);
        dot_group::<1>(chunk, tile, c, &mut sums);
        dot_group::<2>(chunk, tile, c, &mut sums);
        dot_group::<3>(chunk, tile, c, &mut sums);
    }
    put(&sums, acc);
}

/// As [`dot_tile`] with widening products.
#[target_feature(enable = "neon")]
pub(super) fn widening_tile(tile: Int6Tile<'_>, acc: &mut [[i32; LANES]; 2]) {
    let mut sums = [[vdupq_n_s32(0); 2]; QUARTERS];
    for (c, chunk) in tile.chunks.iter().enumerate() {
        widening_group::<0>(chunk, tile, c, &mut sums);
        widening_group::<1>(chunk, tile, c, &mut sums);
        widening_group::<2>(chunk, tile, c, &mut sums);
        widening_group::<3>(chunk, tile, c, &mut sums);
    }
    put(&sums, acc);
}

/// Adds what group `G` of chunk `c` gives.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_group<const G: usize>(chunk: &Chunk, tile: Int6Tile<'_>, c: usize, sums: &mut Sums) {
    let levels = levels::<G>(chunk);
    let x = activations::<G>(tile, c);
    for (quarter, sums) in sums.iter_mut().enumerate() {
        let codes = codes::<G>(chunk, quarter);
        for (d, sum) in sums.iter_mut().enumerate() {
            let mut of_group = vdupq_n_s32(tile.offsets[d][c][G]);
            of_group = sdot_lane::<0>(of_group, codes[0], x[d]);
            of_group = sdot_lane::<1>(of_group, codes[1], x[d]);
            of_group = sdot_lane::<2>(of_group, codes[2], x[d]);
            of_group = sdot_lane::<3>(of_group, codes[3], x[d]);
            *sum = vmlaq_s32(*sum, of_group, levels[quarter]);
        }
    }
}

/// As [`dot_group`].
#[inline]
#[target_feature(enable = "neon")]
fn widening_group<const G: usize>(chunk: &Chunk, tile: Int6Tile<'_>, c: usize, sums: &mut Sums) {
    let levels = levels::<G>(chunk);
    let x = activations::<G>(tile, c);
    for (quarter, sums) in sums.iter_mut().enumerate() {
        let codes = codes::<G>(chunk, quarter);
        for (d, sum) in sums.iter_mut().enumerate() {
            let x = quads(x[d]);
            // Sums of four products fit i16: 4 · 63 · 128.
            let mut low = vmull_s8(vget_low_s8(codes[0]), x[0]);
            let mut high = vmull_s8(vget_high_s8(codes[0]), x[0]);
            for i in 1..QUADS {
                low = vmlal_s8(low, vget_low_s8(codes[i]), x[i]);
                high = vmlal_s8(high, vget_high_s8(codes[i]), x[i]);
            }
            let products = vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
            let of_group = vaddq_s32(products, vdupq_n_s32(tile.offsets[d][c][G]));
            *sum = vmlaq_s32(*sum, of_group, levels[quarter]);
        }
    }
}

/// The codes of the quads of group `G`.
#[inline]
#[target_feature(enable = "neon")]
fn codes<const G: usize>(chunk: &Chunk, quarter: usize) -> [int8x16_t; QUADS] {
    let mut codes = [vdupq_n_s8(0); QUADS];
    for (i, codes) in codes.iter_mut().enumerate() {
        let high = load(&chunk.high[i].0.as_chunks().0[quarter]);
        let low = load(&chunk.low[G / 2][i].0.as_chunks().0[quarter]);
        // Each half of the bytes is inserted between, or chosen against, the bits of the other; two
        // bits of a neighbour are left above all but the last.
        let both = match G {
            0 => vsliq_n_u8::<4>(low, high),
            1 => vsriq_n_u8::<4>(vshlq_n_u8::<2>(high), low),
            2 => vbslq_u8(vdupq_n_u8(0x0F), low, high),
            _ => vsriq_n_u8::<4>(vshrq_n_u8::<2>(high), low),
        };
        let code = if G == 3 {
            both
        } else {
            vandq_u8(both, vdupq_n_u8(0x3F))
        };
        *codes = vreinterpretq_s8_u8(code);
    }
    codes
}

/// The levels of the rows in group `G`, four at a time.
#[inline]
#[target_feature(enable = "neon")]
fn levels<const G: usize>(chunk: &Chunk) -> [int32x4_t; QUARTERS] {
    let levels = vreinterpretq_s8_u8(load(&chunk.levels.0.as_chunks().0[G]));
    let (low, high) = (vmovl_s8(vget_low_s8(levels)), vmovl_high_s8(levels));
    [
        vmovl_s16(vget_low_s16(low)),
        vmovl_high_s16(low),
        vmovl_s16(vget_low_s16(high)),
        vmovl_high_s16(high),
    ]
}

/// Both digits of the columns of group `G`.
#[inline]
#[target_feature(enable = "neon")]
fn activations<const G: usize>(tile: Int6Tile<'_>, c: usize) -> [int8x16_t; 2] {
    [
        load_codes(&tile.x[0][c].0.as_chunks().0[G]),
        load_codes(&tile.x[1][c].0.as_chunks().0[G]),
    ]
}

/// Each quad twice.
#[inline]
#[target_feature(enable = "neon")]
fn quads(x: int8x16_t) -> [int8x8_t; QUADS] {
    let x = vreinterpretq_s32_s8(x);
    [
        vreinterpret_s8_s32(vdup_laneq_s32::<0>(x)),
        vreinterpret_s8_s32(vdup_laneq_s32::<1>(x)),
        vreinterpret_s8_s32(vdup_laneq_s32::<2>(x)),
        vreinterpret_s8_s32(vdup_laneq_s32::<3>(x)),
    ]
}

/// Writes the sums of both digits.
#[inline]
#[target_feature(enable = "neon")]
fn put(sums: &Sums, acc: &mut [[i32; LANES]; 2]) {
    let [high, low] = acc;
    let outs = high.as_chunks_mut().0.iter_mut().zip(low.as_chunks_mut().0);
    for ((high, low), sums) in outs.zip(sums) {
        store(high, sums[0]);
        store(low, sums[1]);
    }
}

const _: () = assert!(GROUPS == 4 && QUADS == 4);
