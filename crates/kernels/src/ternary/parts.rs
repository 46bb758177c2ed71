//! How the outputs of a product are divided among tasks.

use std::ops::Range;

use super::TernaryMatrix;
use crate::exec::Exec;
use crate::kernel::Together;
use crate::scales::Scales;

/// Fewer tokens behind those that fill registers are multiplied row tile by row tile.
const FEW: usize = 8;
/// Rows of a task that may be halved, so that a thread has several of them.
const MANY_ROWS: usize = 2048;

/// Row tiles and tokens that each task computes.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    tiles: usize,
    tokens: usize,
    tiles_each: usize,
    token_parts: usize,
    /// Of all parts but the last.
    tokens_each: usize,
    /// How, where it is not one row tile for all tokens.
    together: Option<&'a dyn Together>,
}

/// What one task computes.
#[derive(Clone)]
pub(super) struct Part<'a> {
    pub(super) tiles: Range<usize>,
    /// What computes these tokens for all row tiles, where something does.
    pub(super) together: Option<(&'a dyn Together, Range<usize>)>,
    /// The tokens to compute row tile by row tile.
    pub(super) tokens: Range<usize>,
}

impl<'a> Parts<'a> {
    /// A row tile each.
    pub(super) fn tiles(matrix: &TernaryMatrix, tokens: usize) -> Self {
        Self {
            tiles: matrix.tiles(),
            tokens,
            tiles_each: 1,
            token_parts: 1,
            tokens_each: tokens,
            together: None,
        }
    }

    /// As the kernel is fastest.
    pub(super) fn of(exec: &'a Exec, matrix: &TernaryMatrix, tokens: usize) -> Self {
        let one_by_one = Self::tiles(matrix, tokens);
        let grouped = matches!(matrix.scales, Scales::Group(_));
        let planes = matrix.format.planes().filter(|_| !grouped);
        let Some(together) = planes.and_then(|planes| exec.kernel.together(planes, tokens)) else {
            return one_by_one;
        };
        let (fewest, most) = together.rows().into_inner();
        let (threads, tile_rows) = (exec.threads(), matrix.format.tile_rows());
        let rows = matrix.tiles() * tile_rows;
        if rows < fewest {
            return one_by_one;
        }
        let some = together.tokens_at_once();
        let times = filled(tokens, some);
        let token_parts = times.div_ceil((together.most_tokens() / some).max(1));
        let times_each = times.div_ceil(token_parts.max(1));
        // As many parts as give all threads the same.
        let share = if times.is_multiple_of(times_each) {
            threads / gcd(threads, token_parts)
        } else {
            threads
        };
        let mut tile_parts = rows.div_ceil(most).next_multiple_of(share);
        if token_parts * tile_parts < 2 * threads && rows >= MANY_ROWS * tile_parts {
            tile_parts *= 2;
        }
        let tiles_each = matrix.tiles().div_ceil(tile_parts);
        let parts = Self {
            tiles_each: tiles_each.max(fewest.div_ceil(tile_rows)),
            token_parts,
            tokens_each: times_each * some,
            together: Some(together),
            ..one_by_one
        };
        if parts.count() < threads.min(matrix.tiles()) {
            return one_by_one;
        }
        parts
    }

    /// How many there are.
    pub(super) fn count(self) -> usize {
        self.tiles.div_ceil(self.tiles_each) * self.token_parts
    }

    /// Number `i`; those with the same weights follow each other.
    pub(super) fn part(self, i: usize) -> Part<'a> {
        let (tile, token) = (i / self.token_parts, i % self.token_parts);
        let first = token * self.tokens_each;
        let end = if token + 1 < self.token_parts {
            first + self.tokens_each
        } else {
            self.tokens
        };
        let mut tokens = first..end;
        let together = self.together.map(|together| {
            let some = together.tokens_at_once();
            let end = end.min(first + filled(end - first, some) * some);
            (together, std::mem::replace(&mut tokens.start, end)..end)
        });
        Part {
            tiles: tile * self.tiles_each..self.tiles.min((tile + 1) * self.tiles_each),
            together,
            tokens,
        }
    }
}

/// How many times `some` tokens are computed together, the last time perhaps with fewer.
fn filled(tokens: usize, some: usize) -> usize {
    tokens / some + usize::from(tokens % some >= FEW)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
