//! The loss of one micro-batch.

use burn::tensor::{Int, Tensor, TensorData, backend::AutodiffBackend};
use tritburn_data::{Batch, Segments};
use tritburn_nn::CausalLm;
use tritburn_nn::attention::QkvStates;
use tritburn_nn::model::Tokens;
use tritburn_nn::ops::{Head, Kernels, Ops, TeacherHead};

use crate::loss::{RelationShape, cross_entropy, distilled, relation_loss};
use crate::recipe::{DistillSection, RelationForm};
use crate::scorer::{index, to_i32};

/// The loss to differentiate and its terms for the log.
pub(crate) struct Loss<A: AutodiffBackend> {
    pub(crate) total: Tensor<A, 1>,
    pub(crate) terms: Vec<(&'static str, Tensor<A::InnerBackend, 1>)>,
}

/// A teacher and how to follow it.
pub(crate) struct Distillation<B: Kernels> {
    pub(crate) teacher: CausalLm<B>,
    pub(crate) section: DistillSection,
    pub(crate) teacher_layers: Vec<usize>,
    pub(crate) student_layers: Vec<usize>,
}

fn ints<B: burn::tensor::backend::Backend>(v: Vec<i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let n = v.len();
    Tensor::from_data(TensorData::new(v, [n]), device)
}

/// Rows of the flattened batch where `mask` is 1.
fn rows(mask: &[f32]) -> Vec<i32> {
    mask.iter()
        .enumerate()
        .filter(|(_, m)| **m > 0.0)
        .map(|(i, _)| index(i))
        .collect()
}

/// Where each token's document begins in its row.
fn starts<B: burn::tensor::backend::Backend>(
    segments: &Segments,
    [batch, seq]: [usize; 2],
    device: &B::Device,
) -> Tensor<B, 2, Int> {
    let places = segments.positions.iter().enumerate();
    let starts = places.map(|(i, &position)| index(i % seq) - to_i32(position));
    ints(starts.collect(), device).reshape([batch, seq])
}

/// Cross-entropy over the batch's loss positions, and the distillation terms if there is a teacher.
pub(crate) fn loss<A>(
    model: &CausalLm<A>,
    batch: &Batch,
    distill: Option<&Distillation<A::InnerBackend>>,
    device: &A::Device,
) -> Loss<A>
where
    A: AutodiffBackend + Ops,
    A::InnerBackend: Kernels + Ops,
{
    let shape = [batch.batch, batch.seq];
    let tokens: Vec<i32> = batch.tokens.iter().map(|&t| to_i32(t)).collect();
    let tokens =
        Tensor::<A, 1, Int>::from_data(TensorData::new(tokens, [shape[0] * shape[1]]), device)
            .reshape(shape);
    let capture = distill.map_or(&[][..], |d| &d.student_layers);
    let tokens = Tokens {
        ids: tokens,
        starts: batch.segments.as_ref().map(|s| starts(s, shape, device)),
    };
    let forward = model.forward(tokens.clone(), capture);

    let targets = |rows: &[i32]| {
        #[allow(clippy::cast_sign_loss)]
        let targets = rows.iter().map(|&r| to_i32(batch.targets[r as usize]));
        ints(targets.collect(), device)
    };
    let answer_rows = rows(&batch.loss_mask);
    let answers = |hidden: Tensor<A, 2>| {
        let hidden = A::take_rows(hidden, ints(answer_rows.clone(), device));
        cross_entropy(hidden, model.head(), targets(&answer_rows))
    };
    let Some(d) = distill else {
        let total = answers(forward.hidden);
        let terms = vec![("loss/ce", total.clone().inner())];
        return Loss { total, terms };
    };

    let tokens = Tokens {
        ids: tokens.ids.inner(),
        starts: tokens.starts.map(Tensor::inner),
    };
    let taught = d.teacher.forward(tokens, &d.teacher_layers);
    let mut terms = Vec::new();
    let mut total = if d.section.logits > 0.0 {
        let kd_rows = if d.section.prompt {
            rows(&batch.attention_mask)
        } else {
            answer_rows.clone()
        };
        #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss)]
        let weights: Vec<f32> = (kd_rows.iter())
            .map(|&r| batch.loss_mask[r as usize] / answer_rows.len() as f32)
            .collect();
        let weights = Tensor::from_data(TensorData::new(weights, [kd_rows.len()]), device);
        let student = A::take_rows(forward.hidden, ints(kd_rows.clone(), device));
        let teacher = taught.hidden.select(0, ints(kd_rows.clone(), device));
        let taught_by = d.teacher.head();
        #[allow(clippy::cast_possible_truncation)]
        let [ce, kd] = distilled(
            (student, model.head()),
            (targets(&kd_rows), weights),
            TeacherHead {
                hidden: Tensor::from_inner(teacher),
                head: Head {
                    weight: Tensor::from_inner(taught_by.weight),
                    compute: taught_by.compute,
                },
                temperature: d.section.temperature as f32,
            },
            d.section.tau_squared,
        );
        terms.push(("loss/ce", ce.clone().inner()));
        terms.push(("loss/logits", kd.clone().inner()));
        ce + kd * d.section.logits
    } else {
        let ce = answers(forward.hidden);
        terms.push(("loss/ce", ce.clone().inner()));
        ce
    };
    if d.section.relation > 0.0 {
        let mask = TensorData::new(batch.attention_mask.clone(), [shape[0] * shape[1]]);
        let mask = Tensor::<A, 1>::from_data(mask, device);
        let shape = RelationShape {
            batch: shape[0],
            seq: shape[1],
            split_heads: d.section.split_heads,
        };
        let relation = forward
            .states
            .iter()
            .zip(taught.states)
            .map(|(student, teacher)| {
                let teacher = QkvStates {
                    q: Tensor::from_inner(teacher.q),
                    k: Tensor::from_inner(teacher.k),
                    v: Tensor::from_inner(teacher.v),
                };
                relation_loss(student, &teacher, &mask, shape, d.section.form)
            })
            .reduce(|a, b| a + b);
        if let Some(relation) = relation {
            // The published code takes the mean over layers, where the paper takes the sum.
            #[allow(clippy::cast_precision_loss)]
            let relation = match d.section.form {
                RelationForm::Official => relation / d.student_layers.len() as f64,
                _ => relation,
            };
            terms.push(("loss/relation", relation.clone().inner()));
            total = total + relation * d.section.relation;
        }
    }
    Loss { total, terms }
}
