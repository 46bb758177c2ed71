//! Stored keys and values of attention.

mod f16;
pub mod low_bit;

use std::cell::RefCell;

use f16::{from_f16, to_f16};
use low_bit::LowBits;

thread_local! {
    /// Codes of the row that is stored, kept so that decoding allocates nothing.
    static CODES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvFormat {
    /// Four bytes a value.
    #[default]
    F32,
    /// Two bytes a value; beyond ±65504 values are cut off.
    F16,
    /// One byte a value and one scale for each head of each token.
    Int8,
    /// Four bits a value and one f32 step for each head of each token: [`low_bit`].
    Int4,
    /// Three bits a value and one f32 step for each head of each token, but four bits for the first
    /// position, whose outliers three do not carry (arXiv 2411.04965, §3.1): [`low_bit`].
    Int3,
}

impl KvFormat {
    /// All formats.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Int8, Self::Int4, Self::Int3];

    /// Name for options and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Int3 => "int3",
        }
    }
}

/// Rows `[heads, positions, width]` of keys or values.
#[derive(Debug, Clone)]
pub struct KvRows {
    width: usize,
    positions: usize,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    F32(Vec<f32>),
    F16(Vec<u16>),
    Int8(Vec<i8>, Vec<f32>),
    Low(LowRows),
}

/// Packed rows of few bits.
#[derive(Debug, Clone)]
struct LowRows {
    bits: LowBits,
    /// `[rows, bits.bytes(width)]`.
    packed: Vec<u8>,
    /// `[rows]`.
    steps: Vec<f32>,
    /// The first position of each head in four bits, where the others have three.
    first: Vec<u8>,
}

impl KvRows {
    /// `rows` rows of zeros, the positions of one head.
    #[must_use]
    pub fn new(format: KvFormat, rows: usize, width: usize) -> Self {
        Self::with_heads(format, 1, rows, width)
    }

    /// Zeros for `heads` heads of `positions` positions: row `head · positions + position`.
    #[must_use]
    pub fn with_heads(format: KvFormat, heads: usize, positions: usize, width: usize) -> Self {
        let rows = heads * positions;
        let n = rows * width;
        let low = |bits: LowBits, first: usize| {
            Data::Low(LowRows {
                bits,
                packed: vec![0; rows * bits.bytes(width)],
                steps: vec![0.0; rows],
                first: vec![0; first * LowBits::Four.bytes(width)],
            })
        };
        let data = match format {
            KvFormat::F32 => Data::F32(vec![0.0; n]),
            KvFormat::F16 => Data::F16(vec![0; n]),
            KvFormat::Int8 => Data::Int8(vec![0; n], vec![0.0; rows]),
            KvFormat::Int4 => low(LowBits::Four, 0),
            KvFormat::Int3 => low(LowBits::Three, if positions > 0 { heads } else { 0 }),
        };
        Self {
            width,
            positions,
            data,
        }
    }

    /// Bytes that the rows take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::F32(data) => size_of_val(data.as_slice()),
            Data::F16(data) => size_of_val(data.as_slice()),
            Data::Int8(codes, scales) => codes.len() + size_of_val(scales.as_slice()),
            Data::Low(low) => {
                low.packed.len() + size_of_val(low.steps.as_slice()) + low.first.len()
            }
        }
    }

    /// Values in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Stores a row.
    ///
    /// # Panics
    /// Where there is no such row or it has another width.
    pub fn set(&mut self, row: usize, values: &[f32]) {
        let range = row * self.width..(row + 1) * self.width;
        match &mut self.data {
            Data::F32(data) => data[range].copy_from_slice(values),
            Data::F16(data) => {
                for (out, v) in data[range].iter_mut().zip(values) {
                    *out = to_f16(*v);
                }
            }
            Data::Int8(codes, scales) => {
                scales[row] = crate::ops::absmax_codes(values, &mut codes[range]);
            }
            Data::Low(low) => {
                assert_eq!(values.len(), self.width, "as wide as the rows");
                low.set(row, self.positions, values);
            }
        }
    }

    /// Copies `n` rows of `other`, of the same format and width, from its row `from` to row `to`.
    ///
    /// # Panics
    /// Where formats differ or rows are missing, or a first position of three bits would become a
    /// later one or the other way round.
    pub fn copy_rows(&mut self, to: usize, other: &Self, from: usize, n: usize) {
        let w = self.width;
        let (to_v, from_v) = (to * w..(to + n) * w, from * w..(from + n) * w);
        match (&mut self.data, &other.data) {
            (Data::F32(a), Data::F32(b)) => a[to_v].copy_from_slice(&b[from_v]),
            (Data::F16(a), Data::F16(b)) => a[to_v].copy_from_slice(&b[from_v]),
            (Data::Int8(a, s), Data::Int8(b, t)) => {
                a[to_v].copy_from_slice(&b[from_v]);
                s[to..to + n].copy_from_slice(&t[from..from + n]);
            }
            (Data::Low(a), Data::Low(b)) if a.bits == b.bits => {
                for i in 0..n {
                    let source = b.row(from + i, other.positions, w);
                    a.steps[to + i] = b.steps[from + i];
                    let (bits, row) = a.row_mut(to + i, self.positions, w);
                    assert_eq!(bits, source.0, "first positions stay first");
                    row.copy_from_slice(source.1);
                }
            }
            _ => unreachable!("rows of one cache have one format"),
        }
    }

    /// `n` rows as f32, without a copy where they are stored so.
    #[inline(always)]
    pub(crate) fn read<'a>(&'a self, first: usize, n: usize, buffer: &'a mut [f32]) -> &'a [f32] {
        let range = first * self.width..(first + n) * self.width;
        match &self.data {
            Data::F32(data) => &data[range],
            Data::F16(data) => {
                let out = &mut buffer[..range.len()];
                for (out, v) in out.iter_mut().zip(&data[range]) {
                    *out = from_f16(*v);
                }
                out
            }
            Data::Int8(codes, scales) => {
                let out = &mut buffer[..range.len()];
                let rows = codes[range].chunks_exact(self.width);
                let outs = out.chunks_exact_mut(self.width);
                for ((out, codes), scale) in outs.zip(rows).zip(&scales[first..]) {
                    for (out, code) in out.iter_mut().zip(codes) {
                        *out = f32::from(*code) * scale;
                    }
                }
                out
            }
            Data::Low(low) => {
                let out = &mut buffer[..range.len()];
                low.read(first, n, self.positions, out);
                out
            }
        }
    }
}

