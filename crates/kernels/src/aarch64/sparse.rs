//! Sparse products: lines of 64 bytes with four planes of codes, a quarter at a time.

use core::arch::aarch64::*;

use super::planes::{digits, multiples, separate};
use super::registers::{load, load_codes, sdot, store};
use super::{inputs_of, word};
use crate::activations::ActBlock;
use crate::kernel::{ColumnTile, RowPart};
use crate::layout::DEPTH;
use crate::sparse::SparseLimits;

/// Nothing has been measured on Arm. By the instructions of the loops with `sdot`, a column costs 1.8
/// times its share of a dense product and a row 1.4 times; the limits leave room for what else there is.
pub(super) const LIMITS: SparseLimits = SparseLimits {
    columns: 0.75,
    rows: 0.75,
};

/// Quads of columns whose widened products fit i16: four of at most 2 · 128 each.
const FLUSH_QUADS: usize = 31;
/// Lines whose widened products fit i16: 16 each.
const FLUSH_LINES: usize = 7;
/// Rows at once.
const ROWS: usize = 2;

/// See [`crate::Kernel::column_tile`]: four columns at a time, interleaved.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot_columns(tile: ColumnTile<'_>, acc: &mut [i32]) {
    for quarter in 0..4 {
        let mut sums = [[vdupq_n_s32(0); 4]; 4];
        for (columns, x) in tile.columns.iter().zip(tile.codes) {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(word(*x)));
            for (sums, rows) in sums.iter_mut().zip(interleaved(tile, columns, quarter)) {
                for (sum, plane) in sums.iter_mut().zip(multiples::<4>(rows)) {
                    *sum = sdot(*sum, plane, x);
                }
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            for (plane, sum) in separate(sums).into_iter().enumerate() {
                store(
                    &mut acc.as_chunks_mut().0[16 * plane + 4 * quarter + m],
                    sum,
                );
            }
        }
    }
}

/// Four columns of 16 bytes as four bytes of four rows each.
#[inline]
#[target_feature(enable = "neon")]
fn interleaved(tile: ColumnTile<'_>, columns: &[u32; 4], quarter: usize) -> [uint8x16_t; 4] {
    let mut lines = [vdupq_n_u8(0); 4];
    for (line, column) in lines.iter_mut().zip(columns) {
        *line = load(&tile.lines[*column as usize].0.as_chunks().0[quarter]);
    }
    let [a, b, c, d] = lines;
    let ab = [vzip1q_u8(a, b), vzip2q_u8(a, b)];
    let cd = [vzip1q_u8(c, d), vzip2q_u8(c, d)];
    let [ab0, ab1] = [vreinterpretq_u16_u8(ab[0]), vreinterpretq_u16_u8(ab[1])];
    let [cd0, cd1] = [vreinterpretq_u16_u8(cd[0]), vreinterpretq_u16_u8(cd[1])];
    [
        vreinterpretq_u8_u16(vzip1q_u16(ab0, cd0)),
        vreinterpretq_u8_u16(vzip2q_u16(ab0, cd0)),
        vreinterpretq_u8_u16(vzip1q_u16(ab1, cd1)),
        vreinterpretq_u8_u16(vzip2q_u16(ab1, cd1)),
    ]
}

