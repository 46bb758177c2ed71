//! Keys of 16 positions side by side in single precision. Of plain loops the compiler makes scattered stores.

use std::arch::x86_64::*;

use super::prefetch::after_line;
use super::transpose::transpose_words;
use crate::kv::LANES;

/// Values of a register.
const WIDTH: usize = 8;

/// Codes `[blocks, width, LANES]` times the scale of each position; says whether the processor can. Codes behind those of
/// `out` are asked for, since they come next.
pub(crate) fn scale_codes(
    codes: &[i8],
    scales: &[[f32; LANES]],
    width: usize,
    out: &mut [f32],
) -> bool {
    let found = is_x86_feature_detected!("avx2");
    if found {
        // SAFETY: AVX2 has been found.
        unsafe { scale_blocks(codes, scales, width, out) }
    }
    found
}

/// Rows `[n, width]` as `[n / LANES rounded up, width, LANES]`; lanes without a row keep what they hold. Says whether the
/// processor can.
pub(crate) fn interleave(rows: &[f32], width: usize, out: &mut [f32]) -> bool {
    let found = is_x86_feature_detected!("avx2");
    if found {
        // SAFETY: AVX2 has been found.
        unsafe { interleave_rows(rows, width, out) }
    }
    found
}

#[target_feature(enable = "avx2")]
fn scale_blocks(codes: &[i8], scales: &[[f32; LANES]], width: usize, out: &mut [f32]) {
    let end = codes.as_ptr_range().end.cast();
    let blocks = codes.as_chunks::<LANES>().0.chunks(width.max(1));
    let outs = out.as_chunks_mut::<LANES>().0.chunks_mut(width.max(1));
    for ((out, codes), scales) in outs.zip(blocks).zip(scales) {
        let scales = scales.as_chunks().0;
        for (c, (out, codes)) in out.iter_mut().zip(codes).enumerate() {
            // Four columns are a line.
            if c % 4 == 0 {
                after_line(codes.as_ptr().cast(), end);
            }
            let outs = out.as_chunks_mut().0.iter_mut();
            for ((out, codes), scales) in outs.zip(codes.as_chunks().0).zip(scales) {
                store(out, _mm256_mul_ps(widen(codes), load(scales)));
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn interleave_rows(rows: &[f32], width: usize, out: &mut [f32]) {
    let eights = rows.chunks(WIDTH * width.max(1));
    for (i, rows) in eights.enumerate() {
        let first = i * WIDTH / LANES * LANES * width + i * WIDTH % LANES;
        let out = &mut out[first..];
        let mut done = 0;
        if rows.len() == WIDTH * width {
            for c in (0..width / WIDTH * WIDTH).step_by(WIDTH) {
                let mut square = [_mm256_setzero_si256(); WIDTH];
                for (r, square) in square.iter_mut().enumerate() {
                    let part = rows[r * width + c..].first_chunk();
                    *square = part.map_or(*square, |part| _mm256_castps_si256(load(part)));
                }
                for (k, column) in transpose_words(square).into_iter().enumerate() {
                    if let Some(out) = out[(c + k) * LANES..].first_chunk_mut() {
                        store(out, _mm256_castsi256_ps(column));
                    }
                }
            }
            done = width / WIDTH * WIDTH;
        }
        for (r, row) in rows.chunks_exact(width.max(1)).enumerate() {
            for c in done..width {
                out[c * LANES + r] = row[c];
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn widen(codes: &[i8; WIDTH]) -> __m256 {
    // SAFETY: the array is 8 bytes.
    let codes = unsafe { _mm_loadl_epi64(codes.as_ptr().cast()) };
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(values: &[f32; WIDTH]) -> __m256 {
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(out: &mut [f32; WIDTH], v: __m256) {
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_side_by_side() {
        for (n, width) in [
            (0usize, 8),
            (1, 3),
            (16, 8),
            (17, 19),
            (24, 96),
            (31, 16),
            (40, 0),
        ] {
            let rows: Vec<f32> = (0..n * width).map(|i| i as f32).collect();
            let mut out = vec![-1.0; n.next_multiple_of(LANES) * width];
            if !interleave(&rows, width, &mut out) {
                eprintln!("skipped: no AVX2");
                return;
            }
            for (i, v) in out.into_iter().enumerate() {
                let (block, rest) = (i / (LANES * width), i % (LANES * width));
                let (row, c) = (block * LANES + rest % LANES, rest / LANES);
                let want = if row < n { rows[row * width + c] } else { -1.0 };
                assert_eq!(v, want, "{n} {width} {i}");
            }
        }
    }

    #[test]
    fn codes_are_scaled_by_position() {
        let (width, blocks) = (5, 3);
        let codes: Vec<i8> = (0..blocks * width * LANES)
            .map(|i| (i * 37) as i8)
            .collect();
        let scales: Vec<[f32; LANES]> = (0..blocks)
            .map(|b| std::array::from_fn(|i| (b * LANES + i) as f32 / 3.0))
            .collect();
        // All, and fewer than there are.
        for used in [blocks, 1] {
            let mut out = vec![0.0; used * width * LANES];
            if !scale_codes(&codes, &scales, width, &mut out) {
                eprintln!("skipped: no AVX2");
                return;
            }
            for (i, v) in out.into_iter().enumerate() {
                let scale = scales[i / (width * LANES)][i % LANES];
                assert_eq!(v, f32::from(codes[i]) * scale);
            }
        }
    }
}
