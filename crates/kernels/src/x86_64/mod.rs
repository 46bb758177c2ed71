//! Kernels for x86-64. Loads, stores, the one call from plain code into each file's loops and the
//! tile instructions are the only `unsafe` parts.
#![allow(unsafe_code)]

mod amx;
mod avx2;
mod avx512vnni;
mod avxvnni;
mod base3_256;
mod base3_512;
mod dense256;
mod dense512;
mod f32_vector;
mod half_block;
pub(crate) mod halves;
mod int6_256;
mod int6_512;
pub(crate) mod key_lanes;
mod lookup256;
mod lookup512;
mod lookup_sums;
mod low_bit;
mod low_bit_256;
mod pairs;
mod prefetch;
mod sparse256;
mod sparse512;
mod stored_rows;
mod token_tables;
mod transpose;
mod two_bit_256;

pub use amx::Amx;
pub use avx2::Avx2;
pub use avx512vnni::Avx512Vnni;
pub use avxvnni::AvxVnni;
pub(crate) use low_bit::LowBitVectors;
pub(crate) use low_bit_256::LowBitHalves;
pub(crate) use prefetch::{ask_ahead, ask_first};
pub(crate) use stored_rows::{Later, Rows, Stored, StoredRows};
pub(crate) use transpose::transpose;

use crate::activations::ActBlock;
use crate::arrays::{inputs_of, tokens_from, vectors_of, word};
use crate::layout::{LANES, QUAD};

/// The sums of one token in `acc`, `[tokens, planes, LANES]`, plane by plane.
#[inline(always)]
fn planes_of(acc: &mut [i32], token: usize, planes: usize) -> &mut [[i32; LANES]] {
    let row = planes * LANES;
    acc[token * row..][..row].as_chunks_mut().0
}

/// The quads of some tokens in block `d`: see [`crate::arrays`].
#[inline(always)]
fn quads_of<'a, const T: usize>(x: &[&'a [ActBlock]; T], d: usize) -> [&'a [[i8; QUAD]]; T] {
    x.map(|x| x[d].0.as_chunks().0)
}
