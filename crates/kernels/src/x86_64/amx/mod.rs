//! AMX-INT8: tiles of 16 tokens × 64 columns times 64 columns × 16 rows.
//!
//! A tile of weights is 16 blocks of one plane as they lie in memory: the packed bytes of a row
//! tile are spread into the numbers that are summed ([`crate::layout`]) once, in a buffer that
//! stays in the cache, and used for all tokens. Fewer tokens than half a tile go through AVX-512
//! VNNI.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::sync::OnceLock;

mod detect;
mod tiles;

use detect::{ask_for_tiles, has_tiles};
use tiles::{TileConfig, Walk, four, single, two_planes, two_tokens};

use super::avx512vnni::{Avx512Vnni, load, numbers};
use crate::activations::{ActBlock, TOKEN_TILE};
use crate::kernel::{ColumnTile, DenseTile, Int6Tile, Kernel, LookupTile, PackedTile, RowPart};
use crate::layout::{DEPTH_BLOCKS, LANES, WeightBlock};
use crate::planes::Planes;
use crate::room::Buffer;
use crate::sparse::SparseLimits;

/// Fewest tokens for which a tile that is not full is faster than vectors.
const MIN_TOKENS: usize = 8;

/// The blocks of one plane for 64 columns: a tile of 16 rows of 64 bytes.
type WeightTile = [WeightBlock; DEPTH_BLOCKS];

thread_local! {
    /// Weight tiles of one row tile, `[64 columns each, planes]`.
    static SPREAD: RefCell<Buffer<WeightTile>> = RefCell::default();
}

/// A processor with AMX-INT8 and AVX-512 VNNI, on a system that lets us use it.
#[derive(Debug, Clone, Copy)]
pub struct Amx {
    vectors: Avx512Vnni,
}

impl Amx {
    /// The kernel, where this processor and system can run it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        // Every processor with these tiles has VBMI.
        let vectors = Avx512Vnni::detect().filter(|v| v.has_vbmi())?;
        let allowed = *ALLOWED.get_or_init(|| has_tiles() && ask_for_tiles());
        allowed.then_some(Self { vectors })
    }
}

