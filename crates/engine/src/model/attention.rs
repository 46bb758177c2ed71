//! Attention over the cache, with or without a sliding window.

use std::cell::RefCell;

use tritburn_kernels::Exec;
use tritburn_kernels::attention::{self, AttentionScratch, Heads};

use super::cache::KvCache;

thread_local! {
    /// Buffers of one task, kept by each thread so that decoding allocates nothing.
    static SCRATCH: RefCell<AttentionScratch> = const { RefCell::new(AttentionScratch::new()) };
}

/// Causal attention, scaled by `1 / √head_dim`, of the tokens that layer `index` wrote last but
/// does not count yet: `q` and `out` are `[tokens, heads · head_dim]`. With a `window` of `n` a
/// token sees itself and the `n − 1` before it.
pub(crate) fn attend(
    exec: &Exec,
    heads: Heads,
    q: &[f32],
    cache: &KvCache,
    index: usize,
    window: Option<usize>,
    out: &mut [f32],
) {
    let (seen, stored) = (cache.len(), cache.layer(index));
    let width = heads.group * heads.head_dim;
    let tokens = q.len() / (width * heads.kv_heads);
    let first = |head| cache.first_row(head);
    let Some(window) = window.filter(|&w| seen + tokens > w) else {
        // Nobody looks back further than the window.
        return attention::causal(exec, heads, q, stored, first, seen, out);
    };
    let scale = 1.0 / (heads.head_dim as f32).sqrt();
    // Every token by itself: each begins at another row.
    exec.rows(out, width, |i, out| {
        let (token, head) = (i / heads.kv_heads, i % heads.kv_heads);
        let visible = seen + token + 1;
        let len = visible.min(window);
        let start = first(head) + visible - len;
        let (q, (keys, values)) = (&q[i * width..][..width], stored);
        SCRATCH.with_borrow_mut(|scratch| {
            attention::attend(&[q], keys, values, start, len, scale, scratch, &mut [out]);
        });
    });
}
