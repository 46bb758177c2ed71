//! Attention of one token over stored halves, which become single where they are used: in registers.
//!
//! A sum is the chain of fused multiplications and additions that [`crate::attention`] promises, so bits do not
//! depend on which loop computed it.

use std::arch::x86_64::*;

use super::f32_vector::Vector;
use super::prefetch::ask_line;
use crate::attention::CHUNK;
use crate::kv::LANES;

/// Vectors that the processor has, with its own conversion of halves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HalfRows {
    /// AVX-512.
    Wide,
    /// AVX2, FMA and F16C.
    Narrow,
}

/// What is read later. It is asked for line by line, so that memory is busy all the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Later {
    at: *const u8,
    lines: usize,
    /// Lines of a turn.
    each: usize,
}

impl Later {
    pub(crate) const NOTHING: Self = Self {
        at: std::ptr::null(),
        lines: 0,
        each: 0,
    };

    /// All lines of `halves`.
    pub(crate) fn of(halves: &[u16]) -> Self {
        Self::new(halves.as_ptr().cast(), size_of_val(halves))
    }

    /// The lines of `bytes` from `at` on; an address is only a hint.
    pub(crate) fn new(at: *const u8, bytes: usize) -> Self {
        Self {
            at,
            lines: bytes.div_ceil(LINE),
            each: 0,
        }
    }

    /// Part `part`, of `n` parts at a time out of `all`, in so many turns.
    #[inline(always)]
    fn part(self, (part, n, all): (usize, usize, usize), turns: usize) -> Self {
        let first = self.lines * part / all;
        let lines = self.lines * (part + n) / all - first;
        Self {
            at: self.at.wrapping_add(first * LINE),
            lines,
            each: lines.div_ceil(turns.max(1)),
        }
    }

    /// Asks for what is due.
    #[inline(always)]
    fn turn(&mut self) {
        let due = self.each.min(self.lines);
        for _ in 0..due {
            ask_line(self.at);
            self.at = self.at.wrapping_add(LINE);
        }
        self.lines -= due;
    }
}

const LINE: usize = 64;

impl HalfRows {
    /// The widest vectors that there are.
    pub(crate) fn detect() -> Option<Self> {
        if is_x86_feature_detected!("avx512f") {
            return Some(Self::Wide);
        }
        let narrow = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        narrow.then_some(Self::Narrow)
    }

    /// `scores[t][k] = q[t] · key k` for whole blocks of keys, `[blocks, width, LANES]`, at most [`CHUNK`] of them.
    ///
    /// # Panics
    /// Where queries are not as wide as keys, or those are too many.
    pub(crate) fn scores<const T: usize>(
        self,
        q: [&[f32]; T],
        keys: &[u16],
        scores: &mut [[f32; CHUNK]; T],
        later: Later,
    ) {
        let width = q[0].len();
        assert!(q.iter().all(|q| q.len() == width), "queries of one width");
        assert!(
            keys.len().is_multiple_of(width * LANES) && keys.len() <= width * CHUNK,
            "whole blocks of a piece"
        );
        // SAFETY: the features were found by `detect`, and the assertions bound what is read.
        unsafe {
            match self {
                Self::Wide => scores_512(q, keys, scores, later),
                Self::Narrow => scores_256(q, keys, scores, later),
            }
        }
    }

