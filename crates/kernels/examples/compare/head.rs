//! The output head in six and in eight bits.

use std::hint::black_box;

use tritburn_kernels::dispatch::KERNEL_ENV;
use tritburn_kernels::head::WideActivations;
use tritburn_kernels::{Exec, Int6Matrix, Int8Matrix, Pool, available};

use crate::turns::{Candidate, compare};

pub(crate) fn run() {
    let only = std::env::var(KERNEL_ENV).ok();
    let wanted = |name| only.as_deref().is_none_or(|only| only == name);
    for kernel in available().iter().filter(|k| wanted(k.name())) {
        let exec = Exec {
            kernel: kernel.as_ref(),
            pool: Pool::new(1).unwrap(),
        };
        // One that stays in the second-level cache, and whole heads.
        for [rows, cols, tokens] in [
            [512, 2560, 1],
            [32_002, 1536, 1],
            [128_256, 2560, 1],
            [512, 2560, 2],
            [512, 2560, 16],
            [32_002, 1536, 16],
        ] {
            shape(&exec, rows, cols, tokens);
        }
    }
}

fn shape(exec: &Exec, rows: usize, cols: usize, tokens: usize) {
    let row = |r: usize, out: &mut [f32]| {
        let value = |c: usize| ((r * 31 + c * c * 7) % 509) as f32 - 254.0;
        out.iter_mut().enumerate().for_each(|(c, v)| *v = value(c));
    };
    let eight = Int8Matrix::quantize(&exec.pool, rows, cols, row).unwrap();
    let six = Int6Matrix::quantize(&exec.pool, rows, cols, row).unwrap();
    let x: Vec<f32> = (0..tokens * cols).map(|i| (i * 37 % 255) as f32).collect();
    let mut wide = WideActivations::new();
    wide.quantize(exec, &x, cols);
    let wide = &wide;
    let mut outs = [vec![0.0; tokens * rows], vec![0.0; tokens * rows]];
    let [first, second] = &mut outs;
    let bytes = [eight.bytes(), six.bytes()];
    let mut candidates: [Candidate<'_>; 2] = [
        (
            "int8".into(),
            Box::new(|| eight.gemm(exec, wide, black_box(first))),
        ),
        (
            "int6".into(),
            Box::new(|| six.gemm(exec, wide, black_box(second))),
        ),
    ];
    let kernel = exec.kernel.name();
    let [eight, six] = bytes.map(|bytes| bytes as f64 / 1e6);
    compare(
        &format!("{kernel} {rows}×{cols}, {tokens} tokens, {eight:.1} and {six:.1} MB"),
        &mut candidates,
    );
}
