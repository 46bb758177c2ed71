//! Attention of one token over halves or codes: of each key and value there is one use, or one for each query head of a
//! group, so that a copy in single precision would cost more than the products.

use super::pieces::{CodeBuffers, InPlace, Pieces, Unpacked};
use super::softmax::weigh;
use super::task::{Scratch, Task};
use super::{CHUNK, Call};
use crate::kv::{Cells, LANES};
use crate::x86_64::{Later, Rows, Stored, StoredRows};

impl<'a, Q: Fn(usize, usize) -> &'a [f32]> Task<'a, Q> {
    /// Computes the sums of one token in `scratch`; `false` where that is not what there is to do, or the processor
    /// cannot.
    pub(super) fn sum_one_token(&self, scratch: &mut Scratch) -> bool {
        let width = self.call.heads.head_dim;
        if self.tokens.len() != 1 || !width.is_multiple_of(LANES) {
            return false;
        }
        let Some(rows) = StoredRows::detect() else {
            return false;
        };
        match (self.keys.cells(), self.values.cells()) {
            (Cells::F16(keys), Cells::F16(values)) => {
                let [keys, values] = [keys, values].map(|cells| Rows { cells, scales: &[] });
                let pieces = InPlace {
                    width,
                    keys,
                    values,
                };
                self.sum_pieces(rows, pieces, scratch);
            }
            (Cells::Int8(keys, key_scales), Cells::Int8(values, scales)) => {
                let rows_of = |cells, scales| Rows { cells, scales };
                let pieces = InPlace {
                    width,
                    keys: rows_of(keys, key_scales),
                    values: rows_of(values, scales),
                };
                self.sum_pieces(rows, pieces, scratch);
            }
            (Cells::Low(keys), Cells::Low(values)) => {
                let mut buffers = std::mem::replace(&mut scratch.codes, CodeBuffers::NEW);
                let pieces = Unpacked {
                    width,
                    keys,
                    values,
                    buffers: &mut buffers,
                };
                self.sum_pieces(rows, pieces, scratch);
                scratch.codes = buffers;
            }
            _ => return false,
        }
        true
    }

    fn sum_pieces<P: Pieces>(&self, rows: StoredRows, mut pieces: P, scratch: &mut Scratch) {
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
            let part = visible.start.saturating_sub(start)..n;
            let seen = start + part.start..start + n;
            // In the order of use: these values, then the keys that follow or those of the next head.
            let mut later = pieces.later_values(seen.clone());
            let keys = pieces.keys(start, n);
            let bytes = size_of_val(keys.cells);
            let mut row = 0;
            while row < group {
                let (q, scores) = (|i: usize| (self.query)(token, row + i), &mut scores[row..]);
                row += match group - row {
                    8.. => some_scores::<P::Cell, 8>(rows, q, keys, scores, later),
                    6.. => some_scores::<P::Cell, 6>(rows, q, keys, scores, later),
                    4.. => some_scores::<P::Cell, 4>(rows, q, keys, scores, later),
                    3 => some_scores::<P::Cell, 3>(rows, q, keys, scores, later),
                    2 => some_scores::<P::Cell, 2>(rows, q, keys, scores, later),
                    _ => some_scores::<P::Cell, 1>(rows, q, keys, scores, later),
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
            later = if more > 0 {
                pieces.later_keys(start + n, more.min(CHUNK))
            } else {
                self.next
                    .map_or(Later::NOTHING, |next| Later::new(next, bytes))
            };
            let values = pieces.values(seen);
            let mut row = 0;
            while row < group {
                let (weights, sums) = (&scores[row..], &mut sums[row * width..]);
                let values = (part.start, values);
                row += match group - row {
                    8.. => add_values::<P::Cell, 8>(rows, weights, values, sums, width, later),
                    6.. => add_values::<P::Cell, 6>(rows, weights, values, sums, width, later),
                    4.. => add_values::<P::Cell, 4>(rows, weights, values, sums, width, later),
                    3 => add_values::<P::Cell, 3>(rows, weights, values, sums, width, later),
                    2 => add_values::<P::Cell, 2>(rows, weights, values, sums, width, later),
                    _ => add_values::<P::Cell, 1>(rows, weights, values, sums, width, later),
                };
                later = Later::NOTHING;
            }
        }
    }
}

/// The scores of `T` rows; returns `T`.
fn some_scores<'a, S: Stored, const T: usize>(
    rows: StoredRows,
    q: impl Fn(usize) -> &'a [f32],
    keys: Rows<'_, S>,
    scores: &mut [[f32; CHUNK]],
    later: Later,
) -> usize {
    let scores = &mut scores.as_chunks_mut::<T>().0[0];
    rows.scores(std::array::from_fn(q), keys, scores, later);
    T
}

/// Adds the weighted values to the sums of `T` rows; returns `T`.
fn add_values<S: Stored, const T: usize>(
    rows: StoredRows,
    weights: &[[f32; CHUNK]],
    (first, values): (usize, Rows<'_, S>),
    sums: &mut [f32],
    width: usize,
    later: Later,
) -> usize {
    let mut outs = sums.chunks_exact_mut(width);
    let outs = [(); T].map(|()| outs.next().unwrap_or_default());
    rows.add(&weights.as_chunks::<T>().0[0], first, values, outs, later);
    T
}
