//! Sparse products against the dense one of the same kernel, with weights that are not in the cache.

use std::hint::black_box;

use tritburn_kernels::dispatch::KERNEL_ENV;
use tritburn_kernels::sparse::{ColumnMatrix, NonZero, RowMatrix};
use tritburn_kernels::{Activations, Exec, Pool, TernaryMatrix, available};

use crate::turns::{Candidate, compare};

/// Bytes of copies of a matrix that are used in turn: at half of zeros more than caches hold.
const COLD: usize = 1 << 30;
/// Choices of zeros, in turn, so that no copy sees the same twice in a row: a number that none of the numbers of
/// copies is a multiple of.
const CHOICES: usize = 7;

pub(crate) fn run() {
    let only = std::env::var(KERNEL_ENV).ok();
    let wanted = |name| only.as_deref().is_none_or(|only| only == name);
    for kernel in available().iter().filter(|k| wanted(k.name())) {
        let exec = Exec {
            kernel: kernel.as_ref(),
            pool: Pool::new(1).unwrap(),
        };
        for (rows, cols) in [(2560, 6912), (1536, 4096)] {
            for cold in [false, true] {
                shape(&exec, rows, cols, cold);
            }
        }
    }
}

fn shape(exec: &Exec, rows: usize, cols: usize, cold: bool) {
    let mut seed = 1u32;
    let mut next = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 8
    };
    let codes: Vec<i8> = (0..rows * cols).map(|_| (next() % 3) as i8 - 1).collect();
    let matrix = || TernaryMatrix::from_codes(&codes, rows, cols, 1.0).unwrap();
    let copies = if cold { COLD / matrix().bytes() } else { 1 };
    // Clones would be the same memory.
    let dense: Vec<_> = (0..copies).map(|_| matrix()).collect();
    let by_column: Vec<_> = dense
        .iter()
        .map(|m| ColumnMatrix::new(m).unwrap())
        .collect();
    let by_row: Vec<_> = dense.iter().map(|m| RowMatrix::new(m).unwrap()).collect();
    let codes: Vec<i8> = (0..cols).map(|_| (next() % 255) as i8).collect();
    let full = Activations::from_codes(&codes, &[1.0], cols);
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    let mut turn = 0;
    let mut out = vec![0.0; rows];
    let (dense, full) = (&dense, &full);
    candidates.push((
        "dense".into(),
        Box::new(move || {
            turn = (turn + 1) % copies;
            dense[turn].gemm(exec, full, &mut out);
            black_box(&out);
        }),
    ));
    let all_zeros = [0, 10, 30, 50, 80, 90];
    // No copy is read by one candidate right after another.
    let start = |n: usize| n * copies / (2 * all_zeros.len());
    for (n, zeros) in all_zeros.into_iter().enumerate() {
        let mut inputs = || {
            let sparse = codes.iter().map(|&x| x * i8::from(next() % 100 >= zeros));
            Activations::from_codes(&sparse.collect::<Vec<i8>>(), &[1.0], cols)
        };
        let inputs: Vec<Activations> = (0..CHOICES).map(|_| inputs()).collect();
        let mut some = || (0..rows as u32).filter(|_| next() % 100 >= zeros).collect();
        let some: Vec<Vec<u32>> = (0..CHOICES).map(|_| some()).collect();
        let (by_column, by_row) = (&by_column, &by_row);
        let (mut turn, mut out) = (start(2 * n), vec![0.0; rows]);
        let mut non_zero = NonZero::new();
        candidates.push((
            format!("{zeros}% of columns left out"),
            Box::new(move || {
                turn += 1;
                non_zero.take(&inputs[turn % CHOICES], 0);
                by_column[turn % copies].gemv(exec, &non_zero, &mut out);
                black_box(&out);
            }),
        ));
        let (mut turn, mut out) = (start(2 * n + 1), vec![0.0; rows]);
        candidates.push((
            format!("{zeros}% of rows left out"),
            Box::new(move || {
                turn += 1;
                let some = &some[turn % CHOICES];
                by_row[turn % copies].gemv(exec, full, 0, some, &mut out[..some.len()]);
                black_box(&out);
            }),
        ));
    }
    let (kernel, cold) = (exec.kernel.name(), if cold { "cold" } else { "hot" });
    let title = format!("{kernel} {rows}×{cols} {cold}");
    compare(&title, &mut candidates);
}
