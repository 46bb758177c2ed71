//! Attention of one token over half precision: of each key and value there is one use, or one for each query head of
//! a group, so that a copy in single precision would cost more than the products.

use super::softmax::weigh;
use super::task::{Scratch, Task};
use super::{CHUNK, Call};
use crate::kv::LANES;
use crate::x86_64::{HalfRows, Later};

/// What a task needs for it.
struct Halves<'a> {
    rows: HalfRows,
    keys: &'a [u16],
    values: &'a [u16],
}

impl<'a, Q: Fn(usize, usize) -> &'a [f32]> Task<'a, Q> {
    /// Computes the sums of one token in `scratch`; `false` where that is not what there is to do, or the processor
    /// cannot.
    pub(super) fn sum_halves(&self, scratch: &mut Scratch) -> bool {
        let width = self.call.heads.head_dim;
        if self.tokens.len() != 1 || !width.is_multiple_of(LANES) || width == 0 {
            return false;
        }
        let (Some(keys), Some(values), Some(rows)) =
            (self.keys.halves(), self.values.halves(), HalfRows::detect())
        else {
            return false;
        };
        self.pieces(&Halves { rows, keys, values }, scratch);
        true
    }

    fn pieces(&self, halves: &Halves<'_>, scratch: &mut Scratch) {
        let Call { heads, .. } = self.call;
        let (width, group, token) = (heads.head_dim, heads.group, self.tokens.start);
        let visible = self.call.visible(token);
        let scale = 1.0 / (width as f32).sqrt();
        let Scratch {
            scores,
            sums,
            state,
            ..
        } = scratch;
        let scores = scores.as_chunks_mut::<CHUNK>().0;
        for start in (self.call.begin(token)..visible.end).step_by(CHUNK) {
            let n = CHUNK.min(visible.end - start);
            let keys = &halves.keys[start * width..][..n.next_multiple_of(LANES) * width];
            let part = visible.start.saturating_sub(start)..n;
            let values = &halves.values[(start + part.start) * width..(start + n) * width];
            // In the order of use: these values, then the keys that follow or those of the next head.
            let mut later = Later::of(values);
            let mut row = 0;
            while row < group {
                let (q, scores) = (|i: usize| (self.query)(token, row + i), &mut scores[row..]);
                row += match group - row {
                    8.. => some_scores::<8>(halves.rows, q, keys, scores, later),
                    6.. => some_scores::<6>(halves.rows, q, keys, scores, later),
                    4.. => some_scores::<4>(halves.rows, q, keys, scores, later),
                    3 => some_scores::<3>(halves.rows, q, keys, scores, later),
                    2 => some_scores::<2>(halves.rows, q, keys, scores, later),
                    _ => some_scores::<1>(halves.rows, q, keys, scores, later),
                };
                later = Later::NOTHING;
            }
            let each = scores.iter_mut().zip(&mut *state);
            for ((scores, state), sums) in each.zip(sums.chunks_exact_mut(width)) {
                scores[..part.start].fill(f32::NEG_INFINITY);
                scores[n..].fill(f32::NEG_INFINITY);
                weigh(scores, scale, state, sums);
            }
            let more = visible.end - (start + n);
            let bytes = size_of_val(keys);
            later = if more > 0 {
                let next = more.min(CHUNK).next_multiple_of(LANES) * width;
                Later::new(keys.as_ptr_range().end.cast(), next * size_of::<u16>())
            } else {
                self.next
                    .map_or(Later::NOTHING, |next| Later::new(next, bytes))
            };
            let mut row = 0;
            while row < group {
                let (weights, sums) = (&scores[row..], &mut sums[row * width..]);
                let values = (part.start, values);
                row += match group - row {
                    8.. => add_values::<8>(halves.rows, weights, values, sums, width, later),
                    6.. => add_values::<6>(halves.rows, weights, values, sums, width, later),
                    4.. => add_values::<4>(halves.rows, weights, values, sums, width, later),
                    3 => add_values::<3>(halves.rows, weights, values, sums, width, later),
                    2 => add_values::<2>(halves.rows, weights, values, sums, width, later),
                    _ => add_values::<1>(halves.rows, weights, values, sums, width, later),
                };
                later = Later::NOTHING;
            }
        }
    }
}

/// The scores of `T` rows; returns `T`.
fn some_scores<'a, const T: usize>(
    rows: HalfRows,
    q: impl Fn(usize) -> &'a [f32],
    keys: &[u16],
    scores: &mut [[f32; CHUNK]],
    later: Later,
) -> usize {
    let scores = &mut scores.as_chunks_mut::<T>().0[0];
    rows.scores(std::array::from_fn(q), keys, scores, later);
    T
}

/// Adds the weighted values to the sums of `T` rows; returns `T`.
fn add_values<const T: usize>(
    rows: HalfRows,
    weights: &[[f32; CHUNK]],
    (first, values): (usize, &[u16]),
    sums: &mut [f32],
    width: usize,
    later: Later,
) -> usize {
    let mut outs = sums.chunks_exact_mut(width);
    let outs = [(); T].map(|()| outs.next().unwrap_or_default());
    rows.add(&weights.as_chunks::<T>().0[0], first, values, outs, later);
    T
}
