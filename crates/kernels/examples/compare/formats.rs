//! One token, a few and 64 through the formats of ternary weights.

use std::hint::black_box;

use tritburn_kernels::dispatch::KERNEL_ENV;
use tritburn_kernels::{Activations, Exec, Format, Pool, Scales, TernaryMatrix, available};

use crate::turns::{Candidate, compare};

pub(crate) fn run() {
    let only = std::env::var(KERNEL_ENV).ok();
    let wanted = |name| only.as_deref().is_none_or(|only| only == name);
    for kernel in available().iter().filter(|k| wanted(k.name())) {
        let exec = Exec {
            kernel: kernel.as_ref(),
            pool: Pool::new(1).unwrap(),
        };
        for (rows, cols) in [(2560, 6912), (1536, 4096)] {
            for (tokens, copies) in [
                (1, 1),
                (1, 24),
                (2, 24),
                (4, 24),
                (8, 24),
                (16, 24),
                (64, 1),
            ] {
                shape(&exec, rows, cols, tokens, copies);
            }
        }
    }
}

/// `copies` of the matrix are used in turn: with many they are not in the cache.
fn shape(exec: &Exec, rows: usize, cols: usize, tokens: usize, copies: usize) {
    let codes: Vec<i8> = (0..rows * cols)
        .map(|i| (i * i % 7 % 3) as i8 - 1)
        .collect();
    let x: Vec<i8> = (0..tokens * cols).map(|i| (i * 37 % 255) as i8).collect();
    let x = &Activations::from_codes(&x, &vec![1.0; tokens], cols);
    let mut candidates = Format::ALL.map(|format| -> Candidate<'_> {
        // A clone would be the same memory.
        let matrix = |_| {
            let scales = Scales::Tensor(1.0);
            TernaryMatrix::with_scales(&codes, rows, cols, scales, format).unwrap()
        };
        let matrices: Vec<_> = (0..copies).map(matrix).collect();
        let mut out = vec![0.0; rows * tokens];
        let mut turn = 0;
        let run = move || {
            turn = (turn + 1) % copies;
            matrices[turn].gemm(exec, x, &mut out);
            black_box(&out);
        };
        (format.name().to_owned(), Box::new(run))
    });
    let cold = if copies > 1 { "cold" } else { "hot" };
    let kernel = exec.kernel.name();
    compare(
        &format!("{kernel} {rows}×{cols}, {tokens} tokens, {cold}"),
        &mut candidates,
    );
}
