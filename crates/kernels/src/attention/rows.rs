//! Products of queries and weights with rows of keys and values.

use pulp::Simd;

/// `scores[k] = q · rows[k] · scale`, four rows at a time, each in an order of additions of its own.
#[inline(always)]
pub(super) fn scores_of<S: Simd>(simd: S, q: &[f32], rows: &[f32], scale: f32, scores: &mut [f32]) {
    let (fours, rest) = scores.as_chunks_mut::<4>();
    let (four_rows, rest_rows) = rows.split_at(fours.len() * 4 * q.len());
    for (out, rows) in fours.iter_mut().zip(four_rows.chunks_exact(4 * q.len())) {
        dots::<S, 4>(simd, q, rows, scale, out);
    }
    for (out, row) in rest.iter_mut().zip(rest_rows.chunks_exact(q.len())) {
        dots::<S, 1>(simd, q, row, scale, std::array::from_mut(out));
    }
}

#[inline(always)]
fn dots<S: Simd, const N: usize>(simd: S, q: &[f32], rows: &[f32], scale: f32, out: &mut [f32; N]) {
    let (whole, tail) = S::as_simd_f32s(q);
    let zero = simd.splat_f32s(0.0);
    let mut sums = [zero; N];
    let mut vectors: [&[S::f32s]; N] = [&[]; N];
    for (vectors, row) in vectors.iter_mut().zip(rows.chunks_exact(q.len())) {
        *vectors = &S::as_simd_f32s(row).0[..whole.len()];
    }
    for (i, q) in whole.iter().enumerate() {
        for (sum, vectors) in sums.iter_mut().zip(&vectors) {
            *sum = simd.mul_add_f32s(*q, vectors[i], *sum);
        }
    }
    for ((out, sum), row) in out.iter_mut().zip(sums).zip(rows.chunks_exact(q.len())) {
        let mut total = simd.reduce_sum_f32s(sum);
        for (q, v) in tail.iter().zip(&row[q.len() - tail.len()..]) {
            total += q * v;
        }
        *out = total * scale;
    }
}

/// `out += Σ weights[i] · rows[i]`, four rows at a time.
#[inline(always)]
pub(super) fn add_rows(weights: &[f32], rows: &[f32], out: &mut [f32]) {
    let width = out.len();
    let (fours, rest) = weights.as_chunks::<4>();
    let (four_rows, rest_rows) = rows.split_at(fours.len() * 4 * width);
    for (w, rows) in fours.iter().zip(four_rows.chunks_exact(4 * width)) {
        let (a, rows) = rows.split_at(width);
        let (b, rows) = rows.split_at(width);
        let (c, d) = rows.split_at(width);
        for ((((o, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *o += (a * w[0] + b * w[1]) + (c * w[2] + d * w[3]);
        }
    }
    for (w, row) in rest.iter().zip(rest_rows.chunks_exact(width)) {
        for (o, v) in out.iter_mut().zip(row) {
            *o += w * v;
        }
    }
}
