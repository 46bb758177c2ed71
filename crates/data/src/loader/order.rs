//! The order of items: a new permutation in every epoch, made of seed and epoch alone.

use super::LoaderState;
use crate::dice::Dice;
use crate::error::{DataError, Result};

/// Batches of a window, inside which rows of like length come together.
const WINDOW: usize = 32;

/// Lengths of the items, and how many make a batch.
#[derive(Debug, Clone)]
struct Grouping {
    lengths: Vec<u32>,
    batch: usize,
}

/// Walks through `0..items` in a shuffled order, epoch after epoch.
#[derive(Debug, Clone)]
pub(super) struct Order {
    seed: u64,
    epoch: u64,
    position: usize,
    permutation: Vec<u32>,
    grouping: Option<Grouping>,
}

impl Order {
    /// Starts at epoch 0. Fails if there are no items, or more than 2³² − 1.
    pub(super) fn new(items: usize, seed: u64) -> Result<Self> {
        let count = u32::try_from(items).ok().filter(|&count| count > 0);
        let Some(count) = count else {
            return Err(DataError::Loader {
                message: format!("{items} items; need at least 1 and at most {}", u32::MAX),
            });
        };
        let mut order = Self {
            seed,
            epoch: 0,
            position: 0,
            permutation: (0..count).collect(),
            grouping: None,
        };
        order.shuffle();
        Ok(order)
    }

    /// Like [`Order::new`], with items of like length in the same batch, so that little of a batch
    /// is padding. Batches are still in random order, and so are the rows that meet in them up to
    /// their length.
    pub(super) fn grouped(lengths: Vec<u32>, batch: usize, seed: u64) -> Result<Self> {
        let mut order = Self::new(lengths.len(), seed)?;
        order.grouping = Some(Grouping { lengths, batch });
        order.shuffle();
        Ok(order)
    }

    fn shuffle(&mut self) {
        // From the identity each time, so that an epoch's order does not depend on earlier ones.
        for (index, item) in self.permutation.iter_mut().enumerate() {
            *item = index as u32;
        }
        let mut dice = Dice::new(self.seed, self.epoch);
        dice.shuffle(&mut self.permutation);
        let Some(Grouping { lengths, batch }) = &self.grouping else {
            return;
        };
        for window in self.permutation.chunks_mut(batch * WINDOW) {
            window.sort_by_key(|&item| lengths[item as usize]);
            let whole = window.len() / batch * batch;
            let mut batches: Vec<Vec<u32>> = window[..whole]
                .chunks(*batch)
                .map(<[u32]>::to_vec)
                .collect();
            dice.shuffle(&mut batches);
            window[..whole].copy_from_slice(&batches.concat());
        }
    }

    /// The next item; goes on with the next epoch behind the last one.
    pub(super) fn next(&mut self) -> usize {
        let item = self.permutation[self.position] as usize;
        self.position += 1;
        if self.position == self.permutation.len() {
            self.epoch += 1;
            self.position = 0;
            self.shuffle();
        }
        item
    }

    pub(super) fn len(&self) -> usize {
        self.permutation.len()
    }

    pub(super) fn state(&self) -> LoaderState {
        LoaderState {
            epoch: self.epoch,
            position: self.position as u64,
            seed: self.seed,
            items: self.permutation.len() as u64,
            stream: None,
        }
    }

    pub(super) fn restore(&mut self, state: &LoaderState) -> Result<()> {
        let fault = |what: &str, saved: u64, here: u64| DataError::Loader {
            message: format!(
                "the saved position has {what} {saved}, this run {here}; resume with the data and settings of the saved run"
            ),
        };
        if state.stream.is_some() {
            return Err(DataError::Loader {
                message: "the saved position is one in a streamed corpus; resume with data.stream as in the saved run".to_owned(),
            });
        }
        let items = self.permutation.len() as u64;
        if state.items != items {
            return Err(fault("item count", state.items, items));
        }
        if state.seed != self.seed {
            return Err(fault("seed", state.seed, self.seed));
        }
        if state.position >= items {
            return Err(fault("position", state.position, items));
        }
        self.epoch = state.epoch;
        self.position = state.position as usize;
        self.shuffle();
        Ok(())
    }
}
