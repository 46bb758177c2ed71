//! Blocks of quantised values as f32. The order of operations is that of llama.cpp's reference.

use super::kind::TensorKind;
use super::ternary;

/// Writes the values of whole blocks to `out`; ternary types are read with
/// [`ternary::block_codes`].
///
/// # Panics
/// Where `bytes` and `out` are not the same number of blocks of `kind`.
pub(super) fn dequantize(kind: TensorKind, bytes: &[u8], out: &mut [f32]) {
    let (len, size) = (kind.block_len(), kind.block_bytes());
    assert_eq!(
        (bytes.len() % size, bytes.len() / size * len),
        (0, out.len()),
        "whole blocks"
    );
    let block: fn(&[u8], &mut [f32]) = match kind {
        TensorKind::F32 => |b, y| y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        TensorKind::F16 => |b, y| y[0] = f16(b, 0),
        TensorKind::Bf16 => |b, y| y[0] = half::bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        TensorKind::Q4_0 => q4_0,
        TensorKind::Q4_1 => q4_1,
        TensorKind::Q5_0 => q5_0,
        TensorKind::Q8_0 => q8_0,
        TensorKind::Q4K => q4_k,
        TensorKind::Q5K => q5_k,
        TensorKind::Q6K => q6_k,
        TensorKind::Tq1_0 => |b, y| ternary_block(TensorKind::Tq1_0, b, y),
        TensorKind::Tq2_0 => |b, y| ternary_block(TensorKind::Tq2_0, b, y),
        TensorKind::Q2_0 => |b, y| ternary_block(TensorKind::Q2_0, b, y),
        TensorKind::Pq2_0 => |b, y| ternary_block(TensorKind::Pq2_0, b, y),
        TensorKind::I2S => unreachable!("its scale is no part of a block"),
    };
    for (bytes, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(len)) {
        block(bytes, out);
    }
}

fn f16(bytes: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The low and then the high halves of 16 bytes.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let high = bytes.iter().map(|b| b >> 4);
    bytes.iter().map(|b| b & 15).chain(high)
}

fn q4_0(b: &[u8], y: &mut [f32]) {
    let d = f16(b, 0);
    for (y, q) in y.iter_mut().zip(nibbles(&b[2..])) {
        *y = (f32::from(q) - 8.0) * d;
    }
}

fn q4_1(b: &[u8], y: &mut [f32]) {
    let (d, min) = (f16(b, 0), f16(b, 2));
    for (y, q) in y.iter_mut().zip(nibbles(&b[4..])) {
        *y = f32::from(q) * d + min;
    }
}

fn q5_0(b: &[u8], y: &mut [f32]) {
    let d = f16(b, 0);
    let fifth = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
    for (i, (y, q)) in y.iter_mut().zip(nibbles(&b[6..])).enumerate() {
        let high = ((fifth >> i) & 1) as u8;
        *y = (f32::from(q | high << 4) - 16.0) * d;
    }
}

fn q8_0(b: &[u8], y: &mut [f32]) {
    let d = f16(b, 0);
    for (y, q) in y.iter_mut().zip(&b[2..]) {
        *y = f32::from(q.cast_signed()) * d;
    }
}

/// Scale and minimum, six bits each, of sub-block `j` of the eight that 12 bytes hold.
fn scale_and_min(s: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (s[j] & 63, s[j + 4] & 63)
    } else {
        (
            s[j + 4] & 15 | s[j - 4] >> 6 << 4,
            s[j + 4] >> 4 | s[j] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(b: &[u8], y: &mut [f32]) {
    let (d, dmin, scales) = (f16(b, 0), f16(b, 2), &b[4..16]);
    for (j, (y, q)) in y
        .chunks_exact_mut(64)
        .zip(b[16..].chunks_exact(32))
        .enumerate()
    {
        for (half, y) in y.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_and_min(scales, 2 * j + half);
            let (d, min) = (d * scale, dmin * min);
            for (y, q) in y.iter_mut().zip(q) {
                *y = d * f32::from(q >> (4 * half) & 15) - min;
            }
        }
    }
}

fn q5_k(b: &[u8], y: &mut [f32]) {
    let (d, dmin, scales, fifth) = (f16(b, 0), f16(b, 2), &b[4..16], &b[16..48]);
    for (j, (y, q)) in y
        .chunks_exact_mut(64)
        .zip(b[48..].chunks_exact(32))
        .enumerate()
    {
        for (half, y) in y.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_and_min(scales, 2 * j + half);
            let (d, min) = (d * scale, dmin * min);
            for ((y, q), fifth) in y.iter_mut().zip(q).zip(fifth) {
                let high = fifth >> (2 * j + half) & 1;
                *y = d * f32::from(q >> (4 * half) & 15 | high << 4) - min;
            }
        }
    }
}

fn q6_k(b: &[u8], y: &mut [f32]) {
    let d = f16(b, 208);
    for (n, y) in y.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&b[64 * n..][..64], &b[128 + 32 * n..][..32]);
        let scales = &b[192 + 8 * n..][..8];
        for (k, y) in y.chunks_exact_mut(32).enumerate() {
            for (l, y) in y.iter_mut().enumerate() {
                let q = low[l + 32 * (k % 2)] >> (4 * (k / 2)) & 15 | (high[l] >> (2 * k) & 3) << 4;
                let scale = scales[l / 16 + 2 * k].cast_signed();
                *y = d * f32::from(scale) * (f32::from(q) - 32.0);
            }
        }
    }
}

fn ternary_block(kind: TensorKind, b: &[u8], y: &mut [f32]) {
    let mut codes = [0i8; 256];
    let codes = &mut codes[..y.len()];
    let d = ternary::block_codes(kind, b, codes);
    for (y, code) in y.iter_mut().zip(codes.iter()) {
        *y = f32::from(*code) * d;
    }
}
