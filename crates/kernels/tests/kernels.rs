//! Every kernel that this processor has, against the plain sum over codes.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tritburn_kernels::head::WideActivations;
use tritburn_kernels::ternary::{MAX_COLS, gemm_all};
use tritburn_kernels::{
    Activations, DenseMatrix, Exec, Format, Int8Matrix, Pool, Scales, TernaryMatrix, available,
    select,
};
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

/// Every kernel, on so many threads.
fn execs(threads: usize) -> Vec<Exec> {
    let exec = |k: &'static dyn tritburn_kernels::Kernel| Exec {
        kernel: k,
        pool: Pool::new(threads).unwrap(),
    };
    available().iter().map(|k| exec(k.as_ref())).collect()
}

fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|v| v.to_bits()).collect()
}

/// A product of codes, small enough to be written down as its definition.
struct Case {
    rows: usize,
    cols: usize,
    w: Vec<i8>,
    x: Vec<i8>,
    steps: Vec<f32>,
    scales: Scales,
}

impl Case {
    fn new(noise: &mut Noise, rows: usize, cols: usize, tokens: usize) -> Self {
        Self {
            rows,
            cols,
            w: noise.trits(rows * cols),
            x: noise.bytes(tokens * cols),
            steps: (0..tokens).map(|t| 0.01 + t as f32 * 0.003).collect(),
            scales: Scales::Tensor(0.37),
        }
    }

    fn dot(&self, r: usize, t: usize, columns: std::ops::Range<usize>) -> f32 {
        let product =
            |c| i32::from(self.w[r * self.cols + c]) * i32::from(self.x[t * self.cols + c]);
        columns.map(product).sum::<i32>() as f32
    }

    /// The definition: sums of codes, then the scales.
    fn expected(&self) -> Vec<f32> {
        let mut out = Vec::new();
        for (t, step) in self.steps.iter().enumerate() {
            for r in 0..self.rows {
                let all = 0..self.cols;
                out.push(match &self.scales {
                    Scales::Tensor(scale) => self.dot(r, t, all) * (step * scale),
                    Scales::Row(scales) => self.dot(r, t, all) * (step * scales[r]),
                    Scales::Group(scales) => {
                        let groups = self.cols.div_ceil(128);
                        let group = |g| {
                            let columns = g * 128..self.cols.min(g * 128 + 128);
                            self.dot(r, t, columns) * scales[r * groups + g]
                        };
                        (0..groups).map(group).fold(0.0, |a, b| a + b) * step
                    }
                });
            }
        }
        out
    }

    fn matrix(&self, format: Format) -> TernaryMatrix {
        TernaryMatrix::with_scales(&self.w, self.rows, self.cols, self.scales.clone(), format)
            .unwrap()
    }

    fn check(&self, execs: &[Exec]) {
        let want = bits(&self.expected());
        let x = Activations::from_codes(&self.x, &self.steps, self.cols);
        for format in Format::ALL {
            let matrix = self.matrix(format);
            for exec in execs {
                let mut out = vec![f32::NAN; want.len()];
                matrix.gemm(exec, &x, &mut out);
                let (kernel, tokens) = (exec.kernel.name(), self.steps.len());
                let (rows, cols, threads) = (self.rows, self.cols, exec.threads());
                assert!(
                    bits(&out) == want,
                    "{kernel} {format:?} {rows}×{cols}×{tokens}, {threads} threads"
                );
            }
        }
    }
}

const WIDTHS: [usize; 14] = [0, 1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 300, 1100];

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
        ("amx_int8", "amx"),
    ] {
        assert_eq!(flags.contains(&flag), names.contains(&name), "{name}");
    }
}

#[test]
fn every_shape_is_bit_exact() {
    let mut noise = Noise(1);
    let execs = execs(1);
    for cols in WIDTHS {
        for rows in [0, 1, 15, 16, 17, 63, 64, 65, 79, 80, 81, 161] {
            for tokens in [0, 1, 2, 3, 5, 7] {
                Case::new(&mut noise, rows, cols, tokens).check(&execs);
            }
        }
    }
}

