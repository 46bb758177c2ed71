//! Products of six-bit weights.

use std::cell::Cell;

use super::{BIAS, GROUP, GROUPS, Int6Matrix};
use crate::activations::Activations;
use crate::columns::Columns;
use crate::epilogue;
use crate::exec::Exec;
use crate::head::WideActivations;
use crate::kernel::Int6Tile;
use crate::layout::{DEPTH, LANES};
use crate::shape::assert_width;

/// Row tiles that one task computes.
const TASK: usize = 4;
/// Columns whose sums fit i32: `32 · 127 · 127 · SEGMENT < 2³¹`.
const SEGMENT: usize = 4096;
/// Chunks of a segment.
const CHUNKS: usize = SEGMENT / DEPTH;

/// What the bias of the codes adds to the sums of a chunk's groups, negated.
type Offsets = [i32; GROUPS];

thread_local! {
    /// Of all rows of digits, kept by the thread that asks for products.
    static OFFSETS: Cell<Vec<Offsets>> = const { Cell::new(Vec::new()) };
}

impl Int6Matrix {
    /// `out[t, r] = Σ w[r, c] · x[t, c]`, `out` row major `[tokens, rows]`.
    ///
    /// The activations have 15 bits, so the error is that of the weights. Sums over 4096 columns are
    /// exact, those of more are added in order; the result does not depend on `exec`, nor on how
    /// many tokens are computed at once.
    ///
    /// # Panics
    /// Where the widths of matrix and activations or the length of `out` do not fit.
    pub fn gemm(&self, exec: &Exec, x: &WideActivations, out: &mut [f32]) {
        let digits = x.digits();
        assert_width(digits.width(), self.cols);
        let tokens = digits.tokens() / 2;
        let out = Columns::new(out, tokens, self.rows);
        let mut offsets = OFFSETS.take();
        fill_offsets(digits, &mut offsets);
        let tiles = self.rows.div_ceil(LANES);
        exec.pool.run(tiles.div_ceil(TASK), &|task| {
            for tile in task * TASK..tiles.min((task + 1) * TASK) {
                let first = tile * LANES;
                // A tile stays in the first-level cache for all tokens.
                for t in 0..tokens {
                    let total = self.sums(exec, digits, &offsets, tile, t);
                    // SAFETY: each task has row tiles of its own.
                    #[allow(unsafe_code)]
                    let out = unsafe { out.strip(t, first, LANES) };
                    let step = digits.steps()[2 * t];
                    epilogue::scale_rows(&total, step, &self.units[first..], out);
                }
            }
        });
        OFFSETS.set(offsets);
    }

    /// Sums of a row tile for one token, in units of its step and of the rows.
    fn sums(
        &self,
        exec: &Exec,
        digits: &Activations,
        offsets: &[Offsets],
        tile: usize,
        token: usize,
    ) -> [f32; LANES] {
        let (rows, chunks) = ([2 * token, 2 * token + 1], self.cols.div_ceil(DEPTH));
        let mut total = [0.0; LANES];
        for (s, part) in self.tile(tile).chunks(CHUNKS).enumerate() {
            let first = s * CHUNKS;
            let part = Int6Tile {
                chunks: part,
                x: rows.map(|row| &digits.rows(row)[first..][..part.len()]),
                offsets: rows.map(|row| &offsets[row * chunks + first..][..part.len()]),
            };
            let mut acc = [[0; LANES]; 2];
            exec.kernel.int6_tile(part, &mut acc);
            epilogue::add_digits(&acc[0], &acc[1], &mut total);
        }
        total
    }
}

/// `[rows of digits, chunks]`.
fn fill_offsets(digits: &Activations, offsets: &mut Vec<Offsets>) {
    offsets.clear();
    for row in 0..digits.tokens() {
        let blocks = &digits.rows(row)[..digits.width().div_ceil(DEPTH)];
        offsets.extend(blocks.iter().map(|x| {
            let groups = x.0.as_chunks::<GROUP>().0;
            let sum = |g: usize| groups[g].iter().map(|&x| i32::from(x)).sum::<i32>();
            std::array::from_fn(|g| -BIAS * sum(g))
        }));
    }
}
