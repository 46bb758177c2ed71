//! The packed layout that all kernels read.
//!
//! A matrix is cut into *row tiles* of 16 rows for each *plane*, and a row tile into blocks of four
//! columns. Byte `4 · lane + i` of a block holds, for column `i`, one trit from each plane: row
//! `16 · plane + lane` of the tile. A 32-bit lane of a vector register therefore is a row and its
//! four bytes are four columns, which is what `vpdpbusd` sums and what a `B` tile of AMX looks like,
//! and the activations of four columns are broadcast.
//!
//! A kernel never has to take a byte apart. With `u_k` the number that the first `k + 1` planes of a
//! byte form, one instruction a plane gives `u_k`, and `Σ u_k · x` is a linear mix of the sums of
//! the planes, which [`Format::separate`] undoes once at the end.

use crate::error::{KernelError, Result};

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
    /// Five trits in a byte as digits of a number to base 3, plane 0 the highest: 1.6 bits a weight.
    Base3,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 2] = [Self::TwoBit, Self::Base3];

    /// Trits in a byte.
    #[must_use]
    pub const fn planes(self) -> usize {
        match self {
            Self::TwoBit => 4,
            Self::Base3 => 5,
        }
    }

    /// Rows of a row tile.
    #[must_use]
    pub const fn tile_rows(self) -> usize {
        self.planes() * LANES
    }

    /// Name for options and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TwoBit => "2bit",
            Self::Base3 => "base3",
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

    /// What trit code `code`, 0…2, of `plane` adds to a byte.
    #[must_use]
    pub const fn digit(self, plane: usize, code: u8) -> u8 {
        match self {
            Self::TwoBit => code << (2 * plane),
            Self::Base3 => code * [81, 27, 9, 3, 1][plane],
        }
    }

    /// The code, 0…2, of `plane` in a byte made of [`Self::digit`]s.
    #[must_use]
    pub const fn code(self, byte: u8, plane: usize) -> u8 {
        match self {
            Self::TwoBit => (byte >> (2 * plane)) & 3,
            Self::Base3 => byte / [81, 27, 9, 3, 1][plane] % 3,
        }
    }

    /// Turns sums `Σ u_k · x` of one token, `[planes, LANES]`, into sums of codes `Σ (w + 1) · x`.
    ///
    /// `u_k` is the low `2(k + 1)` bits of a byte for [`Self::TwoBit`] and its first `k + 1` digits
    /// for [`Self::Base3`].
    #[inline(always)]
    pub fn separate(self, sums: &mut [i32]) {
        let planes = self.planes();
        for k in (1..planes).rev() {
            let (low, high) = sums.split_at_mut(k * LANES);
            for (s, before) in high[..LANES].iter_mut().zip(&low[(k - 1) * LANES..]) {
                *s = match self {
                    Self::TwoBit => s.wrapping_sub(*before) >> (2 * k),
                    Self::Base3 => s.wrapping_sub(before.wrapping_mul(3)),
                };
            }
        }
    }
}

/// Blocks in a row tile of a matrix of `cols` columns.
#[must_use]
pub const fn tile_blocks(cols: usize) -> usize {
    cols.div_ceil(DEPTH) * DEPTH_BLOCKS
}

/// Calls `f` with each byte of lane `lane` of a row tile and the value of its column.
#[inline]
pub(crate) fn write_lane<T: Copy>(
    tile: &mut [WeightBlock],
    lane: usize,
    values: &[T],
    f: impl Fn(&mut u8, T),
) {
    for (block, values) in tile.iter_mut().zip(values.chunks(QUAD)) {
        let bytes = &mut block.0[lane * QUAD..][..QUAD];
        bytes
            .iter_mut()
            .zip(values)
            .for_each(|(byte, v)| f(byte, *v));
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

/// Packs one row tile; `row(r)` gives the codes −1, 0, +1 of its `r`th row, `None` past the end.
pub(crate) fn pack_tile<'a>(
    format: Format,
    tile: &mut [WeightBlock],
    mut row: impl FnMut(usize) -> Option<&'a [i8]>,
) {
    tile.fill(WeightBlock::ZERO);
    for plane in 0..format.planes() {
        for lane in 0..LANES {
            let Some(codes) = row(plane * LANES + lane) else {
                return;
            };
            write_lane(tile, lane, codes, |byte, code| {
                *byte += format.digit(plane, (code + 1) as u8);
            });
        }
    }
}

/// Reads row `row` of a packed row tile back into `codes`.
pub(crate) fn unpack_row(format: Format, tile: &[WeightBlock], row: usize, codes: &mut [i8]) {
    let (plane, lane) = (row / LANES, row % LANES);
    read_lane(tile, lane, codes, |code, byte| {
        *code = format.code(byte, plane) as i8 - 1;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_codes_are_inverse_in_every_byte() {
        for format in Format::ALL {
            let planes = format.planes();
            for number in 0..3usize.pow(planes as u32) {
                let code = |k: usize| (number / 3usize.pow(k as u32) % 3) as u8;
                let byte = (0..planes).map(|k| format.digit(k, code(k))).sum();
                assert!((0..planes).all(|k| format.code(byte, k) == code(k)));
            }
        }
    }

    #[test]
    fn separation_undoes_the_mix() {
        for format in Format::ALL {
            let planes = format.planes();
            let want: Vec<i32> = (0..planes * LANES).map(|i| i as i32 * 37 - 900).collect();
            let mut mixed = want.clone();
            for k in 1..planes {
                for lane in 0..LANES {
                    let (at, before) = (k * LANES + lane, (k - 1) * LANES + lane);
                    mixed[at] = match format {
                        Format::TwoBit => mixed[before] + (want[at] << (2 * k)),
                        Format::Base3 => 3 * mixed[before] + want[at],
                    };
                }
            }
            format.separate(&mut mixed);
            assert_eq!(mixed, want);
        }
    }
}
