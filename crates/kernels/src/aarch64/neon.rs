//! Loops of NEON over packed weights, with widening products, `sdot` and `smmla`, for formats of `P`
//! planes.
//!
//! A register holds a quarter of a block: four columns of four rows of each plane.

use core::arch::aarch64::*;

use super::planes::{digits, multiples, separate};
use super::registers::{
    broadcast, load, load_codes, load_pair, sdot_lane, smmla, store, store_pair,
};
use super::{blocks_of, tokens_from};
use crate::kernel::PackedTile;
use crate::layout::{LANES, QUAD, WeightBlock};

/// Deep blocks whose widened products fit i16: 7 · 16 of at most 2 · 128.
const FLUSH: usize = 7;

/// `acc[t, plane, lane] = Σ (w + 1) · x` with widening products.
#[target_feature(enable = "neon")]
pub(super) fn widening<const P: usize>(tile: PackedTile<'_>, acc: &mut [i32]) {
    for (t, acc) in acc.chunks_exact_mut(P * LANES).enumerate() {
        for quarter in 0..4 {
            let mut sums = [[vdupq_n_s32(0); 2]; P];
            let x = tile.token(t).chunks(FLUSH);
            for (weights, x) in tile.deep_blocks().chunks(FLUSH).zip(x) {
                let mut parts = [[vdupq_n_s16(0); 2]; P];
                for (weights, x) in weights.iter().zip(x) {
                    for (block, x) in weights.iter().zip(x.0.as_chunks().0) {
                        let x = broadcast(x);
                        let digits = digits::<P>(load(&block.0.as_chunks().0[quarter]));
                        for ([low, high], digits) in parts.iter_mut().zip(digits) {
                            *low = vmlal_s8(*low, vget_low_s8(digits), x);
                            *high = vmlal_s8(*high, vget_high_s8(digits), x);
                        }
                    }
                }
                for (sums, parts) in sums.iter_mut().zip(parts) {
                    for (sum, part) in sums.iter_mut().zip(parts) {
                        *sum = vpadalq_s16(*sum, part);
                    }
                }
            }
            for (plane, [low, high]) in sums.into_iter().enumerate() {
                put(vpaddq_s32(low, high), acc, plane, quarter);
            }
        }
    }
}

/// As [`widening`] with `sdot`: `T` tokens against a quarter of each block at a time, and those that are
/// left against `H` quarters.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot<const P: usize, const T: usize, const H: usize>(
    tile: PackedTile<'_>,
    acc: &mut [i32],
) {
    let mut t = 0;
    while tile.tokens - t >= T {
        for quarter in 0..4 {
            dots::<P, T, 1>(tile, t, quarter, acc);
        }
        t += T;
    }
    while t < tile.tokens {
        one_token::<P, H>(tile, t, acc);
        t += 1;
    }
}

/// Token `t`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn one_token<const P: usize, const H: usize>(tile: PackedTile<'_>, t: usize, acc: &mut [i32]) {
    for first in (0..4).step_by(H) {
        dots::<P, 1, H>(tile, t, first, acc);
    }
}

/// `T` tokens from `t` on and `H` quarters of each block: `P · T · H` sums of four rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dots<const P: usize, const T: usize, const H: usize>(
    tile: PackedTile<'_>,
    t: usize,
    quarter: usize,
    acc: &mut [i32],
) {
    let rows = tokens_from::<T>(tile, t);
    let mut sums = [[[vdupq_n_s32(0); P]; T]; H];
    for (d, weights) in tile.deep_blocks().iter().enumerate() {
        let blocks = blocks_of(&rows, d);
        for (i, weights) in weights.as_chunks::<QUAD>().0.iter().enumerate() {
            let mut x = [vdupq_n_s8(0); T];
            for k in 0..T {
                x[k] = load_codes(&blocks[k].0.as_chunks().0[i]);
            }
            dot_quad::<P, T, H, 0>(&weights[0], quarter, x, &mut sums);
            dot_quad::<P, T, H, 1>(&weights[1], quarter, x, &mut sums);
            dot_quad::<P, T, H, 2>(&weights[2], quarter, x, &mut sums);
            dot_quad::<P, T, H, 3>(&weights[3], quarter, x, &mut sums);
        }
    }
    for (h, sums) in sums.into_iter().enumerate() {
        for (k, sums) in sums.into_iter().enumerate() {
            let acc = &mut acc[(t + k) * P * LANES..];
            for (plane, sum) in separate(sums).into_iter().enumerate() {
                put(sum, acc, plane, quarter + h);
            }
        }
    }
}

