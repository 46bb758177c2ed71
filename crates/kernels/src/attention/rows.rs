//! Products of queries with keys and of weights with values, for some rows at a time.
//!
//! A sum always is one chain of fused multiplications and additions, in the order of its terms, so
//! that it does not depend on what is computed beside it. Inner loops are loops: closures would be
//! functions of their own, which are not compiled for the vectors.

use pulp::Simd;

use super::CHUNK;
use crate::kv::LANES;

/// `scores[t, k] = q[t] · key k` for a piece of keys, `[blocks, width, LANES]`; `q` is `[width, T]`.
#[inline(always)]
pub(super) fn scores_of<S: Simd, const T: usize>(
    simd: S,
    q: &[[f32; T]],
    keys: &[f32],
    scores: &mut [[f32; CHUNK]; T],
) {
    let most = most_vectors::<S>();
    let (keys, _) = S::as_simd_f32s(keys);
    // Vectors in a line of lanes, and in the piece side by side.
    let line = LANES / S::F32_LANES;
    let vectors = keys.len() / q.len();
    let first = |v: usize| &keys[v / line * line * q.len() + v % line..];
    let mut v = 0;
    while v < vectors {
        v += match (vectors - v).min(most) {
            4.. => dots::<S, T, 4>(simd, q, &first, v, scores),
            3 => dots::<S, T, 3>(simd, q, &first, v, scores),
            2 => dots::<S, T, 2>(simd, q, &first, v, scores),
            _ => dots::<S, T, 1>(simd, q, &first, v, scores),
        };
    }
}

/// As many vectors of sums a row as registers hold.
#[inline(always)]
const fn most_vectors<S: Simd>() -> usize {
    if S::F32_LANES == LANES { 4 } else { 2 }
}

/// The scores of `V` vectors of keys, from `first(at)` and following, to vectors `at` and after of
/// `scores`. Returns `V`.
#[inline(always)]
fn dots<'a, S: Simd, const T: usize, const V: usize>(
    simd: S,
    q: &[[f32; T]],
    first: &impl Fn(usize) -> &'a [S::f32s],
    at: usize,
    scores: &mut [[f32; CHUNK]; T],
) -> usize {
    let line = LANES / S::F32_LANES;
    let mut keys = [&[][..]; V];
    for (v, keys) in keys.iter_mut().enumerate() {
        *keys = &first(at + v)[..(q.len() - 1) * line + 1];
    }
    let mut sums = [[simd.splat_f32s(0.0); V]; T];
    for (i, q) in q.iter().enumerate() {
        let mut key = [simd.splat_f32s(0.0); V];
        for v in 0..V {
            key[v] = keys[v][i * line];
        }
        for t in 0..T {
            let q = simd.splat_f32s(q[t]);
            for v in 0..V {
                sums[t][v] = simd.mul_add_f32s(q, key[v], sums[t][v]);
            }
        }
    }
    for (sums, scores) in sums.iter().zip(scores) {
        S::as_mut_simd_f32s(scores).0[at..at + V].copy_from_slice(sums);
    }
    V
}

/// `out[t] += Σ weights[t][first + k] · values[k]` in the order of the values, `[keys, width]`.
#[inline(always)]
pub(super) fn add_rows<S: Simd, const T: usize>(
    simd: S,
    weights: &[[f32; CHUNK]; T],
    first: usize,
    values: &[f32],
    mut out: [&mut [f32]; T],
) {
    // Most rows see all of a piece, and nothing but that.
    if values.is_empty() {
        return;
    }
    let width = out[0].len();
    let vectors = width / S::F32_LANES;
    let most = most_vectors::<S>();
    let mut v = 0;
    while v < vectors {
        v += match (vectors - v).min(most) {
            4.. => columns::<S, T, 4>(simd, weights, first, values, v, &mut out),
            2.. => columns::<S, T, 2>(simd, weights, first, values, v, &mut out),
            _ => columns::<S, T, 1>(simd, weights, first, values, v, &mut out),
        };
    }
    let done = vectors * S::F32_LANES;
    if done == width {
        return;
    }
    for (out, weights) in out.iter_mut().zip(weights) {
        for (values, w) in values.chunks_exact(width).zip(&weights[first..]) {
            for (out, value) in out[done..].iter_mut().zip(&values[done..]) {
                *out += w * value;
            }
        }
    }
}

/// [`add_rows`] for `V` vectors of columns from vector `at` on; returns `V`.
#[inline(always)]
fn columns<S: Simd, const T: usize, const V: usize>(
    simd: S,
    weights: &[[f32; CHUNK]; T],
    first: usize,
    values: &[f32],
    at: usize,
    out: &mut [&mut [f32]; T],
) -> usize {
    let width = out[0].len();
    let mut sums = [[simd.splat_f32s(0.0); V]; T];
    for (sums, out) in sums.iter_mut().zip(out.iter()) {
        sums.copy_from_slice(&S::as_simd_f32s(out).0[at..at + V]);
    }
    for (k, row) in (first..CHUNK).zip(values.chunks_exact(width)) {
        let row = &S::as_simd_f32s(row).0[at..at + V];
        for t in 0..T {
            let weight = simd.splat_f32s(weights[t][k]);
            for v in 0..V {
                sums[t][v] = simd.mul_add_f32s(weight, row[v], sums[t][v]);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out.iter_mut()) {
        S::as_mut_simd_f32s(out).0[at..at + V].copy_from_slice(sums);
    }
    V
}