impl LowRows {
    /// Whether the row has four bits though the others have three, and which of those it is.
    #[inline(always)]
    fn first(&self, row: usize, positions: usize) -> Option<usize> {
        (self.bits == LowBits::Three && row.is_multiple_of(positions)).then(|| row / positions)
    }

    /// Width of its codes and the row.
    #[inline(always)]
    fn row(&self, row: usize, positions: usize, width: usize) -> (LowBits, &[u8]) {
        let (bits, data, row) = match self.first(row, positions) {
            Some(head) => (LowBits::Four, &self.first, head),
            None => (self.bits, &self.packed, row),
        };
        let bytes = bits.bytes(width);
        (bits, &data[row * bytes..][..bytes])
    }

    /// The values of `n` rows from `row` on.
    fn read(&self, mut row: usize, n: usize, positions: usize, mut out: &mut [f32]) {
        let (end, width) = (row + n, out.len() / n.max(1));
        while row < end {
            // Rows that lie together: all up to the next first position.
            let rows = match self.bits {
                LowBits::Four => end - row,
                LowBits::Three if row.is_multiple_of(positions) => 1,
                LowBits::Three => (positions - row % positions).min(end - row),
            };
            let (bits, one) = self.row(row, positions, width);
            let packed = match rows {
                1 => one,
                _ => &self.packed[row * one.len()..][..rows * one.len()],
            };
            let (now, later) = out.split_at_mut(rows * width);
            low_bit::read(bits, packed, &self.steps[row..][..rows], now);
            (row, out) = (row + rows, later);
        }
    }

    fn row_mut(&mut self, row: usize, positions: usize, width: usize) -> (LowBits, &mut [u8]) {
        let (bits, data, row) = match self.first(row, positions) {
            Some(head) => (LowBits::Four, &mut self.first, head),
            None => (self.bits, &mut self.packed, row),
        };
        let bytes = bits.bytes(width);
        (bits, &mut data[row * bytes..][..bytes])
    }

    fn set(&mut self, row: usize, positions: usize, values: &[f32]) {
        CODES.with_borrow_mut(|codes| {
            codes.resize(values.len(), 0);
            let (bits, packed) = self.row_mut(row, positions, values.len());
            let step = low_bit::quantize(bits, values, codes);
            low_bit::pack(bits, codes, packed);
            self.steps[row] = step;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_move_between_stores() {
        for format in KvFormat::ALL {
            let mut a = KvRows::new(format, 3, 4);
            (0..3).for_each(|i| a.set(i, &[i as f32, 1.0, -2.0, 0.0]));
            let mut b = KvRows::with_heads(format, 2, 9, 4);
            b.copy_rows(9, &a, 0, 3);
            b.copy_rows(5, &a, 1, 2);
            let (mut x, mut y) = ([0.0; 12], [0.0; 12]);
            let want = a.read(0, 3, &mut y);
            assert_eq!(b.read(9, 3, &mut x), want);
            assert_eq!(b.read(5, 2, &mut x), &want[4..]);
        }
    }
}
