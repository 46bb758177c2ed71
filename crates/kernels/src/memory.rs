//! How fast memory is read.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::blocks::filled;
use crate::exec::Exec;
use crate::layout::WeightBlock;
use crate::vectors::vectorized;
#[cfg(target_arch = "x86_64")]
use crate::x86_64;

/// Bytes that are read: more than the caches of most processors hold.
const MEMORY: usize = if cfg!(test) { 1 << 22 } else { 1 << 28 };
/// Passes over them in each way, of which the fastest counts.
const PASSES: usize = 4;
/// Blocks between requests.
#[cfg(target_arch = "x86_64")]
const SOME: usize = 8;
/// Blocks that a thread reads before it looks for more.
const PART: usize = 1 << 13;

/// Memory in which a matrix holds its weights.
#[derive(Debug, Clone, Copy)]
pub struct Region<'a>(&'a [WeightBlock]);

impl<'a> Region<'a> {
    pub(crate) fn of(blocks: &'a [WeightBlock]) -> Self {
        Self(blocks)
    }

    /// But for what does not fill a cache line.
    pub(crate) fn of_floats(values: &'a [f32]) -> Self {
        // SAFETY: blocks are bytes, of which every pattern is one.
        #[allow(unsafe_code)]
        let (_, blocks, _) = unsafe { values.align_to() };
        Self(blocks)
    }
}

/// Bytes a second that all threads of `exec` read together, from 256 MiB that lie as weights do: by
/// what the processor fetches itself, or with the kernels' requests ahead of use, which on a
/// Zen 4 were three times as fast.
#[must_use]
pub fn read_speed(exec: &Exec) -> f64 {
    let len = MEMORY / size_of::<WeightBlock>();
    // Not zeros, which the system could map to one page.
    let blocks = filled(&exec.pool, len, PART, &|i, part| {
        part.iter_mut().for_each(|block| block.0.fill(i as u8 | 1));
    });
    read_speed_of(exec, &[Region(&blocks)])
}

/// [`read_speed`] of memory that is there. What the caches hold of it counts, too.
#[must_use]
pub fn read_speed_of(exec: &Exec, regions: &[Region<'_>]) -> f64 {
    let parts: Vec<&[WeightBlock]> = regions.iter().flat_map(|r| r.0.chunks(PART)).collect();
    let bytes: usize = parts.iter().map(|part| size_of_val(*part)).sum();
    let pass = |ahead: bool| {
        let start = Instant::now();
        let total = AtomicU64::new(0);
        exec.pool.run(parts.len(), &|i| {
            let part = parts[i];
            let part = if ahead { sum_ahead(part) } else { sum(part) };
            total.fetch_add(part, Ordering::Relaxed);
        });
        black_box(total);
        bytes as f64 / start.elapsed().as_secs_f64()
    };
    let passes = (0..2 * PASSES).map(|i| pass(i % 2 == 1));
    passes.fold(0.0, f64::max)
}

/// [`sum`] with requests for later blocks.
fn sum_ahead(blocks: &[WeightBlock]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        let parts = blocks.chunks(SOME).map(|some| {
            some.iter().for_each(x86_64::ask_ahead);
            sum(some)
        });
        parts.fold(0, u64::wrapping_add)
    }
    #[cfg(not(target_arch = "x86_64"))]
    sum(blocks)
}

/// Sum of words, wrapping.
fn sum(blocks: &[WeightBlock]) -> u64 {
    vectorized(
        #[inline(always)]
        || {
            let words = blocks.iter().flat_map(|block| block.0.as_chunks().0);
            words.fold(0, |sum: u64, word| {
                sum.wrapping_add(u64::from_le_bytes(*word))
            })
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_word_is_read() {
        let mut blocks = vec![WeightBlock::ZERO; 3];
        for (i, block) in blocks.iter_mut().enumerate() {
            for (j, word) in block.0.as_chunks_mut().0.iter_mut().enumerate() {
                *word = (1u64 << (8 * i + j)).to_le_bytes();
            }
        }
        assert_eq!(sum(&blocks), (1 << 24) - 1);
        let many: Vec<_> = blocks.iter().cycle().take(7 * 3).copied().collect();
        assert_eq!(sum_ahead(&many), 7 * ((1 << 24) - 1));
        let exec = Exec::new(None, Some(2)).unwrap();
        assert!(read_speed(&exec).is_finite());
        let floats = [1.0; 200];
        let regions = [Region::of(&many), Region::of_floats(&floats)];
        assert!(regions[1].0.len() >= 11, "all but two ends");
        let speed = read_speed_of(&exec, &regions);
        assert!(speed > 0.0 && speed.is_finite());
    }
}
