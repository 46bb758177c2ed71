//! Causal attention of new tokens over the cache.

use std::cell::RefCell;

use rayon::prelude::*;
use tritburn_kernels::Kernel;
use tritburn_kernels::kernel::DenseTile;

use super::cache::KvCache;

/// Products below which one thread is faster than several.
const MIN_PARALLEL: usize = 1 << 16;

thread_local! {
    /// Scores of one task, kept by each thread so that decoding allocates nothing.
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Sizes of the heads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) kv_heads: usize,
    /// Query heads that share a key head.
    pub(crate) group: usize,
    pub(crate) head_dim: usize,
}

/// `softmax(q · Kᵀ / √d) · V` for each query head.
///
/// `q` and `out` are `[tokens, heads · head_dim]`. The cache holds the keys and values of these
/// tokens already; token `t` sees the first `cache.len() + t + 1`.
pub(crate) fn attend(
    kernel: &dyn Kernel,
    cache: &KvCache,
    layer: usize,
    heads: Heads,
    q: &[f32],
    out: &mut [f32],
) {
    let width = heads.group * heads.head_dim;
    let task = |(i, (q, out)): (usize, (&[f32], &mut [f32]))| {
        let (token, head) = (i / heads.kv_heads, i % heads.kv_heads);
        let (keys, values) = cache.head(layer, head, cache.len() + token + 1);
        SCORES.with_borrow_mut(|scores| group(kernel, heads, q, keys, values, scores, out));
    };
    if rayon::current_num_threads() == 1 || q.len() * (cache.len() + 1) < MIN_PARALLEL {
        q.chunks_exact(width)
            .zip(out.chunks_exact_mut(width))
            .enumerate()
            .for_each(task);
    } else {
        q.par_chunks_exact(width)
            .zip(out.par_chunks_exact_mut(width))
            .enumerate()
            .for_each(task);
    }
}

/// The query heads of one token that share a key head.
fn group(
    kernel: &dyn Kernel,
    heads: Heads,
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let len = keys.len() / heads.head_dim;
    scores.resize(heads.group * len, 0.0);
    let tile = DenseTile {
        weights: keys,
        x: q,
        cols: heads.head_dim,
        rows: len,
        tokens: heads.group,
    };
    kernel.dense_tile(tile, scores);
    let scale = 1.0 / (heads.head_dim as f32).sqrt();
    let outs = out.chunks_exact_mut(heads.head_dim);
    for (scores, out) in scores.chunks_exact_mut(len).zip(outs) {
        softmax(scores, scale);
        out.fill(0.0);
        kernel.add_weighted_rows(scores, values, out);
    }
}

/// `softmax(scale · x)` in place.
fn softmax(x: &mut [f32], scale: f32) {
    let max = x.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v * scale));
    let mut sum = 0.0;
    for v in x.iter_mut() {
        *v = (*v * scale - max).exp();
        sum += *v;
    }
    let inv = 1.0 / sum;
    for v in x {
        *v *= inv;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_of_equal_and_of_huge_values() {
        let mut x = [1e30, 1e30];
        softmax(&mut x, 1.0);
        assert_eq!(x, [0.5, 0.5]);
        let mut x = [0.0, 2f32.ln() / 0.5];
        softmax(&mut x, 0.5);
        assert!((x[1] - 2.0 / 3.0).abs() < 1e-6);
    }
}
