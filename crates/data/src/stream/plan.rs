//! The order of a corpus: epochs, units and windows.
//!
//! Windows are shuffled one by one, instead of a buffer that gives a random document for each one
//! taken in: what is in a window follows from its number, so a position needs no list of documents,
//! and windows can be tokenised apart from each other.

use std::ops::Range;
use std::sync::Arc;

use super::index::ShardIndex;
use crate::dice::Dice;

/// Streams of random numbers are numbered by epoch and, below that, by window; number 0 is the order
/// of units.
const WINDOWS_PER_EPOCH: u32 = 32;

/// A row group of a shard; units are numbered through all shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) shard: usize,
    pub(super) group: usize,
    pub(super) rows: u64,
}

/// Units of an index, in order.
pub(super) fn units(index: &ShardIndex) -> Vec<Unit> {
    let shards = index.shards.iter().enumerate();
    shards
        .flat_map(|(shard, entry)| {
            let groups = entry.rows.iter().enumerate();
            groups.map(move |(group, &rows)| Unit { shard, group, rows })
        })
        .collect()
}

/// What an order depends on.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) units: Arc<[Unit]>,
    pub(super) seed: u64,
    pub(super) shuffle: bool,
    /// Documents of a window.
    pub(super) window: u64,
    pub(super) rank: usize,
    pub(super) world: usize,
}

/// One rank's pass over its units.
#[derive(Debug, Clone)]
pub(super) struct Epoch {
    /// Units, each with the number of rows before it.
    order: Vec<(usize, u64)>,
    units: Arc<[Unit]>,
    rows: u64,
    window: u64,
}

impl Plan {
    /// The order of an epoch. Ranks take turns at the units, so that each unit is one rank's.
    pub(super) fn epoch(&self, epoch: u64) -> Epoch {
        let mut shards: Vec<Vec<usize>> = Vec::new();
        for (number, unit) in self.units.iter().enumerate() {
            shards.resize_with(shards.len().max(unit.shard + 1), Vec::new);
            // One without rows would take a rank's turn.
            if unit.rows > 0 {
                shards[unit.shard].push(number);
            }
        }
        if self.shuffle {
            let mut dice = Dice::new(self.seed, epoch << WINDOWS_PER_EPOCH);
            dice.shuffle(&mut shards);
            for groups in &mut shards {
                dice.shuffle(groups);
            }
        }
        let mut rows = 0;
        let own = shards.concat().into_iter().skip(self.rank);
        let order = own
            .step_by(self.world)
            .map(|unit| {
                let before = rows;
                rows += self.units[unit].rows;
                (unit, before)
            })
            .collect();
        Epoch {
            order,
            units: self.units.clone(),
            rows,
            window: self.window,
        }
    }

    /// Shuffles what is left of a window.
    pub(super) fn shuffle_window<T>(&self, epoch: u64, window: u64, documents: &mut [T]) {
        if self.window > 1 {
            let stream = (epoch << WINDOWS_PER_EPOCH) + window + 1;
            Dice::new(self.seed, stream).shuffle(documents);
        }
    }
}

impl Epoch {
    /// Windows of the epoch; the last one may be smaller.
    pub(super) fn windows(&self) -> u64 {
        self.rows.div_ceil(self.window)
    }

    /// Rows of a window, unit by unit.
    pub(super) fn window(&self, window: u64) -> Vec<(usize, Range<u64>)> {
        let from = window * self.window;
        let to = (from + self.window).min(self.rows);
        let first = self.order.partition_point(|&(_, before)| before <= from);
        let rest = &self.order[first.saturating_sub(1)..];
        let parts = rest.iter().take_while(|&&(_, before)| before < to);
        parts
            .map(|&(unit, before)| {
                let end = before + self.units[unit].rows;
                (unit, from.max(before) - before..to.min(end) - before)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(shuffle: bool, window: u64, rank: usize, world: usize) -> Plan {
        let rows = [(0, [5, 0, 3]), (1, [4, 4, 1]), (2, [7, 2, 6])];
        let units = rows.iter().flat_map(|&(shard, groups)| {
            let unit = move |(group, rows)| Unit { shard, group, rows };
            groups.into_iter().enumerate().map(unit)
        });
        Plan {
            units: units.collect(),
            seed: 5,
            shuffle,
            window,
            rank,
            world,
        }
    }

    fn rows(plan: &Plan, epoch: u64) -> Vec<(usize, u64)> {
        let epoch = plan.epoch(epoch);
        let windows = (0..epoch.windows()).map(|window| epoch.window(window));
        let mut all = Vec::new();
        for (number, parts) in windows.enumerate() {
            let size: u64 = parts.iter().map(|(_, r)| r.end - r.start).sum();
            let last = number as u64 + 1 == epoch.windows();
            assert!(size == plan.window || (last && size > 0), "{parts:?}");
            for (unit, range) in parts {
                all.extend(range.map(|row| (unit, row)));
            }
        }
        all
    }

    #[test]
    fn an_epoch_has_every_row_once_whatever_window_and_ranks() {
        let whole = rows(&plan(false, 1, 0, 1), 0);
        assert_eq!(whole.len(), 32);
        assert!(whole.is_sorted());
        for shuffle in [false, true] {
            for window in [1, 2, 3, 5, 8, 31, 32, 100] {
                for world in 1..4 {
                    let mut all: Vec<_> = (0..world)
                        .flat_map(|rank| rows(&plan(shuffle, window, rank, world), 3))
                        .collect();
                    all.sort_unstable();
                    assert_eq!(all, whole, "{window} {world}");
                }
            }
        }
    }

    #[test]
    fn epochs_differ_and_groups_of_a_shard_stay_together() {
        let plan = plan(true, 4, 0, 1);
        assert_ne!(rows(&plan, 0), rows(&plan, 1));
        assert_eq!(rows(&plan, 1), rows(&plan, 1));
        let shards: Vec<usize> = (plan.epoch(2).order.iter())
            .map(|&(unit, _)| plan.units[unit].shard)
            .collect();
        let mut changes = shards.clone();
        changes.dedup();
        assert_eq!(changes.len(), 3, "{shards:?}");
    }
}
