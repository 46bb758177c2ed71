//! The reference: plain Rust that every processor runs and every other kernel is compared with.

use crate::activations::ActBlock;
use crate::int6::{GROUP, GROUPS};
use crate::kernel::{ColumnTile, DenseTile, Int6Tile, Kernel, LookupTile, PackedTile, RowPart};
use crate::layout::{LANES, QUAD, WeightBlock};
use crate::planes::Planes;
use crate::sparse::SparseLimits;

/// Sums that [`dot`] keeps apart, so that the loop becomes vector code.
const DENSE_LANES: usize = 8;

/// Runs on every processor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scalar;

impl Kernel for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn ternary_tile(&self, planes: Planes, tile: PackedTile<'_>, acc: &mut [i32]) {
        for (t, acc) in acc.chunks_exact_mut(planes.tile_rows()).enumerate() {
            for (plane, acc) in acc.chunks_exact_mut(LANES).enumerate() {
                sums(tile, t, acc, |byte| i32::from(planes.code(byte, plane)));
            }
        }
    }

    fn byte_tile(&self, tile: PackedTile<'_>, acc: &mut [i32]) {
        for (t, acc) in acc.chunks_exact_mut(LANES).enumerate() {
            sums(tile, t, acc, i32::from);
        }
    }

    fn dense_tile(&self, tile: DenseTile<'_>, acc: &mut [f32]) {
        for t in 0..tile.tokens {
            let [x] = tile.tokens(t);
            for r in 0..tile.rows {
                let [w] = tile.rows(r);
                acc[t * tile.rows + r] = dot(w, x);
            }
        }
    }
}

/// `acc[lane] = Σ weight(byte) · x` for one token.
fn sums(tile: PackedTile<'_>, token: usize, acc: &mut [i32], weight: impl Fn(u8) -> i32) {
    acc.fill(0);
    let x = tile.token(token).iter().flat_map(quads);
    for (block, x) in tile.weights.iter().zip(x) {
        for (sum, bytes) in acc.iter_mut().zip(block.0.as_chunks::<QUAD>().0) {
            let products = bytes.iter().zip(x).map(|(&b, &x)| weight(b) * i32::from(x));
            *sum += products.sum::<i32>();
        }
    }
}

/// Measured: see `SparseLimits`.
pub(crate) const SPARSE_LIMITS: SparseLimits = SparseLimits {
    columns: 0.75,
    rows: 0.75,
};

/// See [`Kernel::lookup_tile`].
pub(crate) fn lookup_tile(tile: LookupTile<'_>, acc: &mut [i32]) {
    acc.fill(0);
    for (block, table) in tile.weights.iter().zip(tile.tables) {
        for (acc, byte) in acc.iter_mut().zip(block.0) {
            *acc += table.sum(0, byte & 15) + table.sum(1, byte >> 4);
        }
    }
}

/// See [`Kernel::int6_tile`].
pub(crate) fn int6_tile(tile: Int6Tile<'_>, acc: &mut [[i32; LANES]; 2]) {
    *acc = [[0; LANES]; 2];
    for (c, chunk) in tile.chunks.iter().enumerate() {
        for g in 0..GROUPS {
            let mut sums = tile.offsets.map(|offsets| [offsets[c][g]; LANES]);
            for i in 0..GROUP / QUAD {
                let codes = chunk.codes(g, i);
                for (sums, x) in sums.iter_mut().zip(tile.x) {
                    let x = quads(&x[c])[g * (GROUP / QUAD) + i];
                    for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<QUAD>().0) {
                        let products = codes
                            .iter()
                            .zip(x)
                            .map(|(&w, x)| i32::from(w) * i32::from(x));
                        *sum += products.sum::<i32>();
                    }
                }
            }
            let levels = chunk.levels(g);
            for (acc, sums) in acc.iter_mut().zip(sums) {
                for ((acc, sum), level) in acc.iter_mut().zip(sums).zip(levels) {
                    *acc = acc.wrapping_add(sum * i32::from(level));
                }
            }
        }
    }
}

/// Code `w + 1` of place `i` of a line of 256.
fn code(line: &WeightBlock, i: usize) -> i32 {
    i32::from(line.0[i % 64] >> (2 * (i / 64)) & 3)
}

/// See [`Kernel::column_tile`].
pub(crate) fn column_tile(tile: ColumnTile<'_>, acc: &mut [i32]) {
    acc.fill(0);
    let columns = tile.columns.as_flattened().iter();
    for (&column, &x) in columns.zip(tile.codes.as_flattened()) {
        let line = &tile.lines[column as usize];
        for (r, acc) in acc.iter_mut().enumerate() {
            *acc += code(line, r) * i32::from(x);
        }
    }
}

/// See [`Kernel::row_sums`].
pub(crate) fn row_sums(part: RowPart<'_>, acc: &mut [i32]) {
    for (i, acc) in acc.iter_mut().enumerate() {
        let [row] = part.some(i);
        let products = part.x.iter().enumerate().flat_map(|(d, x)| {
            let line = &row[d / 4];
            let place = move |(j, &x)| code(line, d % 4 * 64 + j) * i32::from(x);
            x.0.iter().enumerate().map(place)
        });
        *acc = products.sum();
    }
}

/// The codes of a block, four columns at a time.
fn quads(block: &ActBlock) -> &[[i8; QUAD]] {
    block.0.as_chunks().0
}

fn dot(w: &[f32], x: &[f32]) -> f32 {
    let (w, w_tail) = w.as_chunks::<DENSE_LANES>();
    let (x, x_tail) = x.as_chunks::<DENSE_LANES>();
    let mut lanes = [0f32; DENSE_LANES];
    for (w, x) in w.iter().zip(x) {
        for ((lane, w), x) in lanes.iter_mut().zip(w).zip(x) {
            *lane += w * x;
        }
    }
    let tail: f32 = w_tail.iter().zip(x_tail).map(|(w, x)| w * x).sum();
    lanes.iter().sum::<f32>() + tail
}
