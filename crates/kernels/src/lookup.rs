//! Products by tables: [`crate::Format::Lookup`].
//!
//! Two neighbouring trits have nine sums with their two activations, and four bits that say which:
//! `vpshufb` looks 16, 32 or 64 of them up at once. A sum, −512…508, does not fit a byte, so a table
//! has two: the low six bits, of which four add up in a byte, and the rest, −8…7. This needs no
//! products at all; where a processor multiplies bytes well they are faster, and more than one token
//! is computed with them, after the weights of a row tile have been put into planes.

use crate::activations::ActBlock;
use crate::layout::{LANES, QUAD, WeightBlock};

/// Low bits of a sum.
pub(crate) const LOW_BITS: usize = 6;

/// The sums of the activations of a block of four columns: for each of its two pairs `x`, `y` entry
/// `a + 4 b` is `a · x + b · y`, codes `a` and `b` 0…2.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Table {
    /// The low bits of the entries, 0…63.
    pub low: [[u8; 16]; 2],
    /// The entries shifted right by six.
    pub high: [[i8; 16]; 2],
}

impl Table {
    fn new(x: [i8; QUAD]) -> Self {
        let mut this = Self {
            low: [[0; 16]; 2],
            high: [[0; 16]; 2],
        };
        for (p, [x, y]) in x.as_chunks::<2>().0.iter().enumerate() {
            for (entry, (low, high)) in this.low[p].iter_mut().zip(&mut this.high[p]).enumerate() {
                let (a, b) = ((entry & 3) as i16, (entry >> 2) as i16);
                // Entries with a 3 are never looked up.
                let sum = a * i16::from(*x) + b * i16::from(*y);
                *low = (sum & ((1 << LOW_BITS) - 1)) as u8;
                *high = (sum >> LOW_BITS) as i8;
            }
        }
        this
    }

    /// The sum of pair `pair` for the entry that four bits say.
    pub(crate) fn sum(&self, pair: usize, entry: u8) -> i32 {
        let (low, high) = (self.low[pair], self.high[pair]);
        i32::from(low[entry as usize]) + (i32::from(high[entry as usize]) << LOW_BITS)
    }
}

/// The tables of one token.
pub(crate) fn fill_tables(x: &[ActBlock], tables: &mut Vec<Table>) {
    tables.clear();
    let quads = x.iter().flat_map(|block| block.0.as_chunks::<QUAD>().0);
    tables.extend(quads.map(|quad| Table::new(*quad)));
}

/// A row tile as [`crate::Format::TwoBit`] has it.
pub(crate) fn to_planes(tile: &[WeightBlock], out: &mut Vec<WeightBlock>) {
    out.clear();
    out.extend(tile.iter().map(|block| {
        let (planes, _) = block.0.as_chunks::<LANES>();
        let mut spread = WeightBlock::ZERO;
        for (lane, bytes) in spread.0.as_chunks_mut::<QUAD>().0.iter_mut().enumerate() {
            for (i, byte) in bytes.iter_mut().enumerate() {
                for (k, plane) in planes.iter().enumerate() {
                    *byte |= (plane[lane] >> (2 * i) & 3) << (2 * k);
                }
            }
        }
        spread
    }));
}
