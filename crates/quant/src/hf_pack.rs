//! The packed form of Hugging Face: four ternary codes a byte, taken from the four quarters of
//! `out_features`.
//!
//! A matrix of `out × in` codes becomes `R × in` bytes, `R = ceil(out / 4)`. Byte `(r, c)` holds
//! the codes of rows `r`, `r + R`, `r + 2R` and `r + 3R` in bits 0–1, 2–3, 4–5 and 6–7, each as
//! `code + 1`. Where `out` is no multiple of four the rows past the end are zero bits.

use crate::error::{QuantError, Result};

/// Codes in a byte.
pub const CODES_PER_BYTE: usize = 4;

/// Rows of bytes that `out_features` rows of codes take.
#[must_use]
pub fn packed_rows(out_features: usize) -> usize {
    out_features.div_ceil(CODES_PER_BYTE)
}

/// Packs `codes`, row major `[out_features, in_features]`, into `[ceil(out / 4), in]` bytes.
///
/// # Errors
/// [`QuantError::Pack`] where the number of codes does not fit the shape or a code is not −1, 0
/// or +1.
pub fn pack(codes: &[i8], out_features: usize, in_features: usize) -> Result<Vec<u8>> {
    if out_features.checked_mul(in_features) != Some(codes.len()) {
        return Err(QuantError::Pack(format!(
            "{} codes cannot fill a matrix of {out_features} × {in_features}",
            codes.len()
        )));
    }
    let no_code = |c: i8| c.wrapping_add(1).cast_unsigned() > 2;
    // Without a way out of the loop it is one of vectors.
    if codes.iter().fold(false, |bad, &c| bad | no_code(c)) {
        let at = codes.iter().position(|&c| no_code(c)).unwrap_or(0);
        return Err(QuantError::Pack(format!(
            "code {} at row {}, column {} is not ternary: it must be −1, 0 or 1",
            codes[at],
            at / in_features,
            at % in_features
        )));
    }
    let quarter = packed_rows(out_features) * in_features;
    let mut packed = vec![0u8; quarter];
    if quarter > 0 {
        for (i, rows) in codes.chunks(quarter).enumerate() {
            for (byte, code) in packed.iter_mut().zip(rows) {
                *byte |= ((code + 1) as u8) << (2 * i);
            }
        }
    }
    Ok(packed)
}

/// Checks the length of a packed matrix and that no code of its rows is 3.
///
/// # Errors
/// [`QuantError::Pack`] otherwise; the message names the place.
pub fn check(packed: &[u8], out_features: usize, in_features: usize) -> Result<()> {
    let rows = packed_rows(out_features);
    if rows.checked_mul(in_features) != Some(packed.len()) {
        return Err(QuantError::Pack(format!(
            "{} bytes cannot hold a packed matrix of {out_features} × {in_features}: {rows} × \
             {in_features} bytes are needed",
            packed.len()
        )));
    }
    for (r, row) in packed.chunks_exact(in_features.max(1)).enumerate() {
        if is_ternary(row, out_features, r) {
            continue;
        }
        let bad = |b: u8| threes(b) & live(out_features, r);
        if let Some((column, byte)) = row.iter().enumerate().find(|&(_, &b)| bad(b) != 0) {
            let i = bad(*byte).trailing_zeros() as usize / 2;
            return Err(QuantError::Pack(format!(
                "packed code 3 at row {}, column {column}: only 0, 1 and 2 are weights. The file \
                 is damaged or not packed as ternary; export the model again",
                i * rows + r
            )));
        }
    }
    Ok(())
}

/// Whether no code of packed row `row` of a matrix is 3.
#[must_use]
pub fn is_ternary(bytes: &[u8], out_features: usize, row: usize) -> bool {
    let all = bytes.iter().fold(0, |acc, &b| acc | threes(b));
    all & live(out_features, row) == 0
}

/// The low bit of each code that has both bits set.
fn threes(byte: u8) -> u8 {
    byte & (byte >> 1) & 0b0101_0101
}

/// The low bits of the codes of packed row `row` whose rows exist.
fn live(out_features: usize, row: usize) -> u8 {
    let rows = packed_rows(out_features);
    (0..CODES_PER_BYTE)
        .filter(|i| i * rows + row < out_features)
        .map(|i| 1 << (2 * i))
        .sum()
}

/// Row `row` of a packed matrix that [`check`] accepted, as codes −1, 0, +1.
///
/// # Panics
/// Where `row` is not below `out_features` or `codes` is not `in_features` long.
pub fn unpack_row(packed: &[u8], out_features: usize, row: usize, codes: &mut [i8]) {
    assert!(row < out_features, "row {row} of {out_features}");
    let rows = packed_rows(out_features);
    let shift = 2 * (row / rows);
    let start = (row % rows) * codes.len();
    let bytes = &packed[start..start + codes.len()];
    for (code, byte) in codes.iter_mut().zip(bytes) {
        *code = ((byte >> shift) & 3) as i8 - 1;
    }
}

/// Unpacks `[ceil(out / 4), in]` bytes to row major `[out_features, in_features]` codes. The bits
/// of rows past `out_features` are not looked at.
///
/// # Errors
/// [`QuantError::Pack`] where the length does not fit the shape or a code is 3.
pub fn unpack(packed: &[u8], out_features: usize, in_features: usize) -> Result<Vec<i8>> {
    check(packed, out_features, in_features)?;
    let mut codes = vec![0i8; out_features * in_features];
    for (row, out) in codes.chunks_exact_mut(in_features.max(1)).enumerate() {
        unpack_row(packed, out_features, row, out);
    }
    Ok(codes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quarters_of_the_rows_share_a_byte() {
        let codes = [-1, 0, 1, 1, 0, 0, 1, -1];
        let packed = pack(&codes, 8, 1).unwrap();
        // Rows 0, 2, 4, 6 and rows 1, 3, 5, 7, as code + 1 from the low bits up.
        assert_eq!(packed, [0b10_01_10_00, 0b00_01_10_01]);
    }

    #[test]
    fn code_three_is_refused_but_not_in_padding() {
        let mut packed = pack(&[1; 6], 3, 2).unwrap();
        packed[1] |= 0b11 << 6;
        assert_eq!(unpack(&packed, 3, 2).unwrap(), [1; 6]);
        packed[1] |= 0b11 << 2;
        let error = unpack(&packed, 3, 2).unwrap_err().to_string();
        assert!(error.contains("row 1, column 1"), "{error}");
    }

    #[test]
    fn wrong_lengths_and_codes_are_refused() {
        assert!(pack(&[0; 5], 2, 3).is_err());
        assert!(pack(&[0, 2], 1, 2).is_err());
        assert!(pack(&[], usize::MAX, 2).is_err());
        assert!(unpack(&[0; 3], 4, 4).is_err());
        assert!(unpack(&[], 0, 7).unwrap().is_empty());
        assert!(unpack(&[], 7, 0).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn unpack_undoes_pack(
            (rows, cols, codes) in (0usize..23, 0usize..40).prop_flat_map(|(r, c)| {
                (Just(r), Just(c), prop::collection::vec(-1i8..=1, r * c))
            })
        ) {
            let packed = pack(&codes, rows, cols).unwrap();
            prop_assert_eq!(packed.len(), rows.div_ceil(4) * cols);
            prop_assert_eq!(unpack(&packed, rows, cols).unwrap(), codes);
        }
    }
}
