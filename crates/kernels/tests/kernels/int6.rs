//! Products of six-bit weights: the same bits on every instruction set, number of threads and number
//! of tokens at once, and near what they stand for.

use proptest::prelude::*;
use tritburn_kernels::head::WideActivations;
use tritburn_kernels::{Exec, Int6Matrix, Pool};

use crate::common::{Noise, bits, execs};
use crate::int8_and_f32::int8;

pub(crate) fn int6(values: &[f32], rows: usize, cols: usize, threads: usize) -> Int6Matrix {
    let row = |r: usize, out: &mut [f32]| out.copy_from_slice(&values[r * cols..][..cols]);
    Int6Matrix::quantize(&Pool::new(threads).unwrap(), rows, cols, row).unwrap()
}

fn product(exec: &Exec, matrix: &Int6Matrix, x: &[f32]) -> Vec<f32> {
    let mut wide = WideActivations::new();
    wide.quantize(exec, x, matrix.cols());
    let tokens = x.len().checked_div(matrix.cols()).unwrap_or(0);
    let mut out = vec![f32::NAN; tokens * matrix.rows()];
    matrix.gemm(exec, &wide, &mut out);
    out
}

/// That all of `execs` give the bits of the last, which is the scalar one, token by token; and how
/// far that is from f64, as a share of what 15 bits of activations explain.
fn check(w: &[f32], x: &[f32], [rows, cols, tokens]: [usize; 3], execs: &[Exec]) {
    let matrix = int6(w, rows, cols, 1);
    assert_eq!(matrix, int6(w, rows, cols, 3));
    let scalar = execs.last().unwrap();
    let one_by_one = x.chunks(cols.max(1)).take(tokens);
    let want: Vec<f32> = one_by_one
        .flat_map(|x| product(scalar, &matrix, x))
        .collect();
    for exec in execs {
        let name = exec.kernel.name();
        let got = product(exec, &matrix, x);
        assert!(bits(&got) == bits(&want), "{name} {rows}×{cols}×{tokens}");
        if let Some(x) = x.get(..cols).filter(|x| !x.is_empty()) {
            let got = product(exec, &matrix, x);
            assert!(bits(&got) == bits(&want[..rows]), "{name} {rows}×{cols}");
        }
    }
    let mut row = vec![0.0; cols];
    for r in 0..rows {
        matrix.row(r, &mut row);
        for t in 0..want.len() / rows {
            let x = &x[t * cols..][..cols];
            let exact: f64 = row
                .iter()
                .zip(x)
                .map(|(w, x)| f64::from(*w) * f64::from(*x))
                .sum();
            let norm: f64 = row.iter().map(|w| f64::from(w.abs())).sum();
            let step = x.iter().fold(0f32, |m, v| m.max(v.abs())) / 16_256.0;
            let error = (f64::from(want[t * rows + r]) - exact).abs();
            assert!(
                error <= norm * f64::from(step) * 0.52,
                "{rows}×{cols} {error}"
            );
        }
    }
}

#[test]
fn every_shape_is_bit_exact() {
    let mut noise = Noise(31);
    let execs = execs(1);
    for rows in [0, 1, 15, 16, 17, 63, 64, 65, 130] {
        for cols in [0, 1, 3, 15, 16, 17, 63, 64, 65, 300] {
            for tokens in [1, 2, 5, 16, 17] {
                let (w, x) = (noise.floats(rows * cols), noise.floats(tokens * cols));
                check(&w, &x, [rows, cols, tokens], &execs);
            }
        }
    }
}