impl Kernel for Amx {
    fn name(&self) -> &'static str {
        "amx"
    }

    fn ternary_tile(&self, planes: Planes, tile: PackedTile<'_>, acc: &mut [i32]) {
        let rows = planes.tile_rows();
        self.ternary_sums(planes, tile, &mut Vec::new(), &mut |first, sums| {
            acc[first * rows..][..sums.len()].copy_from_slice(sums);
        });
    }

    fn ternary_sums(
        &self,
        planes: Planes,
        tile: PackedTile<'_>,
        acc: &mut Vec<i32>,
        each: &mut dyn FnMut(usize, &[i32]),
    ) {
        let (tiled, rest) = split(tile);
        acc.resize(tiled.tokens.min(2 * TOKEN_TILE) * planes.tile_rows(), 0);
        let mut separated = |first: usize, acc: &mut [i32]| {
            // SAFETY: `detect` has found AVX-512 F and BW.
            unsafe { separate(planes, acc) }
            each(first, acc);
        };
        // SAFETY: `detect` has found AVX-512 with VBMI and AMX-INT8 and asked for its use.
        unsafe {
            match planes {
                Planes::TwoBit => multiply::<4>(tiled, acc, &mut separated),
                Planes::Base3 => multiply::<5>(tiled, acc, &mut separated),
            }
        }
        self.vectors
            .ternary_sums(planes, rest, acc, &mut |first, acc| {
                each(tiled.tokens + first, acc);
            });
    }

    fn byte_tile(&self, tile: PackedTile<'_>, acc: &mut [i32]) {
        let (tiled, rest) = split(tile);
        let (first, second) = acc.split_at_mut(tiled.tokens * LANES);
        let mut sums = [0; 2 * TOKEN_TILE * LANES];
        let mut store = |at: usize, sums: &mut [i32]| {
            first[at * LANES..][..sums.len()].copy_from_slice(sums);
        };
        // SAFETY: `detect` has found AVX-512 and AMX-INT8 and asked for its use.
        unsafe { multiply::<1>(tiled, &mut sums, &mut store) }
        if rest.tokens > 0 {
            self.vectors.byte_tile(rest, second);
        }
    }

    fn int6_tile(&self, tile: Int6Tile<'_>, acc: &mut [[i32; LANES]; 2]) {
        self.vectors.int6_tile(tile, acc);
    }

    fn column_tile(&self, tile: ColumnTile<'_>, acc: &mut [i32]) {
        self.vectors.column_tile(tile, acc);
    }

    fn row_sums(&self, part: RowPart<'_>, acc: &mut [i32]) {
        self.vectors.row_sums(part, acc);
    }

    fn sparse_limits(&self) -> SparseLimits {
        self.vectors.sparse_limits()
    }

    fn lookup_tile(&self, tile: LookupTile<'_>, acc: &mut [i32]) {
        self.vectors.lookup_tile(tile, acc);
    }

    fn dense_tile(&self, tile: DenseTile<'_>, acc: &mut [f32]) {
        self.vectors.dense_tile(tile, acc);
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn separate(planes: Planes, acc: &mut [i32]) {
    for acc in acc.chunks_exact_mut(planes.tile_rows()) {
        planes.separate(acc);
    }
}

/// The tokens that go through tiles, and the others.
fn split(tile: PackedTile<'_>) -> (PackedTile<'_>, PackedTile<'_>) {
    let over = tile.tokens % TOKEN_TILE;
    // The last tile reads rows of activations past the tokens, where there are such.
    let last = tile.tokens.next_multiple_of(TOKEN_TILE).saturating_sub(1);
    let readable = tile.x.len() >= last * tile.stride + tile.depth();
    let tokens = if over >= MIN_TOKENS && readable {
        tile.tokens
    } else {
        tile.tokens - over
    };
    let rest = tile.tokens - tokens;
    let x = tile.x.get(tokens * tile.stride..).unwrap_or_default();
    (
        PackedTile { tokens, ..tile },
        PackedTile {
            x,
            tokens: rest,
            ..tile
        },
    )
}

/// Gives `each` the sums `[t, plane, lane] = Σ u · x`, for the numbers `u` of [`Planes::separate`],
/// of up to two tiles of tokens after the other, with the number of the first; `acc` has room for
/// them.
#[target_feature(enable = "avx512f,avx512bw")]
fn multiply<const P: usize>(
    tile: PackedTile<'_>,
    acc: &mut [i32],
    each: &mut dyn FnMut(usize, &mut [i32]),
) {
    let depth = tile.depth();
    if tile.tokens == 0 {
        return;
    }
    SPREAD.with_borrow_mut(|buffer| {
        let weights = if P == 1 {
            tile.deep_blocks()
        } else {
            spread::<P>(tile, buffer);
            &buffer[..]
        };
        let _guard = TileConfig::load();
        let mut sums = [[WeightBlock::ZERO; TOKEN_TILE]; 4];
        for t in (0..tile.tokens).step_by(2 * TOKEN_TILE) {
            let two = tile.tokens - t > TOKEN_TILE;
            let acc = &mut acc[..(tile.tokens - t).min(2 * TOKEN_TILE) * P * LANES];
            if depth == 0 {
                acc.fill(0);
                each(t, acc);
                continue;
            }
            for p in (0..P).step_by(2) {
                let pair = P - p > 1;
                let (t_next, p_next) =
                    (t + if two { TOKEN_TILE } else { 0 }, p + usize::from(pair));
                let x = [&tile.x[t * tile.stride..], &tile.x[t_next * tile.stride..]];
                let w = [&weights[p..], &weights[p_next..]];
                for x in x {
                    assert!(x.len() >= (TOKEN_TILE - 1) * tile.stride + depth);
                }
                for w in w {
                    assert!(w.len() > (depth - 1) * P);
                }
                let walk = Walk {
                    x: [x[0].as_ptr(), x[1].as_ptr()],
                    x_stride: tile.stride * size_of::<ActBlock>(),
                    w: [w[0].as_ptr(), w[1].as_ptr()],
                    w_step: P * size_of::<WeightTile>(),
                    depth,
                };
                // SAFETY: the assertions above say that `depth` tiles can be read from each pointer
                // at these distances, and tiles are configured.
                unsafe {
                    match (two, pair) {
                        (true, true) => four(&walk, &mut sums),
                        (false, true) => two_planes(&walk, &mut sums),
                        (true, false) => two_tokens(&walk, &mut sums),
                        (false, false) => single(&walk, &mut sums),
                    }
                }
                for (i, sums) in sums.iter().enumerate() {
                    let (first, p) = (i / 2 * TOKEN_TILE, p + i % 2);
                    if p < P {
                        store_sums::<P>(sums, first, p, acc);
                    }
                    if i % 2 == 1 && !two {
                        break;
                    }
                }
            }
            each(t, acc);
        }
    });
}

/// Copies a tile of sums, one token a block, to its place.
#[inline]
fn store_sums<const P: usize>(
    sums: &[WeightBlock; TOKEN_TILE],
    first: usize,
    plane: usize,
    acc: &mut [i32],
) {
    let rows = P * LANES;
    let acc = acc[first * rows..].chunks_exact_mut(rows);
    for (acc, sums) in acc.zip(sums) {
        let acc = &mut acc[plane * LANES..][..LANES];
        for (acc, bytes) in acc.iter_mut().zip(sums.0.as_chunks().0) {
            *acc = i32::from_ne_bytes(*bytes);
        }
    }
}

/// The numbers of all blocks of a row tile.
#[target_feature(enable = "avx512f,avx512bw")]
fn spread<const P: usize>(tile: PackedTile<'_>, buffer: &mut Buffer<WeightTile>) {
    buffer.resize(tile.depth() * P);
    for (blocks, out) in tile.deep_blocks().iter().zip(buffer.chunks_exact_mut(P)) {
        for (q, block) in blocks.iter().enumerate() {
            for (out, number) in out.iter_mut().zip(numbers::<P, true>(load(block))) {
                // SAFETY: a `WeightBlock` is 64 bytes and aligned to 64.
                unsafe { _mm512_store_si512(out[q].0.as_mut_ptr().cast(), number) }
            }
        }
    }
}
