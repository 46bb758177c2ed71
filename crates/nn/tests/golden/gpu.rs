//! The same on a GPU, with the tolerances that its products need.

use crate::models::model_logits;
use crate::operations::{gated_activation, quantisers_and_bit_linear};

/// Operands of the gradients are rounded to bf16.
#[cfg(feature = "cuda")]
const CUDA_GRADIENTS: f32 = 8e-3;

/// Attention multiplies in bf16, and what differs there turns some codes of the next activations.
#[cfg(feature = "cuda")]
const CUDA_TERNARY: f32 = 2e-2;

#[cfg(feature = "cuda")]
#[test]
fn golden_on_cuda() {
    type Cuda = burn::backend::Cuda;
    quantisers_and_bit_linear::<Cuda>([GPU, CUDA_GRADIENTS]);
    gated_activation::<Cuda>();
    model_logits::<Cuda>("llama", GPU);
    model_logits::<Cuda>("bitnet_online_autobitlinear", CUDA_TERNARY);
}

#[cfg(feature = "wgpu")]
#[test]
fn golden_on_wgpu() {
    type Wgpu = burn::backend::Wgpu;
    quantisers_and_bit_linear::<Wgpu>([GPU; 2]);
    gated_activation::<Wgpu>();
    model_logits::<Wgpu>("llama", GPU);
    model_logits::<Wgpu>("bitnet_online_autobitlinear", GPU);
}

/// GPU products may take operands of f32 in fewer bits: codes are exact there, the rest is not.
const GPU: f32 = 1e-3;
