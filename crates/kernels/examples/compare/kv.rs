//! Attention of some tokens over keys and values of all formats.

use std::hint::black_box;

use tritburn_kernels::Exec;
use tritburn_kernels::attention::{Heads, causal};
use tritburn_kernels::kv::{KvFormat, KvRows};

use crate::turns::{Candidate, compare};

pub(crate) fn run() {
    let exec = Exec::new(None, Some(1)).expect("one thread");
    let shapes = [(128, 4, 512), (128, 4, 4096), (96, 1, 4096)];
    for ((width, group, len), tokens) in shapes.into_iter().flat_map(|s| [1, 4].map(|t| (s, t))) {
        let q = vec![0.1f32; tokens * group * width];
        let candidates = KvFormat::ALL.map(|format| -> Candidate<'_> {
            let mut keys = KvRows::keys(format, 1, len, width);
            let mut values = KvRows::values(format, 1, len, width);
            let value = |i: usize| (i % 17) as f32 / 17.0 - 0.5;
            for row in 0..len {
                let line: Vec<f32> = (0..width).map(|i| value(i * row)).collect();
                keys.set(0, row, &line);
                values.set(0, row, &line);
            }
            let heads = Heads {
                kv_heads: 1,
                group,
                head_dim: width,
            };
            let mut out = vec![0.0; q.len()];
            let (q, exec) = (&q[..], &exec);
            let run = move || {
                causal(
                    exec,
                    heads,
                    q,
                    (&keys, &values),
                    len - tokens,
                    None,
                    &mut out,
                );
                black_box(&out);
            };
            (format.name().to_owned(), Box::new(run))
        });
        let title = format!("head of {width}, {group} queries, {len} positions, {tokens} tokens");
        compare(&title, &mut { candidates });
    }
}
