//! Attention of new tokens, whose keys and values are stored on the way.

use super::task::Task;
use super::{Call, Heads, causal};
use crate::columns::Columns;
use crate::exec::Exec;
use crate::kv::KvRows;

/// Values of queries, keys and values below which other threads are not asked.
const MIN_PARALLEL: usize = 1 << 11;

/// What happens to the heads of a token before they are used: norms, rotation, rounding.
pub trait Prepare: Sync {
    /// A query head of a token; tokens are counted from the first new one.
    fn query(&self, token: usize, head: &mut [f32]);
    /// A key head.
    fn key(&self, token: usize, head: &mut [f32]);
    /// A value head.
    fn value(&self, token: usize, head: &mut [f32]);
}

/// Projections of new tokens.
#[derive(Debug)]
pub struct NewTokens<'a> {
    /// `[tokens, kv_heads · group · head_dim]`.
    pub q: &'a mut [f32],
    /// `[tokens, kv_heads · head_dim]`.
    pub k: &'a mut [f32],
    /// As `k`.
    pub v: &'a mut [f32],
}

/// Prepares queries, keys and values of `new` tokens in place, stores the latter at positions `seen` and
/// following, and computes what [`causal`] does. One token, or a few, is one parallel region:
/// a task prepares, stores and reads the heads that belong to a key head.
///
/// # Panics
/// As [`causal`], and where `new` are not as many tokens each.
pub fn append(
    exec: &Exec,
    heads: Heads,
    new: NewTokens<'_>,
    prepare: &dyn Prepare,
    (keys, values): (&mut KvRows, &mut KvRows),
    (seen, window): (usize, Option<usize>),
    out: &mut [f32],
) {
    let NewTokens { q, k, v } = new;
    assert_eq!(q.len(), out.len(), "as many outputs as queries");
    let Heads {
        kv_heads,
        group,
        head_dim: width,
    } = heads;
    let call = Call::new(heads, (keys, values), seen, window, out);
    let tokens = call.tokens;
    let new = Rows {
        q: Columns::new(q, tokens * kv_heads, group * width),
        k: Columns::new(k, tokens * kv_heads, width),
        v: Columns::new(v, tokens * kv_heads, width),
        kv_heads,
        width,
        prepare,
    };
    let (all_keys, all_values) = (keys.heads_mut(), values.heads_mut());
    let run = |tasks: usize, task: &(dyn Fn(usize) + Sync)| {
        if tokens * kv_heads * (group + 2) * width < MIN_PARALLEL {
            (0..tasks).for_each(task);
        } else {
            exec.pool.run(tasks, task);
        }
    };
    let one = tokens <= heads.tokens_of_task();
    if !one {
        run(tokens, &|token| {
            for head in 0..kv_heads {
                // SAFETY: each task has a token of its own.
                #[allow(unsafe_code)]
                unsafe {
                    new.prepare(token, head);
                }
            }
        });
    }
    run(kv_heads, &|head| {
        // SAFETY: each task has a head of its own.
        #[allow(unsafe_code)]
        let (mut keys, mut values) = unsafe { (all_keys.head(head), all_values.head(head)) };
        for token in 0..tokens {
            // SAFETY: as above; no reference that `prepare` makes is left.
            #[allow(unsafe_code)]
            let (k, v) = unsafe {
                if one {
                    new.prepare(token, head);
                }
                (
                    new.k.row(new.at(token, head)),
                    new.v.row(new.at(token, head)),
                )
            };
            keys.set(seen + token, k);
            values.set(seen + token, v);
        }
        if one {
            let next = (head + 1 < kv_heads).then(|| all_keys.address(head + 1, call.begin(0)));
            Task {
                call: &call,
                head,
                tokens: 0..tokens,
                // SAFETY: only this task has the queries of this head, which nobody writes any more.
                #[allow(unsafe_code)]
                query: |token, part| unsafe {
                    &*new.q.strip(new.at(token, head), part * width, width)
                },
                keys: keys.rows(),
                values: values.rows(),
                next: next.flatten(),
            }
            .run();
        }
    });
    if !one {
        causal(exec, heads, q, (keys, values), seen, window, out);
    }
}

/// Heads of new tokens, a token's heads of a key head in each row.
struct Rows<'a> {
    q: Columns<'a, f32>,
    k: Columns<'a, f32>,
    v: Columns<'a, f32>,
    kv_heads: usize,
    width: usize,
    prepare: &'a dyn Prepare,
}

impl Rows<'_> {
    fn at(&self, token: usize, head: usize) -> usize {
        token * self.kv_heads + head
    }

    /// Prepares what belongs to a key head.
    ///
    /// # Safety
    /// Nobody else may have these rows.
    #[allow(unsafe_code)]
    unsafe fn prepare(&self, token: usize, head: usize) {
        let at = self.at(token, head);
        // SAFETY: the caller's promise.
        let (q, k, v) = unsafe { (self.q.row(at), self.k.row(at), self.v.row(at)) };
        for q in q.chunks_exact_mut(self.width) {
            self.prepare.query(token, q);
        }
        self.prepare.key(token, k);
        self.prepare.value(token, v);
    }
}
