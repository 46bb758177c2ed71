//! The loss of one micro-batch.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use tritburn_data::{Batch, Segments};
use tritburn_nn::CausalLm;
use tritburn_nn::attention::QkvStates;
use tritburn_nn::model::{Forward, Tokens};
use tritburn_nn::ops::{Head, Kernels, Ops, TeacherHead};
use tritburn_nn::probe::{Blind, Probe, Residuals};

use crate::loss::{RelationShape, cross_entropy, distilled, hidden_loss, relation_loss};
use crate::recipe::{DistillSection, RelationForm};
use crate::scorer::{index, to_i32};

/// The loss to differentiate and its terms for the log.
pub(crate) struct Loss<A: AutodiffBackend> {
    pub(crate) total: Tensor<A, 1>,
    pub(crate) terms: Vec<(&'static str, Tensor<A::InnerBackend, 1>)>,
}

impl<A: AutodiffBackend> Loss<A> {
    fn add(&mut self, name: &'static str, term: Option<Tensor<A, 1>>, weight: f64) {
        if let Some(term) = term {
            self.terms.push((name, term.clone().inner()));
            self.total = self.total.clone() + term * weight;
        }
    }
}

/// Values of a loss and its terms, off the tape.
pub(crate) struct Measured<B: Backend> {
    pub(crate) total: Tensor<B, 1>,
    pub(crate) terms: Vec<(&'static str, Tensor<B, 1>)>,
}

/// A teacher and how to follow it.
pub(crate) struct Distillation<B: Kernels> {
    pub(crate) teacher: CausalLm<B>,
    pub(crate) section: DistillSection,
    pub(crate) teacher_layers: Vec<usize>,
    pub(crate) student_layers: Vec<usize>,
}

fn ints<B: Backend>(v: Vec<i32>, device: &B::Device) -> Tensor<B, 1, Int> {
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
fn starts<B: Backend>(
    segments: &Segments,
    [batch, seq]: [usize; 2],
    device: &B::Device,
) -> Tensor<B, 2, Int> {
    let places = segments.positions.iter().enumerate();
    let starts = places.map(|(i, &position)| index(i % seq) - to_i32(position));
    ints(starts.collect(), device).reshape([batch, seq])
}

/// A micro-batch on the device, and what a teacher says of it.
pub(crate) struct Lesson<'a, A: AutodiffBackend>
where
    A::InnerBackend: Kernels,
{
    batch: &'a Batch,
    distill: Option<&'a Distillation<A::InnerBackend>>,
    device: &'a A::Device,
    pub(crate) tokens: Tokens<A::InnerBackend>,
    taught: Option<Taught<A::InnerBackend>>,
}

/// What a teacher says.
struct Taught<B: Backend> {
    last: Forward<B>,
    /// What leaves its blocks; empty unless asked for.
    blocks: Vec<Tensor<B, 2>>,
    /// 1 where there is a token, 0 at padding.
    mask: Tensor<B, 1>,
}

impl<B: Kernels + Ops> Taught<B> {
    fn new(d: &Distillation<B>, tokens: Tokens<B>, mask: &[f32], device: &B::Device) -> Self {
        let hidden = d.section.hidden > 0.0;
        let (last, blocks) = pass(&d.teacher, tokens, &d.teacher_layers, hidden, &mut Blind);
        Self {
            last,
            blocks,
            mask: Tensor::from_data(TensorData::new(mask.to_vec(), [mask.len()]), device),
        }
    }
}

/// A forward pass, and what leaves the blocks where `hidden` states are wanted.
fn pass<B: Ops>(
    model: &CausalLm<B>,
    tokens: Tokens<B>,
    layers: &[usize],
    hidden: bool,
    probe: &mut dyn Probe<B>,
) -> (Forward<B>, Vec<Tensor<B, 2>>) {
    if !hidden {
        return (model.forward_probed(tokens, layers, probe), Vec::new());
    }
    let mut residuals = Residuals::behind(probe);
    let forward = model.forward_probed(tokens, layers, &mut residuals);
    (forward, residuals.blocks)
}

impl<'a, A> Lesson<'a, A>
where
    A: AutodiffBackend + Ops,
    A::InnerBackend: Kernels + Ops,
{
    /// Runs the teacher, if there is one.
    pub(crate) fn new(
        batch: &'a Batch,
        distill: Option<&'a Distillation<A::InnerBackend>>,
        device: &'a A::Device,
    ) -> Self {
        let shape = [batch.batch, batch.seq];
        let ids: Vec<i32> = batch.tokens.iter().map(|&t| to_i32(t)).collect();
        let tokens = Tokens {
            ids: ints(ids, device).reshape(shape),
            starts: batch.segments.as_ref().map(|s| starts(s, shape, device)),
        };
        let mask = &batch.attention_mask;
        let taught = distill.map(|d| Taught::new(d, tokens.clone(), mask, device));
        Self {
            batch,
            distill,
            device,
            tokens,
            taught,
        }
    }

    /// Layers whose states [`Lesson::relation`] wants, in its order.
    pub(crate) fn captured(&self) -> &'a [usize] {
        self.distill.map_or(&[], |d| &d.student_layers)
    }

    /// What the student's last states `hidden` `[batch · seq, width]` decide: cross-entropy over the
    /// batch's loss positions, and the divergence from the teacher's logits.
    pub(crate) fn head_loss(&self, hidden: Tensor<A, 2>, head: Head<A>) -> Loss<A> {
        let (batch, device) = (self.batch, self.device);
        let targets = |rows: &[i32]| {
            #[allow(clippy::cast_sign_loss)]
            let targets = rows.iter().map(|&r| to_i32(batch.targets[r as usize]));
            ints(targets.collect(), device)
        };
        let answer_rows = rows(&batch.loss_mask);
        let taught = self.distill.zip(self.taught.as_ref());
        let Some((d, taught)) = taught.filter(|(d, _)| d.section.logits > 0.0) else {
            let hidden = A::take_rows(hidden, ints(answer_rows.clone(), device));
            let total = cross_entropy(hidden, head, targets(&answer_rows));
            let terms = vec![("loss/ce", total.clone().inner())];
            return Loss { total, terms };
        };
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
        let student = A::take_rows(hidden, ints(kd_rows.clone(), device));
        let teacher = (taught.last.hidden.clone()).select(0, ints(kd_rows.clone(), device));
        let taught_by = d.teacher.head();
        #[allow(clippy::cast_possible_truncation)]
        let [ce, kd] = distilled(
            (student, head),
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
        let terms = vec![
            ("loss/ce", ce.clone().inner()),
            ("loss/logits", kd.clone().inner()),
        ];
        Loss {
            total: ce + kd * d.section.logits,
            terms,
        }
    }

    /// Divergence from the teacher's relations at the layer `slot` of [`Lesson::captured`]; none where
    /// the recipe asks for none.
    pub(crate) fn relation(&self, slot: usize, student: &QkvStates<A>) -> Option<Tensor<A, 1>> {
        let (d, taught) = self.distill.zip(self.taught.as_ref())?;
        if d.section.relation <= 0.0 {
            return None;
        }
        let [batch, seq] = [self.batch.batch, self.batch.seq];
        let mask = Tensor::<A, 1>::from_inner(taught.mask.clone());
        let shape = RelationShape {
            batch,
            seq,
            split_heads: d.section.split_heads,
        };
        let teacher = taught.last.states.get(slot)?.clone();
        let teacher = QkvStates {
            q: Tensor::from_inner(teacher.q),
            k: Tensor::from_inner(teacher.k),
            v: Tensor::from_inner(teacher.v),
        };
        let relation = relation_loss(student, &teacher, &mask, shape, d.section.form);
        // The published code takes the mean over layers, where the paper takes the sum.
        #[allow(clippy::cast_precision_loss)]
        Some(match d.section.form {
            RelationForm::Official => relation / d.student_layers.len() as f64,
            _ => relation,
        })
    }

    /// γ, the weight of all relations.
    pub(crate) fn gamma(&self) -> f64 {
        self.distill.map_or(0.0, |d| d.section.relation)
    }

    /// Distance of `student` `[batch · seq, width]`, which leaves block `i`, from what leaves the teacher's, as
    /// its share of the mean over blocks; none where the recipe asks for none.
    pub(crate) fn hidden(&self, i: usize, student: &Tensor<A, 2>) -> Option<Tensor<A, 1>> {
        let taught = self.taught.as_ref()?;
        let teacher = Tensor::from_inner(taught.blocks.get(i)?.clone());
        let mask = Tensor::from_inner(taught.mask.clone());
        let count = f64::from(self.batch.attention_mask.iter().sum::<f32>());
        #[allow(clippy::cast_precision_loss)]
        let blocks = taught.blocks.len() as f64;
        Some(hidden_loss(student.clone(), teacher, &mask, count) / blocks)
    }

    /// Weight of all hidden states.
    pub(crate) fn hidden_weight(&self) -> f64 {
        self.distill.map_or(0.0, |d| d.section.hidden)
    }
}

/// Cross-entropy over the batch's loss positions, and the distillation terms if there is a teacher. `probe`
/// looks on as the model passes.
pub(crate) fn loss<A>(
    model: &CausalLm<A>,
    (batch, distill): (&Batch, Option<&Distillation<A::InnerBackend>>),
    device: &A::Device,
    probe: &mut dyn Probe<A>,
) -> Loss<A>
where
    A: AutodiffBackend + Ops,
    A::InnerBackend: Kernels + Ops,
{
    let lesson = Lesson::<A>::new(batch, distill, device);
    let tokens = Tokens {
        ids: Tensor::from_inner(lesson.tokens.ids.clone()),
        starts: lesson.tokens.starts.clone().map(Tensor::from_inner),
    };
    let hidden = lesson.hidden_weight() > 0.0;
    let (forward, blocks) = pass(model, tokens, lesson.captured(), hidden, probe);
    let mut loss = lesson.head_loss(forward.hidden, model.head());
    let relations = forward.states.iter().enumerate();
    let relations = relations.filter_map(|(slot, states)| lesson.relation(slot, states));
    loss.add(
        "loss/relation",
        relations.reduce(|a, b| a + b),
        lesson.gamma(),
    );
    let blocks = blocks.iter().enumerate();
    let blocks = blocks.filter_map(|(i, x)| lesson.hidden(i, x));
    loss.add(
        "loss/hidden",
        blocks.reduce(|a, b| a + b),
        lesson.hidden_weight(),
    );
    loss
}
