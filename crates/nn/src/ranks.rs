//! Threads that train replicas of one model together, each on a device of its own.

use std::any::Any;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use burn::prelude::DeviceOps as _;
use burn::tensor::backend::{Backend, DeviceId, DeviceOps as _};

use crate::{NnError, Result};

/// One of the threads that train replicas of one model.
///
/// Where one and all its clones are dropped before its work is done, the others learn of it at their next
/// [`Rank::gather`] instead of waiting for ever.
#[derive(Debug, Clone)]
pub struct Rank(Arc<Seat>);

/// The place of a rank among the others.
#[derive(Debug)]
struct Seat {
    index: usize,
    devices: Arc<[usize]>,
    table: Arc<Table>,
}

/// Where the ranks lay down what they give each other.
#[derive(Debug, Default)]
struct Table {
    round: Mutex<Round>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Round {
    given: Vec<Option<Arc<dyn Any + Send + Sync>>>,
    /// How many have taken what was given in this round, once all have given.
    taken: usize,
    open_to_take: bool,
    gone: bool,
}

impl Table {
    /// A thread that panicked while it held the lock is gone, which its [`Drop`] says.
    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done`, or until a rank is gone.
    fn wait_until<'a>(
        &'a self,
        mut round: MutexGuard<'a, Round>,
        done: impl Fn(&Round) -> bool,
    ) -> Result<MutexGuard<'a, Round>> {
        while !done(&round) {
            if round.gone {
                return Err(NnError::RankGone);
            }
            round = (self.changed.wait(round)).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(round)
    }
}

impl Rank {
    /// The one thread that trains on `device`.
    #[must_use]
    pub fn alone(device: usize) -> Self {
        Self(Arc::new(Seat {
            index: 0,
            devices: [device].into(),
            table: Arc::default(),
        }))
    }

    /// One for each of `devices`, which are numbered as their backend numbers them.
    #[must_use]
    pub fn group(devices: &[usize]) -> Vec<Self> {
        let table = Arc::new(Table::default());
        table.lock().given = vec![None; devices.len()];
        let devices: Arc<[usize]> = devices.into();
        let rank = |index| {
            Self(Arc::new(Seat {
                index,
                devices: Arc::clone(&devices),
                table: Arc::clone(&table),
            }))
        };
        (0..devices.len()).map(rank).collect()
    }

    /// Number of this rank, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.0.index
    }

    /// How many ranks there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.devices.len()
    }

    /// Whether this is the rank that writes files and reports.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.0.index == 0
    }

    /// The device of this rank.
    #[must_use]
    pub fn device<B: Backend>(&self) -> B::Device {
        device_of::<B>(self.0.devices[self.0.index])
    }

    /// The devices of all ranks, as the backend knows them.
    #[must_use]
    pub fn device_ids<B: Backend>(&self) -> Vec<DeviceId> {
        let id = |&device: &usize| device_of::<B>(device).id();
        self.0.devices.iter().map(id).collect()
    }

    /// Gives `value` to all ranks and returns what each gave, in their order. Every rank must call it, as
    /// often as the others, with values of the same type.
    ///
    /// # Errors
    /// [`NnError::RankGone`] where another rank has ended.
    pub fn gather<T: Any + Send + Sync>(&self, value: T) -> Result<Vec<Arc<T>>> {
        if self.count() == 1 {
            return Ok(vec![Arc::new(value)]);
        }
        let table = &*self.0.table;
        let mut round = table.wait_until(table.lock(), |round| !round.open_to_take)?;
        round.given[self.0.index] = Some(Arc::new(value));
        if round.given.iter().all(Option::is_some) {
            round.open_to_take = true;
            table.changed.notify_all();
        }
        let mut round = table.wait_until(round, |round| round.open_to_take)?;
        let given = round.given.iter().flatten().map(Arc::clone);
        let all = given.map(|value| {
            value
                .downcast()
                .unwrap_or_else(|_| unreachable!("same type"))
        });
        let all = all.collect();
        round.taken += 1;
        if round.taken == self.count() {
            round.given.fill(None);
            round.taken = 0;
            round.open_to_take = false;
            table.changed.notify_all();
        }
        Ok(all)
    }

    /// Waits for all ranks.
    ///
    /// # Errors
    /// As [`Rank::gather`].
    pub fn wait(&self) -> Result<()> {
        self.gather(()).map(drop)
    }

    /// The sums of what all ranks give, value by value, added in the order of ranks.
    ///
    /// # Errors
    /// As [`Rank::gather`].
    pub fn sum(&self, values: &[f32]) -> Result<Vec<f32>> {
        let mut sums = vec![0.0; values.len()];
        for given in self.gather(values.to_vec())? {
            sums.iter_mut().zip(&*given).for_each(|(s, v)| *s += v);
        }
        Ok(sums)
    }

    /// Does `work` on the first rank and, when that is done, on the others: they may read what it
    /// wrote.
    ///
    /// # Errors
    /// Those of `work`, and as [`Rank::gather`].
    pub fn first_alone<T, E: From<NnError>>(
        &self,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        if self.is_first() {
            let out = work()?;
            self.wait()?;
            Ok(out)
        } else {
            self.wait()?;
            work()
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.lock().gone = true;
        self.table.changed.notify_all();
    }
}

/// Device number `index` of a backend.
fn device_of<B: Backend>(index: usize) -> B::Device {
    let DeviceId { type_id, .. } = B::Device::default().id();
    #[allow(clippy::cast_possible_truncation)]
    let index_id = index as _;
    B::Device::from_id(DeviceId { type_id, index_id })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn sums_are_those_of_all_ranks_in_every_round() {
        std::thread::scope(|scope| {
            for rank in Rank::group(&[0, 1, 2]) {
                scope.spawn(move || {
                    for round in 0..200u8 {
                        let own = [f32::from(round), rank.index() as f32];
                        let sums = rank.sum(&own).unwrap();
                        assert_eq!(sums, [3.0 * f32::from(round), 3.0]);
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_waits_for_a_rank_that_ended() {
        std::thread::scope(|scope| {
            let mut ranks = Rank::group(&[0, 1, 2]).into_iter();
            let fails = ranks.next().unwrap();
            for rank in ranks {
                scope.spawn(move || {
                    rank.wait().unwrap();
                    assert!(matches!(rank.wait(), Err(NnError::RankGone)));
                });
            }
            fails.wait().unwrap();
        });
    }

    #[test]
    fn the_first_rank_goes_first() {
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for rank in Rank::group(&[0, 1]) {
                let done = &done;
                scope.spawn(move || {
                    let work = || Ok::<_, NnError>(done.fetch_add(1, Ordering::SeqCst));
                    assert_eq!(rank.first_alone(work).unwrap(), rank.index());
                });
            }
        });
    }

    #[test]
    fn one_alone_waits_for_nobody() {
        let rank = Rank::alone(0);
        assert_eq!(rank.sum(&[2.0]).unwrap(), [2.0]);
        rank.wait().unwrap();
    }
}
