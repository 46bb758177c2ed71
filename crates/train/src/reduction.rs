//! Sums of gradients over replicas, which start while the backward pass still runs.
//!
//! Gradients of blocks are whole from the last block to the first. As soon as those of some blocks are,
//! they are sent, and the sums run beside the backward pass through the blocks below. What is left when it
//! ends, such as the embedding, follows then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use burn::backend::Autodiff;
use burn::backend::autodiff::grads::Gradients;
use burn::module::{AutodiffModule, Module, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Tensor, backend::AutodiffBackend, backend::Backend};
use tritburn_nn::CausalLm;
use tritburn_nn::NnError;
use tritburn_nn::model::DecoderLayer;
use tritburn_nn::ops::{Kernels, Ops, on_backward};
use tritburn_nn::probe::{Blind, Probe};
use tritburn_nn::ranks::Rank;

use crate::error::Result;

/// Weights of the blocks that are sent together, at least. With fewer, starting the sums costs more than
/// they hide.
const SENT_TOGETHER: usize = 8 << 20;

/// Gradients of one step on their way to the other replicas.
#[derive(Debug)]
pub(crate) struct Reduction<B: Kernels> {
    rank: Rank,
    state: Arc<Mutex<State<B>>>,
}

#[derive(Debug)]
struct State<B: Backend> {
    rank: Rank,
    /// Of micro-batches before the last one.
    before: GradientsParams,
    sums: HashMap<ParamId, Tensor<B, 1>>,
    failed: Option<NnError>,
}

