//! Products by tables: see [`crate::lookup`]. 16 rows to a register.

use core::arch::aarch64::*;

use super::registers::{load, load_codes};
use crate::kernel::LookupTile;
use crate::layout::WeightBlock;
use crate::lookup::{LOW_BITS, Table};

/// Blocks whose high parts add up in a byte: two of −8…7 each.
const RUN: usize = 8;
/// Blocks whose parts add up in 16 bits: low ones of at most 126, unsigned.
const FLUSH: usize = 512;

/// See [`crate::Kernel::lookup_tile`].
#[target_feature(enable = "neon")]
pub(super) fn lookup_tile(tile: LookupTile<'_>, acc: &mut [i32]) {
    acc.fill(0);
    let weights = tile.weights.chunks(FLUSH);
    for (weights, tables) in weights.zip(tile.tables.chunks(FLUSH)) {
        for (half, acc) in acc.chunks_exact_mut(32).enumerate() {
            half_tile(weights, tables, half, acc);
        }
    }
}

/// Half of the rows: sums of all would not stay in registers.
#[inline]
#[target_feature(enable = "neon")]
fn half_tile(weights: &[WeightBlock], tables: &[Table], half: usize, acc: &mut [i32]) {
    let mut low = [[vdupq_n_u16(0); 2]; 2];
    let mut high = [[vdupq_n_s16(0); 2]; 2];
    let weights = weights.as_chunks::<RUN>().0;
    for (weights, tables) in weights.iter().zip(tables.as_chunks::<RUN>().0) {
        let mut bytes = [vdupq_n_s8(0); 2];
        let weights = weights.as_chunks::<2>().0.iter();
        for ([w0, w1], [t0, t1]) in weights.zip(tables.as_chunks::<2>().0) {
            for i in 0..2 {
                let (low0, high0) = sums(w0, t0, 2 * half + i);
                let (low1, high1) = sums(w1, t1, 2 * half + i);
                let lows = vaddq_u8(low0, low1);
                low[i][0] = vaddw_u8(low[i][0], vget_low_u8(lows));
                low[i][1] = vaddw_high_u8(low[i][1], lows);
                bytes[i] = vaddq_s8(bytes[i], vaddq_s8(high0, high1));
            }
        }
        for (high, bytes) in high.iter_mut().zip(bytes) {
            high[0] = vaddw_s8(high[0], vget_low_s8(bytes));
            high[1] = vaddw_high_s8(high[1], bytes);
        }
    }
    let parts = low.as_flattened().iter().zip(high.as_flattened());
    for (acc, (low, high)) in acc.as_chunks_mut().0.iter_mut().zip(parts) {
        add(acc, *low, *high);
    }
}

/// What the two halves of each byte of 16 rows stand for: low and high parts of both sums added.
#[inline]
#[target_feature(enable = "neon")]
fn sums(block: &WeightBlock, table: &Table, quarter: usize) -> (uint8x16_t, int8x16_t) {
    let w = load(&block.0.as_chunks().0[quarter]);
    let (first, second) = (vandq_u8(w, vdupq_n_u8(15)), vshrq_n_u8::<4>(w));
    let low = vaddq_u8(
        vqtbl1q_u8(load(&table.low[0]), first),
        vqtbl1q_u8(load(&table.low[1]), second),
    );
    let high = vaddq_s8(
        vqtbl1q_s8(load_codes(&table.high[0]), first),
        vqtbl1q_s8(load_codes(&table.high[1]), second),
    );
    (low, high)
}

/// Adds whole sums of eight rows.
#[inline]
#[target_feature(enable = "neon")]
fn add(acc: &mut [i32; 8], low: uint16x8_t, high: int16x8_t) {
    let (mut lows, mut highs) = ([0u16; 8], [0i16; 8]);
    // SAFETY: the arrays are 16 bytes.
    unsafe {
        vst1q_u16(lows.as_mut_ptr(), low);
        vst1q_s16(highs.as_mut_ptr(), high);
    }
    for ((acc, low), high) in acc.iter_mut().zip(lows).zip(highs) {
        *acc += i32::from(low) + (i32::from(high) << LOW_BITS);
    }
}
