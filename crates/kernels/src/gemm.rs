//! Cuts a product into tiles and shares them among the threads of the current rayon pool.

use rayon::prelude::*;

/// Sums of one tile, held on the stack.
const TILE: usize = 256;
/// Most tokens in a tile.
const TILE_TOKENS: usize = 16;
/// Weights that are worth a task of their own.
const MIN_TASK: usize = 1 << 16;

/// A product of a weight matrix with some tokens.
pub(crate) trait Product: Sync {
    /// What is summed in.
    type Acc: Copy + Default;

    /// Cost of a row for one token, in ternary weights.
    fn work_per_row(&self) -> usize;

    /// `acc[t · rows + r]` for `rows` rows from `row` on and `tokens` tokens from `token` on.
    fn tile(&self, row: usize, rows: usize, token: usize, tokens: usize, acc: &mut [Self::Acc]);

    /// Turns sums of one token into outputs.
    fn finish(&self, token: usize, acc: &[Self::Acc], out: &mut [f32]);
}

/// Fills `out`, row major `[tokens, rows]`.
pub(crate) fn run<P: Product>(product: &P, rows: usize, tokens: usize, out: &mut [f32]) {
    assert_eq!(out.len(), tokens * rows, "one output per token and row");
    if out.is_empty() {
        return;
    }
    let threads = rayon::current_num_threads();
    let work = product.work_per_row().max(1) * tokens;
    let small = work.saturating_mul(rows) <= MIN_TASK;
    // A few tasks a thread even out what the threads are otherwise doing.
    let chunk = if threads == 1 || small {
        rows
    } else {
        rows.div_ceil(threads * 4)
            .max(MIN_TASK.div_ceil(work))
            .next_multiple_of(8)
    };
    if tokens == 1 {
        if chunk >= rows {
            return rows_of(product, 0, &mut [out]);
        }
        out.par_chunks_mut(chunk)
            .enumerate()
            .for_each(|(i, out)| rows_of(product, i * chunk, &mut [out]));
        return;
    }
    let mut parts: Vec<Vec<&mut [f32]>> = Vec::new();
    parts.resize_with(rows.div_ceil(chunk), || Vec::with_capacity(tokens));
    for token in out.chunks_exact_mut(rows) {
        for (part, out) in parts.iter_mut().zip(token.chunks_mut(chunk)) {
            part.push(out);
        }
    }
    if let [part] = &mut parts[..] {
        return rows_of(product, 0, part);
    }
    parts
        .into_par_iter()
        .enumerate()
        .for_each(|(i, mut part)| rows_of(product, i * chunk, &mut part));
}

/// Rows `first..` of every token; `out` has one slice a token, all of the same length.
fn rows_of<P: Product>(product: &P, first: usize, out: &mut [&mut [f32]]) {
    let rows = out.first().map_or(0, |o| o.len());
    let tile_tokens = out.len().clamp(1, TILE_TOKENS);
    let tile_rows = TILE / tile_tokens;
    let mut acc = [P::Acc::default(); TILE];
    for row in (0..rows).step_by(tile_rows) {
        let n = tile_rows.min(rows - row);
        for (i, out) in out.chunks_mut(tile_tokens).enumerate() {
            let token = i * tile_tokens;
            let acc = &mut acc[..n * out.len()];
            product.tile(first + row, n, token, out.len(), acc);
            for ((t, out), acc) in out.iter_mut().enumerate().zip(acc.chunks_exact(n)) {
                product.finish(token + t, acc, &mut out[row..row + n]);
            }
        }
    }
}
