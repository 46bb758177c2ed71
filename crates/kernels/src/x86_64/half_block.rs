//! Blocks of weights in the two halves that 256-bit registers hold.

use std::arch::x86_64::*;

use crate::base3::{FIRST, MIDDLE, PAIR, QUOTIENT};
use crate::layout::{LANES, WeightBlock};

/// Rows of half a block.
pub(super) const HALF: usize = LANES / 2;

/// Half `half`, 0 or 1, of a block: its rows `8 · half..`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(block: &WeightBlock, half: usize) -> __m256i {
    let bytes = &block.0.as_chunks::<32>().0[half];
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Writes the sums of eight rows.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(out: &mut [i32; LANES], half: usize, sums: __m256i) {
    let out = &mut out.as_chunks_mut::<HALF>().0[half];
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sums) }
}

/// The sums of eight rows that [`store`] has written.
#[inline]
#[target_feature(enable = "avx2")]
fn load_sums(sums: &[i32; LANES], half: usize) -> __m256i {
    let sums = &sums.as_chunks::<HALF>().0[half];
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_loadu_si256(sums.as_ptr().cast()) }
}

/// Writes the sums of eight rows, with what is there added where `more` says so.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_to(acc: &mut [i32; LANES], half: usize, mut sum: __m256i, more: bool) {
    if more {
        sum = _mm256_add_epi32(sum, load_sums(acc, half));
    }
    store(acc, half, sum);
}

/// The numbers whose sums [`crate::planes::Planes::separate`] takes for `P` planes; a byte itself
/// where `P` is 1.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn numbers<const P: usize>(w: __m256i) -> [__m256i; P] {
    let mut out = [w; P];
    if P == 4 {
        for (out, mask) in out.iter_mut().zip([0x03, 0x0F, 0x3F]) {
            *out = _mm256_and_si256(w, _mm256_set1_epi8(mask));
        }
    } else if P == 5 {
        let [pair, counted, left] = pair_and_left(w);
        // The fifth bit of what is left says which half of its table is meant.
        let lower = _mm256_shuffle_epi8(halves(&MIDDLE[0]), left);
        let upper = _mm256_shuffle_epi8(halves(&MIDDLE[1]), left);
        let middle = _mm256_blendv_epi8(lower, upper, _mm256_slli_epi16::<3>(left));
        let third = _mm256_and_si256(middle, _mm256_set1_epi8(3));
        let first = _mm256_shuffle_epi8(halves(&FIRST), pair);
        out.copy_from_slice(&[first, counted, third, middle, left][..P]);
    }
    out
}

/// Of bytes of five trits ([`crate::base3`]) the first two digits as a number, what they count, and
/// what is left.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn pair_and_left(w: __m256i) -> [__m256i; 3] {
    // Products of words: see `base3_512`.
    let (low, factor) = (_mm256_set1_epi16(0x00FF), _mm256_set1_epi16(QUOTIENT));
    let even = _mm256_mulhi_epu16(_mm256_and_si256(w, low), factor);
    let odd = _mm256_mulhi_epu16(_mm256_andnot_si256(low, w), factor);
    let pair = _mm256_or_si256(even, _mm256_andnot_si256(low, odd));
    let counted = _mm256_shuffle_epi8(halves(&PAIR), pair);
    [pair, counted, _mm256_sub_epi8(w, counted)]
}

/// The table in both halves of a register.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn halves(table: &[u8; 16]) -> __m256i {
    // SAFETY: the array is 16 bytes.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planes::Planes;

    #[target_feature(enable = "avx2")]
    fn bytes_of<const P: usize>(bytes: [u8; 32]) -> [[u8; 32]; P] {
        let mut block = WeightBlock::ZERO;
        block.0[32..].copy_from_slice(&bytes);
        let mut out = [[0; 32]; P];
        for (out, number) in out.iter_mut().zip(numbers::<P>(load(&block, 1))) {
            // SAFETY: the array is 32 bytes.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), number) }
        }
        out
    }

    /// AVX-VNNI, which few test machines have, sums these numbers.
    #[test]
    fn every_byte_becomes_its_numbers() {
        if !is_x86_feature_detected!("avx2") {
            eprintln!("skipped: no AVX2");
            return;
        }
        let digits: Vec<[u8; 5]> = (0..3u32.pow(5))
            .map(|n| [81, 27, 9, 3, 1].map(|place| (n / place % 3) as u8))
            .collect();
        for start in 0..digits.len() {
            let some: [[u8; 5]; 32] = std::array::from_fn(|i| digits[(start + 37 * i) % 243]);
            let bytes = some.map(|d| (0..5).map(|p| Planes::Base3.digit(p, d[p])).sum());
            // SAFETY: AVX2 has been found.
            let numbers = unsafe { bytes_of::<5>(bytes) };
            for (i, [a, b, c, d, e]) in some.into_iter().enumerate() {
                let want = [a, 84 * a + 28 * b, c, c + 4 * d, 9 * c + 3 * d + e];
                assert_eq!(numbers.map(|n| n[i]), want);
            }
            let bytes = std::array::from_fn(|i| (start + 7 * i) as u8);
            // SAFETY: as above.
            let numbers = unsafe { bytes_of::<4>(bytes) };
            for (i, byte) in bytes.into_iter().enumerate() {
                assert_eq!(numbers.map(|n| n[i]), [3, 15, 63, 255].map(|m| byte & m));
            }
        }
    }
}