/// Tiles of tokens, whole and not, and more tokens than are computed at once.
#[test]
fn every_number_of_tokens_is_bit_exact() {
    let mut noise = Noise(7);
    let execs = execs(1);
    for tokens in (8..36).chain([47, 48, 49, 63, 64, 65, 255, 256, 257, 300]) {
        for scales in 0..3 {
            let mut case = Case::new(&mut noise, 83, 261, tokens);
            case.scales = match scales {
                0 => Scales::Tensor(1.5),
                1 => Scales::Row(noise.floats(83)),
                _ => Scales::Group(noise.floats(83 * 3)),
            };
            case.check(&execs);
        }
    }
}

#[test]
fn extreme_values_are_bit_exact() {
    let execs = execs(1);
    for cols in [127, 1024, 8195] {
        for w in [-1, 0, 1] {
            for x in [-128, -127, 127] {
                for tokens in [1, 5, 16] {
                    let mut case = Case::new(&mut Noise(0), 5, cols, tokens);
                    case.w.fill(w);
                    case.x.fill(x);
                    case.check(&execs);
                }
            }
        }
    }
    let mut widest = Case::new(&mut Noise(0), 1, MAX_COLS, 16);
    widest.w.fill(1);
    widest.x.fill(-128);
    widest.check(&execs);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let mut noise = Noise(2);
    let (rows, cols, tokens) = (700, 515, 19);
    let case = Case::new(&mut noise, rows, cols, tokens);
    let dense = DenseMatrix::new(noise.floats(rows * cols), rows, cols).unwrap();
    let head = int8(&noise.floats(rows * cols), cols);
    let x = noise.floats(tokens * cols);
    let run = |exec: &Exec, tokens: usize| {
        let mut outs = [vec![0.0; rows * tokens], vec![0.0; rows * tokens]];
        let mut wide = WideActivations::new();
        wide.quantize(exec, &x[..tokens * cols], cols);
        dense.gemm(exec, &x[..tokens * cols], &mut outs[0]);
        head.gemm(exec, &wide, &mut outs[1]);
        outs
    };
    let ones = execs(1);
    let want: Vec<_> = ones.iter().map(|exec| run(exec, tokens)).collect();
    for threads in [2, 3, 5] {
        let many = execs(threads);
        case.check(&many);
        for (exec, want) in many.iter().zip(&want) {
            assert_eq!(&run(exec, tokens), want);
        }
        // Nor does how many tokens are computed at once.
        for (exec, want) in many.iter().zip(&want) {
            let first = run(exec, 1);
            assert!((0..2).all(|i| first[i] == want[i][..rows]));
        }
    }
    // Sums in int8 are the same on every instruction set.
    assert!(want.iter().all(|w| w[1] == want[0][1]));
}

#[test]
fn several_matrices_at_once_are_each_by_itself() {
    let mut noise = Noise(6);
    let (a, b) = (Case::new(&mut noise, 100, 70, 3), {
        Case::new(&mut noise, 1, 70, 3)
    });
    let x = Activations::from_codes(&a.x, &a.steps, 70);
    let matrices = [a.matrix(Format::TwoBit), b.matrix(Format::Base3)];
    for exec in execs(2) {
        let mut alone = [vec![0.0; 300], vec![0.0; 3]];
        let mut together = alone.clone();
        for (matrix, out) in matrices.iter().zip(&mut alone) {
            matrix.gemm(&exec, &x, out);
        }
        let [p, q] = &mut together;
        gemm_all(&exec, &x, &mut [(&matrices[0], p), (&matrices[1], q)]);
        assert_eq!(together, alone);
    }
}

