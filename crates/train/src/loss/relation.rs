//! Relation distillation: the student's query-query, key-key and value-value attention follows the
//! teacher's (BitDistill §3.3, after MiniLMv2).

use burn::tensor::{Tensor, activation, backend::Backend};
use tritburn_nn::attention::QkvStates;

use crate::recipe::RelationForm;

/// Probabilities are clamped from below before the logarithm (Algorithm 1).
const MIN_PROBABILITY: f64 = 1e-8;

/// Norms are clamped from below when states are normalised, as in PyTorch's `normalize`.
const MIN_NORM: f64 = 1e-12;

/// Sequences and how states are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationShape {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each sequence.
    pub seq: usize,
    /// Heads that the joined states are split into.
    pub split_heads: usize,
}

/// Sum over query, key and value states of the divergence between teacher and student relations.
///
/// * `eq12`: relations `softmax(A·Aᵀ/√d_r)`, mean of KL over heads and over the tokens where
///   `mask` `[batch · seq]` is 1.
/// * `alg1`: states L2-normalised, temperature 1, probabilities clamped at 1e-8, KL summed and
///   divided by `batch · heads · seq`; padding is not masked.
/// * `official`: `alg1` divided once more by the head count, as in the published code.
///
/// Teacher and student may differ in width. No gradient flows to the teacher.
#[must_use]
pub fn relation_loss<B: Backend>(
    student: &QkvStates<B>,
    teacher: &QkvStates<B>,
    mask: &Tensor<B, 1>,
    shape: RelationShape,
    form: RelationForm,
) -> Tensor<B, 1> {
    let pairs = [
        (&student.q, &teacher.q),
        (&student.k, &teacher.k),
        (&student.v, &teacher.v),
    ];
    let terms = pairs.map(|(s, t)| {
        let s = log_relations(s.clone(), shape, form);
        let t = log_relations(t.clone().detach(), shape, form);
        let kl = t.clone().exp() * (t - s);
        reduce(kl, mask, shape, form)
    });
    let [q, k, v] = terms;
    q + k + v
}

/// Log-probabilities `[batch, heads, seq, seq]`.
fn log_relations<B: Backend>(
    states: Tensor<B, 2>,
    s: RelationShape,
    form: RelationForm,
) -> Tensor<B, 4> {
    let width = states.dims()[1] / s.split_heads;
    let a = states
        .reshape([s.batch, s.seq, s.split_heads, width])
        .swap_dims(1, 2);
    match form {
        RelationForm::Eq12 => {
            #[allow(clippy::cast_precision_loss)]
            let scale = 1.0 / (width as f64).sqrt();
            let scores = a.clone().matmul(a.swap_dims(2, 3)) * scale;
            activation::log_softmax(scores, 3)
        }
        RelationForm::Alg1 | RelationForm::Official => {
            let norm = (a.clone() * a.clone())
                .sum_dim(3)
                .sqrt()
                .clamp_min(MIN_NORM);
            let a = a / norm;
            let scores = a.clone().matmul(a.swap_dims(2, 3));
            activation::softmax(scores, 3)
                .clamp_min(MIN_PROBABILITY)
                .log()
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn reduce<B: Backend>(
    kl: Tensor<B, 4>,
    mask: &Tensor<B, 1>,
    s: RelationShape,
    form: RelationForm,
) -> Tensor<B, 1> {
    let heads = s.split_heads as f64;
    let rows = (s.batch * s.seq) as f64;
    match form {
        RelationForm::Eq12 => {
            let per_row = kl.sum_dim(3).reshape([s.batch, s.split_heads, s.seq]);
            let mask3 = mask.clone().reshape([s.batch, 1, s.seq]);
            (per_row * mask3).sum() / (mask.clone().sum() * heads)
        }
        RelationForm::Alg1 => kl.sum() / (rows * heads),
        RelationForm::Official => kl.sum() / (rows * heads * heads),
    }
}
