//! The CUDA kernels against the reference operations, on shapes that fit them and shapes that do not.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, missing_docs)]

use burn::backend::{Cuda, Flex, NdArray};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tritburn_nn::ops::{
    AdamWParam, AdamWStep, AttentionShape, Compute, Kernels, LinearQuant, LogitTarget, QuantActs,
    Relation,
};
use tritburn_quant::config::HiddenAct;

/// Values of a standard normal look, without a library for it.
fn noise(rng: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count)
        .map(|_| (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0)
        .collect()
}

struct Pair<const D: usize>(Tensor<Cuda, D>, Tensor<NdArray, D>);

fn pair<const D: usize>(rng: &mut ChaCha8Rng, shape: [usize; D]) -> Pair<D> {
    let data = TensorData::new(noise(rng, shape.iter().product()), shape);
    Pair(
        Tensor::from_data(data.clone(), &Default::default()),
        Tensor::from_data(data, &Default::default()),
    )
}

fn host<B: Backend, const D: usize>(x: Tensor<B, D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

/// ‖found − expected‖ ≤ `tolerance` · ‖expected‖.
fn close<const D: usize>(
    what: &str,
    found: Tensor<Cuda, D>,
    expected: Tensor<NdArray, D>,
    tolerance: f32,
) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let (found, expected) = (host(found), host(expected));
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|v| v * v).sum::<f32>().sqrt();
    let apart = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
    let size = norm(&mut expected.iter().copied());
    assert!(apart <= tolerance * size, "{what}: {apart} of {size}");
}

#[test]
fn bit_linear_is_the_reference() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let quant = LinearQuant::B158;
    // Whole tiles, tails of tiles, one token, cut sums, and widths that the kernels leave alone.
    for [tokens, d_in, d_out] in [
        [256, 128, 256],
        [1, 64, 72],
        [300, 208, 584],
        [130, 16, 8],
        [2048, 576, 192],
        [33, 30, 20],
    ] {
        let x = pair(&mut rng, [tokens, d_in]);
        let w = pair(&mut rng, [d_out, d_in]);
        let g = pair(&mut rng, [tokens, d_out]);
        let name = format!("{tokens} × {d_in} × {d_out}");
        let xq = (
            Cuda::quantise_acts(x.0.clone(), quant.act),
            NdArray::quantise_acts(x.1, quant.act),
        );
        assert_eq!(
            host(xq.0.codes.clone().float()),
            host(xq.1.codes.clone().float()),
            "codes of {name}"
        );
        let wq = (
            Cuda::quantise_weight(w.0, quant.weight),
            NdArray::quantise_weight(w.1, quant.weight),
        );
        assert_eq!(
            host(wq.0.codes.clone().float()),
            host(wq.1.codes.clone().float()),
            "ternary codes of {name}"
        );
        close(
            &format!("y of {name}"),
            Cuda::code_matmul(&xq.0, &wq.0),
            NdArray::code_matmul(&xq.1, &wq.1),
            2e-6,
        );
        let held = wq.0.clone();
        let (gx, gw) = Cuda::code_matmul_grad(xq.0.clone(), wq.0.clone(), g.0.clone(), false);
        let (ex, ew) = NdArray::code_matmul_grad(xq.1.clone(), wq.1.clone(), g.1.clone(), false);
        close(&format!("gx of {name}"), gx, ex, 4e-3);
        close(&format!("gw of {name}"), gw, ew, 4e-3);
        // Codes of the gradient are whole numbers, and so are sums of them; other widths have them in bf16.
        let int8 = if d_out.is_multiple_of(16) { 2e-6 } else { 6e-3 };
        let (gx, gw) = Cuda::code_matmul_grad(xq.0, wq.0, g.0.clone(), true);
        let (ex, ew) = NdArray::code_matmul_grad(xq.1, wq.1.clone(), g.1.clone(), true);
        close(&format!("int8 gx of {name}"), gx, ex, int8);
        close(&format!("int8 gw of {name}"), gw, ew, 4e-3);

        // In bf16 the input is another, so its own codes are what the reference multiplies.
        let half = Cuda::quantise_acts(x.0.cast(DType::BF16), quant.act);
        let codes = TensorData::new(host(half.codes.clone().float()), [tokens, d_in]);
        let steps = TensorData::new(host(half.step.clone()), [tokens, 1]);
        let same = QuantActs::float(
            Tensor::from_data(codes, &Default::default()),
            Tensor::from_data(steps, &Default::default()),
        );
        let y = Cuda::code_matmul(&half, &held);
        assert_eq!(y.dtype(), DType::BF16, "{name}");
        let expected = NdArray::code_matmul(&same, &wq.1);
        close(
            &format!("bf16 y of {name}"),
            y.cast(DType::F32),
            expected,
            4e-3,
        );
        let (gx, gw) = Cuda::code_matmul_grad(half, held, g.0.cast(DType::BF16), false);
        assert_eq!(
            (gx.dtype(), gw.dtype()),
            (DType::BF16, DType::F32),
            "{name}"
        );
        let (ex, ew) = NdArray::code_matmul_grad(same, wq.1, g.1, false);
        close(&format!("bf16 gx of {name}"), gx.cast(DType::F32), ex, 6e-3);
        close(&format!("bf16 gw of {name}"), gw, ew, 6e-3);
    }
}