fn int8(values: &[f32], cols: usize) -> Int8Matrix {
    let row = |r: usize, out: &mut [f32]| out.copy_from_slice(&values[r * cols..][..cols]);
    Int8Matrix::quantize(values.len() / cols, cols, row).unwrap()
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
        for cols in [0, 1, 7, 8, 9, 64, 259] {
            for (rows, tokens) in [(1, 1), (8, 1), (13, 1), (4, 3), (11, 7), (3, 2)] {
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

#[test]
fn misaligned_activations_quantise_alike() {
    let x = Noise(5).floats(200);
    for start in 0..9 {
        let x = &x[start..];
        let mut want = vec![0; x.len()];
        let step = absmax_int8(x, &mut want);
        let mut got = Activations::new();
        got.quantize(&execs(1)[0], x, x.len());
        assert_eq!(got.steps()[0].to_bits(), step.to_bits());
        let one = TernaryMatrix::from_codes(&vec![1; x.len()], 1, x.len(), 1.0).unwrap();
        let mut sum = [0.0];
        one.gemm(&execs(1)[0], &got, &mut sum);
        let codes: i32 = want.iter().map(|&c| i32::from(c)).sum();
        assert_eq!(sum[0], codes as f32 * step);
    }
}

#[test]
fn bad_matrices_and_names_are_refused() {
    assert!(TernaryMatrix::from_codes(&[0; 5], 2, 3, 1.0).is_err());
    assert!(TernaryMatrix::from_codes(&[0, 2], 1, 2, 1.0).is_err());
    assert!(TernaryMatrix::from_codes(&[], 0, MAX_COLS + 1, 1.0).is_err());
    assert!(TernaryMatrix::from_hf_packed(&[3], 4, 1, 1.0, Format::TwoBit).is_err());
    assert!(DenseMatrix::new(vec![0.0; 5], 2, 3).is_err());
    assert!(Int8Matrix::quantize(1, MAX_COLS + 1, |_, _| ()).is_err());
    let scales = |scales| TernaryMatrix::with_scales(&[0; 6], 2, 3, scales, Format::Base3);
    assert!(scales(Scales::Row(vec![1.0; 3])).is_err());
    assert!(scales(Scales::Group(vec![1.0; 1])).is_err());
    assert!(scales(Scales::Group(vec![1.0; 2])).is_ok());
    let error = Format::from_name("q4").unwrap_err().to_string();
    assert!(error.contains("q4") && error.contains("base3"), "{error}");
    assert_eq!(Format::from_name("2bit").unwrap(), Format::TwoBit);
    let error = select(Some("mmx")).unwrap_err().to_string();
    assert!(error.contains("mmx") && error.contains("scalar"), "{error}");
    assert_eq!(select(Some("scalar")).unwrap().name(), "scalar");
}

proptest! {
    #[test]
    fn kernels_agree_on_anything(
        seed: u64,
        rows in 0usize..170,
        cols in 0usize..600,
        tokens in 0usize..40,
        threads in 1usize..4,
    ) {
        Case::new(&mut Noise(seed), rows, cols, tokens).check(&execs(threads));
    }

    #[test]
    fn kernels_agree_on_any_scales(seed: u64, rows in 0usize..90, cols in 0usize..600) {
        let mut noise = Noise(seed);
        let mut case = Case::new(&mut noise, rows, cols, 3);
        case.scales = Scales::Row(noise.floats(rows));
        case.check(&execs(1));
        case.scales = Scales::Group(noise.floats(rows * cols.div_ceil(128)));
        case.check(&execs(1));
    }

    #[test]
    fn codes_survive_all_layouts(seed: u64, rows in 0usize..90, cols in 0usize..300) {
        let codes = Noise(seed).trits(rows * cols);
        let packed = hf_pack::pack(&codes, rows, cols).unwrap();
        let scales = Scales::Group(Noise(seed).floats(rows * cols.div_ceil(128)));
        for format in Format::ALL {
            let matrix = TernaryMatrix::from_hf_packed(&packed, rows, cols, 1.0, format).unwrap();
            prop_assert_eq!(matrix.codes(), codes.clone());
            prop_assert_eq!(matrix.to_hf_packed().unwrap(), packed.clone());
            let grouped =
                TernaryMatrix::with_scales(&codes, rows, cols, scales.clone(), format).unwrap();
            for other in Format::ALL {
                let there = grouped.to_format(other).unwrap();
                prop_assert_eq!(there.format(), other);
                prop_assert_eq!(there.to_format(format).unwrap(), grouped.clone());
            }
        }
    }
}
