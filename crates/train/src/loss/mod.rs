//! Training losses, each a plain function of tensors.

mod relation;

use burn::tensor::{Int, Tensor};
pub use relation::{RelationShape, relation_loss};
use tritburn_nn::ops::Ops;

/// Mean negative log-likelihood of `targets` `[rows]` under `logits` `[rows, vocab]`.
#[must_use]
pub fn cross_entropy<B: Ops>(logits: Tensor<B, 2>, targets: Tensor<B, 1, Int>) -> Tensor<B, 1> {
    B::nll(logits, targets).mean()
}

/// Mean over rows of KL(teacher ‖ student) of `softmax(logits / τ)` (BitDistill Eq. 9), times τ²
/// where asked. No gradient flows to the teacher.
#[must_use]
#[allow(clippy::cast_possible_truncation)]
pub fn logits_kd<B: Ops>(
    student: Tensor<B, 2>,
    teacher: Tensor<B, 2>,
    temperature: f64,
    tau_squared: bool,
) -> Tensor<B, 1> {
    let kl = B::kl(student, teacher, temperature as f32).mean();
    if tau_squared {
        kl * (temperature * temperature)
    } else {
        kl
    }
}
