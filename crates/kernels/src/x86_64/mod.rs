//! Kernels for x86-64. Loads, stores, the one call from plain code into each file's loops and the
//! tile instructions are the only `unsafe` parts.
#![allow(unsafe_code)]

mod amx;
mod avx2;
mod avx512vnni;
mod avxvnni;
mod dense512;
mod half_block;
pub(crate) mod halves;
mod int6_256;
mod int6_512;
mod lookup256;
mod lookup512;
mod lookup_sums;
mod low_bit;
mod prefetch;
mod sparse256;
mod sparse512;

pub use amx::Amx;
pub use avx2::Avx2;
pub use avx512vnni::Avx512Vnni;
pub use avxvnni::AvxVnni;
pub(crate) use low_bit::LowBitVectors;

use crate::layout::LANES;

/// The sums of one token in `acc`, `[tokens, planes, LANES]`, plane by plane.
#[inline(always)]
fn planes_of(acc: &mut [i32], token: usize, planes: usize) -> &mut [[i32; LANES]] {
    let row = planes * LANES;
    acc[token * row..][..row].as_chunks_mut().0
}
