//! Every kernel that this processor has, against the plain sum over codes.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tritburn_kernels::ternary::{BLOCK, MAX_COLS};
use tritburn_kernels::{Activations, DenseMatrix, Kernel, TernaryMatrix, available, select};
use tritburn_quant::act::absmax_int8;
use tritburn_quant::hf_pack;

/// Numbers without a pattern, the same on every machine.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as u32
    }

    fn trits(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| (self.next() % 3) as i8 - 1).collect()
    }

    fn bytes(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.next() as i8).collect()
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| self.next() as f32 / (1u32 << 30) as f32 - 1.0)
            .collect()
    }
}

/// The definition: sums of codes, then the epilogue.
fn expected(w: &[i8], x: &[i8], steps: &[f32], rows: usize, cols: usize, scale: f32) -> Vec<f32> {
    let mut out = Vec::new();
    for (t, step) in steps.iter().enumerate() {
        for r in 0..rows {
            let products =
                (0..cols).map(|c| i32::from(w[r * cols + c]) * i32::from(x[t * cols + c]));
            out.push(products.sum::<i32>() as f32 * (step * scale));
        }
    }
    out
}

fn check(kernel: &dyn Kernel, w: &[i8], x: &[i8], rows: usize, cols: usize, tokens: usize) {
    let steps: Vec<f32> = (0..tokens).map(|t| 0.01 + t as f32 * 0.003).collect();
    let scale = 0.37;
    let matrix = TernaryMatrix::from_codes(w, rows, cols, scale).unwrap();
    let mut out = vec![f32::NAN; rows * tokens];
    matrix.gemm(kernel, &Activations::from_codes(x, &steps, cols), &mut out);
    let want = expected(w, x, &steps, rows, cols, scale);
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(
        bits(&out),
        bits(&want),
        "{} {rows}×{cols}×{tokens}",
        kernel.name()
    );
}

const WIDTHS: [usize; 14] = [
    0,
    1,
    2,
    31,
    32,
    33,
    64,
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    2 * BLOCK,
    300,
    9 * BLOCK,
    17 * BLOCK + 5,
];

/// What `/proc/cpuinfo` says the processor has must have been run, else a kernel was lost.
#[test]
fn no_instruction_set_of_this_processor_is_skipped() {
    let names: Vec<&str> = available().iter().map(|k| k.name()).collect();
    eprintln!("instruction sets run: {}", names.join(", "));
    assert_eq!(names.last(), Some(&"scalar"));
    let Ok(info) = std::fs::read_to_string("/proc/cpuinfo") else {
        eprintln!("skipped the comparison: no /proc/cpuinfo");
        return;
    };
    let flags: Vec<&str> = info
        .lines()
        .find(|l| l.starts_with("flags"))
        .map(|l| l.split_whitespace().collect())
        .unwrap_or_default();
    for (flag, name) in [
        ("avx2", "avx2"),
        ("avx_vnni", "avxvnni"),
        ("avx512_vnni", "avx512vnni"),
    ] {
        assert_eq!(flags.contains(&flag), names.contains(&name), "{name}");
    }
}

#[test]
fn every_shape_is_bit_exact() {
    let mut noise = Noise(1);
    for kernel in available() {
        for cols in WIDTHS {
            for rows in [0, 1, 2, 3, 4, 5, 7, 8, 9, 33] {
                for tokens in [0, 1, 2, 3, 4, 5, 17] {
                    let (w, x) = (noise.trits(rows * cols), noise.bytes(tokens * cols));
                    check(kernel.as_ref(), &w, &x, rows, cols, tokens);
                }
            }
        }
    }
}

#[test]
fn extreme_values_are_bit_exact() {
    for kernel in available() {
        for cols in [BLOCK - 1, 8 * BLOCK, 64 * BLOCK + 3] {
            for w in [-1, 0, 1] {
                for x in [-128, -127, 127] {
                    let (w, x) = (vec![w; 5 * cols], vec![x; 5 * cols]);
                    check(kernel.as_ref(), &w, &x, 5, cols, 5);
                }
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let mut noise = Noise(2);
    let (rows, cols, tokens) = (700, 515, 19);
    let w = TernaryMatrix::from_codes(&noise.trits(rows * cols), rows, cols, 0.5).unwrap();
    let dense = DenseMatrix::new(noise.floats(rows * cols), rows, cols).unwrap();
    let x = noise.floats(tokens * cols);
    for kernel in available() {
        let kernel = kernel.as_ref();
        let run = |threads: usize, tokens: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let x = &x[..tokens * cols];
                let mut act = Activations::new();
                act.quantize(kernel, x, cols);
                let mut out = vec![0.0; rows * tokens];
                w.gemm(kernel, &act, &mut out);
                let mut out_dense = vec![0.0; rows * tokens];
                dense.gemm(kernel, x, &mut out_dense);
                (out, out_dense)
            })
        };
        let (ternary, dense) = run(1, tokens);
        for threads in [2, 3, 5] {
            assert_eq!(run(threads, tokens), (ternary.clone(), dense.clone()));
        }
        // Nor does how many tokens are computed at once.
        let (first, first_dense) = run(2, 1);
        assert_eq!(
            (&first[..], &first_dense[..]),
            (&ternary[..rows], &dense[..rows])
        );
    }
}

