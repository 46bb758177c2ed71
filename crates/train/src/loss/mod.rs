//! Training losses, each a plain function of tensors.

mod relation;

use burn::tensor::{Int, Tensor, activation, backend::Backend};
pub use relation::{RelationShape, relation_loss};

/// Mean negative log-likelihood of `targets` `[rows]` under `logits` `[rows, vocab]`.
#[must_use]
pub fn cross_entropy<B: Backend>(logits: Tensor<B, 2>, targets: Tensor<B, 1, Int>) -> Tensor<B, 1> {
    let rows = targets.dims()[0];
    let log_probs = activation::log_softmax(logits, 1);
    log_probs.gather(1, targets.reshape([rows, 1])).mean().neg()
}

/// Mean over rows of KL(teacher ‖ student) of `softmax(logits / τ)` (BitDistill Eq. 9), times τ²
/// where asked. No gradient flows to the teacher.
#[must_use]
pub fn logits_kd<B: Backend>(
    student: Tensor<B, 2>,
    teacher: Tensor<B, 2>,
    temperature: f64,
    tau_squared: bool,
) -> Tensor<B, 1> {
    let log_s = activation::log_softmax(student / temperature, 1);
    let log_t = activation::log_softmax(teacher.detach() / temperature, 1);
    let kl = (log_t.clone().exp() * (log_t - log_s)).sum_dim(1).mean();
    if tau_squared {
        kl * (temperature * temperature)
    } else {
        kl
    }
}
