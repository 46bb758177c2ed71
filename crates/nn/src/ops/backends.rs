//! Which backends the operations run on.

use burn::backend::{Flex, NdArray};
use burn::tensor::{Int, Tensor};
use tritburn_quant::config::HiddenAct;

use super::{AttentionShape, Kernels, Ops, Relation};

impl Kernels for NdArray {}

#[cfg(feature = "wgpu")]
impl Kernels for burn::backend::Wgpu {}

#[cfg(feature = "cuda")]
impl Kernels for burn::backend::Cuda {}

/// On a backend without a tape the operation is its kernel.
macro_rules! plain_ops {
    ($backend:ty) => {
        impl Ops for $backend {
            fn bit_linear(x: Tensor<Self, 2>, weight: Tensor<Self, 2>) -> Tensor<Self, 2> {
                super::autodiff::bit_linear_forward(x, weight).0
            }

            fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
                <Self as Kernels>::rms_norm(x, weight, eps)
            }

            fn gated_act(
                gate: Tensor<Self, 2>,
                up: Tensor<Self, 2>,
                act: HiddenAct,
            ) -> Tensor<Self, 2> {
                <Self as Kernels>::gated_act(gate, up, act)
            }

            fn rope(
                x: Tensor<Self, 2>,
                cos: Tensor<Self, 2>,
                sin: Tensor<Self, 2>,
                seq: usize,
            ) -> Tensor<Self, 2> {
                <Self as Kernels>::rope(x, cos, sin, seq)
            }

            fn causal_attention(
                q: Tensor<Self, 2>,
                k: Tensor<Self, 2>,
                v: Tensor<Self, 2>,
                shape: AttentionShape,
            ) -> Tensor<Self, 2> {
                <Self as Kernels>::causal_attention(q, k, v, shape)
            }

            fn nll(logits: Tensor<Self, 2>, targets: Tensor<Self, 1, Int>) -> Tensor<Self, 1> {
                <Self as Kernels>::nll(logits, targets)
            }

            fn kl(
                student: Tensor<Self, 2>,
                teacher: Tensor<Self, 2>,
                temperature: f32,
            ) -> Tensor<Self, 1> {
                <Self as Kernels>::kl(student, teacher, temperature)
            }

            fn relation_kl(
                student: Tensor<Self, 2>,
                teacher: Tensor<Self, 2>,
                shape: Relation,
            ) -> Tensor<Self, 1> {
                <Self as Kernels>::relation_kl(student, teacher, shape)
            }
        }
    };
}

plain_ops!(Flex);
plain_ops!(NdArray);
#[cfg(feature = "wgpu")]
plain_ops!(burn::backend::Wgpu);
#[cfg(feature = "cuda")]
plain_ops!(burn::backend::Cuda);