/// As [`dot_columns`] with widening products, one column at a time.
#[target_feature(enable = "neon")]
pub(super) fn widening_columns(tile: ColumnTile<'_>, acc: &mut [i32]) {
    acc.fill(0);
    let columns = tile.columns.chunks(FLUSH_QUADS);
    for (columns, x) in columns.zip(tile.codes.chunks(FLUSH_QUADS)) {
        for quarter in 0..4 {
            let mut parts = [[vdupq_n_s16(0); 2]; 4];
            for (column, x) in columns.as_flattened().iter().zip(x.as_flattened()) {
                let line = &tile.lines[*column as usize];
                let digits = digits::<4>(load(&line.0.as_chunks().0[quarter]));
                for ([low, high], digits) in parts.iter_mut().zip(digits) {
                    *low = vmlal_s8(*low, vget_low_s8(digits), vdup_n_s8(*x));
                    *high = vmlal_s8(*high, vget_high_s8(digits), vdup_n_s8(*x));
                }
            }
            for (plane, parts) in parts.into_iter().enumerate() {
                let acc = &mut acc[64 * plane + 16 * quarter..][..16];
                for (acc, part) in acc.as_chunks_mut::<8>().0.iter_mut().zip(parts) {
                    let [low, high] = [vmovl_s16(vget_low_s16(part)), vmovl_high_s16(part)];
                    for (acc, part) in acc.as_chunks_mut().0.iter_mut().zip([low, high]) {
                        add(acc, part);
                    }
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn add(acc: &mut [i32; 4], part: int32x4_t) {
    let mut sums = [0; 4];
    store(&mut sums, part);
    acc.iter_mut().zip(sums).for_each(|(acc, sum)| *acc += sum);
}

/// See [`crate::Kernel::row_sums`].
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot_rows(part: RowPart<'_>, acc: &mut [i32]) {
    let mut i = 0;
    while acc.len() - i >= ROWS {
        some_dot_rows::<ROWS>(part, i, acc);
        i += ROWS;
    }
    while i < acc.len() {
        some_dot_rows::<1>(part, i, acc);
        i += 1;
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn some_dot_rows<const R: usize>(part: RowPart<'_>, i: usize, acc: &mut [i32]) {
    let rows = part.some::<R>(i);
    let mut sums = [[vdupq_n_s32(0); 4]; R];
    for line in 0..part.lines {
        let blocks = blocks(part, line);
        for quarter in 0..4 {
            let x = codes(blocks, quarter);
            for (row, sums) in rows.iter().zip(&mut sums) {
                let planes = multiples::<4>(load(&row[line].0.as_chunks().0[quarter]));
                for ((sum, plane), x) in sums.iter_mut().zip(planes).zip(x) {
                    *sum = sdot(*sum, plane, x);
                }
            }
        }
    }
    for (acc, sums) in acc[i..].iter_mut().zip(sums) {
        let [a, b, c, d] = separate(sums);
        *acc = vaddvq_s32(vaddq_s32(vaddq_s32(a, b), vaddq_s32(c, d)));
    }
}

/// As [`dot_rows`] with widening products.
#[target_feature(enable = "neon")]
pub(super) fn widening_rows(part: RowPart<'_>, acc: &mut [i32]) {
    for (i, acc) in acc.iter_mut().enumerate() {
        let [row] = part.some(i);
        let mut total = vdupq_n_s32(0);
        for (f, lines) in row.chunks(FLUSH_LINES).enumerate() {
            let mut sums = [vdupq_n_s16(0); 2];
            for (l, line) in lines.iter().enumerate() {
                let blocks = blocks(part, f * FLUSH_LINES + l);
                for (quarter, bytes) in line.0.as_chunks().0.iter().enumerate() {
                    let x = codes(blocks, quarter);
                    for (digits, x) in digits::<4>(load(bytes)).into_iter().zip(x) {
                        sums[0] = vmlal_s8(sums[0], vget_low_s8(digits), vget_low_s8(x));
                        sums[1] = vmlal_high_s8(sums[1], digits, x);
                    }
                }
            }
            total = vpadalq_s16(vpadalq_s16(total, sums[0]), sums[1]);
        }
        *acc = vaddvq_s32(total);
    }
}

/// What stands in for activations behind the last.
static NOTHING: ActBlock = ActBlock([0; DEPTH]);

/// The activations of a line, plane by plane.
#[inline(always)]
fn blocks<'a>(part: RowPart<'a>, line: usize) -> [&'a ActBlock; 4] {
    inputs_of(part, line).map(|block| block.unwrap_or(&NOTHING))
}

/// Those of quarter `quarter` of a line.
#[inline]
#[target_feature(enable = "neon")]
fn codes(blocks: [&ActBlock; 4], quarter: usize) -> [int8x16_t; 4] {
    let mut codes = [vdupq_n_s8(0); 4];
    for (codes, block) in codes.iter_mut().zip(blocks) {
        *codes = load_codes(&block.0.as_chunks().0[quarter]);
    }
    codes
}
