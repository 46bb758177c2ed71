//! Training losses, each a plain function of tensors.

mod hidden;
mod relation;

use burn::tensor::{Int, Tensor};
pub use hidden::hidden_loss;
pub use relation::{RelationShape, relation_loss};
use tritburn_nn::ops::{Head, HeadTarget, Ops, TeacherHead};

/// Mean negative log-likelihood of `targets` `[rows]` under `softmax(hidden · headᵀ)`; `hidden`
/// `[rows, width]`.
#[must_use]
pub fn cross_entropy<B: Ops>(
    hidden: Tensor<B, 2>,
    head: Head<B>,
    targets: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    B::head_loss(hidden, head, targets.into()).mean()
}

/// Losses of the same rows, which share the student's logits: cross-entropy, the sum of the negative
/// log-likelihoods of `tokens` `[rows]` with `weights` `[rows]`; and the mean over rows of KL(teacher ‖
/// student) of `softmax(logits / τ)` (BitDistill Eq. 9), times τ² where asked, as in the published code.
/// No gradient flows to the teacher.
#[must_use]
pub fn distilled<B: Ops>(
    (hidden, head): (Tensor<B, 2>, Head<B>),
    (tokens, weights): (Tensor<B, 1, Int>, Tensor<B, 1>),
    teacher: TeacherHead<B>,
    tau_squared: bool,
) -> [Tensor<B, 1>; 2] {
    let rows = hidden.dims()[0];
    let temperature = f64::from(teacher.temperature);
    let target = HeadTarget {
        tokens: Some(tokens),
        teacher: Some(teacher),
    };
    let losses = B::head_loss(hidden, head, target);
    let cross_entropy = (losses.clone().narrow(0, 0, rows) * weights).sum();
    let kl = losses.narrow(0, rows, rows).mean();
    let factor = if tau_squared {
        temperature * temperature
    } else {
        1.0
    };
    [cross_entropy, kl * factor]
}
