//! Five trits in a byte.
//!
//! A byte is `84 d₀ + 28 d₁ + 9 d₂ + 3 d₃ + d₄`. Since 84 and 28 are multiples of four, the upper
//! six bits tell the first two digits: an index of one register of 64 bytes. What is left is below
//! 27 and another such index.

/// A table of `f(i)` for each index `i`.
macro_rules! table {
    (|$i:ident| $value:expr) => {{
        let mut table = [0; _];
        let mut $i = 0;
        while $i < table.len() {
            table[$i] = $value as u8;
            $i += 1;
        }
        table
    }};
}

#[cfg(target_arch = "aarch64")]
pub(crate) use table;

/// `d₀`, by `byte >> 2`.
pub(crate) const FIRST_OF_64: [u8; 64] = table!(|i| i / 21);
/// `84 d₀ + 28 d₁`, by `byte >> 2`.
pub(crate) const PAIR_OF_64: [u8; 64] = table!(|i| i / 7 * 28);
/// `d₂ + 4 d₃`, by what is left of a byte.
pub(crate) const MIDDLE_OF_64: [u8; 64] = table!(|i| i / 9 % 3 + i / 3 % 3 * 4);

/// `d₀`, by `byte / 28`.
pub(crate) const FIRST: [u8; 16] = table!(|i| i / 3);
/// `d₁`, by `byte / 28`.
pub(crate) const SECOND: [u8; 16] = table!(|i| i % 3);
/// `d₂`, by the lower four bits of `9 d₂`.
pub(crate) const NINTH: [u8; 16] = table!(|i| if i == 9 { 1 } else { i });
/// `84 d₀ + 28 d₁`, by `byte / 28`, which is at most 8.
pub(crate) const PAIR: [u8; 16] = table!(|i| if i < 9 { i * 28 } else { 0 });
/// The halves of [`MIDDLE_OF_64`] that are used.
pub(crate) const MIDDLE: [[u8; 16]; 2] = [
    table!(|i| MIDDLE_OF_64[i]),
    table!(|i| MIDDLE_OF_64[16 + i]),
];

/// `⌊byte / 28⌋` is `⌊byte · QUOTIENT / 2¹⁶⌋`.
pub(crate) const QUOTIENT: i16 = 2341;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planes::PLACES;

    #[test]
    fn tables_give_the_digits_of_every_byte() {
        for number in 0..3u8.pow(5) {
            let digits = [81, 27, 9, 3, 1].map(|place| number / place % 3);
            let byte: u8 = digits.iter().zip(PLACES).map(|(d, place)| d * place).sum();
            let pair = ((u32::from(byte) * QUOTIENT as u32) >> 16) as u8;
            assert_eq!(pair, 3 * digits[0] + digits[1]);
            let [by_pair, by_bits] = [usize::from(pair), usize::from(byte / 4)];
            assert_eq!(FIRST[by_pair], digits[0]);
            assert_eq!(SECOND[by_pair], digits[1]);
            assert_eq!(FIRST_OF_64[by_bits], digits[0]);
            assert_eq!(PAIR[by_pair], PAIR_OF_64[by_bits]);
            assert_eq!(NINTH[usize::from(9 * digits[2] % 16)], digits[2]);
            let rest = usize::from(byte - PAIR[by_pair]);
            let middle = digits[2] | digits[3] << 2;
            assert_eq!(MIDDLE_OF_64[rest], middle);
            assert_eq!(MIDDLE[rest / 16][rest % 16], middle);
        }
    }
}
