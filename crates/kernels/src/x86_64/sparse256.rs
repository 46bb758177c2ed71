//! Sparse products with AVX2.

use std::arch::x86_64::*;

use super::half_block::load;
use super::inputs_of;
use super::prefetch::{LaterRows, after_quad};
use crate::activations::ActBlock;
use crate::kernel::{ColumnTile, RowPart};
use crate::sparse::SparseLimits;

/// Against the dense products of AVX2, with weights from the memory of a Xeon: half of the columns take as long as all.
pub(super) const AVX2_LIMITS: SparseLimits = SparseLimits {
    columns: 0.5,
    rows: 0.35,
};

/// Against those of AVX-VNNI, which are faster where a cache holds the weights.
pub(super) const AVXVNNI_LIMITS: SparseLimits = SparseLimits {
    columns: 0.55,
    rows: 0.3,
};

/// Quads of columns whose sums fit i16: twice as many pairs of at most 2 · 2 · 128.
const FLUSH_QUADS: usize = 31;
/// Lines whose sums fit i16: eight pairs each.
const FLUSH_LINES: usize = 7;
/// Rows at once.
const ROWS: usize = 2;

/// Two columns at a time, interleaved, for half of the rows.
#[target_feature(enable = "avx2")]
pub(super) fn column_tile(tile: ColumnTile<'_>, acc: &mut [i32]) {
    acc.fill(0);
    let columns = tile.columns.chunks(FLUSH_QUADS);
    let chunks = columns.zip(tile.codes.chunks(FLUSH_QUADS));
    for (chunk, (columns, x)) in chunks.enumerate() {
        let columns = columns.as_flattened().as_chunks::<2>().0;
        let x = x.as_flattened().as_chunks::<2>().0;
        for half in 0..2 {
            let mut sums = [[_mm256_setzero_si256(); 4]; 2];
            for (i, (columns, x)) in columns.iter().zip(x).enumerate() {
                if half == 0 && i % 2 == 0 {
                    after_quad(tile.lines, tile.columns, chunk * FLUSH_QUADS + i / 2);
                }
                let a = load(&tile.lines[columns[0] as usize], half);
                let b = load(&tile.lines[columns[1] as usize], half);
                let x = _mm256_set1_epi16(i16::from_ne_bytes(x.map(i8::cast_unsigned)));
                let pairs = [_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)];
                for (sums, pair) in sums.iter_mut().zip(pairs) {
                    for (sum, plane) in sums.iter_mut().zip(planes(pair)) {
                        *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(plane, x));
                    }
                }
            }
            for (m, sums) in sums.iter().enumerate() {
                for (k, sums) in sums.iter().enumerate() {
                    let mut lanes = [0i16; 16];
                    // SAFETY: the array is 32 bytes.
                    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), *sums) };
                    for (part, lanes) in lanes.as_chunks::<8>().0.iter().enumerate() {
                        let acc = &mut acc[64 * k + 32 * half + 16 * part + 8 * m..][..8];
                        for (acc, lane) in acc.iter_mut().zip(lanes) {
                            *acc += i32::from(*lane);
                        }
                    }
                }
            }
        }
    }
}

#[target_feature(enable = "avx2")]
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

#[inline]
#[target_feature(enable = "avx2")]
fn rows<const R: usize>(part: RowPart<'_>, i: usize, acc: &mut [i32]) {
    let rows = part.some::<R>(i);
    let later = LaterRows::<R>::of(part, i);
    let ones = _mm256_set1_epi16(1);
    let mut totals = [_mm256_setzero_si256(); R];
    for first in (0..part.lines).step_by(FLUSH_LINES) {
        let mut sums = [_mm256_setzero_si256(); R];
        for line in first..part.lines.min(first + FLUSH_LINES) {
            later.ask(line);
            for half in 0..2 {
                let mut x = [_mm256_setzero_si256(); 4];
                for (x, block) in x.iter_mut().zip(inputs_of(part, line)) {
                    if let Some(block) = block {
                        *x = codes(block, half);
                    }
                }
                for (row, sum) in rows.iter().zip(&mut sums) {
                    for (plane, x) in planes(load(&row[line], half)).into_iter().zip(x) {
                        *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(plane, x));
                    }
                }
            }
        }
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = _mm256_add_epi32(*total, _mm256_madd_epi16(sum, ones));
        }
    }
    for (acc, total) in acc[i..].iter_mut().zip(totals) {
        let mut lanes = [0i32; 8];
        // SAFETY: the array is 32 bytes.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), total) };
        *acc = lanes.iter().sum();
    }
}

/// The codes 0…2 of the four planes of each byte.
#[inline]
#[target_feature(enable = "avx2")]
fn planes(w: __m256i) -> [__m256i; 4] {
    let mask = _mm256_set1_epi8(3);
    [
        _mm256_and_si256(w, mask),
        _mm256_and_si256(_mm256_srli_epi16::<2>(w), mask),
        _mm256_and_si256(_mm256_srli_epi16::<4>(w), mask),
        _mm256_and_si256(_mm256_srli_epi16::<6>(w), mask),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn codes(block: &ActBlock, half: usize) -> __m256i {
    let codes = &block.0.as_chunks::<32>().0[half];
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) }
}
