//! Attention of one token over halves or codes, which become single where they are used: in registers.
//!
//! A sum is the chain of fused multiplications and additions that [`crate::attention`] promises, so bits do not
//! depend on which loop computed it.

use std::arch::x86_64::*;
use std::ops::Range;

use super::f32_vector::Vector;
use super::prefetch::ask_line;
use crate::attention::CHUNK;
use crate::kv::LANES;

/// Vectors that the processor has, with its own conversions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StoredRows {
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

    /// All lines of `cells`.
    pub(crate) fn of<S>(cells: &[S]) -> Self {
        Self::new(cells.as_ptr().cast(), size_of_val(cells))
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

/// Keys or values as they are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a, S> {
    pub(crate) cells: &'a [S],
    /// One for each row of codes.
    pub(crate) scales: &'a [f32],
}

impl<S: Stored> Rows<'_, S> {
    /// Some of the rows, `width` cells each.
    ///
    /// # Panics
    /// Where they are not all there.
    pub(crate) fn part(self, rows: Range<usize>, width: usize) -> Self {
        Self {
            cells: &self.cells[rows.start * width..rows.end * width],
            scales: if S::SCALED { &self.scales[rows] } else { &[] },
        }
    }

    fn assert_scales(self, width: usize) {
        let scales = if S::SCALED {
            self.cells.len() / width
        } else {
            0
        };
        assert_eq!(self.scales.len(), scales, "a scale for each row of codes");
    }
}

/// A stored number.
pub(crate) trait Stored: Copy {
    /// Whether rows have scales.
    const SCALED: bool;

    /// A vector of values from `at` on; `scale` counts where rows have scales.
    ///
    /// # Safety
    /// As [`Vector`].
    #[allow(private_bounds, private_interfaces)]
    unsafe fn widen<V: Vector>(at: *const Self, scale: V) -> V;
}

impl Stored for u16 {
    const SCALED: bool = false;

    #[inline(always)]
    #[allow(private_bounds, private_interfaces)]
    unsafe fn widen<V: Vector>(at: *const Self, _: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::of_halves(at) }
    }
}

impl Stored for i8 {
    const SCALED: bool = true;

    #[inline(always)]
    #[allow(private_bounds, private_interfaces)]
    unsafe fn widen<V: Vector>(at: *const Self, scale: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::of_codes(at).mul(scale) }
    }
}