#[test]
fn dense_products_are_close_to_f64() {
    let mut noise = Noise(3);
    for kernel in available() {
        for cols in [0, 1, 7, 8, 9, 64, 259] {
            for (rows, tokens) in [(1, 1), (8, 1), (13, 1), (4, 3), (11, 7), (3, 2)] {
                let (w, x) = (noise.floats(rows * cols), noise.floats(tokens * cols));
                let mut out = vec![f32::NAN; rows * tokens];
                let matrix = DenseMatrix::new(w.clone(), rows, cols).unwrap();
                matrix.gemm(kernel.as_ref(), &x, &mut out);
                for (i, got) in out.iter().enumerate() {
                    let (t, r) = (i / rows, i % rows);
                    let pairs = w[r * cols..][..cols].iter().zip(&x[t * cols..][..cols]);
                    let want: f64 = pairs.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                    assert!(
                        (f64::from(*got) - want).abs() < 1e-5,
                        "{} {got} {want}",
                        kernel.name()
                    );
                }
            }
        }
    }
}

#[test]
fn rows_are_added_with_their_weights() {
    let mut noise = Noise(4);
    for kernel in available() {
        for width in [0, 1, 16, 37] {
            let (weights, rows) = (noise.floats(9), noise.floats(9 * width));
            let mut out = vec![1.0; width];
            kernel.add_weighted_rows(&weights, &rows, &mut out);
            for (c, got) in out.iter().enumerate() {
                let want: f32 = 1.0
                    + (0..9)
                        .map(|i| weights[i] * rows[i * width + c])
                        .sum::<f32>();
                assert!((got - want).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn misaligned_activations_quantise_alike() {
    let x = Noise(5).floats(200);
    for kernel in available() {
        for start in 0..9 {
            let x = &x[start..];
            let (mut got, mut want) = (vec![0; x.len()], vec![0; x.len()]);
            let step = kernel.quantize(x, &mut got);
            assert_eq!(step.to_bits(), absmax_int8(x, &mut want).to_bits());
            assert_eq!(got, want);
        }
    }
}

#[test]
fn bad_matrices_and_names_are_refused() {
    assert!(TernaryMatrix::from_codes(&[0; 5], 2, 3, 1.0).is_err());
    assert!(TernaryMatrix::from_codes(&[0, 2], 1, 2, 1.0).is_err());
    assert!(TernaryMatrix::from_codes(&[], 0, MAX_COLS + 1, 1.0).is_err());
    assert!(TernaryMatrix::from_hf_packed(&[3], 4, 1, 1.0).is_err());
    assert!(DenseMatrix::new(vec![0.0; 5], 2, 3).is_err());
    let error = select(Some("mmx")).unwrap_err().to_string();
    assert!(error.contains("mmx") && error.contains("scalar"), "{error}");
    assert_eq!(select(Some("scalar")).unwrap().name(), "scalar");
}

proptest! {
    #[test]
    fn kernels_agree_on_anything(seed: u64, rows in 0usize..40, cols in 0usize..600, tokens in 0usize..20) {
        let mut noise = Noise(seed);
        let (w, x) = (noise.trits(rows * cols), noise.bytes(tokens * cols));
        for kernel in available() {
            check(kernel.as_ref(), &w, &x, rows, cols, tokens);
        }
    }

    #[test]
    fn codes_survive_both_layouts(seed: u64, rows in 0usize..12, cols in 0usize..300) {
        let codes = Noise(seed).trits(rows * cols);
        let matrix = TernaryMatrix::from_codes(&codes, rows, cols, 1.0).unwrap();
        prop_assert_eq!(matrix.codes(), codes.clone());
        let packed = hf_pack::pack(&codes, rows, cols).unwrap();
        prop_assert_eq!(TernaryMatrix::from_hf_packed(&packed, rows, cols, 1.0).unwrap(), matrix);
    }
}
