//! Training losses, each a plain function of tensors.

mod relation;

use burn::tensor::{Int, Tensor};
pub use relation::{RelationShape, relation_loss};
use tritburn_nn::ops::{Head, HeadTarget, Ops};

/// Mean negative log-likelihood of `targets` `[rows]` under `softmax(hidden · headᵀ)`; `hidden`
/// `[rows, width]`.
#[must_use]
pub fn cross_entropy<B: Ops>(
    hidden: Tensor<B, 2>,
    head: Head<B>,
    targets: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    B::head_loss(hidden, head, HeadTarget::Tokens(targets)).mean()
}

/// Mean over rows of KL(teacher ‖ student) of `softmax(logits / τ)` (BitDistill Eq. 9), times τ²
/// where asked, as in the published code. Each side is hidden states `[rows, width]` and head; no
/// gradient flows to the teacher.
#[must_use]
#[allow(clippy::cast_possible_truncation)]
pub fn logits_kd<B: Ops>(
    (hidden, head): (Tensor<B, 2>, Head<B>),
    teacher: (Tensor<B, 2>, Head<B>),
    temperature: f64,
    tau_squared: bool,
) -> Tensor<B, 1> {
    let target = HeadTarget::Teacher {
        hidden: teacher.0,
        head: teacher.1,
        temperature: temperature as f32,
    };
    let kl = B::head_loss(hidden, head, target).mean();
    if tau_squared {
        kl * (temperature * temperature)
    } else {
        kl
    }
}