impl StoredRows {
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
    pub(crate) fn scores<S: Stored, const T: usize>(
        self,
        q: [&[f32]; T],
        keys: Rows<'_, S>,
        scores: &mut [[f32; CHUNK]; T],
        later: Later,
    ) {
        let width = q[0].len();
        assert!(q.iter().all(|q| q.len() == width), "queries of one width");
        assert!(
            keys.cells.len().is_multiple_of(width * LANES) && keys.cells.len() <= width * CHUNK,
            "whole blocks of a piece"
        );
        keys.assert_scales(width);
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
    pub(crate) fn add<S: Stored, const T: usize>(
        self,
        weights: &[[f32; CHUNK]; T],
        first: usize,
        values: Rows<'_, S>,
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
            values.cells.len().is_multiple_of(width) && first + values.cells.len() / width <= CHUNK,
            "whole values of a piece"
        );
        values.assert_scales(width);
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
unsafe fn scores_512<S: Stored, const T: usize>(
    q: [&[f32]; T],
    keys: Rows<'_, S>,
    scores: &mut [[f32; CHUNK]; T],
    later: Later,
) {
    // SAFETY: the caller's promises.
    unsafe { scores_of::<__m512, S, T>(q, keys, scores, later) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scores_256<S: Stored, const T: usize>(
    q: [&[f32]; T],
    keys: Rows<'_, S>,
    scores: &mut [[f32; CHUNK]; T],
    later: Later,
) {
    // SAFETY: the caller's promises.
    unsafe { scores_of::<__m256, S, T>(q, keys, scores, later) }
}

#[target_feature(enable = "avx512f")]
unsafe fn add_512<S: Stored, const T: usize>(
    weights: &[[f32; CHUNK]; T],
    first: usize,
    values: Rows<'_, S>,
    out: [&mut [f32]; T],
    later: Later,
) {
    // SAFETY: the caller's promises.
    unsafe { add_rows::<__m512, S, T>(weights, first, values, out, later) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_256<S: Stored, const T: usize>(
    weights: &[[f32; CHUNK]; T],
    first: usize,
    values: Rows<'_, S>,
    out: [&mut [f32]; T],
    later: Later,
) {
    // SAFETY: the caller's promises.
    unsafe { add_rows::<__m256, S, T>(weights, first, values, out, later) }
}

#[inline(always)]
unsafe fn scores_of<V: Vector, S: Stored, const T: usize>(
    q: [&[f32]; T],
    keys: Rows<'_, S>,
    scores: &mut [[f32; CHUNK]; T],
    later: Later,
) {
    let width = q[0].len();
    let vectors = keys.cells.len() / width / V::LANES;
    let mut v = 0;
    while v < vectors {
        let most = (vectors - v).min(V::SUMS / T);
        // SAFETY: the caller's promises; vectors `v..v + n` are keys that there are.
        v += unsafe {
            match most {
                8.. => dots::<V, S, T, 8>(q, keys, v, vectors, scores, later),
                4.. => dots::<V, S, T, 4>(q, keys, v, vectors, scores, later),
                2.. => dots::<V, S, T, 2>(q, keys, v, vectors, scores, later),
                _ => dots::<V, S, T, 1>(q, keys, v, vectors, scores, later),
            }
        };
    }
}

/// The scores of `N` vectors of keys from vector `at` on; returns `N`.
#[inline(always)]
unsafe fn dots<V: Vector, S: Stored, const T: usize, const N: usize>(
    q: [&[f32]; T],
    keys: Rows<'_, S>,
    at: usize,
    vectors: usize,
    scores: &mut [[f32; CHUNK]; T],
    later: Later,
) -> usize {
    let width = q[0].len();
    let line = LANES / V::LANES;
    // SAFETY: the caller's promises; vector `v` has a part of each line of its block, of which there are `width`.
    unsafe {
        let first: [*const S; N] = std::array::from_fn(|n| {
            let v = at + n;
            keys.cells
                .as_ptr()
                .add(v / line * width * LANES + v % line * V::LANES)
        });
        let mut scale = [V::splat(1.0); N];
        if S::SCALED {
            for (n, scale) in scale.iter_mut().enumerate() {
                *scale = V::load(keys.scales.as_ptr().add((at + n) * V::LANES));
            }
        }
        let mut sums = [[V::splat(0.0); N]; T];
        let mut later = later.part((at, N, vectors), width);
        for i in 0..width {
            later.turn();
            let mut key = [V::splat(0.0); N];
            for ((key, first), scale) in key.iter_mut().zip(first).zip(scale) {
                *key = S::widen(first.add(i * LANES), scale);
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
unsafe fn add_rows<V: Vector, S: Stored, const T: usize>(
    weights: &[[f32; CHUNK]; T],
    first: usize,
    values: Rows<'_, S>,
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
                8.. => columns::<V, S, T, 8>(weights, first, values, v, &mut out, later),
                6.. => columns::<V, S, T, 6>(weights, first, values, v, &mut out, later),
                4.. => columns::<V, S, T, 4>(weights, first, values, v, &mut out, later),
                2.. => columns::<V, S, T, 2>(weights, first, values, v, &mut out, later),
                _ => columns::<V, S, T, 1>(weights, first, values, v, &mut out, later),
            }
        };
    }
}

/// [`add_rows`] for `N` vectors of columns from vector `at` on; returns `N`.
#[inline(always)]
unsafe fn columns<V: Vector, S: Stored, const T: usize, const N: usize>(
    weights: &[[f32; CHUNK]; T],
    first: usize,
    values: Rows<'_, S>,
    at: usize,
    out: &mut [&mut [f32]; T],
    later: Later,
) -> usize {
    let width = out[0].len();
    let (rows, vectors) = (values.cells.len() / width, width / V::LANES);
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
            let row = values.cells.as_ptr().add(k * width + at * V::LANES);
            let scale = if S::SCALED {
                V::splat(*values.scales.get_unchecked(k))
            } else {
                V::splat(1.0)
            };
            let mut value = [V::splat(0.0); N];
            for (n, value) in value.iter_mut().enumerate() {
                *value = S::widen(row.add(n * V::LANES), scale);
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
mod tests;
