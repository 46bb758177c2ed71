//! Stored keys and values of attention.

mod f16;
pub mod low_bit;
mod low_rows;

use std::cell::RefCell;

use f16::{to_f16, widen};
use low_bit::LowBits;
use low_rows::LowRows;

use crate::vectors::vectorized;

/// Keys that lie side by side.
pub(crate) const LANES: usize = 16;

thread_local! {
    /// The row that is stored, kept so that decoding allocates nothing.
    static F16: RefCell<Vec<u16>> = const { RefCell::new(Vec::new()) };
    static INT8: RefCell<Vec<i8>> = const { RefCell::new(Vec::new()) };
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

/// In which order values lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Row after row.
    Rows,
    /// Value by value of [`LANES`] rows at a time, so that as many scores are summed side by side:
    /// `[head, block of rows, width, LANES]`.
    Lanes,
}

/// Rows `[heads, positions, width]` of keys or values; row `head · positions + position`.
#[derive(Debug, Clone)]
pub struct KvRows {
    width: usize,
    positions: usize,
    order: Order,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    F32(Vec<f32>),
    F16(Vec<u16>),
    /// Codes, and a scale for each row.
    Int8(Vec<i8>, Vec<f32>),
    Low(LowRows),
}

/// Where a row lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its first value.
    first: usize,
    /// From one value to the next.
    step: usize,
    /// The row among those that are stored, and so its scale.
    stored: usize,
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
        let rows = heads * positions;
        let stored = match order {
            Order::Rows => rows,
            Order::Lanes => heads * positions.next_multiple_of(LANES),
        };
        let n = stored * width;
        let low = |bits| Data::Low(LowRows::new(bits, heads, positions, width));
        let data = match format {
            KvFormat::F32 => Data::F32(vec![0.0; n]),
            KvFormat::F16 => Data::F16(vec![0; n]),
            KvFormat::Int8 => Data::Int8(vec![0; n], vec![0.0; stored]),
            KvFormat::Int4 => low(LowBits::Four),
            KvFormat::Int3 => low(LowBits::Three),
        };
        Self {
            width,
            positions,
            order,
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
            Data::Low(low) => low.bytes(),
        }
    }

    /// Values in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Positions of a head.
    pub(crate) fn positions(&self) -> usize {
        self.positions
    }

    #[inline]
    fn place(&self, row: usize) -> Place {
        match self.order {
            Order::Rows => Place {
                first: row * self.width,
                step: 1,
                stored: row,
            },
            Order::Lanes => {
                let (head, position) = (row / self.positions, row % self.positions);
                let stored = head * self.positions.next_multiple_of(LANES) + position;
                Place {
                    first: stored / LANES * LANES * self.width + stored % LANES,
                    step: LANES,
                    stored,
                }
            }
        }
    }

    /// Stores a row.
    ///
    /// # Panics
    /// Where there is no such row or it has another width.
    pub fn set(&mut self, row: usize, values: &[f32]) {
        assert_eq!(values.len(), self.width, "as wide as the rows");
        let Place {
            first,
            step,
            stored,
        } = self.place(row);
        match &mut self.data {
            Data::F32(data) => {
                let out = data[first..].iter_mut().step_by(step);
                out.zip(values).for_each(|(out, v)| *out = *v);
            }
            Data::F16(data) => F16.with_borrow_mut(|halves| {
                halves.resize(values.len(), 0);
                vectorized(
                    #[inline(always)]
                    || {
                        for (half, v) in halves.iter_mut().zip(values) {
                            *half = to_f16(*v);
                        }
                    },
                );
                let out = data[first..].iter_mut().step_by(step);
                out.zip(halves).for_each(|(out, half)| *out = *half);
            }),
            Data::Int8(data, scales) => INT8.with_borrow_mut(|codes| {
                codes.resize(values.len(), 0);
                scales[stored] = crate::ops::absmax_codes(values, codes);
                let out = data[first..].iter_mut().step_by(step);
                out.zip(codes).for_each(|(out, code)| *out = *code);
            }),
            Data::Low(low) => low.set(row, values),
        }
    }

    /// Copies `n` rows of `other`, of the same format, order and width, from its row `from` to row
    /// `to`.
    ///
    /// # Panics
    /// Where formats differ or rows are missing, or a first position of three bits would become a
    /// later one or the other way round.
    pub fn copy_rows(&mut self, to: usize, other: &Self, from: usize, n: usize) {
        for i in 0..n {
            let (to_place, from_place) = (self.place(to + i), other.place(from + i));
            match (&mut self.data, &other.data) {
                (Data::F32(a), Data::F32(b)) => copy(a, to_place, b, from_place, self.width),
                (Data::F16(a), Data::F16(b)) => copy(a, to_place, b, from_place, self.width),
                (Data::Int8(a, s), Data::Int8(b, t)) => {
                    copy(a, to_place, b, from_place, self.width);
                    s[to_place.stored] = t[from_place.stored];
                }
                (Data::Low(a), Data::Low(b)) => a.copy_row(to + i, b, from + i),
                _ => unreachable!("rows of one cache have one format"),
            }
        }
    }

    /// Asks for the beginning of what is read next, row `row` and those behind it; does nothing
    /// where there is no such row. Packed rows of few bits are too small for it to pay.
    pub(crate) fn ask(&self, row: usize) {
        let Place { first, .. } = self.place(row);
        match &self.data {
            Data::F32(data) => ask_first(data.get(first..)),
            Data::F16(data) => ask_first(data.get(first..)),
            Data::Int8(data, _) => ask_first(data.get(first..)),
            Data::Low(_) => {}
        }
    }

    /// `n` rows of [`Self::values`] as f32, without a copy where they are stored so; the `more`
    /// rows behind them are read next, and asked for where they are f16.
    #[inline(always)]
    pub(crate) fn read<'a>(
        &'a self,
        first: usize,
        n: usize,
        more: usize,
        buffer: &'a mut [f32],
    ) -> &'a [f32] {
        let range = first * self.width..(first + n) * self.width;
        let with_more = range.start..range.end + more * self.width;
        match &self.data {
            Data::F32(data) => &data[range],
            Data::F16(data) => widen(&data[with_more], range.len(), buffer),
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
                low.read(first, n, out);
                out
            }
        }
    }

    /// `n` rows of [`Self::keys`] as f32, `[n / LANES rounded up, width, LANES]`, from position
    /// `at` of a head on, a multiple of [`LANES`]. What stands for rows past the end means nothing.
    /// `more` as for [`Self::read`].
    #[inline(always)]
    pub(crate) fn read_lanes<'a>(
        &'a self,
        head: usize,
        at: usize,
        n: usize,
        more: usize,
        buffer: &'a mut [f32],
    ) -> &'a [f32] {
        let w = self.width;
        let first = head * self.positions.next_multiple_of(LANES) + at;
        let range = first * w..(first + n.next_multiple_of(LANES)) * w;
        let with_more = range.start..(first + (n + more).next_multiple_of(LANES)) * w;
        match &self.data {
            Data::F32(data) => &data[range],
            Data::F16(data) => widen(&data[with_more], range.len(), buffer),
            Data::Int8(codes, scales) => {
                let out = &mut buffer[..range.len()];
                let blocks = codes[range].chunks_exact(w * LANES);
                let scales = scales[first..].as_chunks::<LANES>().0;
                for ((out, codes), scales) in
                    out.chunks_exact_mut(w * LANES).zip(blocks).zip(scales)
                {
                    let outs = out.as_chunks_mut::<LANES>().0.iter_mut();
                    for (out, codes) in outs.zip(codes.as_chunks::<LANES>().0) {
                        for ((out, code), scale) in out.iter_mut().zip(codes).zip(scales) {
                            *out = f32::from(*code) * scale;
                        }
                    }
                }
                out
            }
            Data::Low(low) => {
                let (out, rows) = buffer.split_at_mut(range.len());
                let rows = &mut rows[..n * w];
                low.read(head * self.positions + at, n, rows);
                for (i, row) in rows.chunks_exact(w).enumerate() {
                    let lane = out[i / LANES * LANES * w + i % LANES..].iter_mut();
                    for (out, value) in lane.step_by(LANES).zip(row) {
                        *out = *value;
                    }
                }
                out
            }
        }
    }
}

