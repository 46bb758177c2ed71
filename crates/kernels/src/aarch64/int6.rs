//! Products of six-bit weights: a quarter of a block, four rows, at a time.
//!
//! Codes 0…63 are bytes with and without a sign, and the 16 columns of a group one register of
//! activations, of which each quad takes a lane.

use core::arch::aarch64::*;

use super::registers::{broadcast, load, load_codes, sdot_lane, store};
use crate::activations::ActBlock;
use crate::int6::{BIAS, Chunk, GROUP, GROUPS};
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
        let columns = Columns::of(tile, c);
        for (quarter, sums) in sums.iter_mut().enumerate() {
            let high = high(chunk, quarter);
            dot_group::<0>(chunk, columns, quarter, high, sums);
            dot_group::<1>(chunk, columns, quarter, high, sums);
            dot_group::<2>(chunk, columns, quarter, high, sums);
            dot_group::<3>(chunk, columns, quarter, high, sums);
        }
    }
    put(&sums, acc);
}

/// As [`dot_tile`] with widening products.
#[target_feature(enable = "neon")]
pub(super) fn widening_tile(tile: Int6Tile<'_>, acc: &mut [[i32; LANES]; 2]) {
    let mut sums = [[vdupq_n_s32(0); 2]; QUARTERS];
    for (c, chunk) in tile.chunks.iter().enumerate() {
        let columns = Columns::of(tile, c);
        for (quarter, sums) in sums.iter_mut().enumerate() {
            let high = high(chunk, quarter);
            widening_group::<0>(chunk, columns, quarter, high, sums);
            widening_group::<1>(chunk, columns, quarter, high, sums);
            widening_group::<2>(chunk, columns, quarter, high, sums);
            widening_group::<3>(chunk, columns, quarter, high, sums);
        }
    }
    put(&sums, acc);
}

/// What goes with one chunk.
#[derive(Clone, Copy)]
struct Columns<'a> {
    x: [&'a ActBlock; 2],
    offsets: [&'a [i32; GROUPS]; 2],
}

impl<'a> Columns<'a> {
    #[inline(always)]
    fn of(tile: Int6Tile<'a>, chunk: usize) -> Self {
        Self {
            x: tile.x.map(|x| &x[chunk]),
            offsets: tile.offsets.map(|offsets| &offsets[chunk]),
        }
    }
}

/// Adds what group `G` gives four rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_group<const G: usize>(
    chunk: &Chunk,
    columns: Columns<'_>,
    quarter: usize,
    high: [uint8x16_t; QUADS],
    sums: &mut [int32x4_t; 2],
) {
    let codes = codes::<G>(chunk, quarter, high);
    let levels = levels::<G>(chunk, quarter);
    for (d, sum) in sums.iter_mut().enumerate() {
        let x = load_codes(&columns.x[d].0.as_chunks().0[G]);
        let mut of_group = vdupq_n_s32(columns.offsets[d][G]);
        of_group = sdot_lane::<0>(of_group, codes[0], x);
        of_group = sdot_lane::<1>(of_group, codes[1], x);
        of_group = sdot_lane::<2>(of_group, codes[2], x);
        of_group = sdot_lane::<3>(of_group, codes[3], x);
        *sum = vmlaq_s32(*sum, of_group, levels);
    }
}

/// As [`dot_group`].
#[inline]
#[target_feature(enable = "neon")]
fn widening_group<const G: usize>(
    chunk: &Chunk,
    columns: Columns<'_>,
    quarter: usize,
    high: [uint8x16_t; QUADS],
    sums: &mut [int32x4_t; 2],
) {
    let codes = codes::<G>(chunk, quarter, high);
    let levels = levels::<G>(chunk, quarter);
    for (d, sum) in sums.iter_mut().enumerate() {
        let x: &[[i8; QUAD]; QUADS] = &columns.x[d].0.as_chunks().0.as_chunks().0[G];
        // Sums of four products fit i16: 4 · 32 · 128.
        let mut parts = [vdupq_n_s16(0); 2];
        for (codes, x) in codes.into_iter().zip(x) {
            // Numbers known to have no sign would be widened by instructions of their own, and then
            // there is nothing to add to the sums.
            let codes = vsubq_s8(codes, vdupq_n_s8(BIAS as i8));
            parts[0] = vmlal_s8(parts[0], vget_low_s8(codes), broadcast(x));
            parts[1] = vmlal_s8(parts[1], vget_high_s8(codes), broadcast(x));
        }
        let of_group = vpaddq_s32(vpaddlq_s16(parts[0]), vpaddlq_s16(parts[1]));
        *sum = vmlaq_s32(*sum, of_group, levels);
    }
}

/// The high bits of all groups.
#[inline]
#[target_feature(enable = "neon")]
fn high(chunk: &Chunk, quarter: usize) -> [uint8x16_t; QUADS] {
    let mut high = [vdupq_n_u8(0); QUADS];
    for (high, block) in high.iter_mut().zip(&chunk.high) {
        *high = load(&block.0.as_chunks().0[quarter]);
    }
    high
}

/// The codes of the quads of group `G`.
#[inline]
#[target_feature(enable = "neon")]
fn codes<const G: usize>(
    chunk: &Chunk,
    quarter: usize,
    high: [uint8x16_t; QUADS],
) -> [int8x16_t; QUADS] {
    let mut codes = [vdupq_n_s8(0); QUADS];
    for (i, codes) in codes.iter_mut().enumerate() {
        let low = load(&chunk.low[G / 2][i].0.as_chunks().0[quarter]);
        // Each half of the bytes is inserted between, or chosen against, the bits of the other; two
        // bits of a neighbour are left above all but the last.
        let both = match G {
            0 => vsliq_n_u8::<4>(low, high[i]),
            1 => vsriq_n_u8::<4>(vshlq_n_u8::<2>(high[i]), low),
            2 => vbslq_u8(vdupq_n_u8(0x0F), low, high[i]),
            _ => vsriq_n_u8::<4>(vshrq_n_u8::<2>(high[i]), low),
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

/// The levels of four rows in group `G`.
#[inline]
#[target_feature(enable = "neon")]
fn levels<const G: usize>(chunk: &Chunk, quarter: usize) -> int32x4_t {
    let levels: &[[u8; 4]; QUARTERS] = &chunk.levels.0.as_chunks().0.as_chunks().0[G];
    let levels = vreinterpret_s8_u32(vdup_n_u32(u32::from_ne_bytes(levels[quarter])));
    vmovl_s16(vget_low_s16(vmovl_s8(levels)))
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