#[test]
fn products_in_bf16_are_the_reference() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for [tokens, d_in, d_out] in [[256, 128, 256], [1, 64, 72], [300, 208, 584], [33, 30, 20]] {
        let x = pair(&mut rng, [tokens, d_in]);
        let w = pair(&mut rng, [d_out, d_in]);
        let g = pair(&mut rng, [tokens, d_out]);
        let name = format!("{tokens} × {d_in} × {d_out}");
        for compute in [Compute::Bf16, Compute::F32] {
            // Without tensor cores for f32, or with TF32 where burn takes it.
            let tolerance = if compute == Compute::Bf16 { 1e-5 } else { 1e-3 };
            let y = <Cuda as Kernels>::dense_matmul(x.0.clone(), w.0.clone(), compute);
            let y1 = <NdArray as Kernels>::dense_matmul(x.1.clone(), w.1.clone(), compute);
            let kept = <Cuda as Kernels>::frozen(w.0.clone(), compute);
            let frozen = <Cuda as Kernels>::dense_matmul(x.0.clone(), kept, compute);
            assert_eq!(host(frozen), host(y.clone()), "frozen weight, {name}");
            close(&format!("{compute:?} of {name}"), y, y1, tolerance);
            let of = Cuda::dense_matmul_grad(x.0.clone(), w.0.clone(), compute, g.0.clone());
            let of1 = NdArray::dense_matmul_grad(x.1.clone(), w.1.clone(), compute, g.1.clone());
            close(
                &format!("{compute:?} for x of {name}"),
                of.0,
                of1.0,
                tolerance,
            );
            close(
                &format!("{compute:?} for w of {name}"),
                of.1,
                of1.1,
                tolerance,
            );
        }
    }
}

#[test]
fn values_that_are_no_numbers_have_the_codes_of_the_reference() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut data = noise(&mut rng, 8 * 64);
    data[3] = f32::NAN;
    data[64 + 5] = f32::INFINITY;
    data[128 + 7] = f32::NEG_INFINITY;
    data[192..256].fill(0.0);
    data[256 + 9] = 1e-40;
    let data = TensorData::new(data, [8, 64]);
    let quant = LinearQuant::B158;
    let cuda = Tensor::<Cuda, 2>::from_data(data.clone(), &Default::default());
    let cpu = Tensor::<Flex, 2>::from_data(data, &Default::default());
    let x = (
        Cuda::quantise_acts(cuda.clone(), quant.act),
        Flex::quantise_acts(cpu.clone(), quant.act),
    );
    let w = (
        Cuda::quantise_weight(cuda.slice([3..8, 0..64]).repeat_dim(0, 8), quant.weight),
        Flex::quantise_weight(cpu.slice([3..8, 0..64]).repeat_dim(0, 8), quant.weight),
    );
    assert_eq!(
        host(w.0.codes.clone().float()),
        host(w.1.codes.clone().float())
    );
    // Codes of 8 bits cannot be NaN: the step is, or infinite, so the token's result is the same.
    let codes = host(x.0.codes.clone().float());
    for (found, expected) in codes.iter().zip(host(x.1.codes.clone().float())) {
        assert!(*found == expected || (*found == 0.0 && expected.is_nan()));
    }
    let found = host(Cuda::code_matmul(&x.0, &w.0));
    let expected = host(Flex::code_matmul(&x.1, &w.1));
    for (row, (found, expected)) in found.chunks(40).zip(expected.chunks(40)).enumerate() {
        let numbers = [found, expected].map(|r| r.iter().all(|v| v.is_finite()));
        let nothing = [found, expected].map(|r| r.iter().all(|v| v.is_nan()));
        let broken = row < 3;
        assert_eq!((numbers, nothing), ([!broken; 2], [broken; 2]), "row {row}");
    }
}

