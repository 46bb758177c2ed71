//! What an instruction set has to provide.

use std::ops::RangeInclusive;

use crate::activations::ActBlock;
use crate::int6::{Chunk, GROUPS};
use crate::layout::{DEPTH_BLOCKS, LANES, QUAD, WeightBlock};
use crate::lookup::Table;
use crate::planes::Planes;
use crate::scalar;
use crate::sparse::SparseLimits;

/// Tokens whose sums are handed over at once: a multiple of what vector kernels compute side by side.
const SOME_TOKENS: usize = 24;

/// Part of a product with packed weights: one row tile, or some of its columns, against `tokens`
/// rows of activations.
#[derive(Debug, Clone, Copy)]
pub struct PackedTile<'a> {
    /// Blocks of four columns, a multiple of [`DEPTH_BLOCKS`].
    pub weights: &'a [WeightBlock],
    /// Activation codes from the first of these columns on.
    pub x: &'a [ActBlock],
    /// Blocks from one token to the next.
    pub stride: usize,
    /// Rows of activations.
    pub tokens: usize,
}

impl<'a> PackedTile<'a> {
    /// Blocks of activations that go with the weights.
    #[inline]
    pub(crate) fn depth(&self) -> usize {
        self.weights.len() / DEPTH_BLOCKS
    }

    /// Activations of token `t`.
    #[inline]
    pub(crate) fn token(&self, t: usize) -> &'a [ActBlock] {
        &self.x[t * self.stride..][..self.depth()]
    }

    /// Weights of 64 columns each.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[inline]
    pub(crate) fn deep_blocks(&self) -> &'a [[WeightBlock; DEPTH_BLOCKS]] {
        self.weights.as_chunks().0
    }
}

/// Some columns of a row tile of six-bit weights, for one token: `crate::int6`.
#[derive(Debug, Clone, Copy)]
pub struct Int6Tile<'a> {
    /// The weights.
    pub chunks: &'a [Chunk],
    /// The two digits of the activations.
    pub x: [&'a [ActBlock]; 2],
    /// For each digit what has to be added to the products of each group with codes that have a bias.
    pub offsets: [&'a [[i32; GROUPS]]; 2],
}

/// Some columns of a tile of 256 rows, for one token: `crate::sparse`.
#[derive(Debug, Clone, Copy)]
pub struct ColumnTile<'a> {
    /// All columns of the tile: [`crate::sparse::ColumnMatrix`].
    pub lines: &'a [WeightBlock],
    /// The columns to read.
    pub columns: &'a [[u32; QUAD]],
    /// Their activation codes.
    pub codes: &'a [[i8; QUAD]],
}

/// Some rows of a matrix, for one token: `crate::sparse`.
#[derive(Debug, Clone, Copy)]
pub struct RowPart<'a> {
    /// All rows: [`crate::sparse::RowMatrix`].
    pub weights: &'a [WeightBlock],
    /// Blocks in a row, of 256 columns each.
    pub lines: usize,
    /// The rows to compute, as many as there are sums, and those that are read after them.
    pub rows: &'a [u32],
    /// Activation codes of all columns, 64 a block.
    pub x: &'a [ActBlock],
}

impl<'a> RowPart<'a> {
    /// `R` rows from the `first` of the list on.
    #[inline]
    pub(crate) fn some<const R: usize>(&self, first: usize) -> [&'a [WeightBlock]; R] {
        std::array::from_fn(|i| {
            &self.weights[self.rows[first + i] as usize * self.lines..][..self.lines]
        })
    }
}

/// One row tile of a matrix of tables, for one token.
#[derive(Debug, Clone, Copy)]
pub struct LookupTile<'a> {
    /// Blocks of four columns, a multiple of [`DEPTH_BLOCKS`].
    pub weights: &'a [WeightBlock],
    /// The tables of each block.
    pub tables: &'a [Table],
}

/// A block of an f32 product: `rows` rows of weights against `tokens` rows of activations.
#[derive(Debug, Clone, Copy)]
pub struct DenseTile<'a> {
    /// `rows × cols` weights.
    pub weights: &'a [f32],
    /// `tokens × cols` activations.
    pub x: &'a [f32],
    /// Width of both.
    pub cols: usize,
    /// Rows of weights.
    pub rows: usize,
    /// Rows of activations.
    pub tokens: usize,
}

impl<'a> DenseTile<'a> {
    /// `R` rows of weights from `first` on.
    #[inline]
    pub(crate) fn rows<const R: usize>(&self, first: usize) -> [&'a [f32]; R] {
        std::array::from_fn(|r| &self.weights[(first + r) * self.cols..][..self.cols])
    }

