//! The rows of one head, to be read or written.

use std::cell::RefCell;

use super::f16::{to_f16, widen};
use super::low_rows::{LowColumns, LowHead, LowHeadMut};
use super::{LANES, Order};
use crate::columns::Columns;
use crate::vectors::vectorized;
#[cfg(target_arch = "x86_64")]
use crate::x86_64::key_lanes;

thread_local! {
    /// The row that is stored, kept so that decoding allocates nothing.
    static F16: RefCell<Vec<u16>> = const { RefCell::new(Vec::new()) };
    static INT8: RefCell<Vec<i8>> = const { RefCell::new(Vec::new()) };
}

/// Rows to be read.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    width: usize,
    cells: Cells<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum Cells<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    /// Codes, and a scale for each row.
    Int8(&'a [i8], &'a [f32]),
    Low(LowHead<'a>),
}

impl<'a> Head<'a> {
    pub(super) fn new(width: usize, cells: Cells<'a>) -> Self {
        Self { width, cells }
    }

    /// Where position `at`, a multiple of [`LANES`], begins; `None` where that does not pay: packed
    /// rows of few bits are too small.
    pub(crate) fn address(self, at: usize) -> Option<*const u8> {
        let first = at * self.width;
        match self.cells {
            Cells::F32(data) => Some(data.as_ptr().wrapping_add(first).cast()),
            Cells::F16(data) => Some(data.as_ptr().wrapping_add(first).cast()),
            Cells::Int8(data, _) => Some(data.as_ptr().wrapping_add(first).cast()),
            Cells::Low(_) => None,
        }
    }

