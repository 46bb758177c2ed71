//! Loops of NEON over packed weights, with widening products, `sdot` and `smmla`, for formats of `P`
//! planes.
//!
//! A register holds a quarter of a block: four columns of four rows of each plane.

use core::arch::aarch64::*;

use super::planes::{digits, multiples, separate};
use super::registers::{broadcast, load, load_pair, sdot, smmla, store};
use crate::kernel::PackedTile;
use crate::layout::{DEPTH_BLOCKS, LANES};

/// Blocks whose widened products fit i16: 112 of at most 2 · 128.
const FLUSH: usize = 112;

/// Quarter `quarter` of a block.
#[inline(always)]
fn quarter_of<'a>(tile: &PackedTile<'a>, block: usize, quarter: usize) -> &'a [u8; 16] {
    &tile.weights[block].0.as_chunks().0[quarter]
}

/// The activations of `N` columns, those of block `block` of weights first.
#[inline(always)]
fn columns<'a, const N: usize>(tile: &PackedTile<'a>, token: usize, block: usize) -> &'a [i8; N] {
    let x = &tile.x[token * tile.stride + block / DEPTH_BLOCKS];
    &x.0.as_chunks().0[block % DEPTH_BLOCKS * 4 / N]
}

/// `acc[t, plane, lane] = Σ (w + 1) · x` with widening products.
#[target_feature(enable = "neon")]
pub(super) fn widening<const P: usize>(tile: PackedTile<'_>, acc: &mut [i32]) {
    for (t, acc) in acc.chunks_exact_mut(P * LANES).enumerate() {
        for quarter in 0..4 {
            let mut sums = [[vdupq_n_s32(0); 2]; P];
            for first in (0..tile.weights.len()).step_by(FLUSH) {
                let mut parts = [[vdupq_n_s16(0); 2]; P];
                for q in first..tile.weights.len().min(first + FLUSH) {
                    let x = vget_low_s8(broadcast(columns(&tile, t, q)));
                    let digits = digits::<P>(load(quarter_of(&tile, q, quarter)));
                    for ([low, high], digits) in parts.iter_mut().zip(digits) {
                        *low = vmlal_s8(*low, vget_low_s8(digits), x);
                        *high = vmlal_s8(*high, vget_high_s8(digits), x);
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

/// As [`widening`] with `sdot`, `T` tokens at a time.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot<const P: usize, const T: usize>(tile: PackedTile<'_>, acc: &mut [i32]) {
    let mut t = 0;
    while tile.tokens - t >= T {
        for quarter in 0..4 {
            dots::<P, T, 1>(&tile, t, quarter, acc);
        }
        t += T;
    }
    while t < tile.tokens {
        dots::<P, 1, 4>(&tile, t, 0, acc);
        t += 1;
    }
}

/// `T` tokens from `t` on and `H` quarters of each block: `P · T · H` sums of four rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dots<const P: usize, const T: usize, const H: usize>(
    tile: &PackedTile<'_>,
    t: usize,
    quarter: usize,
    acc: &mut [i32],
) {
    let mut sums = [[[vdupq_n_s32(0); P]; T]; H];
    for q in 0..tile.weights.len() {
        for (h, sums) in sums.iter_mut().enumerate() {
            let planes = multiples::<P>(load(quarter_of(tile, q, quarter + h)));
            for (k, sums) in sums.iter_mut().enumerate() {
                let x = broadcast(columns(tile, t + k, q));
                for (sum, plane) in sums.iter_mut().zip(planes) {
                    *sum = sdot(*sum, plane, x);
                }
            }
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

/// As [`widening`], two tokens at a time with `smmla` and the last with `sdot`.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) fn matrix<const P: usize>(tile: PackedTile<'_>, acc: &mut [i32]) {
    let mut t = 0;
    while tile.tokens - t >= 2 {
        for quarter in 0..4 {
            if tile.tokens - t >= 4 {
                products::<P, 2>(&tile, t, quarter, acc);
            } else {
                products::<P, 1>(&tile, t, quarter, acc);
            }
        }
        t += if tile.tokens - t >= 4 { 4 } else { 2 };
    }
    if t < tile.tokens {
        dots::<P, 1, 4>(&tile, t, 0, acc);
    }
}

/// `N` pairs of tokens from `t` on: two blocks of weights make eight columns of two rows.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn products<const P: usize, const N: usize>(
    tile: &PackedTile<'_>,
    t: usize,
    quarter: usize,
    acc: &mut [i32],
) {
    // For rows 0 and 1 of the quarter, then 2 and 3: `[row, token]`.
    let mut sums = [[[vdupq_n_s32(0); P]; N]; 2];
    for q in (0..tile.weights.len()).step_by(2) {
        let a = vreinterpretq_u32_u8(load(quarter_of(tile, q, quarter)));
        let b = vreinterpretq_u32_u8(load(quarter_of(tile, q + 1, quarter)));
        let rows = [vzip1q_u32(a, b), vzip2q_u32(a, b)];
        for (sums, rows) in sums.iter_mut().zip(rows) {
            let planes = multiples::<P>(vreinterpretq_u8_u32(rows));
            for (n, sums) in sums.iter_mut().enumerate() {
                let [x, y] = [t + 2 * n, t + 2 * n + 1];
                let x = load_pair(columns(tile, x, q), columns(tile, y, q));
                for (sum, plane) in sums.iter_mut().zip(planes) {
                    *sum = smmla(*sum, plane, x);
                }
            }
        }
    }
    let [low, high] = sums;
    for (n, (low, high)) in low.into_iter().zip(high).enumerate() {
        let acc = &mut acc[(t + 2 * n) * P * LANES..];
        let pairs = separate(low).into_iter().zip(separate(high));
        for (plane, (low, high)) in pairs.enumerate() {
            put(vuzp1q_s32(low, high), acc, plane, quarter);
            put(vuzp2q_s32(low, high), &mut acc[P * LANES..], plane, quarter);
        }
    }
}

/// Writes the sums of the four rows of a quarter of a plane of one token.
#[inline]
#[target_feature(enable = "neon")]
fn put(sums: int32x4_t, acc: &mut [i32], plane: usize, quarter: usize) {
    store(&mut acc.as_chunks_mut().0[4 * plane + quarter], sums);
}