    /// `T` rows of activations from `first` on.
    #[inline]
    pub(crate) fn tokens<const T: usize>(&self, first: usize) -> [&'a [f32]; T] {
        std::array::from_fn(|t| &self.x[(first + t) * self.cols..][..self.cols])
    }
}

/// The inner loops of one instruction set.
///
/// A value that implements this proves that the processor can run it: it is only to be had from
/// its `detect`, through [`crate::select`].
pub trait Kernel: Send + Sync + std::fmt::Debug {
    /// Name for `TRITBURN_KERNEL`, logs and benchmarks.
    fn name(&self) -> &'static str;

    /// `acc[t, r] = Σ (w[r, c] + 1) · x[t, c]` for the rows of a row tile, exact in i32; `acc` is
    /// `[tokens, planes.tile_rows()]`. The caller takes the sum of the activations off.
    fn ternary_tile(&self, planes: Planes, tile: PackedTile<'_>, acc: &mut [i32]);

    /// [`Self::ternary_tile`] for some tokens after the other: `each` gets the number of the first
    /// and their sums, `[tokens, planes.tile_rows()]`, while they are in the nearest cache. What is
    /// in `acc` before and after means nothing.
    fn ternary_sums(
        &self,
        planes: Planes,
        tile: PackedTile<'_>,
        acc: &mut Vec<i32>,
        each: &mut dyn FnMut(usize, &[i32]),
    ) {
        for first in (0..tile.tokens).step_by(SOME_TOKENS) {
            let tokens = SOME_TOKENS.min(tile.tokens - first);
            acc.resize(tokens * planes.tile_rows(), 0);
            let x = &tile.x[first * tile.stride..];
            self.ternary_tile(planes, PackedTile { x, tokens, ..tile }, acc);
            each(first, acc);
        }
    }

    /// Another way for many rows and so many tokens, where there is a better one.
    fn together(&self, _planes: Planes, _tokens: usize) -> Option<&dyn Together> {
        None
    }

    /// `acc[t, r] = Σ w[r, c] · x[t, c]` for the 16 rows of a tile with one weight, 0…255, in a
    /// byte, exact in i32; `acc` is `[tokens, LANES]`.
    fn byte_tile(&self, tile: PackedTile<'_>, acc: &mut [i32]);

    /// `acc[d, r] = Σ level[r, g] · Σ code[r, c] · x[d, c]` over groups `g` and their columns `c`, for both
    /// digits `d`, modulo 2³².
    fn int6_tile(&self, tile: Int6Tile<'_>, acc: &mut [[i32; LANES]; 2]) {
        scalar::int6_tile(tile, acc);
    }

    /// `acc[r] = Σ (w[r, c] + 1) · x[c]` over some columns `c`, exact in i32; `acc` is `[256]`.
    fn column_tile(&self, tile: ColumnTile<'_>, acc: &mut [i32]) {
        scalar::column_tile(tile, acc);
    }

    /// `acc[i] = Σ (w[rows[i], c] + 1) · x[c]`, exact in i32; `acc` is no longer than `rows`.
    fn row_sums(&self, part: RowPart<'_>, acc: &mut [i32]) {
        scalar::row_sums(part, acc);
    }

    /// `acc[r] = Σ (w[r, c] + 1) · x[c]` for the 64 rows of a row tile of
    /// [`crate::Format::Lookup`], exact in i32; `acc` is `[64]`.
    fn lookup_tile(&self, tile: LookupTile<'_>, acc: &mut [i32]) {
        scalar::lookup_tile(tile, acc);
    }

    /// When products that leave something out are worth their while.
    fn sparse_limits(&self) -> SparseLimits {
        scalar::SPARSE_LIMITS
    }

    /// `acc[t · rows + r] = Σ w[r] · x[t]`, in an order of additions that does not depend on the
    /// tile's shape.
    fn dense_tile(&self, tile: DenseTile<'_>, acc: &mut [f32]);
}

/// A way to multiply many row tiles with many tokens that is not one row tile after the other.
pub trait Together: Sync {
    /// Rows of a call: with fewer it is not worth its while, with more what it needs leaves the cache.
    fn rows(&self) -> RangeInclusive<usize>;

    /// Tokens of a register: calls have a multiple of them, or somewhat less.
    fn tokens_at_once(&self) -> usize;

    /// Most tokens of a call, for the same reason.
    fn most_tokens(&self) -> usize;

    /// As [`Kernel::ternary_sums`] for `tiles` row tiles, whose weights follow each other: `each` gets the number of a
    /// row tile and of a token and the sums of that row tile from this token on.
    fn ternary_tiles(
        &self,
        planes: Planes,
        tiles: usize,
        tile: PackedTile<'_>,
        each: &mut dyn FnMut(usize, usize, &[i32]),
    );
}