impl<B: Kernels> State<B> {
    fn send(&mut self, grads: Vec<(ParamId, Tensor<B, 1>)>) {
        if self.failed.is_some() {
            return;
        }
        let (ids, grads): (Vec<_>, Vec<_>) = grads.into_iter().unzip();
        match B::all_reduce(grads, &self.rank) {
            Ok(sums) => self.sums.extend(ids.into_iter().zip(sums)),
            Err(error) => self.failed = Some(error),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B: Kernels + Ops> Reduction<B> {
    /// Nothing is sent yet.
    pub(crate) fn new(rank: &Rank) -> Self {
        let state = State {
            rank: rank.clone(),
            before: GradientsParams::new(),
            sums: HashMap::new(),
            failed: None,
        };
        Self {
            rank: rank.clone(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Sends gradients of the blocks of `model` during the backward pass of what it is handed to; `before`
    /// are those of earlier micro-batches, to which they are added. Due for the last micro-batch of a step.
    pub(crate) fn sender(
        &self,
        model: &CausalLm<Autodiff<B>>,
        before: GradientsParams,
    ) -> Sender<B> {
        lock(&self.state).before = before;
        Sender::new(model, Arc::downgrade(&self.state))
    }

    /// Sums those of `grads` that were not sent, and returns all sums.
    ///
    /// # Errors
    /// [`NnError::RankGone`] where another replica has ended.
    pub(crate) fn finish<M>(
        self,
        model: &M,
        mut grads: GradientsAccumulator<M>,
        device: &B::Device,
    ) -> Result<GradientsParams>
    where
        M: AutodiffModule<Autodiff<B>>,
    {
        let mut state = lock(&self.state);
        let before = std::mem::replace(&mut state.before, GradientsParams::new());
        grads.accumulate(model, before);
        let mut grads = grads.grads();
        if self.rank.count() == 1 {
            return Ok(grads);
        }
        let mut take = Take::<B> {
            grads: &mut grads,
            taken: Vec::new(),
        };
        model.visit(&mut take);
        let left = take.taken;
        state.send(left);
        if let Some(failed) = state.failed.take() {
            return Err(failed.into());
        }
        B::await_sums(device);
        let mut put = Put::<B> {
            sums: std::mem::take(&mut state.sums),
            grads,
        };
        model.visit(&mut put);
        Ok(put.grads)
    }
}

/// Takes the gradient of one parameter out of those of the last micro-batch and of the earlier ones.
type TakeOne<B> =
    Box<dyn FnOnce(&mut Gradients, &mut GradientsParams) -> Option<(ParamId, Tensor<B, 1>)> + Send>;

/// Calls back from the backward pass between blocks.
pub(crate) struct Sender<B: Kernels> {
    state: Weak<Mutex<State<B>>>,
    /// For each block, what is sent once the gradient for its input is there.
    groups: Vec<Option<Vec<TakeOne<B>>>>,
    at: usize,
}

impl<B: Kernels + Ops> Sender<B> {
    fn new(model: &CausalLm<Autodiff<B>>, state: Weak<Mutex<State<B>>>) -> Self {
        let layers = &model.model.layers;
        let size = |layer: &DecoderLayer<Autodiff<B>>| layer.num_params();
        let mut groups: Vec<_> = layers.iter().map(|_| None).collect();
        let (mut open, mut values) = (Vec::new(), 0);
        for (i, layer) in layers.iter().enumerate().rev() {
            let mut each = Each(Vec::new());
            layer.visit(&mut each);
            open.extend(each.0);
            values += size(layer);
            if values >= SENT_TOGETHER || i == 0 {
                groups[i] = Some(std::mem::take(&mut open));
                values = 0;
            }
        }
        Self {
            state,
            groups,
            at: 0,
        }
    }
}

impl<B: Kernels + Ops> Probe<Autodiff<B>> for Sender<B> {
    fn residual(&mut self, x: Tensor<Autodiff<B>, 2>) -> Tensor<Autodiff<B>, 2> {
        let group = self.groups.get_mut(self.at).and_then(Option::take);
        self.at += 1;
        let Some(group) = group else {
            return x;
        };
        let state = self.state.clone();
        on_backward(x, move |grads| {
            let Some(state) = state.upgrade() else {
                return;
            };
            let mut state = lock(&state);
            let each = group.into_iter();
            let grads = each.filter_map(|take| take(grads, &mut state.before));
            let grads = grads.collect();
            state.send(grads);
        })
    }
}

/// What `work` makes with the sender looking on, or with nobody.
pub(crate) fn watched<B: Kernels + Ops, T>(
    sender: Option<Sender<B>>,
    work: impl FnOnce(&mut dyn Probe<Autodiff<B>>) -> T,
) -> T {
    match sender {
        Some(mut sender) => work(&mut sender),
        None => work(&mut Blind),
    }
}

/// What takes out the gradients of a module.
struct Each<B: Backend>(Vec<TakeOne<B>>);

impl<B: Kernels + Ops> ModuleVisitor<Autodiff<B>> for Each<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Autodiff<B>, D>>) {
        let (id, value) = (param.id, param.val());
        self.0.push(Box::new(move |grads, before| {
            let grad = value.grad_remove(grads)?;
            let grad = match before.remove::<B, D>(id) {
                Some(before) => before + grad,
                None => grad,
            };
            let size = grad.shape().num_elements();
            Some((id, grad.reshape([size])))
        }));
    }
}

/// Takes gradients out, in the order of parameters.
struct Take<'a, B: Backend> {
    grads: &'a mut GradientsParams,
    taken: Vec<(ParamId, Tensor<B, 1>)>,
}

impl<A: AutodiffBackend> ModuleVisitor<A> for Take<'_, A::InnerBackend> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
        if let Some(grad) = self.grads.remove::<A::InnerBackend, D>(param.id) {
            let size = grad.shape().num_elements();
            self.taken.push((param.id, grad.reshape([size])));
        }
    }
}

/// Puts sums in their place.
struct Put<B: Backend> {
    sums: HashMap<ParamId, Tensor<B, 1>>,
    grads: GradientsParams,
}

impl<A: AutodiffBackend> ModuleVisitor<A> for Put<A::InnerBackend> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
        if let Some(sum) = self.sums.remove(&param.id) {
            let sum = sum.reshape(param.dims());
            self.grads.register::<A::InnerBackend, D>(param.id, sum);
        }
    }
}