/// Asks for the beginning of memory that is read next, where there is such and a way to ask.
fn ask_first<T>(next: Option<&[T]>) {
    #[cfg(target_arch = "x86_64")]
    crate::x86_64::ask_first(next.unwrap_or_default());
    #[cfg(not(target_arch = "x86_64"))]
    let _ = next;
}

/// Copies one row from its place in `b` to its place in `a`.
fn copy<T: Copy>(a: &mut [T], to: Place, b: &[T], from: Place, width: usize) {
    let out = a[to.first..].iter_mut().step_by(to.step).take(width);
    let row = b[from.first..].iter().step_by(from.step);
    out.zip(row).for_each(|(out, v)| *out = *v);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of one store, in the order of rows.
    fn rows(store: &KvRows, head: usize, at: usize, n: usize) -> Vec<f32> {
        let mut buffer = vec![f32::NAN; 2 * (n + 2 * LANES) * store.width];
        if store.order == Order::Rows {
            return store
                .read(head * store.positions + at, n, 0, &mut buffer)
                .to_vec();
        }
        let before = at % LANES;
        let lanes = store.read_lanes(head, at - before, before + n, 0, &mut buffer);
        let value =
            |i: usize, c: usize| lanes[i / LANES * LANES * store.width + c * LANES + i % LANES];
        (before..before + n)
            .flat_map(|i| (0..store.width).map(move |c| value(i, c)))
            .collect()
    }

    #[test]
    fn rows_move_between_stores() {
        for format in KvFormat::ALL {
            for new in [KvRows::keys, KvRows::values] {
                let mut a = new(format, 1, 23, 4);
                (0..23).for_each(|i| a.set(i, &[i as f32, 1.0, -2.0, 0.0]));
                let want = rows(&a, 0, 0, 23);
                let mut b = new(format, 2, 29, 4);
                b.copy_rows(29, &a, 0, 23);
                b.copy_rows(5, &a, 1, 2);
                assert_eq!(rows(&b, 1, 0, 23), want, "{format:?}");
                assert_eq!(rows(&b, 0, 5, 2), want[4..12], "{format:?}");
                if format == KvFormat::F32 {
                    assert_eq!(want[4 * 19..][..4], [19.0, 1.0, -2.0, 0.0]);
                }
            }
        }
    }
}