#[test]
fn passes_over_rows_are_the_reference() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for [rows, width] in [
        [1, 8],
        [7, 64],
        [65, 576],
        [300, 1032],
        [9000, 128],
        [17, 3072],
        [9, 30],
    ] {
        let name = format!("{rows} × {width}");
        let (x, g) = (pair(&mut rng, [rows, width]), pair(&mut rng, [rows, width]));
        let w = pair(&mut rng, [width]);
        close(
            &format!("norm of {name}"),
            Cuda::rms_norm(x.0.clone(), w.0.clone(), 1e-5),
            NdArray::rms_norm(x.1.clone(), w.1.clone(), 1e-5),
            1e-6,
        );
        let found = Cuda::rms_norm_grad(x.0.clone(), w.0, 1e-5, g.0.clone());
        let expected = NdArray::rms_norm_grad(x.1.clone(), w.1, 1e-5, g.1.clone());
        close(&format!("gx of {name}"), found.0, expected.0, 2e-6);
        close(&format!("gw of {name}"), found.1, expected.1, 2e-6);
        let up = pair(&mut rng, [rows, width]);
        for act in [HiddenAct::Silu, HiddenAct::Relu2, HiddenAct::GeluTanh] {
            let name = format!("{act:?} of {name}");
            close(
                &name,
                Cuda::gated_act(x.0.clone(), up.0.clone(), act),
                NdArray::gated_act(x.1.clone(), up.1.clone(), act),
                1e-6,
            );
            let found = Cuda::gated_act_grad(x.0.clone(), up.0.clone(), act, g.0.clone());
            let expected = NdArray::gated_act_grad(x.1.clone(), up.1.clone(), act, g.1.clone());
            close(&name, found.0, expected.0, 2e-6);
            close(&name, found.1, expected.1, 2e-6);
        }
    }
}

#[test]
fn rotations_are_the_reference() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for [head_dim, heads] in [[64, 3], [16, 1], [8, 2]] {
        let (seq, batch) = (5, 3);
        let x = pair(&mut rng, [batch * seq, heads * head_dim]);
        let (cos, sin) = (
            pair(&mut rng, [seq, head_dim]),
            pair(&mut rng, [seq, head_dim]),
        );
        close(
            &format!("heads of {head_dim}"),
            Cuda::rope(x.0, cos.0, sin.0, seq),
            NdArray::rope(x.1, cos.1, sin.1, seq),
            1e-6,
        );
    }
}

/// Operands are rounded to bf16.
#[test]
fn attention_is_the_reference() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    // The last number is that of tokens in a document, where rows have several.
    for (batch, seq, heads, kv_heads, head_dim, causal, window, document) in [
        (2, 1, 1, 1, 16, true, None, None),
        (1, 64, 2, 2, 32, true, None, None),
        (2, 130, 4, 2, 64, true, None, None),
        (2, 130, 4, 2, 64, true, None, Some(60)),
        (2, 256, 4, 2, 64, true, None, Some(64)),
        (2, 333, 2, 1, 64, true, None, Some(7)),
        (1, 300, 2, 1, 128, true, Some(70), Some(150)),
        (1, 200, 3, 1, 64, true, Some(50), None),
        (2, 49, 4, 4, 32, false, None, None),
        (1, 150, 2, 2, 64, false, None, None),
        (1, 90, 2, 1, 96, true, None, None),
        (1, 97, 2, 2, 128, true, None, None),
        (2, 320, 4, 2, 128, true, None, None),
        (1, 300, 2, 1, 128, true, Some(70), None),
        (1, 20, 2, 1, 24, true, None, None),
    ] {
        let shape = AttentionShape {
            batch,
            seq,
            heads,
            kv_heads,
            head_dim,
            causal,
            window,
        };
        let name = format!("{shape:?}, documents of {document:?}");
        let rows = batch * seq;
        let starts = document.map(|length| {
            let starts = (0..rows).map(|i| (i % seq / length * length) as i32);
            TensorData::new(starts.collect::<Vec<_>>(), [batch, seq])
        });
        let of_row = || {
            starts
                .clone()
                .map(|s| Tensor::from_data(s, &Default::default()))
        };
        let (q, g) = (
            pair(&mut rng, [rows, heads * head_dim]),
            pair(&mut rng, [rows, heads * head_dim]),
        );
        let (k, v) = (
            pair(&mut rng, [rows, kv_heads * head_dim]),
            pair(&mut rng, [rows, kv_heads * head_dim]),
        );
        let expected =
            NdArray::self_attention(q.1.clone(), k.1.clone(), v.1.clone(), shape, of_row());
        let out = expected.out.clone();
        let grads = NdArray::self_attention_grad(q.1, k.1, v.1, shape, of_row(), expected, g.1);
        let on_gpu = || {
            starts
                .clone()
                .map(|s| Tensor::from_data(s, &Default::default()))
        };
        // Operands of the products are bf16 in any case; here inputs and outputs are too.
        for (dtype, more) in [(DType::F32, 1.0), (DType::BF16, 1.5)] {
            let name = format!("{dtype:?} {name}");
            let [q, k, v, g] = [&q.0, &k.0, &v.0, &g.0].map(|x| x.clone().cast(dtype));
            let attended = Cuda::self_attention(q.clone(), k.clone(), v.clone(), shape, on_gpu());
            let full = |x: Tensor<Cuda, 2>| x.cast(DType::F32);
            close(&name, full(attended.out.clone()), out.clone(), 5e-3 * more);
            let found = Cuda::self_attention_grad(q, k, v, shape, on_gpu(), attended, g);
            let v = format!("v of {name}");
            close(&v, full(found.2), grads.2.clone(), 6e-3 * more);
            // One token has no gradient but rounding.
            if seq > 1 {
                let [q, k] = ["q", "k"].map(|which| format!("{which} of {name}"));
                close(&q, full(found.0), grads.0.clone(), 8e-3 * more);
                close(&k, full(found.1), grads.1.clone(), 8e-3 * more);
            }
        }
    }
}

