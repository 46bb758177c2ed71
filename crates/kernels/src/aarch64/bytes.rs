//! Products of weights 0…255. Arm multiplies signed bytes, so 128 is taken off each weight, and what
//! that leaves out is added at the end.

use core::arch::aarch64::*;

use super::registers::{broadcast, load, load_codes, sdot, sdot_lane, store};
use super::{blocks_of, tokens_from};
use crate::kernel::PackedTile;
use crate::layout::{LANES, QUAD, WeightBlock};

/// What is taken off.
const OFFSET: u8 = 128;

/// See [`crate::Kernel::byte_tile`].
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot_tile(tile: PackedTile<'_>, acc: &mut [i32]) {
    let mut t = 0;
    while t < tile.tokens {
        t += if tile.tokens - t >= 2 {
            dot_tokens::<2>(tile, t, acc)
        } else {
            dot_tokens::<1>(tile, t, acc)
        };
    }
}

/// `T` tokens from `t` on; returns `T`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_tokens<const T: usize>(tile: PackedTile<'_>, t: usize, acc: &mut [i32]) -> usize {
    let rows = tokens_from::<T>(tile, t);
    let mut sums = [[vdupq_n_s32(0); 4]; T];
    let mut totals = [vdupq_n_s32(0); T];
    for (d, weights) in tile.deep_blocks().iter().enumerate() {
        let blocks = blocks_of(&rows, d);
        for (i, weights) in weights.as_chunks::<QUAD>().0.iter().enumerate() {
            let mut x = [vdupq_n_s8(0); T];
            for k in 0..T {
                x[k] = load_codes(&blocks[k].0.as_chunks().0[i]);
                totals[k] = sdot(totals[k], vdupq_n_s8(1), x[k]);
            }
            dot_quad::<T, 0>(&weights[0], x, &mut sums);
            dot_quad::<T, 1>(&weights[1], x, &mut sums);
            dot_quad::<T, 2>(&weights[2], x, &mut sums);
            dot_quad::<T, 3>(&weights[3], x, &mut sums);
        }
    }
    for (k, (sums, total)) in sums.iter().zip(totals).enumerate() {
        put(sums, total, &mut acc[(t + k) * LANES..]);
    }
    T
}

/// Adds what the block gives that goes with quad `L` of 16 columns.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_quad<const T: usize, const L: i32>(
    block: &WeightBlock,
    x: [int8x16_t; T],
    sums: &mut [[int32x4_t; 4]; T],
) {
    for (quarter, bytes) in block.0.as_chunks().0.iter().enumerate() {
        let w = signed(bytes);
        for (sums, x) in sums.iter_mut().zip(x) {
            sums[quarter] = sdot_lane::<L>(sums[quarter], w, x);
        }
    }
}

/// As [`dot_tile`] with widening products.
#[target_feature(enable = "neon")]
pub(super) fn widening_tile(tile: PackedTile<'_>, acc: &mut [i32]) {
    for (t, acc) in acc.chunks_exact_mut(LANES).enumerate() {
        let mut sums = [[vdupq_n_s32(0); 2]; 4];
        let mut total = vdupq_n_s32(0);
        for (weights, x) in tile.deep_blocks().iter().zip(tile.token(t)) {
            for x in x.0.as_chunks().0 {
                total = vpadalq_s16(total, vpaddlq_s8(load_codes(x)));
            }
            for (block, x) in weights.iter().zip(x.0.as_chunks().0) {
                let x = broadcast(x);
                for ([low, high], bytes) in sums.iter_mut().zip(block.0.as_chunks().0) {
                    let w = signed(bytes);
                    // Two products of −128 and −128 would not fit i16.
                    *low = vpadalq_s16(*low, vmull_s8(vget_low_s8(w), x));
                    *high = vpadalq_s16(*high, vmull_s8(vget_high_s8(w), x));
                }
            }
        }
        let mut whole = [vdupq_n_s32(0); 4];
        for (whole, [low, high]) in whole.iter_mut().zip(sums) {
            *whole = vpaddq_s32(low, high);
        }
        put(&whole, total, acc);
    }
}

/// Weights less [`OFFSET`].
#[inline]
#[target_feature(enable = "neon")]
fn signed(bytes: &[u8; 16]) -> int8x16_t {
    vreinterpretq_s8_u8(veorq_u8(load(bytes), vdupq_n_u8(OFFSET)))
}

/// Writes the sums of one token, whose activations sum up to the lanes of `total`.
#[inline]
#[target_feature(enable = "neon")]
fn put(sums: &[int32x4_t; 4], total: int32x4_t, acc: &mut [i32]) {
    let left_out = vdupq_n_s32(i32::from(OFFSET) * vaddvq_s32(total));
    for (out, sum) in acc.as_chunks_mut().0.iter_mut().zip(sums) {
        store(out, vaddq_s32(*sum, left_out));
    }
}
