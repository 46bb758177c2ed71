//! Kernels for x86-64. Loads and the one call from plain code into each file's loops are the only
//! `unsafe` parts.
#![allow(unsafe_code)]

mod avx2;
mod avx512vnni;
mod avxvnni;

pub use avx2::Avx2;
pub use avx512vnni::Avx512Vnni;
pub use avxvnni::AvxVnni;

use std::arch::x86_64::{__m256i, _mm256_load_si256, _mm256_loadu_si256};

use crate::ternary::WeightBlock;

/// The 32 bytes of a block of weights.
#[inline]
#[target_feature(enable = "avx2")]
fn load_weights(block: &WeightBlock) -> __m256i {
    // SAFETY: a `WeightBlock` is 32 bytes and aligned to 32.
    unsafe { _mm256_load_si256(block.0.as_ptr().cast()) }
}

/// 32 activation codes.
#[inline]
#[target_feature(enable = "avx2")]
fn load_codes(codes: &[i8; 32]) -> __m256i {
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) }
}