/// Rows that nobody takes, that one takes, that many take; more places than a block has threads.
#[test]
fn rows_of_a_table_are_the_reference() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    for [count, rows, cols] in [[1, 1, 1], [7, 40, 33], [1000, 12, 576], [600, 5000, 2056]] {
        let g = pair(&mut rng, [count, cols]);
        let ids: Vec<i32> = (0..count)
            .map(|_| rng.random_range(0..rows as i32))
            .collect();
        let ids = TensorData::new(ids, [count]);
        let cuda = Tensor::<Cuda, 1, Int>::from_data(ids.clone(), &Default::default());
        let plain = Tensor::<NdArray, 1, Int>::from_data(ids, &Default::default());
        let name = format!("{count} of {rows} × {cols}");
        let expected = NdArray::take_rows_grad(plain, g.1, rows);
        let found = Cuda::take_rows_grad(cuda.clone(), g.0.clone(), rows);
        close(&name, found, expected.clone(), 1e-6);
        let half = Cuda::take_rows_grad(cuda, g.0.cast(DType::BF16), rows);
        close(&format!("bf16 of {name}"), half, expected, 8e-3);
    }
}

#[test]
fn losses_over_the_vocabulary_are_the_reference() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for [rows, vocab] in [[1, 2], [5, 300], [3, 50_000]] {
        let name = format!("{rows} × {vocab}");
        // A divergence of two classes is far smaller than the logarithms that it is the difference of.
        let tolerance = if vocab < 10 { 1e-3 } else { 5e-5 };
        let (s, t) = (pair(&mut rng, [rows, vocab]), pair(&mut rng, [rows, vocab]));
        let g = pair(&mut rng, [rows]);
        let targets: Vec<i32> = (0..rows)
            .map(|_| rng.random_range(0..i32::try_from(vocab).unwrap()))
            .collect();
        let targets = TensorData::new(targets, [rows]);
        let on_cuda = Tensor::<Cuda, 1, Int>::from_data(targets.clone(), &Default::default());
        let on_cpu = Tensor::<NdArray, 1, Int>::from_data(targets, &Default::default());
        let of_teacher = pair(&mut rng, [rows]);
        for (tokens, temperature) in [
            (true, None),
            (false, Some(1.0)),
            (false, Some(5.0)),
            (true, Some(5.0)),
        ] {
            // Rounded logits have losses of their own, which are exact again.
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let name = format!("{name}, {dtype:?}, tokens {tokens}, τ {temperature:?}");
                let rounded = |x: &Pair<2>| {
                    let x = x.0.clone().cast(dtype);
                    let same = x.clone().cast(DType::F32).into_data();
                    (
                        x,
                        Tensor::<NdArray, 2>::from_data(same, &Default::default()),
                    )
                };
                let (s, t) = (rounded(&s), rounded(&t));
                let cuda_target = LogitTarget {
                    tokens: tokens.then(|| on_cuda.clone()),
                    teacher: temperature.map(|tau| (t.0, tau)),
                };
                let target = LogitTarget {
                    tokens: tokens.then(|| on_cpu.clone()),
                    teacher: temperature.map(|tau| (t.1, tau)),
                };
                let found = Cuda::logit_losses(&s.0, &cuda_target);
                let expected = NdArray::logit_losses(&s.1, &target);
                for (found, expected) in found.losses.into_iter().zip(expected.losses) {
                    assert_eq!(found.is_some(), expected.is_some(), "{name}");
                    if let (Some(found), Some(expected)) = (found, expected) {
                        close(&name, found, expected, tolerance);
                    }
                }
                let grads = [g.0.clone(), of_teacher.0.clone()];
                let found = Cuda::logit_losses_grad(s.0, cuda_target, found.sums, grads);
                let grads = [g.1.clone(), of_teacher.1.clone()];
                let expected = NdArray::logit_losses_grad(s.1, target, None, grads);
                let rounding = if dtype == DType::F32 { 0.0 } else { 4e-3 };
                close(
                    &name,
                    found.cast(DType::F32),
                    expected,
                    tolerance + rounding,
                );
            }
        }
    }
}

