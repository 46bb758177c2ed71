//! Activation checkpointing: gradients block by block (Chen et al. 2016, arXiv 1604.06174).
//!
//! The forward pass runs off the tape and keeps what goes into each block. Then the loss, and the blocks
//! from the last to the first, are put on a tape of their own each, which is gone before the next one.
//! A tape inside a node of a tape would be shorter to write, but burn's backward pass locks its graphs.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{DType, Tensor};
use tritburn_data::Batch;
use tritburn_nn::CausalLm;
use tritburn_nn::attention::Layout;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_nn::probe::Blind;

use crate::objective::{Distillation, Lesson, Loss, Measured};

/// Adds the gradients of the loss of a micro-batch times `share` to `into`. They are those of the whole
/// model on one tape.
pub(crate) fn blockwise<B: Kernels + Ops>(
    model: &CausalLm<Autodiff<B>>,
    (batch, distill): (&Batch, Option<&Distillation<B>>),
    device: &B::Device,
    share: f32,
    into: &mut GradientsAccumulator<CausalLm<Autodiff<B>>>,
) -> Measured<B> {
    let lesson = Lesson::<Autodiff<B>>::new(batch, distill, device);
    let ids = lesson.tokens.ids.clone();
    let [batch, seq] = ids.dims();
    let starts = lesson.tokens.starts.clone();

    let plain = model.valid();
    let blocks = plain.model.layers.len();
    let layout = Layout {
        batch,
        seq,
        starts: starts.clone(),
    };
    let mut inputs = Vec::with_capacity(blocks);
    let mut x = plain.embed(ids.clone());
    for i in 0..blocks {
        inputs.push(x.clone());
        x = plain.block(i, x, &layout, &mut Blind).0;
    }
    drop(plain);

    let layout = Layout {
        batch,
        seq,
        starts: starts.map(Tensor::from_inner),
    };
    let leaf = |x: Tensor<B, 2>| Tensor::<Autodiff<B>, 2>::from_inner(x).require_grad();
    let last = leaf(x);
    let hidden = model.model.norm.forward(last.clone());
    let Loss { total, mut terms } = lesson.head_loss(hidden, model.head());
    let mut measured = total.clone().inner();
    let mut grad = add(model, (total * share).backward(), Some(&last), into);

    let (mut relations, mut distances) = (Term::default(), Term::default());
    for (i, input) in inputs.into_iter().enumerate().rev() {
        let x = leaf(input);
        let (y, states) = model.block(i, x.clone(), &layout, &mut Blind);
        let mut local = follow(y.clone(), grad);
        let slots = lesson.captured().iter().enumerate();
        for (slot, _) in slots.filter(|(_, l)| **l == i) {
            if let Some(relation) = lesson.relation(slot, &states) {
                relations.add(&relation);
                local = local + relation * (lesson.gamma() * f64::from(share));
            }
        }
        if let Some(distance) = lesson.hidden(i, &y) {
            distances.add(&distance);
            local = local + distance * (lesson.hidden_weight() * f64::from(share));
        }
        grad = add(model, local.backward(), Some(&x), into);
    }
    let embedded = model.embed(Tensor::from_inner(ids));
    add(model, follow(embedded, grad).backward(), None, into);

    for (name, Term(sum), weight) in [
        ("loss/relation", relations, lesson.gamma()),
        ("loss/hidden", distances, lesson.hidden_weight()),
    ] {
        if let Some(sum) = sum {
            measured = measured + sum.clone() * weight;
            terms.push((name, sum));
        }
    }
    Measured {
        total: measured,
        terms,
    }
}

/// The sum of a term over the blocks, off the tape.
struct Term<B: Kernels>(Option<Tensor<B, 1>>);

impl<B: Kernels> Default for Term<B> {
    fn default() -> Self {
        Self(None)
    }
}

impl<B: Kernels + Ops> Term<B> {
    fn add(&mut self, value: &Tensor<Autodiff<B>, 1>) {
        let value = value.clone().inner();
        self.0 = Some(match self.0.take() {
            Some(sum) => sum + value,
            None => value,
        });
    }
}

/// Something to differentiate whose gradient for `y` is `grad`.
fn follow<B: Kernels + Ops>(
    y: Tensor<Autodiff<B>, 2>,
    grad: Option<Tensor<B, 2>>,
) -> Tensor<Autodiff<B>, 1> {
    let grad = grad.map_or_else(|| y.zeros_like(), Tensor::from_inner);
    (y * grad).sum().cast(DType::F32)
}

/// Adds gradients of weights, and gives that of `x`.
fn add<B: Kernels + Ops>(
    model: &CausalLm<Autodiff<B>>,
    mut grads: <Autodiff<B> as burn::tensor::backend::AutodiffBackend>::Gradients,
    x: Option<&Tensor<Autodiff<B>, 2>>,
    into: &mut GradientsAccumulator<CausalLm<Autodiff<B>>>,
) -> Option<Tensor<B, 2>> {
    let of_x = x.and_then(|x| x.grad_remove(&mut grads));
    into.accumulate(model, GradientsParams::from_grads(grads, model));
    of_x
}