/// More columns than can be summed in i32, and sums as large as they can be.
#[test]
fn wide_and_extreme_matrices_are_bit_exact() {
    let execs = execs(1);
    for cols in [4095, 4096, 4097, 9000] {
        for (w, x) in [(1.0, 1.0), (-1.0, 1.0), (-3.0, -2.0)] {
            let (w, x) = (vec![w; 17 * cols], vec![x; 3 * cols]);
            check(&w, &x, [17, cols, 3], &execs);
        }
        let mut noise = Noise(cols as u64);
        let (w, x) = (noise.floats(17 * cols), noise.floats(3 * cols));
        check(&w, &x, [17, cols, 3], &execs);
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let mut noise = Noise(32);
    let (rows, cols) = (700, 515);
    let matrix = int6(&noise.floats(rows * cols), rows, cols, 1);
    for tokens in [1, 19] {
        let x = noise.floats(tokens * cols);
        let want = bits(&product(&execs(1)[0], &matrix, &x));
        for threads in [2, 3, 5] {
            for exec in execs(threads) {
                assert_eq!(bits(&product(&exec, &matrix, &x)), want);
            }
        }
    }
}

#[test]
fn damage_does_not_spread() {
    let mut w = Noise(33).floats(20 * 70);
    w[5] = f32::NAN;
    w[70 + 6] = f32::INFINITY;
    w[2 * 70..3 * 70].fill(0.0);
    w[3 * 70..4 * 70].fill(1e-40);
    let mut x = Noise(34).floats(140);
    x[3] = f32::NAN;
    for exec in execs(1) {
        let out = product(&exec, &int6(&w, 20, 70, 1), &x);
        assert!(out[22..].iter().all(|v| v.is_finite()));
        assert_eq!(out[22], 0.0);
    }
}

fn normal(n: usize) -> Vec<f32> {
    let mut noise = Noise(35);
    // Sums of twelve uniform numbers would lack the tails, on which the largest of 16 depends.
    let mut normal = || {
        let mut uniform = || (f64::from(noise.next()) + 0.5) / f64::from(1u32 << 31);
        let (a, b) = (uniform(), uniform());
        ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
    };
    (0..n).map(|_| normal()).collect()
}

/// Squared error of rows that `read` gives, as a share of the square sum.
fn error(w: &[f32], cols: usize, read: &dyn Fn(usize, &mut [f32])) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let mut row = vec![0.0; cols];
    let mut sum = 0.0;
    for (r, w) in w.chunks(cols).enumerate() {
        read(r, &mut row);
        sum += w.iter().zip(&row).map(|(a, b)| square(a - b)).sum::<f64>();
    }
    sum / w.iter().map(|w| square(*w)).sum::<f64>()
}

/// Q6_K leaves 2.99e-4 of the square sum of normal values, which `tritburn-quant` measures.
#[test]
fn the_error_on_normal_weights_is_below_that_of_q6_k() {
    let (rows, cols) = (64, 2560);
    let w = normal(rows * cols);
    let (six, eight) = (int6(&w, rows, cols, 2), int8(&w, cols));
    let of_six = error(&w, cols, &|r, out| six.row(r, out));
    let of_eight = error(&w, cols, &|r, out| eight.row(r, out));
    let bits = six.bytes() as f64 * 8.0 / (rows * cols) as f64;
    eprintln!("int6 {of_six:e} with {bits} bits, int8 {of_eight:e}");
    assert!(of_six < 2.82e-4 && bits < 6.52);
}

/// A block of Q6_K is what a row of 256 columns is here: codes of six bits, a level for 16 of them,
/// one scale. In rows with one scale for many such blocks, codes stay and levels are rounded.
#[test]
fn weights_that_were_q6_k_lose_little() {
    let (rows, cols) = (64, 2560);
    let (w, blocks) = (normal(rows * cols), cols / 256);
    let of_blocks = int6(&w, rows * blocks, 256, 2);
    let mut stored = vec![0.0; w.len()];
    for (r, out) in stored.chunks_mut(256).enumerate() {
        of_blocks.row(r, out);
    }
    let again = int6(&stored, rows, cols, 2);
    let lost = error(&stored, cols, &|r, out| again.row(r, out));
    let whole = error(&w, cols, &|r, out| again.row(r, out));
    let once = error(&w, cols, &|r, out| {
        out.copy_from_slice(&stored[r * cols..][..cols])
    });
    eprintln!("lost {lost:e}: {once:e} became {whole:e}");
    assert!(lost < 2e-5 && whole < 1.06 * once);
}

proptest! {
    #[test]
    fn any_shape_is_bit_exact(
        rows in 0usize..140, cols in 0usize..400, tokens in 0usize..20, threads in 1usize..4,
        seed: u64, spread in 0i32..7,
    ) {
        let mut noise = Noise(seed);
        let mut w = noise.floats(rows * cols);
        for (i, w) in w.iter_mut().enumerate() {
            *w *= 2f32.powi(-(i as i32 / 16 % 13 * spread));
        }
        let x = noise.floats(tokens * cols);
        check(&w, &x, [rows, cols, tokens], &execs(threads));
    }
}
