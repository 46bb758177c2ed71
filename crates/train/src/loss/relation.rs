//! Relation distillation: the student's query-query, key-key and value-value attention follows the
//! teacher's (BitDistill §3.3, after MiniLMv2).

use burn::tensor::{Tensor, backend::Backend};
use tritburn_nn::attention::QkvStates;
use tritburn_nn::ops::{Ops, Relation};

use crate::recipe::RelationForm;

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
pub fn relation_loss<B: Ops>(
    student: &QkvStates<B>,
    teacher: &QkvStates<B>,
    mask: &Tensor<B, 1>,
    shape: RelationShape,
    form: RelationForm,
) -> Tensor<B, 1> {
    let relation = Relation {
        batch: shape.batch,
        seq: shape.seq,
        heads: shape.split_heads,
        cosine: form != RelationForm::Eq12,
    };
    let pairs = [
        (&student.q, &teacher.q),
        (&student.k, &teacher.k),
        (&student.v, &teacher.v),
    ];
    let [q, k, v] = pairs.map(|(s, t)| {
        let kl = B::relation_kl(s.clone(), t.clone(), relation);
        reduce(kl, mask, shape, form)
    });
    q + k + v
}

#[allow(clippy::cast_precision_loss)]
fn reduce<B: Backend>(
    kl: Tensor<B, 1>,
    mask: &Tensor<B, 1>,
    s: RelationShape,
    form: RelationForm,
) -> Tensor<B, 1> {
    let heads = s.split_heads as f64;
    let rows = (s.batch * s.seq) as f64;
    match form {
        RelationForm::Eq12 => {
            let kl = kl.reshape([s.batch, s.split_heads, s.seq]);
            let mask3 = mask.clone().reshape([s.batch, 1, s.seq]);
            (kl * mask3).sum() / (mask.clone().sum() * heads)
        }
        RelationForm::Alg1 => kl.sum() / (rows * heads),
        RelationForm::Official => kl.sum() / (rows * heads * heads),
    }
}
