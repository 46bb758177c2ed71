//! Stored keys and values of attention.

mod f16;
mod head;
pub mod low_bit;
mod low_rows;

use head::CellColumns;
pub(crate) use head::{Cells, Head, HeadsMut};
use low_bit::LowBits;
#[cfg(target_arch = "x86_64")]
pub(crate) use low_rows::LowHead;
use low_rows::LowRows;

use crate::columns::Columns;
use crate::room::{Plain, Room};

/// Keys that lie side by side.
pub(crate) const LANES: usize = 16;

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

    /// Bytes of a row of `width` values; of the first position the 3-bit format stores some more.
    #[must_use]
    pub const fn row_bytes(self, width: usize) -> usize {
        const STEP: usize = size_of::<f32>();
        match self {
            Self::F32 => 4 * width,
            Self::F16 => 2 * width,
            Self::Int8 => width + STEP,
            Self::Int4 => LowBits::Four.bytes(width) + STEP,
            Self::Int3 => LowBits::Three.bytes(width) + STEP,
        }
    }
}

/// In which order values lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Row after row.
    Rows,
    /// Value by value of [`LANES`] rows at a time, so that as many scores are summed side by side:
    /// `[block of rows, width, LANES]` in a head.
    Lanes,
}

/// Keys or values `[heads, positions, width]`.
#[derive(Debug)]
pub struct KvRows {
    heads: usize,
    positions: usize,
    width: usize,
    order: Order,
    data: Data,
}

#[derive(Debug)]
enum Data {
    F32(Room<f32>),
    F16(Room<u16>),
    /// Codes, and a scale for each row.
    Int8(Room<i8>, Room<f32>),
    Low(LowRows),
}

impl KvRows {
    /// Zeros for the keys of `heads` heads, in the order that scores are computed from.
    #[must_use]
    pub fn keys(format: KvFormat, heads: usize, positions: usize, width: usize) -> Self {
        Self::new(format, Order::Lanes, heads, positions, width)
    }

    /// Zeros for the values of `heads` heads.
    #[must_use]
    pub fn values(format: KvFormat, heads: usize, positions: usize, width: usize) -> Self {
        Self::new(format, Order::Rows, heads, positions, width)
    }

    fn new(format: KvFormat, order: Order, heads: usize, positions: usize, width: usize) -> Self {
        let rows = heads * order.stored(positions);
        let n = rows * width;
        let low = |bits| Data::Low(LowRows::new(bits, heads, positions, width));
        let data = match format {
            KvFormat::F32 => Data::F32(Room::zeros(n)),
            KvFormat::F16 => Data::F16(Room::zeros(n)),
            KvFormat::Int8 => Data::Int8(Room::zeros(n), Room::zeros(rows)),
            KvFormat::Int4 => low(LowBits::Four),
            KvFormat::Int3 => low(LowBits::Three),
        };
        Self {
            heads,
            positions,
            width,
            order,
            data,
        }
    }

