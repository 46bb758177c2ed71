//! A place in the forward pass at which the backward pass calls back.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops as Node, OpsKind};
use burn::tensor::Tensor;

use super::Kernels;
use super::autodiff::{raw, register, wrap};

type Call = Box<dyn FnOnce(&mut Gradients) + Send>;

/// What is called, once.
#[derive(Clone)]
struct Then(Arc<Mutex<Option<Call>>>);

impl std::fmt::Debug for Then {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Then")
    }
}

#[derive(Debug)]
struct OnBackward;

impl<B: Kernels> Backward<B, 1> for OnBackward {
    type State = Then;

    fn backward(
        self,
        node: Node<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&node.node);
        register::<B, _>(grads, node.parents.map(|p| p.map(|p| p.id)), [grad]);
        let mut then = node.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(then) = then.take() {
            then(grads);
        }
    }
}

/// `x` as it is. In the backward pass `then` is called as soon as the gradient for `x` is there. By then
/// gradients of all weights are whole that act on nothing but what comes of `x`.
///
/// The backward pass holds burn's graph: `then` may compute off the tape only.
pub fn on_backward<B: Kernels, C: CheckpointStrategy>(
    x: Tensor<Autodiff<B, C>, 2>,
    then: impl FnOnce(&mut Gradients) + Send + 'static,
) -> Tensor<Autodiff<B, C>, 2> {
    let x = raw(x);
    let same = x.primitive.clone();
    let prep = Backward::<B, 1>::prepare::<C>(OnBackward, [x.node]);
    wrap(match prep.compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            prep.finish(Then(Arc::new(Mutex::new(Some(Box::new(then))))), same)
        }
        OpsKind::UnTracked(prep) => prep.finish(same),
    })
}
