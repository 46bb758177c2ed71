//! Loops of NEON over weights of two bits, with widening products, `sdot` and `smmla`.
//!
//! Needs `core` alone, so that it can be compiled by itself. Blocks, planes and lanes are those of
//! the crate's `layout`: byte `4 · lane + i` of a block holds, for column `i`, a code of row
//! `16 k + lane` in bits `2k` and `2k + 1`. Arm multiplies signed bytes, so planes 0…2 are masked
//! where they are, which makes their sums a multiple of `4^k`, and plane 3 is shifted.

use core::arch::aarch64::*;
use core::arch::asm;

/// Bytes of a block, and columns of a block of activations.
const BLOCK: usize = 64;
/// Blocks of weights for one of activations.
const DEPTH_BLOCKS: usize = 16;
/// Rows of a tile.
const ROWS: usize = 64;
/// Blocks whose widened products fit i16: 112 of at most 2 · 128.
const FLUSH: usize = 112;

/// One row tile against `tokens` rows of activations, `stride` blocks from one to the next.
pub(crate) struct Tile<'a, W, X> {
    pub(crate) weights: &'a [W],
    pub(crate) x: &'a [X],
    pub(crate) stride: usize,
    pub(crate) tokens: usize,
}

impl<W: AsRef<[u8; BLOCK]>, X: AsRef<[i8; BLOCK]>> Tile<'_, W, X> {
    /// Quarter `quarter` of a block: four rows of each plane.
    fn quarter(&self, block: usize, quarter: usize) -> &[u8; 16] {
        &self.weights[block].as_ref().as_chunks().0[quarter]
    }

    /// The activations of `N` columns, those of block `block` of weights first.
    fn columns<const N: usize>(&self, token: usize, block: usize) -> &[i8; N] {
        let x = &self.x[token * self.stride + block / DEPTH_BLOCKS];
        &x.as_ref().as_chunks().0[block % DEPTH_BLOCKS * 4 / N]
    }
}

