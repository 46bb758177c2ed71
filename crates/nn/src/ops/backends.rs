//! Which backends the operations run on.

use std::sync::Arc;

use burn::backend::{Flex, NdArray};
use burn::tensor::{DType, Int, Tensor};
use tritburn_quant::config::HiddenAct;
use tritburn_quant::scheme::WeightQuant;

use super::head::HeadLoss;
use super::{
    AttentionShape, CacheQuant, Compute, Head, HeadTarget, Kernels, LinearQuant, Ops, QuantWeight,
    Relation, Starts,
};
use crate::packed::Packed;

impl Kernels for NdArray {
    const ON_HOST: bool = true;
}

#[cfg(feature = "wgpu")]
impl Kernels for burn::backend::Wgpu {}

/// On a backend without a tape the operation is its kernel.
macro_rules! plain_ops {
    ($backend:ty) => {
        impl Ops for $backend {
            fn bit_linear(
                x: Tensor<Self, 2>,
                weight: Tensor<Self, 2>,
                held: Option<QuantWeight<Self>>,
                quant: LinearQuant,
            ) -> Tensor<Self, 2> {
                super::autodiff::bit_linear_forward(x, weight, held, quant).0
            }

            fn activation_type(compute: Compute, device: &Self::Device) -> DType {
                super::product::activation_type::<Self>(compute, device)
            }

            fn take_rows(table: Tensor<Self, 2>, ids: Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
                <Self as Kernels>::take_rows(table, ids)
            }

            fn dense_matmul(
                x: Tensor<Self, 2>,
                weight: Tensor<Self, 2>,
                compute: Compute,
            ) -> Tensor<Self, 2> {
                <Self as Kernels>::dense_matmul(x, weight, compute)
            }

            fn packed_matmul(x: Tensor<Self, 2>, weight: &Arc<Packed>) -> Tensor<Self, 2> {
                <Self as Kernels>::packed_matmul(x, weight)
            }

            fn hold_weights(
                weights: Vec<(Tensor<Self, 2>, WeightQuant)>,
            ) -> Vec<QuantWeight<Self>> {
                <Self as Kernels>::quantise_weights(weights)
            }

            fn cache_quant(x: Tensor<Self, 2>, quant: CacheQuant) -> Tensor<Self, 2> {
                <Self as Kernels>::cache_quant(x, quant)
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

            fn self_attention(
                q: Tensor<Self, 2>,
                k: Tensor<Self, 2>,
                v: Tensor<Self, 2>,
                shape: AttentionShape,
                starts: Starts<Self>,
            ) -> Tensor<Self, 2> {
                <Self as Kernels>::self_attention(q, k, v, shape, starts).out
            }

            fn head_loss(
                hidden: Tensor<Self, 2>,
                head: Head<Self>,
                target: HeadTarget<Self>,
            ) -> Tensor<Self, 1> {
                HeadLoss::forward(hidden, head, target).0
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
