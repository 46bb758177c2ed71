//! Data parallelism: replicas of one model, each on a thread and a device of its own, that share the
//! micro-batches of every step.
//!
//! Replica `r` of `n` takes the micro-batches `r`, `r + n`, … of a step, so the data of a step, and up
//! to rounding its gradient, are the same for any number of devices. Gradients are summed over all
//! replicas, and each takes the same optimiser step. The first one measures, reports and writes. With
//! `data.stream.shards_per_device` a replica reads its micro-batches from shards of its own instead.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use burn::module::{AutodiffModule, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
};
use tritburn_data::LoaderState;
use tritburn_nn::NnError;
use tritburn_nn::device::Devices;
use tritburn_nn::ops::Kernels;
use tritburn_nn::ranks::Rank;

use crate::error::{Result, TrainError};

/// Refuses devices that are not there, and steps whose micro-batches cannot be shared evenly; `steps`
/// has the field and the number of micro-batches of each.
///
/// # Errors
/// [`NnError::Devices`], or [`TrainError::Recipe`] with every field at once.
pub(crate) fn check<B: Kernels>(
    devices: &Devices,
    recipe: &str,
    steps: impl Iterator<Item = (String, usize)>,
) -> Result<()> {
    devices.check::<B>()?;
    let count = devices.numbers.len();
    let uneven = steps.filter(|(_, parts)| !parts.is_multiple_of(count));
    let problems: Vec<String> = uneven
        .map(|(field, parts)| {
            format!(
                "{field}: {parts} cannot be shared by {count} devices; take a multiple of {count} \
                 and a smaller batch_size for the same step"
            )
        })
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(TrainError::Recipe {
        origin: recipe.to_owned(),
        problems,
    })
}

/// Runs `first` on this thread for the first of `devices`, and `other` on a thread for each of the
/// others.
///
/// # Errors
/// That of the first replica that failed by itself, and not because another one was gone.
pub(crate) fn run<T>(
    devices: &Devices,
    first: impl FnOnce(&Rank) -> Result<T>,
    other: impl Fn(&Rank) -> Result<()> + Sync,
) -> Result<T> {
    let mut ranks = Rank::group(&devices.numbers).into_iter();
    let rank = ranks.next().unwrap_or_else(|| Rank::alone(0));
    thread::scope(|scope| {
        let other = &other;
        let others: Vec<_> = ranks
            .map(|rank| scope.spawn(move || other(&rank)))
            .collect();
        let out = first(&rank);
        // Whoever still waits for this replica learns that it is gone.
        drop(rank);
        let mut failures = Vec::new();
        for other in others {
            match other.join() {
                Ok(result) => failures.extend(result.err()),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let gone = |error: &TrainError| matches!(error, TrainError::Nn(NnError::RankGone));
        let reason = failures.into_iter().find(|error| !gone(error));
        match (out, reason) {
            (Err(error), Some(reason)) if gone(&error) => Err(reason),
            (Ok(_), Some(reason)) => Err(reason),
            (out, _) => out,
        }
    })
}

/// What replicas tell each other behind a step.
pub(crate) struct Meeting {
    /// Whether any was asked to stop: all stop behind the same step.
    pub(crate) stops: bool,
    /// Positions in the data, of the first replica and of the others where they differ from it.
    pub(crate) positions: Vec<LoaderState>,
}

/// Waits for all replicas, of which this one stands at `position`.
///
/// # Errors
/// [`NnError::RankGone`].
pub(crate) fn meet(rank: &Rank, stop: &AtomicBool, position: LoaderState) -> Result<Meeting> {
    let all = rank.gather((stop.load(Ordering::Relaxed), position))?;
    let stops = all.iter().any(|told| told.0);
    let mut positions: Vec<_> = all.iter().map(|told| told.1.clone()).collect();
    if positions.iter().all(|position| *position == positions[0]) {
        positions.truncate(1);
    }
    Ok(Meeting { stops, positions })
}

/// Sums the gradients of all replicas.
///
/// # Errors
/// [`NnError::RankGone`].
pub(crate) fn sum_gradients<A, M>(
    model: &M,
    mut grads: GradientsParams,
    rank: &Rank,
) -> Result<GradientsParams>
where
    A: AutodiffBackend<InnerBackend: Kernels>,
    M: AutodiffModule<A>,
{
    let mut take = Take::<A::InnerBackend> {
        grads: &mut grads,
        ids: Vec::new(),
        flat: Vec::new(),
    };
    model.visit(&mut take);
    let Take { ids, flat, .. } = take;
    let sums = A::InnerBackend::all_reduce(flat, rank)?;
    let mut put = Put::<A::InnerBackend> {
        sums: ids.into_iter().zip(sums).collect(),
        grads,
    };
    model.visit(&mut put);
    Ok(put.grads)
}

/// Takes gradients out, in the order of parameters.
struct Take<'a, B: Backend> {
    grads: &'a mut GradientsParams,
    ids: Vec<ParamId>,
    flat: Vec<Tensor<B, 1>>,
}

impl<A: AutodiffBackend> ModuleVisitor<A> for Take<'_, A::InnerBackend> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
        if let Some(grad) = self.grads.remove::<A::InnerBackend, D>(param.id) {
            let size = grad.shape().num_elements();
            self.ids.push(param.id);
            self.flat.push(grad.reshape([size]));
        }
    }
}

/// Puts gradients back.
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
