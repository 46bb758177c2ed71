//! Ternary products, bit for bit.

use proptest::prelude::*;
use tritburn_kernels::activations::{RowQuantizer, group_codes};
use tritburn_kernels::sparse::RowMatrix;
use tritburn_kernels::ternary::{MAX_COLS, Next, Up, gemm_all, gemm_gated};
use tritburn_kernels::{Activations, Exec, Format, PackedCodes, Pool, Scales, TernaryMatrix, ops};
use tritburn_quant::act::absmax_int8;
use tritburn_quant::hf_pack;

use crate::common::{Case, Noise, bits, execs};

const WIDTHS: [usize; 14] = [0, 1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 300, 1100];

/// A step for each group of a token.
struct ByGroup;

impl RowQuantizer for ByGroup {
    fn by_group(&self) -> bool {
        true
    }

    fn quantize(&self, x: &[f32], codes: &mut [i8], steps: &mut [f32]) -> f32 {
        group_codes(x, codes, steps);
        1.0
    }
}

/// A step for each token.
struct ByToken;

impl RowQuantizer for ByToken {
    fn quantize(&self, x: &[f32], codes: &mut [i8], _: &mut [f32]) -> f32 {
        ops::absmax_codes(x, codes)
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

/// Many rows and many tokens, which some kernels compute together.
#[test]
fn every_large_shape_is_bit_exact() {
    let mut noise = Noise(8);
    let execs: Vec<Exec> = [1, 2, 3].into_iter().flat_map(execs).collect();
    for (rows, cols, tokens) in [
        (192, 70, 20),
        (255, 70, 20),
        (256, 1, 16),
        (257, 0, 16),
        (300, 63, 15),
        (319, 129, 17),
        (321, 65, 129),
        (520, 191, 31),
        (700, 193, 33),
        (1025, 385, 16),
        (1100, 5, 290),
        (3200, 9, 24),
        (300, 9, 193),
    ] {
        let mut case = Case::new(&mut noise, rows, cols, tokens);
        case.check(&execs);
        case.scales = Scales::Row(noise.floats(rows));
        case.check(&execs);
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
    for (w, x) in [(-1, -128), (1, -128), (1, 127), (0, -128)] {
        let mut many = Case::new(&mut Noise(0), 260, 900, 16);
        many.w.fill(w);
        many.x.fill(x);
        many.check(&execs);
    }
    let mut widest = Case::new(&mut Noise(0), 1, MAX_COLS, 16);
    widest.w.fill(1);
    widest.x.fill(-128);
    widest.check(&execs);
}

#[test]
fn several_matrices_at_once_are_each_by_itself() {
    let mut noise = Noise(6);
    // An interpreter takes its time.
    let shapes: &[_] = if cfg!(miri) {
        &[(20, 10, 3)]
    } else {
        &[(100, 70, 3), (700, 70, 40), (640, 5, 193)]
    };
    for &(rows, cols, tokens) in shapes {
        let a = Case::new(&mut noise, rows, cols, tokens);
        let x = Activations::from_codes(&a.x, &a.steps, cols);
        let [b, c] = [rows / 2, 1].map(|rows| Case::new(&mut noise, rows, cols, tokens));
        let formats = [Format::TwoBit, Format::Base3, Format::TwoBit];
        let cases = [&a, &b, &c];
        let [p, q, r] = std::array::from_fn(|i| cases[i].matrix(formats[i]));
        for exec in [2, 3].into_iter().flat_map(execs) {
            let mut alone = [rows, rows / 2, 1].map(|rows| vec![0.0; tokens * rows]);
            let mut together = alone.clone();
            for (matrix, out) in [&p, &q, &r].into_iter().zip(&mut alone) {
                matrix.gemm(&exec, &x, out);
            }
            let [s, t, u] = &mut together;
            gemm_all(&exec, &x, &mut [(&p, s), (&q, t), (&r, u)]);
            assert_eq!(together, alone);
        }
    }
}

#[test]
fn a_product_can_be_added_to_what_is_there() {
    let mut noise = Noise(12);
    let (rows, cols) = if cfg!(miri) { (20, 10) } else { (625, 70) };
    for tokens in [1, 2, 19] {
        for format in Format::ALL {
            let case = Case::new(&mut noise, rows, cols, tokens);
            let x = Activations::from_codes(&case.x, &case.steps, cols);
            let (matrix, before) = (case.matrix(format), noise.floats(rows * tokens));
            for exec in execs(2) {
                let mut want = vec![0.0; rows * tokens];
                matrix.gemm(&exec, &x, &mut want);
                let sums = before.iter().zip(&want);
                let want: Vec<f32> = sums.map(|(before, product)| before + product).collect();
                let mut got = before.clone();
                matrix.gemm_add(&exec, &x, &mut got);
                assert_eq!(bits(&got), bits(&want), "{format:?} {}", exec.kernel.name());
            }
        }
    }
}

/// What is far from the rest in one group takes no bits from the others.
#[test]
fn steps_per_group_are_the_definition() {
    let mut noise = Noise(13);
    let (rows, cols) = (70, 300);
    for tokens in [1, 2, 40] {
        let mut case = Case::new(&mut noise, rows, cols, tokens);
        let scales = noise.floats(rows * 3);
        case.scales = Scales::Group(scales.clone());
        let mut values = noise.floats(tokens * cols);
        values.iter_mut().step_by(cols).for_each(|v| *v = 1000.0);
        let mut want = vec![0.0; rows * tokens];
        for (values, want) in values.chunks(cols).zip(want.chunks_mut(rows)) {
            for (g, x) in values.chunks(128).enumerate() {
                let mut codes = vec![0; x.len()];
                let step = absmax_int8(x, &mut codes);
                for (r, want) in want.iter_mut().enumerate() {
                    let w = &case.w[r * cols + g * 128..];
                    let products = codes
                        .iter()
                        .zip(w)
                        .map(|(x, w)| i32::from(*x) * i32::from(*w));
                    *want += products.sum::<i32>() as f32 * scales[r * 3 + g] * step;
                }
            }
        }
        for format in Format::ALL {
            let matrix = case.matrix(format);
            for exec in execs(2) {
                let mut x = Activations::new();
                x.quantize_by(&exec, &values, cols, &ByGroup);
                let mut got = vec![0.0; rows * tokens];
                matrix.gemm(&exec, &x, &mut got);
                assert_eq!(bits(&got), bits(&want), "{format:?} {}", exec.kernel.name());
            }
        }
    }
}

#[test]
#[should_panic(expected = "scales per group")]
fn steps_per_group_are_for_scales_per_group() {
    let case = Case::new(&mut Noise(14), 3, 130, 1);
    let (matrix, exec) = (case.matrix(Format::TwoBit), &execs(1)[0]);
    let mut x = Activations::new();
    x.quantize_by(exec, &[1.0; 130], 130, &ByGroup);
    matrix.gemm(exec, &x, &mut [0.0; 3]);
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
        let pool = Pool::new(3).unwrap();
        for format in Format::ALL {
            let stored = PackedCodes::new(&pool, &packed, rows, cols, Scales::Tensor(1.0));
            let matrix = TernaryMatrix::pack(&pool, &stored.unwrap(), format);
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

/// The fused block is its two products, the activation after them and the rounding after that.
#[test]
fn gated_products_with_scales_of_one_kind_each_are_those_of_products() {
    let (rows, cols, tokens) = (300, 200, 40);
    let mut noise = Noise(33);
    let tensor = Case::new(&mut noise, rows, cols, tokens);
    let mut grouped = Case::new(&mut noise, rows, cols, tokens);
    grouped.scales = Scales::Group(noise.floats(rows * 2));
    let x = Activations::from_codes(&tensor.x, &tensor.steps, cols);
    for (gate, up) in [(&tensor, &grouped), (&grouped, &tensor)] {
        let (gate, up) = (gate.matrix(Format::TwoBit), up.matrix(Format::TwoBit));
        for exec in execs(2) {
            let [mut want, mut by, mut out] = [(); 3].map(|()| vec![0.0; rows * tokens]);
            gate.gemm(&exec, &x, &mut want);
            up.gemm(&exec, &x, &mut by);
            ops::relu2_mul(&mut want, &by);
            gemm_gated(
                &exec,
                &x,
                &gate,
                Up::Packed(&up),
                &ops::relu2_mul,
                &mut out,
                None,
            );
            assert_eq!(bits(&out), bits(&want), "{}", exec.kernel.name());
        }
    }
}

#[test]
fn gated_products_are_bit_exact() {
    let mut noise = Noise(31);
    let execs: Vec<Exec> = [1, 3].into_iter().flat_map(execs).collect();
    for (rows, cols) in [(1, 1), (64, 64), (65, 130), (200, 257), (530, 70), (0, 3)] {
        for tokens in [0, 1, 2, 9, 40, 300] {
            let gate = Case::new(&mut noise, rows, cols, tokens);
            let mut up = Case::new(&mut noise, rows, cols, tokens);
            up.x.clone_from(&gate.x);
            up.scales = Scales::Row(noise.floats(rows));
            let mut want = gate.expected();
            ops::relu2_mul(&mut want, &up.expected());
            let x = Activations::from_codes(&gate.x, &gate.steps, cols);
            let by_row = RowMatrix::new(&up.matrix(Format::TwoBit)).unwrap();
            let down = Case::new(&mut noise, 3, rows, 0).matrix(Format::TwoBit);
            let groups = Scales::Group(noise.floats(3 * rows.div_ceil(128)));
            let grouped = TernaryMatrix::with_scales(&down.codes(), 3, rows, groups, down.format());
            let quantizers: [(&dyn RowQuantizer, _); 2] =
                [(&ByToken, &down), (&ByGroup, &grouped.unwrap())];
            for exec in &execs {
                let name = exec.kernel.name();
                let check = |format, up: Up<'_>| {
                    let gate = gate.matrix(format);
                    for (quantizer, down) in quantizers {
                        let mut out = vec![f32::NAN; want.len()];
                        let mut activations = Activations::new();
                        let next = Next {
                            quantizer,
                            activations: &mut activations,
                        };
                        gemm_gated(exec, &x, &gate, up, &ops::relu2_mul, &mut out, Some(next));
                        let product = |x: &Activations| {
                            let mut out = vec![0.0; 3 * tokens];
                            down.gemm(exec, x, &mut out);
                            bits(&out)
                        };
                        let mut apart = Activations::new();
                        if rows > 0 {
                            apart.quantize_by(exec, &want, rows, quantizer);
                            assert_eq!(activations.steps(), apart.steps());
                            assert_eq!(product(&activations), product(&apart), "{name}");
                        }
                        assert!(
                            bits(&out) == bits(&want),
                            "{name} {format:?} {rows}×{cols}×{tokens}"
                        );
                    }
                };
                for format in Format::ALL {
                    check(format, Up::Packed(&up.matrix(format)));
                }
                check(Format::TwoBit, Up::Rows(&by_row));
            }
        }
    }
}
