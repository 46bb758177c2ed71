//! The loss of one micro-batch.

use burn::tensor::{Int, Tensor, TensorData, backend::AutodiffBackend};
use tritburn_data::Batch;
use tritburn_nn::CausalLm;
use tritburn_nn::attention::QkvStates;
use tritburn_nn::ops::{Head, Kernels, Ops};

use crate::loss::{RelationShape, cross_entropy, logits_kd, relation_loss};
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
    let forward = model.forward(tokens.clone(), capture);

    let answer_rows = rows(&batch.loss_mask);
    #[allow(clippy::cast_sign_loss)]
    let targets = answer_rows
        .iter()
        .map(|&r| to_i32(batch.targets[r as usize]))
        .collect();
    let hidden = A::take_rows(forward.hidden.clone(), ints(answer_rows.clone(), device));
    let ce = cross_entropy(hidden.clone(), model.head(), ints(targets, device));
    let mut terms = vec![("loss/ce", ce.clone().inner())];
    let mut total = ce;
    let Some(d) = distill else {
        return Loss { total, terms };
    };

    let taught = d.teacher.forward(tokens.inner(), &d.teacher_layers);
    if d.section.logits > 0.0 {
        let kd_rows = if d.section.prompt {
            rows(&batch.attention_mask)
        } else {
            answer_rows
        };
        let student = if d.section.prompt {
            A::take_rows(forward.hidden, ints(kd_rows.clone(), device))
        } else {
            hidden
        };
        let teacher = taught.hidden.select(0, ints(kd_rows, device));
        let taught_by = d.teacher.head();
        let kd = logits_kd(
            (student, model.head()),
            (
                Tensor::from_inner(teacher),
                Head {
                    weight: Tensor::from_inner(taught_by.weight),
                    compute: taught_by.compute,
                },
            ),
            d.section.temperature,
            d.section.tau_squared,
        );
        terms.push(("loss/logits", kd.clone().inner()));
        total = total + kd * d.section.logits;
    }
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
