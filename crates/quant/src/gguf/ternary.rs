//! Ternary types as codes and scales, without loss.

use super::kind::{I2S_TAIL, TensorKind};

/// Values that share a scale in a group of [`TernaryScales`].
pub(super) const GROUP: usize = 128;

/// A ternary matrix: weight `[r, c]` is `codes[r · cols + c]` times its scale.
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryTensor {
    /// −1, 0 and +1, row major.
    pub codes: Vec<i8>,
    /// What a code of 1 stands for.
    pub scales: TernaryScales,
}

/// The coarsest scales that say what the blocks of a tensor say.
#[derive(Debug, Clone, PartialEq)]
pub enum TernaryScales {
    /// One for all.
    Tensor(f32),
    /// One a row.
    Row(Vec<f32>),
    /// One for each 128 columns of a row, row major.
    Group(Vec<f32>),
}

impl TernaryScales {
    /// From one scale for each block, `[rows, blocks a row]`; a block without any weight but 0 goes
    /// with every scale. `None` where the scale changes within 128 columns.
    fn of_blocks(scales: &[f32], empty: &[bool], blocks: usize, block_len: usize) -> Option<Self> {
        if let Some(scale) = common(scales, empty) {
            return Some(Self::Tensor(scale));
        }
        let runs = |len: usize| {
            let runs = scales.chunks(len).zip(empty.chunks(len));
            runs.map(|(s, e)| common(s, e))
                .collect::<Option<Vec<f32>>>()
        };
        if let Some(rows) = runs(blocks) {
            return Some(Self::Row(rows));
        }
        if block_len >= GROUP {
            let groups = |s: &f32| std::iter::repeat_n(*s, block_len / GROUP);
            return Some(Self::Group(scales.iter().flat_map(groups).collect()));
        }
        let part = GROUP / block_len;
        let groups = blocks.is_multiple_of(part).then(|| runs(part)).flatten();
        groups.map(Self::Group)
    }

    /// The same times a factor.
    pub(super) fn times(mut self, factor: f32) -> Self {
        match &mut self {
            Self::Tensor(scale) => *scale *= factor,
            Self::Row(scales) | Self::Group(scales) => scales.iter_mut().for_each(|s| *s *= factor),
        }
        self
    }
}

/// The scale of all blocks that are not empty, 0 where all are; `None` where there are several.
fn common(scales: &[f32], empty: &[bool]) -> Option<f32> {
    let live = scales.iter().zip(empty).filter(|(_, empty)| !**empty);
    let mut live = live.map(|(scale, _)| *scale);
    let first = live.next();
    live.all(|s| Some(s) == first).then(|| first.unwrap_or(0.0))
}

/// Codes and scales of a whole tensor of a ternary type, `cols` values a row. `None` where the type
/// can hold other values too and does: weights of +2, or scales that change within 128 columns.
///
/// # Errors
/// Where a code is none, or a scale no number.
pub(super) fn decode(
    kind: TensorKind,
    bytes: &[u8],
    cols: usize,
) -> Result<Option<TernaryTensor>, String> {
    let (len, size) = (kind.block_len(), kind.block_bytes());
    let tail = if kind == TensorKind::I2S { I2S_TAIL } else { 0 };
    let (blocks, tail) = bytes.split_at(bytes.len().saturating_sub(tail));
    let count = blocks.len() / size;
    let mut codes = vec![0i8; count * len];
    let (mut scales, mut empty) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (i, (block, codes)) in blocks
        .chunks_exact(size)
        .zip(codes.chunks_exact_mut(len))
        .enumerate()
    {
        scales.push(block_codes(kind, block, codes));
        // Without a way out of the loop it is one of vectors. Of −1, 0, 1 and 2 only the last has this
        // bit and no sign.
        let (any, not_negative) = codes
            .iter()
            .fold((0, 0), |(any, bits), &c| (any | c, bits | (c & !(c >> 7))));
        empty.push(any == 0);
        if not_negative & 2 != 0 {
            if kind.has_two() {
                return Ok(None);
            }
            let at = i * len + codes.iter().position(|&c| c == 2).unwrap_or(0);
            return Err(format!(
                "has code 3 at row {}, column {}: only 0, 1 and 2 are weights; the file is damaged",
                at / cols,
                at % cols
            ));
        }
    }
    if let [a, b, c, d, ..] = tail {
        scales = vec![f32::from_le_bytes([*a, *b, *c, *d])];
    }
    if !scales.iter().all(|v| v.is_finite()) {
        return Err("has a scale that is NaN or infinite; the file is damaged".into());
    }
    let scales = match tail {
        [_, _, _, _, ..] => TernaryScales::Tensor(scales[0]),
        _ => match TernaryScales::of_blocks(&scales, &empty, cols / len, len) {
            Some(scales) => scales,
            None => return Ok(None),
        },
    };
    Ok(Some(TernaryTensor { codes, scales }))
}

/// Writes the codes of one block and returns its scale, 1 for [`TensorKind::I2S`]. A code of 2
/// comes from a bit pattern that stands for no weight but in [`TensorKind::has_two`].
pub(super) fn block_codes(kind: TensorKind, b: &[u8], codes: &mut [i8]) -> f32 {
    let scale = |at: usize| half::f16::from_le_bytes([b[at], b[at + 1]]).to_f32();
    match kind {
        TensorKind::Tq2_0 => {
            for (bytes, codes) in b.chunks_exact(32).zip(codes.chunks_exact_mut(128)) {
                for (l, codes) in codes.chunks_exact_mut(32).enumerate() {
                    for (code, byte) in codes.iter_mut().zip(bytes) {
                        *code = (byte >> (2 * l) & 3) as i8 - 1;
                    }
                }
            }
            scale(64)
        }
        TensorKind::Q2_0 | TensorKind::Pq2_0 => {
            for (codes, byte) in codes.as_chunks_mut::<4>().0.iter_mut().zip(&b[2..]) {
                *codes = [0, 2, 4, 6].map(|shift| (byte >> shift & 3) as i8 - 1);
            }
            scale(0)
        }
        TensorKind::I2S => {
            for (l, codes) in codes.chunks_exact_mut(32).enumerate() {
                for (code, byte) in codes.iter_mut().zip(b) {
                    *code = (byte >> (6 - 2 * l) & 3) as i8 - 1;
                }
            }
            1.0
        }
        _ => {
            // Five digits to base 3 in a byte, the fraction of 256 that it is; the last four bytes
            // have four.
            let mut at = 0;
            for (bytes, digits) in [(&b[..32], 5), (&b[32..48], 5), (&b[48..52], 4)] {
                for power in [1u8, 3, 9, 27, 81].into_iter().take(digits) {
                    let codes = &mut codes[at..][..bytes.len()];
                    at += bytes.len();
                    for (byte, code) in bytes.iter().zip(codes) {
                        let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
                        *code = digit as i8 - 1;
                    }
                }
            }
            scale(52)
        }
    }
}
