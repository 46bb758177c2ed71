//! The same on a GPU, with the tolerances that its products need.

use crate::models::model_logits;
use crate::operations::{gated_activation, quantisers_and_bit_linear};

/// Operands of the gradients are rounded to bf16.
#[cfg(feature = "cuda")]
const CUDA_GRADIENTS: f32 = 8e-3;

/// Attention rounds its operands to bf16.
#[cfg(feature = "cuda")]
const CUDA_MODEL: f32 = 5e-3;

/// What differs there turns some codes of the next activations.
#[cfg(feature = "cuda")]
const CUDA_TERNARY: f32 = 2e-2;

#[cfg(feature = "cuda")]
#[test]
fn golden_operations_on_cuda() {
    quantisers_and_bit_linear::<burn::backend::Cuda>([GPU, CUDA_GRADIENTS]);
}

#[cfg(feature = "cuda")]
#[test]
fn golden_gates_on_cuda() {
    gated_activation::<burn::backend::Cuda>();
}

#[cfg(feature = "cuda")]
#[test]
fn golden_models_on_cuda() {
    type Cuda = burn::backend::Cuda;
    model_logits::<Cuda>("llama", CUDA_MODEL);
    model_logits::<Cuda>("qwen2", CUDA_MODEL);
    model_logits::<Cuda>("qwen3", CUDA_MODEL);
    model_logits::<Cuda>("gemma3", CUDA_MODEL);
}

#[cfg(feature = "cuda")]
#[test]
fn golden_ternary_model_on_cuda() {
    model_logits::<burn::backend::Cuda>("bitnet_online_autobitlinear", CUDA_TERNARY);
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
