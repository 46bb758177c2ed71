//! Formats that share a byte between rows: planes of 16 rows.

use crate::layout::LANES;

/// What a digit of each plane of [`Planes::Base3`] counts in a byte: see `base3`.
pub(crate) const PLACES: [u8; 5] = [84, 28, 9, 3, 1];

/// How the trits of several rows share a byte: see [`crate::layout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Planes {
    /// [`crate::Format::TwoBit`].
    TwoBit,
    /// [`crate::Format::Base3`].
    Base3,
}

impl Planes {
    /// Both.
    pub const ALL: [Self; 2] = [Self::TwoBit, Self::Base3];

    /// Trits in a byte.
    #[must_use]
    pub const fn count(self) -> usize {
        match self {
            Self::TwoBit => 4,
            Self::Base3 => 5,
        }
    }

    /// Rows of a row tile.
    #[must_use]
    pub const fn tile_rows(self) -> usize {
        self.count() * LANES
    }

    /// What trit code `code`, 0…2, of `plane` adds to a byte.
    #[must_use]
    pub const fn digit(self, plane: usize, code: u8) -> u8 {
        match self {
            Self::TwoBit => code << (2 * plane),
            Self::Base3 => code * PLACES[plane],
        }
    }

    /// The code, 0…2, of `plane` in a byte made of [`Self::digit`]s.
    #[must_use]
    pub const fn code(self, byte: u8, plane: usize) -> u8 {
        match self {
            Self::TwoBit => (byte >> (2 * plane)) & 3,
            // What planes in front count is a multiple of 28 for the second, of 9 and 3 for the
            // others.
            Self::Base3 => match plane {
                0 => byte / 84,
                1 => byte / 28 % 3,
                _ => byte % 28 / PLACES[plane] % 3,
            },
        }
    }

    /// Turns sums `Σ u_k · x` of one token, `[planes, LANES]`, into sums of codes `Σ (w + 1) · x`.
    ///
    /// `u_k` is the low `2(k + 1)` bits of a byte for [`Self::TwoBit`]. For [`Self::Base3`], whose
    /// byte is `84 d₀ + 28 d₁ + 9 d₂ + 3 d₃ + d₄`, they are `d₀`, `84 d₀ + 28 d₁`, `d₂`, `d₂ + 4
    /// d₃` and `9 d₂ + 3 d₃ + d₄`: as many as possible are at hand while a byte is taken apart.
    ///
    /// # Panics
    /// Where there are sums of more or fewer planes.
    #[inline(always)]
    pub fn separate(self, sums: &mut [i32]) {
        let planes = sums.as_chunks_mut::<LANES>().0;
        match (self, planes) {
            (Self::TwoBit, [a, b, c, d]) => {
                for i in 0..LANES {
                    d[i] = d[i].wrapping_sub(c[i]) >> 6;
                    c[i] = c[i].wrapping_sub(b[i]) >> 4;
                    b[i] = b[i].wrapping_sub(a[i]) >> 2;
                }
            }
            (Self::Base3, [a, b, c, d, e]) => {
                for i in 0..LANES {
                    // Exact: the inverse of 7 among words.
                    b[i] = (b[i] >> 2).wrapping_mul(0xB6DB_6DB7_u32.cast_signed()) - 3 * a[i];
                    d[i] = (d[i] - c[i]) >> 2;
                    e[i] -= 9 * c[i] + 3 * d[i];
                }
            }
            _ => panic!("sums of {} planes", self.count()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_codes_are_inverse_in_every_byte() {
        for planes in Planes::ALL {
            let n = planes.count();
            for number in 0..3usize.pow(n as u32) {
                let code = |k: usize| (number / 3usize.pow(k as u32) % 3) as u8;
                let byte = (0..n).map(|k| planes.digit(k, code(k))).sum();
                assert!((0..n).all(|k| planes.code(byte, k) == code(k)));
            }
        }
    }

    #[test]
    fn separation_undoes_the_mix() {
        for planes in Planes::ALL {
            let n = planes.count();
            let want: Vec<i32> = (0..n * LANES).map(|i| i as i32 * 37 - 900).collect();
            let plane = |k: usize| &want[k * LANES..][..LANES];
            let mut mixed = Vec::new();
            for k in 0..n {
                // What each plane counts in number `k`.
                let counts: Vec<i32> = match (planes, k) {
                    (Planes::TwoBit, _) => (0..=k).map(|i| 1 << (2 * i)).collect(),
                    (Planes::Base3, 0) => vec![1],
                    (Planes::Base3, 1) => vec![84, 28],
                    (Planes::Base3, 4) => vec![0, 0, 9, 3, 1],
                    (Planes::Base3, _) => [0, 0, 1, 4][..=k].to_vec(),
                };
                mixed.extend((0..LANES).map(|lane| {
                    let all = counts.iter().enumerate();
                    all.map(|(i, count)| count * plane(i)[lane]).sum::<i32>()
                }));
            }
            planes.separate(&mut mixed);
            assert_eq!(mixed, want);
        }
    }
}