    /// As they are stored.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn cells(self) -> Cells<'a> {
        self.cells
    }

    /// `n` rows of values from `first` on as f32, without a copy where they are stored so; the
    /// `more` rows behind them are read next, and asked for where they are f16.
    #[inline(always)]
    pub(crate) fn read(
        self,
        first: usize,
        n: usize,
        more: usize,
        buffer: &'a mut [f32],
    ) -> &'a [f32] {
        let range = first * self.width..(first + n) * self.width;
        let with_more = range.start..range.end + more * self.width;
        match self.cells {
            Cells::F32(data) => &data[range],
            Cells::F16(data) => widen(&data[with_more], range.len(), buffer),
            Cells::Int8(codes, scales) => {
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
            Cells::Low(low) => {
                let out = &mut buffer[..range.len()];
                low.read(first, n, out);
                out
            }
        }
    }

    /// `n` rows of keys as f32, `[n / LANES rounded up, width, LANES]`, from position `at` on, a
    /// multiple of [`LANES`]. What stands for rows past the end means nothing. `more` as for
    /// [`Self::read`].
    #[inline(always)]
    pub(crate) fn read_lanes(
        self,
        at: usize,
        n: usize,
        more: usize,
        buffer: &'a mut [f32],
    ) -> &'a [f32] {
        let w = self.width;
        let range = at * w..(at + n.next_multiple_of(LANES)) * w;
        let with_more = range.start..(at + (n + more).next_multiple_of(LANES)) * w;
        match self.cells {
            Cells::F32(data) => &data[range],
            Cells::F16(data) => widen(&data[with_more], range.len(), buffer),
            Cells::Int8(codes, scales) => {
                let out = &mut buffer[..range.len()];
                let scales = scales[at..].as_chunks::<LANES>().0;
                #[cfg(target_arch = "x86_64")]
                if key_lanes::scale_codes(&codes[with_more], scales, w, out) {
                    return out;
                }
                let blocks = codes[range].chunks_exact(w * LANES);
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
            Cells::Low(low) => {
                let (out, rows) = buffer.split_at_mut(range.len());
                let rows = &mut rows[..n * w];
                low.read(at, n, rows);
                #[cfg(target_arch = "x86_64")]
                if key_lanes::interleave(rows, w, out) {
                    return out;
                }
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

/// All heads, each of which one task may have.
pub(crate) struct HeadsMut<'a> {
    width: usize,
    order: Order,
    columns: CellColumns<'a>,
}

/// A head in each row.
pub(super) enum CellColumns<'a> {
    F32(Columns<'a, f32>),
    F16(Columns<'a, u16>),
    Int8(Columns<'a, i8>, Columns<'a, f32>),
    Low(LowColumns<'a>),
}

impl<'a> HeadsMut<'a> {
    pub(super) fn new(width: usize, order: Order, columns: CellColumns<'a>) -> Self {
        Self {
            width,
            order,
            columns,
        }
    }

    /// [`Head::address`] of a head.
    pub(crate) fn address(&self, head: usize, at: usize) -> Option<*const u8> {
        let first = at * self.width;
        match &self.columns {
            CellColumns::F32(data) => Some(data.address(head, first).cast()),
            CellColumns::F16(data) => Some(data.address(head, first).cast()),
            CellColumns::Int8(data, _) => Some(data.address(head, first).cast()),
            CellColumns::Low(_) => None,
        }
    }

    /// The rows of a head.
    ///
    /// # Panics
    /// Where there is no such head.
    ///
    /// # Safety
    /// No head may be borrowed twice at the same time.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn head(&self, head: usize) -> HeadMut<'_> {
        // SAFETY: nobody else has this row, by the caller's promise.
        let cells = unsafe {
            match &self.columns {
                CellColumns::F32(data) => CellsMut::F32(data.row(head)),
                CellColumns::F16(data) => CellsMut::F16(data.row(head)),
                CellColumns::Int8(codes, scales) => {
                    CellsMut::Int8(codes.row(head), scales.row(head))
                }
                CellColumns::Low(low) => CellsMut::Low(low.head(head)),
            }
        };
        HeadMut {
            width: self.width,
            order: self.order,
            cells,
        }
    }
}

/// Rows to be written.
pub(crate) struct HeadMut<'a> {
    width: usize,
    order: Order,
    cells: CellsMut<'a>,
}

enum CellsMut<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [u16]),
    Int8(&'a mut [i8], &'a mut [f32]),
    Low(LowHeadMut<'a>),
}

impl HeadMut<'_> {
    /// The same to be read.
    pub(crate) fn rows(&self) -> Head<'_> {
        let cells = match &self.cells {
            CellsMut::F32(data) => Cells::F32(data),
            CellsMut::F16(data) => Cells::F16(data),
            CellsMut::Int8(codes, scales) => Cells::Int8(codes, scales),
            CellsMut::Low(low) => Cells::Low(low.rows()),
        };
        Head::new(self.width, cells)
    }

    /// Stores the row of a position.
    ///
    /// # Panics
    /// Where there is no such row or it has another width.
    pub(crate) fn set(&mut self, position: usize, values: &[f32]) {
        assert_eq!(values.len(), self.width, "as wide as the rows");
        let (first, step) = match self.order {
            Order::Rows => (position * self.width, 1),
            Order::Lanes => {
                let block = position / LANES * LANES * self.width;
                (block + position % LANES, LANES)
            }
        };
        match &mut self.cells {
            CellsMut::F32(data) => spread(values, &mut data[first..], step),
            CellsMut::F16(data) => F16.with_borrow_mut(|halves| {
                halves.resize(values.len(), 0);
                vectorized(
                    #[inline(always)]
                    || {
                        for (half, v) in halves.iter_mut().zip(values) {
                            *half = to_f16(*v);
                        }
                    },
                );
                spread(halves, &mut data[first..], step);
            }),
            CellsMut::Int8(data, scales) => INT8.with_borrow_mut(|codes| {
                codes.resize(values.len(), 0);
                scales[position] = crate::ops::absmax_codes(values, codes);
                spread(codes, &mut data[first..], step);
            }),
            CellsMut::Low(low) => low.set(position, values),
        }
    }
}

/// Writes a row to every `step`th place.
fn spread<T: Copy>(row: &[T], out: &mut [T], step: usize) {
    if step == 1 {
        return out[..row.len()].copy_from_slice(row);
    }
    for (out, v) in out.iter_mut().step_by(step).zip(row) {
        *out = *v;
    }
}
