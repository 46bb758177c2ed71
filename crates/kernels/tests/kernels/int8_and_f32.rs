//! Products of the head and of full precision, within their errors.

use tritburn_kernels::activations::{ActBlock, TOKEN_TILE};
use tritburn_kernels::head::WideActivations;
use tritburn_kernels::kernel::PackedTile;
use tritburn_kernels::layout::{DEPTH_BLOCKS, LANES, WeightBlock};
use tritburn_kernels::{DenseMatrix, Int8Matrix, Pool, available};

use crate::common::{Noise, execs};

pub(crate) fn int8(values: &[f32], cols: usize) -> Int8Matrix {
    let row = |r: usize, out: &mut [f32]| out.copy_from_slice(&values[r * cols..][..cols]);
    let pool = Pool::new(2).unwrap();
    Int8Matrix::quantize(&pool, values.len() / cols, cols, row).unwrap()
}

/// Half a step a weight, and what 15 bits leave of the activations.
#[test]
fn int8_products_are_within_their_error() {
    let mut noise = Noise(8);
    for (rows, cols, tokens) in [(1, 1, 1), (17, 64, 2), (40, 300, 5), (33, 1000, 17)] {
        let (w, x) = (noise.floats(rows * cols), noise.floats(tokens * cols));
        let matrix = int8(&w, cols);
        let mut wide = WideActivations::new();
        for exec in execs(2) {
            wide.quantize(&exec, &x, cols);
            let mut out = vec![f32::NAN; rows * tokens];
            matrix.gemm(&exec, &wide, &mut out);
            for (i, got) in out.iter().enumerate() {
                let (w, x) = (&w[i % rows * cols..][..cols], &x[i / rows * cols..][..cols]);
                let exact: f64 = w.iter().zip(x).map(|(w, x)| f64::from(w * x)).sum();
                let max = |v: &[f32]| v.iter().fold(0f32, |m, v| m.max(v.abs()));
                let norm1 = x.iter().map(|v| v.abs()).sum::<f32>();
                let bound = max(w) / 254.0 * norm1 + cols as f32 * max(x) * max(w) / 32_000.0;
                assert!((f64::from(*got) - exact).abs() <= f64::from(bound * 1.001));
            }
        }
        let mut row = vec![0.0; cols];
        for (r, w) in w.chunks(cols).enumerate() {
            matrix.row(r, &mut row);
            let amax = w.iter().fold(0f32, |m, v| m.max(v.abs()));
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= amax / 253.9;
            assert!(w.iter().zip(&row).all(near));
        }
    }
}

/// Of weights and activations at the ends of their ranges too.
#[test]
fn sums_of_bytes_are_those_of_the_scalar_kernel() {
    let mut noise = Noise(11);
    let (kernels, depth) = (available(), 5);
    for (w, x) in [
        (None, None),
        (Some(0), None),
        (Some(255), Some(-128)),
        (Some(255), Some(127)),
    ] {
        let mut block = || WeightBlock(std::array::from_fn(|_| w.unwrap_or(noise.next() as u8)));
        let weights: Vec<_> = (0..depth * DEPTH_BLOCKS).map(|_| block()).collect();
        let mut block = || ActBlock(std::array::from_fn(|_| x.unwrap_or(noise.next() as i8)));
        // Two tiles of AMX and what is over.
        let x: Vec<_> = (0..depth * 3 * TOKEN_TILE).map(|_| block()).collect();
        for tokens in 1..=40 {
            let tile = PackedTile {
                weights: &weights,
                x: &x,
                stride: depth,
                tokens,
            };
            let sums = kernels.iter().map(|kernel| {
                let mut acc = vec![i32::MIN; tokens * LANES];
                kernel.byte_tile(tile, &mut acc);
                acc
            });
            let sums: Vec<_> = sums.collect();
            for (kernel, of_kernel) in kernels.iter().zip(&sums) {
                assert_eq!(Some(of_kernel), sums.last(), "{}", kernel.name());
            }
        }
    }
}

#[test]
fn damaged_activations_do_not_spread() {
    let matrix = int8(&Noise(9).floats(20 * 70), 70);
    let mut x = Noise(10).floats(140);
    x[3] = f32::NAN;
    let mut wide = WideActivations::new();
    wide.quantize(&execs(2)[0], &x, 70);
    let mut out = vec![0.0; 40];
    matrix.gemm(&execs(1)[0], &wide, &mut out);
    assert!(out[20..].iter().all(|v| v.is_finite()));
}

#[test]
fn dense_products_are_close_to_f64() {
    let mut noise = Noise(3);
    for exec in execs(1) {
        for cols in [0, 1, 7, 8, 9, 15, 16, 17, 64, 259] {
            for (rows, tokens) in [(1, 1), (8, 1), (13, 1), (4, 3), (11, 7), (3, 2), (37, 25)] {
                let (w, x) = (noise.floats(rows * cols), noise.floats(tokens * cols));
                let mut out = vec![f32::NAN; rows * tokens];
                let matrix = DenseMatrix::new(w.clone(), rows, cols).unwrap();
                matrix.gemm(&exec, &x, &mut out);
                for (i, got) in out.iter().enumerate() {
                    let (t, r) = (i / rows, i % rows);
                    let pairs = w[r * cols..][..cols].iter().zip(&x[t * cols..][..cols]);
                    let want: f64 = pairs.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                    assert!(
                        (f64::from(*got) - want).abs() < 1e-5,
                        "{} {got} {want}",
                        exec.kernel.name()
                    );
                }
            }
        }
    }
}
