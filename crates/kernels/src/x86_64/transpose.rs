//! Rows to columns.

use std::arch::x86_64::*;

/// Rows and columns of bytes.
const SIDE: usize = 16;

/// `out[c][r] = rows[r][c]` for rows of `width` bytes, a multiple of 16: `rows` is `[16, width]`, `out` `[width, 16]`.
///
/// # Panics
/// Where the lengths do not fit.
pub(crate) fn transpose(rows: &[i8], width: usize, out: &mut [i8]) {
    assert!(width.is_multiple_of(SIDE), "whole squares");
    assert_eq!((rows.len(), out.len()), (SIDE * width, SIDE * width));
    for first in (0..width).step_by(SIDE) {
        // SAFETY: every processor of this family has SSE2; row and column parts of 16 bytes lie inside.
        unsafe {
            let square = std::array::from_fn(|r| {
                _mm_loadu_si128(rows.as_ptr().add(r * width + first).cast())
            });
            for (c, column) in transpose_bytes(square).into_iter().enumerate() {
                _mm_storeu_si128(out.as_mut_ptr().add((first + c) * SIDE).cast(), column);
            }
        }
    }
}

/// 16 rows of 16 bytes to as many columns.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn transpose_bytes(mut square: [__m128i; SIDE]) -> [__m128i; SIDE] {
    // Each step puts beside each other what is half of them apart; after four, rows are columns.
    for _ in 0..4 {
        let before = square;
        for i in 0..SIDE / 2 {
            let (a, b) = (before[i], before[i + SIDE / 2]);
            square[2 * i] = _mm_unpacklo_epi8(a, b);
            square[2 * i + 1] = _mm_unpackhi_epi8(a, b);
        }
    }
    square
}

/// 8 rows of 8 words to as many columns.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transpose_words(rows: [__m256i; 8]) -> [__m256i; 8] {
    let mut pairs = rows;
    for i in 0..4 {
        pairs[2 * i] = _mm256_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Columns 0 and 4, 1 and 5, 2 and 6, 3 and 7, of four rows each.
    let mut fours = rows;
    for i in 0..2 {
        for j in 0..2 {
            let (a, b) = (pairs[4 * i + j], pairs[4 * i + 2 + j]);
            fours[4 * i + 2 * j] = _mm256_unpacklo_epi64(a, b);
            fours[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(a, b);
        }
    }
    let mut columns = rows;
    for c in 0..4 {
        columns[c] = _mm256_permute2x128_si256::<0x20>(fours[c], fours[4 + c]);
        columns[4 + c] = _mm256_permute2x128_si256::<0x31>(fours[c], fours[4 + c]);
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        for width in [0, 16, 96] {
            let rows: Vec<i8> = (0..SIDE * width).map(|i| (i * 37 % 251) as i8).collect();
            let mut out = vec![0; rows.len()];
            transpose(&rows, width, &mut out);
            for (i, v) in out.iter().enumerate() {
                assert_eq!(*v, rows[i % SIDE * width + i / SIDE], "{width} {i}");
            }
        }
    }
}
