//! The six-bit matrix of the output head and the embedding.

mod chunk;
mod encode;
mod product;
mod steps;
mod tile;

pub use chunk::Chunk;
pub(crate) use chunk::{BIAS, GROUP, GROUPS};

use std::sync::{Mutex, PoisonError};

use crate::blocks::{Blocks, filled};
use crate::columns::Columns;
use crate::error::Result;
use crate::layout::{DEPTH, LANES};
use crate::memory::Region;
use crate::pool::Pool;
use crate::room::Room;
use crate::shape::check_width;
use chunk::BLOCKS;
use tile::Tile;

/// A matrix `[rows, cols]` of six bits a weight, a signed level of eight bits for each 16 columns of
/// a row and one f32 a row: `w ≈ code · level · unit`, code −32…31. 6.5 bits a weight.
///
/// Steps are searched for by squared error, in either sign, so that the value furthest from zero
/// takes the longer end of the range. On normally distributed weights the squared error is
/// 0.94 of what Q6_K of llama.cpp leaves with 6.56 bits, and 4.0 times that of
/// [`crate::Int8Matrix`].
#[derive(Debug, Clone, PartialEq)]
pub struct Int6Matrix {
    rows: usize,
    cols: usize,
    /// What a code of 1 stands for at level 1, `[rows]`.
    units: Room<f32>,
    /// `[row tile, 64 columns each]` of [`Chunk`].
    data: Blocks,
}

impl Int6Matrix {
    /// Quantises rows that `row` writes, on all threads of `pool` and in any order.
    ///
    /// # Errors
    /// [`crate::KernelError::Shape`] where it is too wide.
    pub fn quantize(
        pool: &Pool,
        rows: usize,
        cols: usize,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Self> {
        check_width("int6 weights", cols)?;
        let mut units = Room::zeros(rows);
        let some = Columns::new(&mut units, 1, rows);
        let blocks = cols.div_ceil(DEPTH) * BLOCKS;
        // One a thread, kept from tile to tile, since new memory would cost as much as the search, and
        // no longer: a thread may live as long as the program.
        let spare = Mutex::new(Vec::<Tile>::new());
        let spare = || spare.lock().unwrap_or_else(PoisonError::into_inner);
        let data = filled(pool, rows.div_ceil(LANES) * blocks, blocks, &|tile, out| {
            let first = tile * LANES;
            // SAFETY: each task has rows of its own.
            #[allow(unsafe_code)]
            let units = unsafe { some.strip(0, first, LANES) };
            let mut values = spare().pop().unwrap_or_default();
            for (lane, values) in values.rows(units.len(), cols).enumerate() {
                row(first + lane, values);
            }
            let unit = values.quantize(Chunk::all_mut(out));
            units.copy_from_slice(&unit[..units.len()]);
            spare().push(values);
        });
        Ok(Self {
            rows,
            cols,
            units,
            data,
        })
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes that a product reads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data) + size_of_val(&*self.units)
    }

    /// Where the weights lie.
    #[must_use]
    pub fn region(&self) -> Region<'_> {
        Region::of(&self.data)
    }

    /// Writes the values of one row to `out`, `[cols]`.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let (unit, lane) = (self.units[row], row % LANES);
        for (chunk, out) in self.tile(row / LANES).iter().zip(out.chunks_mut(DEPTH)) {
            for (i, out) in out.iter_mut().enumerate() {
                *out = chunk.weight(lane, i) as f32 * unit;
            }
        }
    }

    /// The weights of 16 rows.
    fn tile(&self, tile: usize) -> &[Chunk] {
        let blocks = self.cols.div_ceil(DEPTH) * BLOCKS;
        Chunk::all(&self.data[tile * blocks..][..blocks])
    }
}