/// `acc[t, plane, lane] = Σ (w + 1) · x` with widening products.
#[target_feature(enable = "neon")]
pub(crate) fn widening<W, X>(tile: Tile<'_, W, X>, acc: &mut [i32])
where
    W: AsRef<[u8; BLOCK]>,
    X: AsRef<[i8; BLOCK]>,
{
    for (t, acc) in acc.chunks_exact_mut(ROWS).enumerate() {
        for quarter in 0..4 {
            let mut sums = [[vdupq_n_s32(0); 2]; 4];
            for first in (0..tile.weights.len()).step_by(FLUSH) {
                let mut parts = [[vdupq_n_s16(0); 2]; 4];
                for q in first..tile.weights.len().min(first + FLUSH) {
                    let x = vget_low_s8(broadcast(tile.columns(t, q)));
                    let mut w = load(tile.quarter(q, quarter));
                    for [low, high] in &mut parts {
                        let codes = vreinterpretq_s8_u8(vandq_u8(w, vdupq_n_u8(3)));
                        *low = vmlal_s8(*low, vget_low_s8(codes), x);
                        *high = vmlal_s8(*high, vget_high_s8(codes), x);
                        w = vshrq_n_u8::<2>(w);
                    }
                }
                for (sums, parts) in sums.iter_mut().zip(parts) {
                    for (sum, part) in sums.iter_mut().zip(parts) {
                        *sum = vpadalq_s16(*sum, part);
                    }
                }
            }
            for (plane, [low, high]) in sums.into_iter().enumerate() {
                store(vpaddq_s32(low, high), acc, plane, quarter);
            }
        }
    }
}

/// As [`widening`] for the tokens from `first` on, with `sdot`.
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn dot<W, X>(tile: Tile<'_, W, X>, first: usize, acc: &mut [i32])
where
    W: AsRef<[u8; BLOCK]>,
    X: AsRef<[i8; BLOCK]>,
{
    let mut t = first;
    while tile.tokens - t >= 4 {
        for quarter in 0..4 {
            dots::<W, X, 4, 1>(&tile, t, quarter, acc);
        }
        t += 4;
    }
    while t < tile.tokens {
        dots::<W, X, 1, 4>(&tile, t, 0, acc);
        t += 1;
    }
}

/// `T` tokens from `t` on and `H` quarters of each block: `4 · T · H` sums of four rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dots<W, X, const T: usize, const H: usize>(
    tile: &Tile<'_, W, X>,
    t: usize,
    quarter: usize,
    acc: &mut [i32],
) where
    W: AsRef<[u8; BLOCK]>,
    X: AsRef<[i8; BLOCK]>,
{
    let mut sums = [[[vdupq_n_s32(0); 4]; T]; H];
    for q in 0..tile.weights.len() {
        for (h, sums) in sums.iter_mut().enumerate() {
            let planes = planes(load(tile.quarter(q, quarter + h)));
            for (k, sums) in sums.iter_mut().enumerate() {
                let x = broadcast(tile.columns(t + k, q));
                for (sum, plane) in sums.iter_mut().zip(planes) {
                    *sum = sdot(*sum, plane, x);
                }
            }
        }
    }
    for (h, sums) in sums.into_iter().enumerate() {
        for (k, sums) in sums.into_iter().enumerate() {
            let acc = &mut acc[(t + k) * ROWS..][..ROWS];
            for (plane, sum) in separate(sums).into_iter().enumerate() {
                store(sum, acc, plane, quarter + h);
            }
        }
    }
}

/// As [`widening`], two tokens at a time with `smmla` and the last with `sdot`.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(crate) fn matrix<W, X>(tile: Tile<'_, W, X>, acc: &mut [i32])
where
    W: AsRef<[u8; BLOCK]>,
    X: AsRef<[i8; BLOCK]>,
{
    let mut t = 0;
    while tile.tokens - t >= 2 {
        for quarter in 0..4 {
            if tile.tokens - t >= 4 {
                products::<W, X, 2>(&tile, t, quarter, acc);
            } else {
                products::<W, X, 1>(&tile, t, quarter, acc);
            }
        }
        t += if tile.tokens - t >= 4 { 4 } else { 2 };
    }
    dot(tile, t, acc);
}

/// `P` pairs of tokens from `t` on: two blocks of weights make eight columns of two rows.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn products<W, X, const P: usize>(tile: &Tile<'_, W, X>, t: usize, quarter: usize, acc: &mut [i32])
where
    W: AsRef<[u8; BLOCK]>,
    X: AsRef<[i8; BLOCK]>,
{
    // For rows 0 and 1 of the quarter, then 2 and 3: `[row, token]`.
    let mut sums = [[[vdupq_n_s32(0); 4]; P]; 2];
    for q in (0..tile.weights.len()).step_by(2) {
        let [a, b] = [q, q + 1].map(|q| vreinterpretq_u32_u8(load(tile.quarter(q, quarter))));
        let rows = [vzip1q_u32(a, b), vzip2q_u32(a, b)];
        for (sums, rows) in sums.iter_mut().zip(rows) {
            let planes = planes(vreinterpretq_u8_u32(rows));
            for (p, sums) in sums.iter_mut().enumerate() {
                let x = pair(tile.columns(t + 2 * p, q), tile.columns(t + 2 * p + 1, q));
                for (sum, plane) in sums.iter_mut().zip(planes) {
                    *sum = smmla(*sum, plane, x);
                }
            }
        }
    }
    for p in 0..P {
        let [low, high] = [0, 1].map(|i| separate(sums[i][p]));
        for (plane, (low, high)) in low.into_iter().zip(high).enumerate() {
            let acc = &mut acc[(t + 2 * p) * ROWS..];
            store(vuzp1q_s32(low, high), acc, plane, quarter);
            store(vuzp2q_s32(low, high), &mut acc[ROWS..], plane, quarter);
        }
    }
}

/// Planes 0…2 where they are and plane 3 in the lowest bits.
#[inline]
#[target_feature(enable = "neon")]
fn planes(w: uint8x16_t) -> [int8x16_t; 4] {
    [
        vandq_u8(w, vdupq_n_u8(0x03)),
        vandq_u8(w, vdupq_n_u8(0x0C)),
        vandq_u8(w, vdupq_n_u8(0x30)),
        vshrq_n_u8::<6>(w),
    ]
    .map(|plane| vreinterpretq_s8_u8(plane))
}

/// Sums of codes from sums of [`planes`].
#[inline]
#[target_feature(enable = "neon")]
fn separate([s0, s1, s2, s3]: [int32x4_t; 4]) -> [int32x4_t; 4] {
    [s0, vshrq_n_s32::<2>(s1), vshrq_n_s32::<4>(s2), s3]
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction on registers, which the feature says exists; its intrinsic is not
    // stable.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: as in `sdot`.
    unsafe {
        asm!(
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: the array is 16 bytes.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

/// Four activations in each 32-bit lane.
#[inline]
#[target_feature(enable = "neon")]
fn broadcast(x: &[i8; 4]) -> int8x16_t {
    vreinterpretq_s8_s32(vdupq_n_s32(i32::from_ne_bytes(x.map(|x| x as u8))))
}

/// Eight activations of each of two tokens.
#[inline]
#[target_feature(enable = "neon")]
fn pair(a: &[i8; 8], b: &[i8; 8]) -> int8x16_t {
    // SAFETY: the arrays are 8 bytes.
    unsafe { vcombine_s8(vld1_s8(a.as_ptr()), vld1_s8(b.as_ptr())) }
}

/// Writes the sums of the four rows of a quarter of a plane of one token.
#[inline]
#[target_feature(enable = "neon")]
fn store(sums: int32x4_t, acc: &mut [i32], plane: usize, quarter: usize) {
    let out = &mut acc[16 * plane + 4 * quarter..][..4];
    // SAFETY: the slice is 16 bytes.
    unsafe { vst1q_s32(out.as_mut_ptr(), sums) }
}