/// Adds what the block gives that goes with quad `L` of 16 columns.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_quad<const P: usize, const T: usize, const H: usize, const L: i32>(
    block: &WeightBlock,
    quarter: usize,
    x: [int8x16_t; T],
    sums: &mut [[[int32x4_t; P]; T]; H],
) {
    for (h, sums) in sums.iter_mut().enumerate() {
        let planes = multiples::<P>(load(&block.0.as_chunks().0[quarter + h]));
        for (sums, x) in sums.iter_mut().zip(x) {
            for (sum, plane) in sums.iter_mut().zip(planes) {
                *sum = sdot_lane::<L>(*sum, plane, x);
            }
        }
    }
}

/// As [`widening`], `N` pairs of tokens at a time with `smmla` and the last token with `sdot`.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) fn matrix<const P: usize, const N: usize, const H: usize>(
    tile: PackedTile<'_>,
    acc: &mut [i32],
) {
    let mut t = 0;
    while tile.tokens - t >= 2 {
        let some = tile.tokens - t >= 2 * N;
        for quarter in 0..4 {
            if some {
                products::<P, N, false>(tile, t, quarter, acc);
                products::<P, N, true>(tile, t, quarter, acc);
            } else {
                products::<P, 1, false>(tile, t, quarter, acc);
                products::<P, 1, true>(tile, t, quarter, acc);
            }
        }
        t += if some { 2 * N } else { 2 };
    }
    if t < tile.tokens {
        one_token::<P, H>(tile, t, acc);
    }
}

/// `N` pairs of tokens from `t` on against the first two or the last two rows of a quarter, of which two
/// blocks make eight columns.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn products<const P: usize, const N: usize, const LAST: bool>(
    tile: PackedTile<'_>,
    t: usize,
    quarter: usize,
    acc: &mut [i32],
) {
    let rows = [tokens_from::<N>(tile, t), tokens_from::<N>(tile, t + N)];
    // Lanes are `[row, token]`, the second token `N` behind the first.
    let mut sums = [[vdupq_n_s32(0); P]; N];
    for (d, weights) in tile.deep_blocks().iter().enumerate() {
        let [first, second] = [blocks_of(&rows[0], d), blocks_of(&rows[1], d)];
        for (i, [a, b]) in weights.as_chunks().0.iter().enumerate() {
            let a = vreinterpretq_u32_u8(load(&a.0.as_chunks().0[quarter]));
            let b = vreinterpretq_u32_u8(load(&b.0.as_chunks().0[quarter]));
            let pair = if LAST {
                vzip2q_u32(a, b)
            } else {
                vzip1q_u32(a, b)
            };
            let planes = multiples::<P>(vreinterpretq_u8_u32(pair));
            for n in 0..N {
                let x = load_pair(&first[n].0.as_chunks().0[i], &second[n].0.as_chunks().0[i]);
                for (sum, plane) in sums[n].iter_mut().zip(planes) {
                    *sum = smmla(*sum, plane, x);
                }
            }
        }
    }
    for (n, sums) in sums.into_iter().enumerate() {
        for (plane, sum) in separate(sums).into_iter().enumerate() {
            let of_tokens = [vuzp1q_s32(sum, sum), vuzp2q_s32(sum, sum)];
            for (token, sums) in [t + n, t + N + n].into_iter().zip(of_tokens) {
                let acc = &mut acc[(token * P + plane) * LANES..][..LANES];
                let at = 2 * quarter + usize::from(LAST);
                store_pair(&mut acc.as_chunks_mut().0[at], vget_low_s32(sums));
            }
        }
    }
}

/// Writes the sums of the four rows of a quarter of a plane of one token.
#[inline]
#[target_feature(enable = "neon")]
fn put(sums: int32x4_t, acc: &mut [i32], plane: usize, quarter: usize) {
    store(&mut acc.as_chunks_mut().0[4 * plane + quarter], sums);
}
