//! BitLinear on an NVIDIA GPU: quantisers of one pass, an int8 product on the tensor cores, and
//! gradients in bf16.
//!
//! Forward sums are exact, as on the CPU. Gradients multiply bf16 operands and add in f32: they differ
//! from the reference by the rounding of the incoming gradient and of the input, 2⁻⁹ of each. Only
//! int8 codes are kept for the backward pass.
//!
//! The kernels are written for Hopper (compute capability 9.x), INT8 tokens and one absmean a weight,
//! with `in` a multiple of 16 and `out` of 8; everything else runs the reference.

mod gemm;
mod launch;
mod quantise;

use burn::backend::Cuda;
use burn::tensor::{DType, Int, Tensor, TensorPrimitive};
use burn_cubecl::kernel::into_contiguous;
use gemm::{Operand, Scales, gemm};
use launch::{Buffer, hopper};
use tritburn_quant::scheme::{ActQuant, WeightQuant};

use super::{Codes, Kernels, QuantActs, QuantWeight, quant};

fn buffer(x: Tensor<Cuda, 2>) -> Buffer {
    into_contiguous(x.into_primitive().tensor())
}

fn float(x: Buffer) -> Tensor<Cuda, 2> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

fn int(x: Buffer) -> Tensor<Cuda, 2, Int> {
    Tensor::from_primitive(x)
}

/// Whether the kernels take rows of `width` values.
fn fits(x: &Tensor<Cuda, 2>) -> bool {
    let [rows, width] = x.dims();
    let float = matches!(x.dtype(), DType::F32 | DType::BF16);
    rows > 0 && width > 0 && width.is_multiple_of(16) && width <= 16_384 && float && {
        let x = x.clone().into_primitive().tensor();
        hopper(&x.device, &x.client).is_some()
    }
}

impl Kernels for Cuda {
    fn quantise_weight(weight: Tensor<Self, 2>, quant: WeightQuant) -> QuantWeight<Self> {
        let dims = weight.dims();
        if quant != WeightQuant::Absmean || !dims[0].is_multiple_of(8) || !fits(&weight) {
            return quant::weight(weight, quant);
        }
        let [codes, wide, scale] = quantise::weight(&buffer(weight), dims);
        QuantWeight {
            codes: Codes::Int8(int(codes)),
            wide: Some(float(wide)),
            scale: float(scale),
        }
    }

    fn quantise_acts(x: Tensor<Self, 2>, quant: ActQuant) -> QuantActs<Self> {
        if quant != ActQuant::INT8 || !fits(&x) {
            return quant::acts(x, quant);
        }
        let (dims, dtype) = (x.dims(), x.dtype());
        let [codes, step] = quantise::acts(&buffer(x), dims);
        QuantActs {
            codes: Codes::Int8(int(codes)),
            step: float(step),
            dtype,
        }
    }

    fn code_matmul(x: &QuantActs<Self>, weight: &QuantWeight<Self>) -> Tensor<Self, 2> {
        let (Codes::Int8(codes), Codes::Int8(ternary)) = (&x.codes, &weight.codes) else {
            return quant::code_matmul(x, weight);
        };
        let (codes, ternary) = (
            codes.clone().into_primitive(),
            ternary.clone().into_primitive(),
        );
        let step = x.step.clone().into_primitive().tensor();
        let scale = weight.scale.clone().into_primitive().tensor();
        let [a, b] = [&codes, &ternary].map(|tensor| Operand {
            tensor,
            over_rows: false,
        });
        float(gemm(a, b, Scales::Rows(&step, &scale), x.dtype))
    }

    fn code_matmul_grad(
        x: QuantActs<Self>,
        weight: QuantWeight<Self>,
        grad: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        let (Codes::Int8(codes), Some(wide)) = (&x.codes, &weight.wide) else {
            return quant::code_matmul_grad(x, weight, grad);
        };
        let dims = grad.dims();
        let grad = quantise::to_bf16(&buffer(grad), dims);
        let wide = wide.clone().into_primitive().tensor();
        let scale = weight.scale.clone().into_primitive().tensor();
        let over_rows = |tensor| Operand {
            tensor,
            over_rows: true,
        };
        let rows = Operand {
            tensor: &grad,
            over_rows: false,
        };
        let grad_x = gemm(rows, over_rows(&wide), Scales::One(&scale), x.dtype);
        let step = x.step.clone().into_primitive().tensor();
        let dense = quantise::dense_acts(&codes.clone().into_primitive(), &step, x.codes.dims());
        let grad_w = gemm(
            over_rows(&grad),
            over_rows(&dense),
            Scales::None,
            DType::F32,
        );
        (float(grad_x), float(grad_w))
    }
}