/// States are rounded to bf16 before they are multiplied: two roundings of 2⁻⁹ in a score, which a divergence
/// between unlike states hardly sees. Widths in turn of the student's and the teacher's heads.
#[test]
fn relations_are_the_reference() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for (batch, seq, heads, student, teacher) in [
        (1, 2, 1, 16, 16),
        (2, 64, 3, 64, 64),
        (2, 70, 2, 48, 128),
        (1, 200, 2, 192, 192),
        (1, 130, 1, 256, 256),
        (1, 9, 2, 24, 24),
    ] {
        for cosine in [true, false] {
            let shape = Relation {
                batch,
                seq,
                heads,
                cosine,
            };
            let s = pair(&mut rng, [batch * seq, heads * student]);
            let t = pair(&mut rng, [batch * seq, heads * teacher]);
            let g = pair(&mut rng, [shape.rows()]);
            let expected = NdArray::relation_kl(s.1.clone(), t.1.clone(), shape);
            let grad = NdArray::relation_kl_grad(s.1, t.1, shape, g.1);
            for dtype in [DType::F32, DType::BF16] {
                let name = format!("{shape:?}, {student} and {teacher} wide, {dtype:?}");
                let [s, t] = [&s.0, &t.0].map(|x| x.clone().cast(dtype));
                let found = Cuda::relation_kl(s.clone(), t.clone(), shape);
                close(&name, found, expected.clone(), 1e-2);
                let found = Cuda::relation_kl_grad(s, t, shape, g.0.clone());
                close(&name, found.cast(DType::F32), grad.clone(), 2e-2);
            }
        }
    }
}

#[test]
fn the_optimiser_is_the_reference() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let step = AdamWStep {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        grad_scale: 0.7,
        bias1: 0.19,
        bias2: 0.1,
    };
    // More than one launch takes, of one block and of several, among them odd sizes.
    let counts: Vec<usize> = (0..70)
        .map(|i| [1, 255, 576, 16_384, 100_003][i % 5] + i)
        .collect();
    let (mut cuda, mut cpu) = (Vec::new(), Vec::new());
    for (i, &count) in counts.iter().enumerate() {
        let [p, g, m] = [(); 3].map(|()| pair(&mut rng, [count]));
        let v = Pair(m.0.clone().abs(), m.1.clone().abs());
        let weight_decay = if i % 3 == 0 { 0.1 } else { 0.0 };
        cuda.push(AdamWParam {
            value: p.0,
            grad: g.0,
            m: m.0,
            v: v.0,
            weight_decay,
        });
        cpu.push(AdamWParam {
            value: p.1,
            grad: g.1,
            m: m.1,
            v: v.1,
            weight_decay,
        });
    }
    let grads = cuda.iter().map(|p| p.grad.clone()).collect();
    let expected = cpu.iter().map(|p| p.grad.clone()).collect();
    close(
        "norm",
        Cuda::sum_squares(grads).unwrap(),
        NdArray::sum_squares(expected).unwrap(),
        1e-5,
    );
    // One that something else looks at stays as it is.
    let looked_at = cuda[1].m.clone();
    let before: Vec<f32> = looked_at.clone().into_data().iter::<f32>().collect();
    let found = Cuda::adamw(cuda, &step);
    let expected = NdArray::adamw(cpu, &step);
    assert_eq!(found.len(), counts.len());
    for (found, expected) in found
        .into_iter()
        .flatten()
        .zip(expected.into_iter().flatten())
    {
        close("adamw", found, expected, 1e-6);
    }
    assert_eq!(
        looked_at.into_data().iter::<f32>().collect::<Vec<_>>(),
        before
    );
}