    /// `out[t] += Σ weights[t][first + k] · values[k]` in the order of the values, `[n, width]`.
    ///
    /// # Panics
    /// Where outputs are not as wide as values, the width is no multiple of [`LANES`], or there are more values than
    /// weights.
    pub(crate) fn add<const T: usize>(
        self,
        weights: &[[f32; CHUNK]; T],
        first: usize,
        values: &[u16],
        out: [&mut [f32]; T],
        later: Later,
    ) {
        let width = out[0].len();
        assert!(
            out.iter().all(|out| out.len() == width),
            "outputs of one width"
        );
        assert!(width.is_multiple_of(LANES), "whole vectors");
        assert!(
            values.len().is_multiple_of(width) && first + values.len() / width <= CHUNK,
            "whole values of a piece"
        );
        // SAFETY: as above.
        unsafe {
            match self {
                Self::Wide => add_512(weights, first, values, out, later),
                Self::Narrow => add_256(weights, first, values, out, later),
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn scores_512<const T: usize>(
    q: [&[f32]; T],
    keys: &[u16],
    scores: &mut [[f32; CHUNK]; T],
    later: Later,
) {
    // SAFETY: the caller's promises.
    unsafe { scores_of::<__m512, T>(q, keys, scores, later) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scores_256<const T: usize>(
    q: [&[f32]; T],
    keys: &[u16],
    scores: &mut [[f32; CHUNK]; T],
    later: Later,
) {
    // SAFETY: the caller's promises.
    unsafe { scores_of::<__m256, T>(q, keys, scores, later) }
}

#[target_feature(enable = "avx512f")]
unsafe fn add_512<const T: usize>(
    weights: &[[f32; CHUNK]; T],
    first: usize,
    values: &[u16],
    out: [&mut [f32]; T],
    later: Later,
) {
    // SAFETY: the caller's promises.
    unsafe { add_rows::<__m512, T>(weights, first, values, out, later) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_256<const T: usize>(
    weights: &[[f32; CHUNK]; T],
    first: usize,
    values: &[u16],
    out: [&mut [f32]; T],
    later: Later,
) {
    // SAFETY: the caller's promises.
    unsafe { add_rows::<__m256, T>(weights, first, values, out, later) }
}

#[inline(always)]
unsafe fn scores_of<V: Vector, const T: usize>(
    q: [&[f32]; T],
    keys: &[u16],
    scores: &mut [[f32; CHUNK]; T],
    later: Later,
) {
    let width = q[0].len();
    let vectors = keys.len() / width / V::LANES;
    let mut v = 0;
    while v < vectors {
        let most = (vectors - v).min(V::SUMS / T);
        // SAFETY: the caller's promises; vectors `v..v + n` are keys that there are.
        v += unsafe {
            match most {
                8.. => dots::<V, T, 8>(q, keys, v, vectors, scores, later),
                4.. => dots::<V, T, 4>(q, keys, v, vectors, scores, later),
                2.. => dots::<V, T, 2>(q, keys, v, vectors, scores, later),
                _ => dots::<V, T, 1>(q, keys, v, vectors, scores, later),
            }
        };
    }
}

/// The scores of `N` vectors of keys from vector `at` on; returns `N`.
#[inline(always)]
unsafe fn dots<V: Vector, const T: usize, const N: usize>(
    q: [&[f32]; T],
    keys: &[u16],
    at: usize,
    vectors: usize,
    scores: &mut [[f32; CHUNK]; T],
    later: Later,
) -> usize {
    let width = q[0].len();
    let line = LANES / V::LANES;
    // SAFETY: the caller's promises; vector `v` has a part of each line of its block, of which there are `width`.
    unsafe {
        let first: [*const u16; N] = std::array::from_fn(|n| {
            let v = at + n;
            keys.as_ptr()
                .add(v / line * width * LANES + v % line * V::LANES)
        });
        let mut sums = [[V::splat(0.0); N]; T];
        let mut later = later.part((at, N, vectors), width);
        for i in 0..width {
            later.turn();
            let mut key = [V::splat(0.0); N];
            for (key, first) in key.iter_mut().zip(first) {
                *key = V::widen(first.add(i * LANES));
            }
            for t in 0..T {
                let q = V::splat(*q[t].get_unchecked(i));
                for n in 0..N {
                    sums[t][n] = q.mul_add(key[n], sums[t][n]);
                }
            }
        }
        for (sums, scores) in sums.into_iter().zip(scores) {
            for (n, sum) in sums.into_iter().enumerate() {
                sum.store(scores.as_mut_ptr().add((at + n) * V::LANES));
            }
        }
    }
    N
}

#[inline(always)]
unsafe fn add_rows<V: Vector, const T: usize>(
    weights: &[[f32; CHUNK]; T],
    first: usize,
    values: &[u16],
    mut out: [&mut [f32]; T],
    later: Later,
) {
    let vectors = out[0].len() / V::LANES;
    let mut v = 0;
    while v < vectors {
        let most = (vectors - v).min(V::SUMS / T);
        // SAFETY: the caller's promises; columns of vectors `v..v + n` are there.
        v += unsafe {
            match most {
                8.. => columns::<V, T, 8>(weights, first, values, v, &mut out, later),
                6.. => columns::<V, T, 6>(weights, first, values, v, &mut out, later),
                4.. => columns::<V, T, 4>(weights, first, values, v, &mut out, later),
                2.. => columns::<V, T, 2>(weights, first, values, v, &mut out, later),
                _ => columns::<V, T, 1>(weights, first, values, v, &mut out, later),
            }
        };
    }
}

/// [`add_rows`] for `N` vectors of columns from vector `at` on; returns `N`.
#[inline(always)]
unsafe fn columns<V: Vector, const T: usize, const N: usize>(
    weights: &[[f32; CHUNK]; T],
    first: usize,
    values: &[u16],
    at: usize,
    out: &mut [&mut [f32]; T],
    later: Later,
) -> usize {
    let width = out[0].len();
    let (rows, vectors) = (values.len() / width, width / V::LANES);
    // SAFETY: the caller's promises; a row has `vectors` vectors.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; T];
        for (sums, out) in sums.iter_mut().zip(out.iter()) {
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(out.as_ptr().add((at + n) * V::LANES));
            }
        }
        let mut later = later.part((at, N, vectors), rows);
        for k in 0..rows {
            later.turn();
            let row = values.as_ptr().add(k * width + at * V::LANES);
            let mut value = [V::splat(0.0); N];
            for (n, value) in value.iter_mut().enumerate() {
                *value = V::widen(row.add(n * V::LANES));
            }
            for t in 0..T {
                let weight = V::splat(*weights[t].get_unchecked(first + k));
                for n in 0..N {
                    sums[t][n] = weight.mul_add(value[n], sums[t][n]);
                }
            }
        }
        for (sums, out) in sums.into_iter().zip(out) {
            for (n, sum) in sums.into_iter().enumerate() {
                sum.store(out.as_mut_ptr().add((at + n) * V::LANES));
            }
        }
    }
    N
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Halves that are no NaN.
    fn halves(n: usize, mut seed: u32) -> Vec<u16> {
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) as u16 & 0xBBFF
        };
        (0..n).map(|_| next()).collect()
    }

    fn single(half: u16) -> f32 {
        let mut out = [0.0];
        assert!(crate::x86_64::halves::widen(&[half], &mut out));
        out[0]
    }

    fn all() -> impl Iterator<Item = HalfRows> {
        let wide = HalfRows::detect().filter(|rows| matches!(rows, HalfRows::Wide));
        let narrow = HalfRows::detect().map(|_| HalfRows::Narrow);
        wide.into_iter().chain(narrow)
    }

    fn check<const T: usize>(rows: HalfRows, width: usize, n: usize, first: usize) {
        let later = || Later::of(&[0; 100]);
        let keys = halves(width * n.next_multiple_of(LANES), 1);
        let q: Vec<f32> = halves(width * T, 2).into_iter().map(single).collect();
        let q: [&[f32]; T] = std::array::from_fn(|t| &q[t * width..][..width]);
        let mut scores = [[f32::NAN; CHUNK]; T];
        rows.scores(q, &keys, &mut scores, later());
        for (q, scores) in q.iter().zip(&scores) {
            for (k, score) in scores[..n].iter().enumerate() {
                let key = |i: usize| keys[k / LANES * LANES * width + i * LANES + k % LANES];
                let want = (0..width).fold(0f32, |sum, i| q[i].mul_add(single(key(i)), sum));
                assert_eq!(score.to_bits(), want.to_bits(), "{rows:?} {T} {width} {n}");
            }
        }
        let values = halves(width * (n - first), 3);
        let mut out: Vec<f32> = halves(width * T, 4).into_iter().map(single).collect();
        let want: Vec<f32> = (0..width * T)
            .map(|i| {
                let value = |k: usize| single(values[k * width + i % width]);
                (0..n - first).fold(out[i], |sum, k| {
                    scores[i / width][first + k].mul_add(value(k), sum)
                })
            })
            .collect();
        let mut outs = out.chunks_exact_mut(width);
        let outs = [(); T].map(|()| outs.next().unwrap_or_default());
        rows.add(&scores, first, &values, outs, later());
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&out), bits(&want), "{rows:?} {T} {width} {n}");
    }

    #[test]
    fn sums_are_chains_in_the_order_of_their_terms() {
        for rows in all() {
            for width in [16, 48, 64, 80, 96, 128, 256] {
                for (n, first) in [(1, 0), (15, 3), (16, 16), (17, 0), (33, 1), (64, 0)] {
                    check::<1>(rows, width, n, first);
                    check::<2>(rows, width, n, first);
                    check::<3>(rows, width, n, first);
                    check::<4>(rows, width, n, first);
                    check::<6>(rows, width, n, first);
                    check::<8>(rows, width, n, first);
                }
            }
        }
    }
}
