//! The packed layout that all kernels read.
//!
//! In the formats of [`Planes`] a matrix is cut into *row tiles* of 16 rows for each *plane*, and a
//! row tile into blocks of four columns. Byte `4 · lane + i` of a block holds, for column `i`, one
//! trit from each plane: row `16 · plane + lane` of the tile. A 32-bit lane of a vector register
//! therefore is a row and its four bytes are four columns, which is what `vpdpbusd` sums and what a
//! `B` tile of AMX looks like, and the activations of four columns are broadcast.
//!
//! A kernel never has to take a byte of two-bit codes apart. With `u_k` the number that the first
//! `k + 1` planes of it form, one instruction a plane gives `u_k`, and `Σ u_k · x` is a linear mix
//! of the sums of the planes, which [`Planes::separate`] undoes once at the end. Five trits come
//! apart by tables (`base3`), and their numbers are such a mix too.

use crate::error::{KernelError, Result};
use crate::packed::PackedCodes;
use crate::planes::Planes;
use crate::vectors::vectorized;

/// Rows of a plane: 32-bit lanes of a 512-bit register.
pub const LANES: usize = 16;
/// Columns of a block: bytes of a 32-bit lane.
pub const QUAD: usize = 4;
/// Columns are padded to a multiple of this: the depth of an AMX tile.
pub const DEPTH: usize = 64;
/// Blocks that cover [`DEPTH`] columns.
pub const DEPTH_BLOCKS: usize = DEPTH / QUAD;
/// Most planes of a format.
pub const MAX_PLANES: usize = 5;
/// Most rows of a tile.
pub const MAX_TILE_ROWS: usize = MAX_PLANES * LANES;

/// One byte for each of 16 rows and four columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct WeightBlock(pub [u8; LANES * QUAD]);

const _: () = assert!(size_of::<WeightBlock>() == LANES * QUAD);

impl WeightBlock {
    /// Nothing but zero bytes.
    pub const ZERO: Self = Self([0; LANES * QUAD]);
}

/// How trits share a byte. A trit enters as its code `w + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// Four trits in a byte, plane `k` in bits `2k` and `2k + 1`: 2 bits a weight.
    #[default]
    TwoBit,
    /// Five trits in a byte as digits that count 84, 28, 9, 3 and 1, plane 0 the most: 1.6 bits a
    /// weight.
    Base3,
    /// Four trits of one row in a byte, column `i` of the block in bits `2i` and `2i + 1`: 2 bits a
    /// weight. Each half of a byte is the place of a sum in a table of the activations of its two
    /// columns ([`crate::lookup`]); byte `r` of a block is row `r` of 64.
    Lookup,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::TwoBit, Self::Base3, Self::Lookup];

    /// How rows share a byte, where they do.
    #[must_use]
    pub const fn planes(self) -> Option<Planes> {
        match self {
            Self::TwoBit => Some(Planes::TwoBit),
            Self::Base3 => Some(Planes::Base3),
            Self::Lookup => None,
        }
    }

    /// Rows of a row tile.
    #[must_use]
    pub const fn tile_rows(self) -> usize {
        match self.planes() {
            Some(planes) => planes.tile_rows(),
            None => LANES * QUAD,
        }
    }

    /// Name for options and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TwoBit => "2bit",
            Self::Base3 => "base3",
            Self::Lookup => "lookup",
        }
    }

    /// The format of that name.
    ///
    /// # Errors
    /// [`KernelError::Format`] where there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|f| f.name() == name);
        found.ok_or_else(|| KernelError::Format {
            name: name.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// Blocks in a row tile of a matrix of `cols` columns.
#[must_use]
pub const fn tile_blocks(cols: usize) -> usize {
    cols.div_ceil(DEPTH) * DEPTH_BLOCKS
}

/// Writes the words of four columns of 16 rows into the blocks of [`DEPTH`] columns.
#[inline(always)]
pub(crate) fn write_lanes(rows: &[[u8; DEPTH]; LANES], blocks: &mut [WeightBlock]) {
    for (b, block) in blocks.iter_mut().enumerate() {
        let words = block.0.as_chunks_mut::<QUAD>().0;
        for (word, row) in words.iter_mut().zip(rows) {
            *word = row.as_chunks().0[b];
        }
    }
}

/// Calls `f` with the place for each value of a row and its byte in lane `lane` of a row tile.
#[inline]
pub(crate) fn read_lane<T>(
    tile: &[WeightBlock],
    lane: usize,
    values: &mut [T],
    f: impl Fn(&mut T, u8),
) {
    for (block, values) in tile.iter().zip(values.chunks_mut(QUAD)) {
        let bytes = &block.0[lane * QUAD..][..QUAD];
        values
            .iter_mut()
            .zip(bytes)
            .for_each(|(v, byte)| f(v, *byte));
    }
}

/// Packs one row tile.
pub(crate) fn pack_tile(
    format: Format,
    codes: &PackedCodes<'_>,
    tile: usize,
    out: &mut [WeightBlock],
) {
    // Constants, so that each loop is compiled for its format.
    match format {
        Format::TwoBit => pack_planes(Planes::TwoBit, codes, tile, out),
        Format::Base3 => pack_planes(Planes::Base3, codes, tile, out),
        Format::Lookup => pack_lookup(codes, tile, out),
    }
}

#[inline(always)]
fn pack_planes(planes: Planes, codes: &PackedCodes<'_>, tile: usize, out: &mut [WeightBlock]) {
    vectorized(
        #[inline(always)]
        || {
            for (i, blocks) in out.chunks_mut(DEPTH_BLOCKS).enumerate() {
                let mut rows = [[0; DEPTH]; LANES];
                for (lane, bytes) in rows.iter_mut().enumerate() {
                    for plane in 0..planes.count() {
                        let row = tile * planes.tile_rows() + plane * LANES + lane;
                        let codes = codes.chunk(row, i * DEPTH);
                        for (byte, code) in bytes.iter_mut().zip(codes) {
                            *byte += planes.digit(plane, code);
                        }
                    }
                }
                write_lanes(&rows, blocks);
            }
        },
    );
}

#[inline(always)]
fn pack_lookup(codes: &PackedCodes<'_>, tile: usize, out: &mut [WeightBlock]) {
    let rows = Format::Lookup.tile_rows();
    for (i, blocks) in out.chunks_mut(DEPTH_BLOCKS).enumerate() {
        for r in 0..rows {
            let codes = codes.chunk(tile * rows + r, i * DEPTH);
            for (block, [a, b, c, d]) in blocks.iter_mut().zip(codes.as_chunks().0) {
                block.0[r] = a | b << 2 | c << 4 | d << 6;
            }
        }
    }
}

/// Reads row `row` of a packed row tile back into `codes`.
pub(crate) fn unpack_row(format: Format, tile: &[WeightBlock], row: usize, codes: &mut [i8]) {
    let Some(planes) = format.planes() else {
        for (block, codes) in tile.iter().zip(codes.chunks_mut(QUAD)) {
            for (i, code) in codes.iter_mut().enumerate() {
                *code = (block.0[row] >> (2 * i) & 3) as i8 - 1;
            }
        }
        return;
    };
    let (plane, lane) = (row / LANES, row % LANES);
    read_lane(tile, lane, codes, |code, byte| {
        *code = planes.code(byte, plane) as i8 - 1;
    });
}
