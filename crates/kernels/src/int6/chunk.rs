//! How six-bit weights lie in memory.

use crate::layout::{DEPTH, LANES, QUAD, WeightBlock};

/// Columns that share a level.
pub(crate) const GROUP: usize = 16;
/// Groups of a chunk.
pub(crate) const GROUPS: usize = DEPTH / GROUP;
/// Added to a code, so that it is an unsigned number of six bits.
pub(crate) const BIAS: i32 = 32;
/// Quads of columns in a group.
pub(super) const QUADS: usize = GROUP / QUAD;
/// Blocks of a chunk.
pub(super) const BLOCKS: usize = size_of::<Chunk>() / size_of::<WeightBlock>();

/// 64 columns of 16 rows: 13 cache lines. In each block a 32-bit lane is a row and its bytes are four
/// columns, as everywhere ([`crate::layout`]). Columns `16 g + 4 i..` are quad `i` of group `g`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Chunk {
    /// The two high bits of quad `i` of group `g` in bits `2 g` and `2 g + 1` of block `i`.
    pub high: [WeightBlock; QUADS],
    /// The four low bits of quad `i` of groups `2 p` and `2 p + 1` in the low and the high half of the
    /// bytes of block `[p][i]`.
    pub low: [[WeightBlock; QUADS]; GROUPS / 2],
    /// The level of group `g` in byte `16 g + lane`, signed.
    pub levels: WeightBlock,
}

const _: () = assert!(size_of::<Chunk>() == 13 * size_of::<WeightBlock>());
const _: () = assert!(align_of::<Chunk>() == align_of::<WeightBlock>());

impl Chunk {
    /// Blocks as chunks; what is no whole chunk is left out.
    #[allow(unsafe_code)]
    pub(super) fn all(blocks: &[WeightBlock]) -> &[Self] {
        let n = blocks.len() / BLOCKS;
        // SAFETY: a chunk is `BLOCKS` blocks in a row, `repr(C)` and without padding, as the
        // assertions above show, and every byte of it may have any value.
        unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), n) }
    }

    /// [`Self::all`], to be written to.
    #[allow(unsafe_code)]
    pub(super) fn all_mut(blocks: &mut [WeightBlock]) -> &mut [Self] {
        let n = blocks.len() / BLOCKS;
        // SAFETY: as in `all`, and the borrow is as exclusive as the one of the blocks.
        unsafe { std::slice::from_raw_parts_mut(blocks.as_mut_ptr().cast(), n) }
    }

    /// Of blocks by their lanes, each of which has its first byte in the lowest bits, and of levels in the
    /// lowest bytes.
    #[inline(always)]
    pub(super) fn new(
        high: &[[u32; LANES]; QUADS],
        low: &[[[u32; LANES]; QUADS]; GROUPS / 2],
        levels: &[[u32; LANES]; GROUPS],
    ) -> Self {
        let mut chunk = Self {
            high: [WeightBlock::ZERO; QUADS],
            low: [[WeightBlock::ZERO; QUADS]; GROUPS / 2],
            levels: WeightBlock::ZERO,
        };
        let blocks = chunk.high.iter_mut().chain(chunk.low.as_flattened_mut());
        for (block, lanes) in blocks.zip(high.iter().chain(low.as_flattened())) {
            for (bytes, lane) in block.0.as_chunks_mut().0.iter_mut().zip(lanes) {
                *bytes = lane.to_le_bytes();
            }
        }
        for (byte, level) in chunk.levels.0.iter_mut().zip(levels.as_flattened()) {
            *byte = *level as u8;
        }
        chunk
    }

    /// Codes plus [`BIAS`] of quad `i` of group `g`, as they lie in a block.
    #[inline(always)]
    pub(crate) fn codes(&self, g: usize, i: usize) -> [u8; LANES * QUAD] {
        let (high, low) = (&self.high[i].0, &self.low[g / 2][i].0);
        let code = |b: usize| (high[b] >> (2 * g) & 3) << 4 | (low[b] >> (4 * (g % 2)) & 15);
        std::array::from_fn(code)
    }

    /// Levels of the rows in group `g`.
    #[inline(always)]
    pub(crate) fn levels(&self, g: usize) -> [i8; LANES] {
        std::array::from_fn(|lane| self.levels.0[LANES * g + lane].cast_signed())
    }

    /// Code times level of a row in column `column` of the chunk.
    pub(super) fn weight(&self, lane: usize, column: usize) -> i32 {
        let (g, i, c) = (column / GROUP, column % GROUP / QUAD, column % QUAD);
        let at = lane * QUAD + c;
        let high = self.high[i].0[at] >> (2 * g) & 3;
        let low = self.low[g / 2][i].0[at] >> (4 * (g % 2)) & 15;
        let level = self.levels.0[LANES * g + lane].cast_signed();
        (i32::from(high << 4 | low) - BIAS) * i32::from(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_read_in_every_form() {
        let level = |g: usize, lane: usize| (g * 61 + lane * 17) as i32 % 255 - 127;
        let code = |column: usize, lane: usize| (column * 7 + lane * 11) as i32 % 64;
        let (mut high, mut low) = ([[0; LANES]; QUADS], [[[0; LANES]; QUADS]; GROUPS / 2]);
        let mut levels = [[0; LANES]; GROUPS];
        for column in 0..DEPTH {
            let (g, i, c) = (column / GROUP, column % GROUP / QUAD, column % QUAD);
            for lane in 0..LANES {
                let code = code(column, lane) as u32;
                high[i][lane] |= (code >> 4) << (8 * c + 2 * g);
                low[g / 2][i][lane] |= (code & 15) << (8 * c + 4 * (g % 2));
                levels[g][lane] = level(g, lane).cast_unsigned();
            }
        }
        let chunk = Chunk::new(&high, &low, &levels);
        for column in 0..DEPTH {
            let (g, quad, c) = (column / GROUP, column / QUAD, column % QUAD);
            for lane in 0..LANES {
                let (code, at) = (code(column, lane), lane * QUAD + c);
                let weight = (code - BIAS) * level(g, lane);
                assert_eq!(chunk.weight(lane, column), weight);
                assert_eq!(i32::from(chunk.codes(g, quad % QUADS)[at]), code);
                assert_eq!(i32::from(chunk.levels(g)[lane]), level(g, lane));
            }
        }
    }
}
