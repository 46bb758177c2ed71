//! Products with weights in full precision.

use burn::tensor::{DType, Tensor};

use super::Kernels;

/// How the operands of a product with an unquantised weight are held. Sums are in f32 either way,
/// and so are weights, their gradients and moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compute {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16, forward and backward: mixed precision with f32 master weights. Where the
    /// device multiplies bf16 itself, activations and their gradients are bf16 between operations
    /// too.
    Bf16,
}

/// See [`Ops::activation_type`](super::Ops::activation_type).
pub(super) fn activation_type<B: Kernels>(compute: Compute, device: &B::Device) -> DType {
    if compute == Compute::Bf16 && B::fastest_compute(device) == compute {
        DType::BF16
    } else {
        DType::F32
    }
}

/// `x` rounded to the eight significant bits of bf16, half to even: adding and taking away 2¹⁶ · x
/// leaves them (Veltkamp 1968).
fn rounded<B: Kernels>(x: Tensor<B, 2>, compute: Compute) -> Tensor<B, 2> {
    match compute {
        Compute::F32 => x,
        Compute::Bf16 => {
            let x = x.cast(DType::F32);
            let up = x.clone() * 65_537.0;
            up.clone() - (up - x)
        }
    }
}

/// See [`Kernels::dense_matmul`].
pub(super) fn dense_matmul<B: Kernels>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    compute: Compute,
) -> Tensor<B, 2> {
    rounded(x, compute).matmul(rounded(weight, compute).transpose())
}

/// See [`Kernels::dense_matmul_grad`].
pub(super) fn dense_matmul_grad<B: Kernels>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    compute: Compute,
    grad: Tensor<B, 2>,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let grad = rounded(grad, compute);
    let grad_x = grad.clone().matmul(rounded(weight, compute));
    (grad_x, grad.transpose().matmul(rounded(x, compute)))
}
