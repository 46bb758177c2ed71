//! Quantisers, BitLinear and the gated activation.

use burn::backend::{Autodiff, Flex, NdArray};
use burn::tensor::Tensor;
use tritburn_nn::hadamard::Hadamard;
use tritburn_nn::ops::{Kernels, LinearQuant, Ops};
use tritburn_quant::config::HiddenAct;
use tritburn_quant::scheme::WeightQuant;
use tritburn_quant::tensor_file::TensorFile;

use crate::vectors::{Vectors, close, golden, host};

/// Forward values and gradients of BitLinear, with a norm without weight in front where `prefix` is
/// `rmslin`.
fn bit_linear<B: Kernels + Ops>(
    v: &Vectors,
    prefix: &str,
    case: &str,
    quant: LinearQuant,
    [forward, backward]: [f32; 2],
) {
    type A<B> = Autodiff<B>;
    let x = Tensor::<A<B>, 2>::from_inner(v.rows::<B>("x")).require_grad();
    let w = Tensor::<A<B>, 2>::from_inner(v.rows::<B>("w")).require_grad();
    let input = if prefix == "rmslin" {
        let ones = Tensor::ones([64], &x.device());
        <A<B> as Ops>::rms_norm(x.clone(), ones, 1e-6)
    } else {
        x.clone()
    };
    let y = <A<B> as Ops>::bit_linear(input, w.clone(), None, quant);
    let name = |what: &str| format!("{prefix}.{case}.{what}");
    let check = |what: &str, found: Tensor<B, 2>, tolerance: f32| {
        close(&name(what), &host(found), &v.get(&name(what)).1, tolerance);
    };
    check("y", y.clone().inner(), forward);
    let grad = Tensor::from_inner(v.rows::<B>(&format!("lin.{case}.gout")));
    let grads = (y * grad).sum().backward();
    check("gx", x.grad(&grads).unwrap(), backward);
    check("gw", w.grad(&grads).unwrap(), backward);
}

/// Tolerances are relative to the largest value, of outputs and of gradients of BitLinear.
pub(crate) fn quantisers_and_bit_linear<B: Kernels + Ops>(tolerance: [f32; 2]) {
    let Some(dir) = golden() else { return };
    let v = Vectors(TensorFile::open(&dir.join("quant_and_losses.safetensors")).unwrap());
    for (name, quant) in [("w_b158", WeightQuant::Absmean), ("w_b1", WeightQuant::B1)] {
        let w = B::quantise_weight(v.rows::<B>("w"), quant).dense();
        close(name, &host(w), &v.get(name).1, 1e-6);
    }
    let more = Vectors(TensorFile::open(&dir.join("losses_and_more.safetensors")).unwrap());
    for (file, x, name, quant) in [
        (&v, "x", "a_int8", "int8"),
        (&v, "x", "a_int4", "int4"),
        (&v, "x", "a_topk50_int8", "top50%+int8"),
        (&more, "fp4.x", "fp4.e2m1", "fp4-e2m1"),
        (&more, "fp4.x", "fp4.e1m2", "fp4-e1m2"),
    ] {
        let x = B::quantise_acts(file.rows::<B>(x), quant.parse().unwrap());
        close(name, &host(x.dense()), &file.get(name).1, 2e-6);
    }
    let hadamard = Hadamard::<B>::new(64, &B::Device::default()).unwrap();
    let turned = host(hadamard.forward(more.rows::<B>("fp4.x")));
    // A product: on a GPU its operands may have fewer bits than f32.
    let bound = if tolerance[0] > 1e-5 {
        tolerance[0]
    } else {
        1e-6
    };
    close("hadamard", &turned, &more.get("hadamard.y").1, bound);

    for prefix in ["lin", "rmslin"] {
        for (case, weight, act) in [
            ("b158_a8", WeightQuant::Absmean, "int8"),
            ("b158_a4", WeightQuant::Absmean, "int4"),
            ("b1_a8", WeightQuant::B1, "int8"),
            ("b158_a8_top50", WeightQuant::Absmean, "top50%+int8"),
        ] {
            let quant = LinearQuant {
                weight,
                act: act.parse().unwrap(),
                lambda: 1.0,
                int8_grad_input: false,
            };
            bit_linear::<B>(&v, prefix, case, quant, tolerance);
        }
    }
}

pub(crate) fn gated_activation<B: Kernels + Ops>() {
    let Some(dir) = golden() else { return };
    let v = Vectors(TensorFile::open(&dir.join("quant_and_losses.safetensors")).unwrap());
    let up = v.rows::<B>("x");
    let y = <B as Kernels>::gated_act(up.clone().flip([1]), up, HiddenAct::Relu2);
    close("relu2glu", &host(y), &v.get("relu2glu").1, 1e-6);
}

#[test]
fn golden_quantisers_on_flex() {
    quantisers_and_bit_linear::<Flex>([1e-5; 2]);
    gated_activation::<Flex>();
}

#[test]
fn golden_quantisers_on_ndarray() {
    quantisers_and_bit_linear::<NdArray>([1e-5; 2]);
    gated_activation::<NdArray>();
}
