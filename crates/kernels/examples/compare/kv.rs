//! Attention of one token over keys and values of all formats.

use std::hint::black_box;

use tritburn_kernels::attention::{AttentionScratch, attend};
use tritburn_kernels::kv::{KvFormat, KvRows};

use crate::turns::{Candidate, compare};

pub(crate) fn run() {
    for (width, group, len) in [(128, 4, 512), (128, 4, 4096), (96, 1, 4096)] {
        let q = vec![0.1f32; group * width];
        let candidates = KvFormat::ALL.map(|format| -> Candidate<'_> {
            let mut rows = KvRows::new(format, len, width);
            let value = |i: usize| (i % 17) as f32 / 17.0 - 0.5;
            for row in 0..len {
                let values: Vec<f32> = (0..width).map(|i| value(i * row)).collect();
                rows.set(row, &values);
            }
            let mut out = vec![0.0; q.len()];
            let mut scratch = AttentionScratch::new();
            let q = &q[..];
            let run = move || {
                let outs = &mut [&mut out[..]];
                attend(&[q], &rows, &rows, 0, len, 0.1, &mut scratch, outs);
                black_box(&out);
            };
            (format.name().to_owned(), Box::new(run))
        });
        let title = format!("head of {width}, {group} queries, {len} positions");
        compare(&title, &mut { candidates });
    }
}