    /// Bytes that the rows take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::F32(data) => size_of_val(&**data),
            Data::F16(data) => size_of_val(&**data),
            Data::Int8(codes, scales) => codes.len() + size_of_val(&**scales),
            Data::Low(low) => low.bytes(),
        }
    }

    /// Values in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of heads.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Positions of a head.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Stores the row of a position of a head.
    ///
    /// # Panics
    /// Where there is no such row or it has another width.
    pub fn set(&mut self, head: usize, position: usize, values: &[f32]) {
        assert!(position < self.positions, "a position that there is");
        // SAFETY: the only head that is borrowed.
        #[allow(unsafe_code)]
        unsafe {
            self.heads_mut().head(head).set(position, values);
        }
    }

    /// Copies the first `n` positions of every head of `other`, which has as many heads, and the
    /// same format, order and width.
    ///
    /// # Panics
    /// Where they differ in one of these, or either has fewer positions.
    pub fn copy_positions(&mut self, other: &Self, n: usize) {
        let shape = |rows: &Self| (rows.heads, rows.width, rows.order);
        assert_eq!(shape(self), shape(other), "rows of one cache");
        assert!(n <= self.positions.min(other.positions), "positions there");
        let heads = self.heads;
        let copy = Prefix {
            heads,
            n: self.order.stored(n),
        };
        match (&mut self.data, &other.data) {
            (Data::F32(a), Data::F32(b)) => copy.rows(a, b, self.width),
            (Data::F16(a), Data::F16(b)) => copy.rows(a, b, self.width),
            (Data::Int8(a, s), Data::Int8(b, t)) => {
                copy.rows(a, b, self.width);
                copy.rows(s, t, 1);
            }
            (Data::Low(a), Data::Low(b)) => a.copy_positions(b, &Prefix { heads, n }),
            _ => unreachable!("rows of one cache have one format"),
        }
    }

    /// The rows of a head.
    pub(crate) fn head(&self, head: usize) -> Head<'_> {
        let rows = self.order.stored(self.positions);
        let range = |width: usize| head * rows * width..(head + 1) * rows * width;
        let cells = match &self.data {
            Data::F32(data) => Cells::F32(&data[range(self.width)]),
            Data::F16(data) => Cells::F16(&data[range(self.width)]),
            Data::Int8(codes, scales) => Cells::Int8(&codes[range(self.width)], &scales[range(1)]),
            Data::Low(low) => Cells::Low(low.head(head)),
        };
        Head::new(self.width, cells)
    }

    /// All heads, to be written by tasks that run at the same time.
    pub(crate) fn heads_mut(&mut self) -> HeadsMut<'_> {
        let (heads, width) = (self.heads, self.width);
        let rows = self.order.stored(self.positions);
        let columns = match &mut self.data {
            Data::F32(data) => CellColumns::F32(Columns::new(data, heads, rows * width)),
            Data::F16(data) => CellColumns::F16(Columns::new(data, heads, rows * width)),
            Data::Int8(codes, scales) => CellColumns::Int8(
                Columns::new(codes, heads, rows * width),
                Columns::new(scales, heads, rows),
            ),
            Data::Low(low) => CellColumns::Low(low.heads_mut()),
        };
        HeadsMut::new(width, self.order, columns)
    }
}

impl Order {
    /// Rows that are stored for so many positions of a head.
    fn stored(self, positions: usize) -> usize {
        match self {
            Self::Rows => positions,
            Self::Lanes => positions.next_multiple_of(LANES),
        }
    }
}

/// The first `n` rows of each head.
struct Prefix {
    heads: usize,
    n: usize,
}

impl Prefix {
    /// Copies them from `b` to `a`, `[heads, any, width]` both.
    fn rows<T: Plain>(&self, a: &mut [T], b: &[T], width: usize) {
        let (of_a, of_b) = (a.len() / self.heads.max(1), b.len() / self.heads.max(1));
        let n = self.n * width;
        if n == 0 {
            return;
        }
        for (a, b) in a.chunks_exact_mut(of_a).zip(b.chunks_exact(of_b)) {
            a[..n].copy_from_slice(&b[..n]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of one store, in the order of rows.
    fn rows(store: &KvRows, head: usize, at: usize, n: usize) -> Vec<f32> {
        let (head, width) = (store.head(head), store.width);
        let mut buffer = vec![f32::NAN; 2 * (n + 2 * LANES) * width];
        if store.order == Order::Rows {
            return head.read(at, n, 0, &mut buffer).to_vec();
        }
        let before = at % LANES;
        let lanes = head.read_lanes(at - before, before + n, 0, &mut buffer);
        let value = |i: usize, c: usize| lanes[i / LANES * LANES * width + c * LANES + i % LANES];
        (before..before + n)
            .flat_map(|i| (0..width).map(move |c| value(i, c)))
            .collect()
    }

    #[test]
    fn rows_move_to_larger_and_smaller_stores() {
        for format in KvFormat::ALL {
            for new in [KvRows::keys, KvRows::values] {
                let mut a = new(format, 2, 23, 4);
                for head in 0..2 {
                    (0..23).for_each(|i| a.set(head, i, &[i as f32, 1.0, -2.0, head as f32]));
                }
                for (positions, n) in [(29, 23), (64, 17), (16, 16), (5, 3), (7, 0)] {
                    let mut b = new(format, 2, positions, 4);
                    b.copy_positions(&a, n);
                    for head in 0..2 {
                        let want = rows(&a, head, 0, n);
                        assert_eq!(rows(&b, head, 0, n), want, "{format:?}");
                        if format == KvFormat::F32 && n > 16 {
                            assert_eq!(want[4 * 16..][..4], [16.0, 1.0, -2.0, head as f32]);
                        }
                    }
                }
            }
        }
    }
}
