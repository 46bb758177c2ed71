//! Sparse products with AVX-512 VNNI.

use std::arch::x86_64::*;

use super::avx512vnni::{load, numbers};
use super::prefetch::{LaterRows, after_quad};
use super::{inputs_of, word};
use crate::activations::ActBlock;
use crate::kernel::{ColumnTile, RowPart};
use crate::sparse::SparseLimits;

/// Measured on a Sapphire Rapids class Xeon: see [`SparseLimits`].
pub(super) const LIMITS: SparseLimits = SparseLimits {
    columns: 0.25,
    rows: 0.1,
};

/// Rows at once: sixteen sums.
const ROWS: usize = 4;

/// Four columns at a time: their bytes are interleaved, so that a 32-bit lane is a row again.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn column_tile(tile: ColumnTile<'_>, acc: &mut [i32]) {
    let mut sums = [[_mm512_setzero_si512(); 4]; 4];
    for (i, (columns, x)) in tile.columns.iter().zip(tile.codes).enumerate() {
        after_quad(tile.lines, tile.columns, i);
        let a = load(&tile.lines[columns[0] as usize]);
        let b = load(&tile.lines[columns[1] as usize]);
        let c = load(&tile.lines[columns[2] as usize]);
        let d = load(&tile.lines[columns[3] as usize]);
        let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
        let quads = [
            _mm512_unpacklo_epi16(ab, cd),
            _mm512_unpackhi_epi16(ab, cd),
            _mm512_unpacklo_epi16(ab_high, cd_high),
            _mm512_unpackhi_epi16(ab_high, cd_high),
        ];
        let x = _mm512_set1_epi32(word(*x));
        for (sums, quad) in sums.iter_mut().zip(quads) {
            for (sum, plane) in sums.iter_mut().zip(numbers::<4, false>(quad)) {
                *sum = _mm512_dpbusd_epi32(*sum, plane, x);
            }
        }
    }
    for (m, [s0, s1, s2, s3]) in sums.into_iter().enumerate() {
        let planes = [
            s0,
            _mm512_srai_epi32::<2>(_mm512_sub_epi32(s1, s0)),
            _mm512_srai_epi32::<4>(_mm512_sub_epi32(s2, s1)),
            _mm512_srai_epi32::<6>(_mm512_sub_epi32(s3, s2)),
        ];
        for (k, plane) in planes.into_iter().enumerate() {
            let mut lanes = [0i32; 16];
            // SAFETY: the array is 64 bytes.
            unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), plane) };
            for (part, lanes) in lanes.as_chunks::<4>().0.iter().enumerate() {
                acc[64 * k + 16 * part + 4 * m..][..4].copy_from_slice(lanes);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn row_sums(part: RowPart<'_>, acc: &mut [i32]) {
    let mut i = 0;
    while acc.len() - i >= ROWS {
        rows::<ROWS>(part, i, acc);
        i += ROWS;
    }
    while i < acc.len() {
        rows::<1>(part, i, acc);
        i += 1;
    }
}

/// `R` rows from place `i` of the list on. A plane is masked, not shifted: its sums are a multiple
/// of `4^k` of what they should be.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn rows<const R: usize>(part: RowPart<'_>, i: usize, acc: &mut [i32]) {
    let rows = part.some::<R>(i);
    let later = LaterRows::<R>::of(part, i);
    let mut masks = [_mm512_setzero_si512(); 4];
    for (mask, digit) in masks.iter_mut().zip([0x03u8, 0x0C, 0x30, 0xC0]) {
        *mask = _mm512_set1_epi8(digit.cast_signed());
    }
    let mut sums = [[_mm512_setzero_si512(); 4]; R];
    for line in 0..part.lines {
        let mut x = [_mm512_setzero_si512(); 4];
        for (x, block) in x.iter_mut().zip(inputs_of(part, line)) {
            if let Some(block) = block {
                *x = codes(block);
            }
        }
        // Where rows do not follow each other the processor cannot know.
        later.ask(line);
        for (row, sums) in rows.iter().zip(&mut sums) {
            let w = load(&row[line]);
            for ((sum, mask), x) in sums.iter_mut().zip(masks).zip(x) {
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_and_si512(w, mask), x);
            }
        }
    }
    for (acc, [s0, s1, s2, s3]) in acc[i..].iter_mut().zip(sums) {
        let low = _mm512_add_epi32(s0, _mm512_srai_epi32::<2>(s1));
        let high = _mm512_add_epi32(_mm512_srai_epi32::<4>(s2), _mm512_srai_epi32::<6>(s3));
        *acc = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn codes(block: &ActBlock) -> __m512i {
    // SAFETY: an `ActBlock` is 64 bytes and aligned to 64.
    unsafe { _mm512_load_si512(block.0.as_ptr().cast()) }
}
