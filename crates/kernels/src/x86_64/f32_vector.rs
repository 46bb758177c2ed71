//! Vectors of f32 and of what becomes f32, for loops that are written once for two widths.

use std::arch::x86_64::*;

/// A vector of f32.
///
/// # Safety
/// Every function needs the processor to have the vectors, and addresses to be those of as many values.
pub(super) trait Vector: Copy {
    const LANES: usize;
    /// Registers for sums.
    const SUMS: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn of_halves(halves: *const u16) -> Self;
    unsafe fn of_codes(codes: *const i8) -> Self;
    unsafe fn load(values: *const f32) -> Self;
    unsafe fn store(self, values: *mut f32);
    unsafe fn mul(self, b: Self) -> Self;
    /// `self · b + c`, rounded once.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
}

impl Vector for __m512 {
    const LANES: usize = 16;
    const SUMS: usize = 24;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's promise, here and below.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn of_halves(halves: *const u16) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(halves.cast())) }
    }

    #[inline(always)]
    unsafe fn of_codes(codes: *const i8) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(codes.cast()))) }
    }

    #[inline(always)]
    unsafe fn load(values: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(values) }
    }

    #[inline(always)]
    unsafe fn store(self, values: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(values, self) }
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(self, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(self, b, c) }
    }
}

impl Vector for __m256 {
    const LANES: usize = 8;
    const SUMS: usize = 12;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's promise, here and below.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn of_halves(halves: *const u16) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(halves.cast())) }
    }

    #[inline(always)]
    unsafe fn of_codes(codes: *const i8) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(codes.cast()))) }
    }

    #[inline(always)]
    unsafe fn load(values: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_loadu_ps(values) }
    }

    #[inline(always)]
    unsafe fn store(self, values: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(values, self) }
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_mul_ps(self, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(self, b, c) }
    }
}
