//! How the outputs of a product are divided among tasks.

use std::ops::Range;

use super::TernaryMatrix;
use crate::exec::Exec;
use crate::kernel::Together;
use crate::scales::Scales;

/// Tokens of a call of [`Together`] are a multiple of this, but for the last.
const TOKENS: usize = 16;
/// Fewer tokens behind such a multiple are multiplied row tile by row tile.
const FEW: usize = 8;

/// Row tiles and tokens that each task computes.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    tiles: usize,
    tokens: usize,
    tiles_each: usize,
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
            tokens_each: tokens.max(1),
            together: None,
        }
    }

    /// As the kernel has them soonest.
    pub(super) fn of(exec: &'a Exec, matrix: &TernaryMatrix, tokens: usize) -> Self {
        let one_by_one = Self::tiles(matrix, tokens);
        let grouped = matches!(matrix.scales, Scales::Group(_));
        let planes = matrix.format.planes().filter(|_| !grouped);
        let Some(together) = planes.and_then(|planes| exec.kernel.together(planes)) else {
            return one_by_one;
        };
        let (rows, some) = (together.rows(), together.tokens());
        if tokens < some.0 {
            return one_by_one;
        }
        let token_parts = tokens.div_ceil(some.1);
        let tokens_each = tokens.div_ceil(token_parts).next_multiple_of(TOKENS);
        let token_parts = tokens.div_ceil(tokens_each);
        // As many parts as give all threads the same.
        let share = exec.threads() / gcd(exec.threads(), token_parts);
        let tile_rows = matrix.format.tile_rows();
        let tile_parts = (matrix.tiles() * tile_rows)
            .div_ceil(rows.1)
            .next_multiple_of(share);
        let tiles_each = matrix.tiles().div_ceil(tile_parts.max(1));
        if tiles_each * tile_rows < rows.0 {
            return one_by_one;
        }
        Self {
            tiles_each,
            tokens_each,
            together: Some(together),
            ..one_by_one
        }
    }

    /// How many there are.
    pub(super) fn count(self) -> usize {
        self.tiles.div_ceil(self.tiles_each) * self.token_parts()
    }

    /// Number `i`; those with the same weights follow each other.
    pub(super) fn part(self, i: usize) -> Part<'a> {
        let range = |i: usize, each: usize, all: usize| i * each..all.min((i + 1) * each);
        let parts = self.token_parts();
        let mut tokens = range(i % parts, self.tokens_each, self.tokens);
        let together = self.together.map(|together| {
            let few = Some(tokens.len() % TOKENS).filter(|&few| few < FEW);
            let end = tokens.end - few.unwrap_or(0);
            (together, std::mem::replace(&mut tokens.start, end)..end)
        });
        Part {
            tiles: range(i / parts, self.tiles_each, self.tiles),
            together,
            tokens,
        }
    }

    /// One at least, so that products of no tokens are computed like others.
    fn token_parts(self) -> usize {
        self.tokens.div_ceil(self.tokens_each).max(1)
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
