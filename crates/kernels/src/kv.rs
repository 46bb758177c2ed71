//! Stored keys and values of attention.

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

/// Rounds half to even; NaN becomes infinite.
#[inline(always)]
fn to_f16(v: f32) -> u16 {
    let sign = (v.to_bits() >> 16) as u16 & 0x8000;
    let v = v.abs().min(65_504.0);
    // Scaled so that f32 subnormals stand for those of f16, which rounds them rightly; others are
    // rounded at bit 13.
    let bits = if v < 6.103_515_6e-5 {
        (v + 0.5).to_bits() - 0.5f32.to_bits()
    } else {
        let b = v.to_bits();
        (b + 0xFFF + ((b >> 13) & 1) - (112 << 23)) >> 13
    };
    sign | bits.min(0x7BFF) as u16
}

#[inline(always)]
fn from_f16(v: u16) -> f32 {
    let magnitude = u32::from(v & 0x7FFF) << 13;
    // Exponents differ by 112, also for subnormals.
    let value = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(value.to_bits() | u32::from(v & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_survives_and_f32_rounds_to_the_nearest() {
        for bits in 0..0x7C00u16 {
            for bits in [bits, bits | 0x8000] {
                assert_eq!(to_f16(from_f16(bits)), bits);
            }
            let (a, b) = (from_f16(bits), from_f16(bits + 1));
            if bits + 1 < 0x7C00 {
                let middle = f32::midpoint(a, b);
                assert_eq!(to_f16(middle), bits + (bits & 1), "half to even");
                assert_eq!(to_f16(middle.next_up()), bits + 1);
                assert_eq!(to_f16(middle.next_down()), bits);
            }
        }
        assert_eq!((from_f16(0x3C00), from_f16(0x7BFF)), (1.0, 65_504.0));
        assert_eq!((from_f16(1), to_f16(1e9)), (5.960_464_5e-8, 0x7BFF));
    }

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
