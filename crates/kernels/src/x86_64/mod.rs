//! Kernels for x86-64. Loads, stores, the one call from plain code into each file's loops and the
//! tile instructions are the only `unsafe` parts.
#![allow(unsafe_code)]

mod amx;
mod avx2;
mod avx512vnni;
mod avxvnni;
mod base3_512;
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
pub(crate) use prefetch::{ask_ahead, ask_first};

use crate::activations::ActBlock;
use crate::kernel::{PackedTile, RowPart};
use crate::layout::{LANES, QUAD};

/// The sums of one token in `acc`, `[tokens, planes, LANES]`, plane by plane.
#[inline(always)]
fn planes_of(acc: &mut [i32], token: usize, planes: usize) -> &mut [[i32; LANES]] {
    let row = planes * LANES;
    acc[token * row..][..row].as_chunks_mut().0
}

// What follows is plain code, since a closure in a function with target features has them too and
// could not become part of the library's loop over an array: each such array would be a call.

/// Activations of `T` tokens from `t` on.
#[inline(always)]
fn tokens_from<'a, const T: usize>(tile: PackedTile<'a>, t: usize) -> [&'a [ActBlock]; T] {
    std::array::from_fn(|k| tile.token(t + k))
}

/// Their quads in block `d`.
#[inline(always)]
fn quads_of<'a, const T: usize>(x: &[&'a [ActBlock]; T], d: usize) -> [&'a [[i8; QUAD]]; T] {
    x.map(|x| x[d].0.as_chunks().0)
}

/// The first `whole` vectors of `N` values of each row.
#[inline(always)]
fn vectors_of<'a, const N: usize, const R: usize>(
    rows: &[&'a [f32]; R],
    whole: usize,
) -> [&'a [[f32; N]]; R] {
    rows.map(|row| &row.as_chunks().0[..whole])
}

/// The activations of a line of rows; none past the end.
#[inline(always)]
fn inputs_of(part: RowPart<'_>, line: usize) -> [Option<&ActBlock>; 4] {
    std::array::from_fn(|k| part.x.get(4 * line + k))
}

/// A quad as the word that is broadcast.
#[inline(always)]
fn word(quad: [i8; QUAD]) -> i32 {
    i32::from_ne_bytes(quad.map(i8::cast_unsigned))
}
