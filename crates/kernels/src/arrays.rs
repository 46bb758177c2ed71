//! Arrays for loops of vector instructions, made by plain code: a closure in a function with target
//! features has them too and could not become part of the library's loop over an array, so each such
//! array would be a call.

use crate::activations::ActBlock;
use crate::kernel::{PackedTile, RowPart};
use crate::layout::QUAD;

/// Activations of `T` tokens from `t` on.
#[inline(always)]
pub(crate) fn tokens_from<'a, const T: usize>(
    tile: PackedTile<'a>,
    t: usize,
) -> [&'a [ActBlock]; T] {
    std::array::from_fn(|k| tile.token(t + k))
}

/// The first `whole` vectors of `N` values of each row.
#[inline(always)]
pub(crate) fn vectors_of<'a, const N: usize, const R: usize>(
    rows: &[&'a [f32]; R],
    whole: usize,
) -> [&'a [[f32; N]]; R] {
    rows.map(|row| &row.as_chunks().0[..whole])
}

/// The activations of a line of rows; none past the end.
#[inline(always)]
pub(crate) fn inputs_of(part: RowPart<'_>, line: usize) -> [Option<&ActBlock>; 4] {
    std::array::from_fn(|k| part.x.get(4 * line + k))
}

/// A quad as the word that is broadcast.
#[inline(always)]
pub(crate) fn word(quad: [i8; QUAD]) -> i32 {
    i32::from_ne_bytes(quad.map(i8::cast_unsigned))
}
