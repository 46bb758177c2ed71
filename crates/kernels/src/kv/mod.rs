//! Stored keys and values of attention.

mod f16;

use f16::{from_f16, to_f16};

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
}

/// Rows `[rows, width]` of keys or values, each of one head of one token.
#[derive(Debug, Clone)]
pub struct KvRows {
    width: usize,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    F32(Vec<f32>),
    F16(Vec<u16>),
    Int8(Vec<i8>, Vec<f32>),
}

impl KvRows {
    /// `rows` rows of zeros.
    #[must_use]
    pub fn new(format: KvFormat, rows: usize, width: usize) -> Self {
        let n = rows * width;
        let data = match format {
            KvFormat::F32 => Data::F32(vec![0.0; n]),
            KvFormat::F16 => Data::F16(vec![0; n]),
            KvFormat::Int8 => Data::Int8(vec![0; n], vec![0.0; rows]),
        };
        Self { width, data }
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
        }
    }

    /// Copies `n` rows of `other`, of the same format and width, from its row `from` to row `to`.
    ///
    /// # Panics
    /// Where formats differ or rows are missing.
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_move_between_stores() {
        for format in [KvFormat::F32, KvFormat::F16, KvFormat::Int8] {
            let mut a = KvRows::new(format, 3, 4);
            (0..3).for_each(|i| a.set(i, &[i as f32, 1.0, -2.0, 0.0]));
            let mut b = KvRows::new(format, 9, 4);
            b.copy_rows(5, &a, 1, 2);
            let (mut x, mut y) = ([0.0; 8], [0.0; 8]);
            assert_eq!(b.read(5, 2, &mut x), a.read(1, 2, &mut y));
        }
    }
}
