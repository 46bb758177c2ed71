//! Codes as they are stored, from which every layout is packed.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use tritburn_quant::hf_pack;

use crate::error::Result;
use crate::layout::DEPTH;
use crate::pool::Pool;
use crate::scales::Scales;
use crate::shape::check_width;

/// Rows of bytes that one task checks.
const TASK: usize = 64;
/// The low code of each byte of a word.
const CODES: u64 = 0x0303_0303_0303_0303;

/// A matrix `[rows, cols]` of −1, 0, +1 in the bytes of a Hugging Face checkpoint ([`hf_pack`]), which
/// have been checked, with its scales.
#[derive(Debug, Clone)]
pub struct PackedCodes<'a> {
    bytes: Cow<'a, [u8]>,
    rows: usize,
    cols: usize,
    scales: Scales,
}

impl<'a> PackedCodes<'a> {
    /// From the bytes of a checkpoint, which stay where they are.
    ///
    /// # Errors
    /// [`crate::KernelError::Shape`] where the matrix is too wide or the number of scales is wrong;
    /// [`crate::KernelError::Codes`] where the bytes do not fit the shape or a code is 3.
    pub fn new(
        pool: &Pool,
        bytes: &'a [u8],
        rows: usize,
        cols: usize,
        scales: Scales,
    ) -> Result<Self> {
        check_width("ternary weights", cols)?;
        scales.check(rows, cols)?;
        let good = AtomicBool::new(true);
        let parts = bytes.chunks(TASK * cols.max(1));
        pool.run(parts.len(), &|task| {
            let first = task * TASK;
            let start = first * cols.max(1);
            let part = &bytes[start..bytes.len().min(start + TASK * cols.max(1))];
            let mut all = part.chunks(cols.max(1)).enumerate();
            if !all.all(|(r, row)| hf_pack::is_ternary(row, rows, first + r)) {
                good.store(false, Ordering::Relaxed);
            }
        });
        if !good.into_inner() || hf_pack::packed_rows(rows).checked_mul(cols) != Some(bytes.len()) {
            // Says what is wrong, and where.
            hf_pack::check(bytes, rows, cols)?;
        }
        Ok(Self {
            bytes: bytes.into(),
            rows,
            cols,
            scales,
        })
    }

    /// From codes, row major.
    ///
    /// # Errors
    /// [`crate::KernelError::Shape`] where the matrix is too wide or the number of scales is wrong;
    /// [`crate::KernelError::Codes`] where the codes do not fill the shape or one is not −1, 0 or +1.
    pub fn from_codes(codes: &[i8], rows: usize, cols: usize, scales: Scales) -> Result<Self> {
        check_width("ternary weights", cols)?;
        scales.check(rows, cols)?;
        Ok(Self {
            bytes: hf_pack::pack(codes, rows, cols)?.into(),
            rows,
            cols,
            scales,
        })
    }

    /// Number of rows: the output width.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: the input width.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// What a code of 1 stands for.
    #[must_use]
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// The codes, `w + 1`, of [`DEPTH`] columns of a row from `col` on; zeros outside the matrix.
    #[inline(always)]
    pub(crate) fn chunk(&self, row: usize, col: usize) -> [u8; DEPTH] {
        if row >= self.rows || col >= self.cols {
            return [0; DEPTH];
        }
        let quarter = hf_pack::packed_rows(self.rows);
        // Fewer cycles than a division.
        let which = (1..hf_pack::CODES_PER_BYTE)
            .filter(|i| row >= i * quarter)
            .count();
        let start = (row - which * quarter) * self.cols + col;
        let bytes = &self.bytes[start..][..DEPTH.min(self.cols - col)];
        if let Ok(whole) = bytes.try_into() {
            return codes_of(whole, which);
        }
        let mut whole = [0; DEPTH];
        whole[..bytes.len()].copy_from_slice(bytes);
        codes_of(&whole, which)
    }
}

