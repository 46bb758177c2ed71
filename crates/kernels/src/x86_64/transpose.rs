//! 16 × 16 bytes, rows to columns.

use std::arch::x86_64::*;

/// Rows and columns.
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
            let mut square: [__m128i; SIDE] = std::array::from_fn(|r| {
                _mm_loadu_si128(rows.as_ptr().add(r * width + first).cast())
            });
            // Each step puts beside each other what is half of them apart; after four, rows are columns.
            for _ in 0..4 {
                square = std::array::from_fn(|i| {
                    let (a, b) = (square[i / 2], square[i / 2 + SIDE / 2]);
                    if i % 2 == 0 {
                        _mm_unpacklo_epi8(a, b)
                    } else {
                        _mm_unpackhi_epi8(a, b)
                    }
                });
            }
            for (c, column) in square.into_iter().enumerate() {
                _mm_storeu_si128(out.as_mut_ptr().add((first + c) * SIDE).cast(), column);
            }
        }
    }
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
