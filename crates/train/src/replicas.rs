//! Data parallelism: replicas of one model, each on a thread and a device of its own, that share the
//! micro-batches of every step.
//!
//! Replica `r` of `n` takes the micro-batches `r`, `r + n`, … of a step, so the data of a step, and up
//! to rounding its gradient, are the same for any number of devices. Gradients are summed over all
//! replicas, and each takes the same optimiser step. The first one measures, reports and writes. With
//! `data.stream.shards_per_device` a replica reads its micro-batches from shards of its own instead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

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
