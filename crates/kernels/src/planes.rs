//! Formats that share a byte between rows: planes of 16 rows.

use crate::layout::LANES;

/// How the trits of several rows share a byte. A kernel never takes such a byte apart: see
/// [`crate::layout`].
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
            Self::Base3 => code * [81, 27, 9, 3, 1][plane],
        }
    }

    /// The code, 0…2, of `plane` in a byte made of [`Self::digit`]s.
    #[must_use]
    pub const fn code(self, byte: u8, plane: usize) -> u8 {
        match self {
            Self::TwoBit => (byte >> (2 * plane)) & 3,
            Self::Base3 => byte / [81, 27, 9, 3, 1][plane] % 3,
        }
    }

    /// Turns sums `Σ u_k · x` of one token, `[planes, LANES]`, into sums of codes `Σ (w + 1) · x`.
    ///
    /// `u_k` is the low `2(k + 1)` bits of a byte for [`Self::TwoBit`] and its first `k + 1` digits
    /// for [`Self::Base3`].
    #[inline(always)]
    pub fn separate(self, sums: &mut [i32]) {
        let planes = self.count();
        for k in (1..planes).rev() {
            let (low, high) = sums.split_at_mut(k * LANES);
            for (s, before) in high[..LANES].iter_mut().zip(&low[(k - 1) * LANES..]) {
                *s = match self {
                    Self::TwoBit => s.wrapping_sub(*before) >> (2 * k),
                    Self::Base3 => s.wrapping_sub(before.wrapping_mul(3)),
                };
            }
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
            let mut mixed = want.clone();
            for k in 1..n {
                for lane in 0..LANES {
                    let (at, before) = (k * LANES + lane, (k - 1) * LANES + lane);
                    mixed[at] = match planes {
                        Planes::TwoBit => mixed[before] + (want[at] << (2 * k)),
                        Planes::Base3 => 3 * mixed[before] + want[at],
                    };
                }
            }
            planes.separate(&mut mixed);
            assert_eq!(mixed, want);
        }
    }
}