/// Code `which` of each byte.
#[inline(always)]
fn codes_of(bytes: &[u8; DEPTH], which: usize) -> [u8; DEPTH] {
    let mut codes = [0; DEPTH];
    for (codes, bytes) in codes.as_chunks_mut().0.iter_mut().zip(bytes.as_chunks().0) {
        *codes = (u64::from_le_bytes(*bytes) >> (2 * which) & CODES).to_le_bytes();
    }
    codes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::layout::{Format, LANES, QUAD, WeightBlock, pack_tile, tile_blocks};
    use crate::sparse::{ByColumn, ByRow, Order};

    /// Sizes below this: an interpreter takes its time.
    const MOST: usize = if cfg!(miri) { 30 } else { 600 };

    /// Blocks in which each code was put by itself: `at` names block and byte, `digit` what it adds.
    fn by_definition(
        codes: &[i8],
        cols: usize,
        blocks: usize,
        at: impl Fn(usize, usize) -> (usize, usize),
        digit: impl Fn(usize, usize, u8) -> u8,
    ) -> Vec<WeightBlock> {
        let mut out = vec![WeightBlock::ZERO; blocks];
        for (i, code) in codes.iter().enumerate() {
            let (r, c) = (i / cols, i % cols);
            let (block, byte) = at(r, c);
            out[block].0[byte] += digit(r, c, (code + 1) as u8);
        }
        out
    }

    fn lines<O: Order>(codes: &PackedCodes<'_>) -> Vec<WeightBlock> {
        let mut lines = vec![WeightBlock::ZERO; O::lines(codes.rows, codes.cols)];
        let part = O::part(codes.cols).max(1);
        for (i, part) in lines.chunks_mut(part).enumerate() {
            O::pack(codes, i, part);
        }
        lines
    }

    proptest! {
        #[test]
        fn every_layout_is_its_definition(
            (rows, cols, codes) in (0..MOST, 0..MOST).prop_flat_map(|(r, c)| {
                (Just(r), Just(c), prop::collection::vec(-1i8..=1, r * c))
            })
        ) {
            let bytes = hf_pack::pack(&codes, rows, cols).unwrap();
            let pool = Pool::new(2).unwrap();
            let packed = PackedCodes::new(&pool, &bytes, rows, cols, Scales::Tensor(1.0)).unwrap();
            let width = tile_blocks(cols);
            for format in Format::ALL {
                let height = format.tile_rows();
                let mut got = vec![WeightBlock::ZERO; rows.div_ceil(height) * width];
                for (i, tile) in got.chunks_mut(width.max(1)).enumerate() {
                    pack_tile(format, &packed, i, tile);
                }
                let at = |r: usize, c: usize| {
                    let byte = match format.planes() {
                        Some(_) => r % height % LANES * QUAD + c % QUAD,
                        None => r % height,
                    };
                    (r / height * width + c / QUAD, byte)
                };
                let digit = |r: usize, c: usize, code: u8| match format.planes() {
                    Some(planes) => planes.digit(r % height / LANES, code),
                    None => code << (2 * (c % QUAD)),
                };
                prop_assert_eq!(got.clone(), by_definition(&codes, cols, got.len(), at, digit));
            }
            let got = lines::<ByRow>(&packed);
            let at = |r: usize, c: usize| (r * cols.div_ceil(256) + c / 256, c % 64);
            let digit = |_, c: usize, code: u8| code << (2 * (c % 256 / 64));
            prop_assert_eq!(got.clone(), by_definition(&codes, cols, got.len(), at, digit));
            let got = lines::<ByColumn>(&packed);
            let at = |r: usize, c: usize| (r / 256 * cols + c, r % 64);
            let digit = |r: usize, _, code: u8| code << (2 * (r % 256 / 64));
            prop_assert_eq!(got.clone(), by_definition(&codes, cols, got.len(), at, digit));
        }

        #[test]
        fn every_code_three_is_found(
            rows in 1..MOST, cols in 1usize..9, at: prop::sample::Index, threads in 1usize..4,
        ) {
            let mut bytes = hf_pack::pack(&vec![0; rows * cols], rows, cols).unwrap();
            let (row, col) = (at.index(rows), at.index(cols));
            let quarter = hf_pack::packed_rows(rows);
            bytes[row % quarter * cols + col] |= 3 << (2 * (row / quarter));
            let pool = Pool::new(threads).unwrap();
            let error = PackedCodes::new(&pool, &bytes, rows, cols, Scales::Tensor(1.0));
            let error = error.unwrap_err().to_string();
            let place = format!("row {row}, column {col}:");
            prop_assert!(error.contains(&place), "{} {}", error, place);
        }
    }
}
