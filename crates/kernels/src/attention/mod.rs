//! Attention of new tokens over stored keys and values.

mod append;
#[cfg(target_arch = "x86_64")]
mod one_token;
#[cfg(target_arch = "x86_64")]
mod pieces;
mod rows;
mod softmax;
mod task;

use std::ops::Range;

use crate::columns::Columns;
use crate::exec::Exec;
use crate::kv::KvRows;
pub use append::{NewTokens, Prepare, append};
use task::Task;

/// Keys whose scores are held at once; pieces begin at multiples of it.
pub(crate) const CHUNK: usize = 64;
/// Query rows of a task, which share what is read of the keys and values.
const TASK_ROWS: usize = 48;

/// Scores below which other threads are not asked.
const MIN_PARALLEL: usize = 1 << 8;

/// Sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Query heads that share a key head.
    pub group: usize,
    /// Values in a head.
    pub head_dim: usize,
}

/// Causal attention, scaled by `1 / √head_dim`, of new tokens: `q` and `out` are `[tokens, kv_heads
/// · group · head_dim]`. Token `t` sees the first `seen + t + 1` positions, with a `window` of `n`
/// only the last `n` of them.
///
/// One pass over keys and values in pieces, with the sums rescaled when a larger score comes
/// (Milakov & Gimelshein, arXiv 1805.02867; FlashAttention, arXiv 2205.14135). What one token gets
/// depends neither on the others nor on `exec`.
///
/// # Panics
/// Where `q` and `out` are not whole tokens of the same number, or rows are missing.
pub fn causal(
    exec: &Exec,
    heads: Heads,
    q: &[f32],
    (keys, values): (&KvRows, &KvRows),
    seen: usize,
    window: Option<usize>,
    out: &mut [f32],
) {
    assert_eq!(q.len(), out.len(), "as many outputs as queries");
    let call = Call::new(heads, (keys, values), seen, window, out);
    let width = heads.group * heads.head_dim;
    let block = heads.tokens_of_task();
    let task = |i: usize| {
        let (first, head) = (i / heads.kv_heads * block, i % heads.kv_heads);
        let tokens = first..call.tokens.min(first + block);
        let next = (head + 1 < heads.kv_heads).then(|| keys.head(head + 1));
        Task {
            next: next.and_then(|next| next.address(call.begin(tokens.start))),
            call: &call,
            head,
            tokens,
            query: |token, part| {
                let first = (token * heads.kv_heads + head) * width;
                &q[first + part * heads.head_dim..][..heads.head_dim]
            },
            keys: keys.head(head),
            values: values.head(head),
        }
        .run();
    };
    let tasks = call.tokens.div_ceil(block) * heads.kv_heads;
    if call.tokens * heads.kv_heads * heads.group * (seen + call.tokens) < MIN_PARALLEL {
        (0..tasks).for_each(task);
    } else {
        exec.pool.run(tasks, &task);
    }
}

impl Heads {
    /// Tokens that a task computes, which share what is read of the keys and values.
    fn tokens_of_task(self) -> usize {
        (TASK_ROWS / self.group.max(1)).max(1)
    }
}

/// What the tasks of an attention share.
struct Call<'a> {
    heads: Heads,
    tokens: usize,
    seen: usize,
    window: usize,
    /// `[tokens, kv_heads · group · head_dim]`.
    out: Columns<'a, f32>,
}

impl<'a> Call<'a> {
    fn new(
        heads: Heads,
        (keys, values): (&KvRows, &KvRows),
        seen: usize,
        window: Option<usize>,
        out: &'a mut [f32],
    ) -> Self {
        let width = heads.kv_heads * heads.group * heads.head_dim;
        let tokens = out.len() / width.max(1);
        for rows in [keys, values] {
            assert_eq!(rows.width(), heads.head_dim, "rows as wide as heads");
            assert_eq!(rows.heads(), heads.kv_heads, "as many heads");
            assert!(seen + tokens <= rows.positions(), "rows for all tokens");
        }
        Self {
            heads,
            tokens,
            seen,
            window: window.unwrap_or(usize::MAX),
            out: Columns::new(out, tokens, width),
        }
    }

    /// The positions that a token sees.
    fn visible(&self, token: usize) -> Range<usize> {
        let end = self.seen + token + 1;
        end.saturating_sub(self.window)..end
    }

    /// Where the first piece of keys begins for a task whose first token this is.
    fn begin(&self, token: usize) -> usize {
        self.visible(token).start / CHUNK * CHUNK
    }
}

#[cfg(test)]
mod tests;
