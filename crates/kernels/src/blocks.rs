//! Memory for packed weights, filled on all threads.

use std::ops::Deref;
use std::sync::Arc;

use crate::layout::WeightBlock;
use crate::pool::Pool;
use crate::room::Memory;

/// Blocks that were filled once and are only read since. A clone is the same memory.
#[derive(Clone)]
pub(crate) struct Blocks(Arc<Filled>);

struct Filled {
    start: *const WeightBlock,
    len: usize,
    /// Holds them.
    _memory: Memory,
}

// SAFETY: the blocks are owned and only read.
#[allow(unsafe_code)]
unsafe impl Send for Filled {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Filled {}

impl Deref for Blocks {
    type Target = [WeightBlock];

    #[inline]
    fn deref(&self) -> &[WeightBlock] {
        // SAFETY: `len` blocks from `start` on were zeros or made zeros, then filled, in memory
        // that stays as long as this and that nobody writes to.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.0.start, self.0.len)
        }
    }
}

impl PartialEq for Blocks {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blocks({})", self.len())
    }
}

/// Where the parts of a buffer begin.
struct Start(*mut WeightBlock);

// SAFETY: the only use is in `filled`, where every task writes a part of its own.
#[allow(unsafe_code)]
unsafe impl Sync for Start {}

impl Start {
    fn get(&self) -> *mut WeightBlock {
        self.0
    }
}

/// `len` blocks, of which `fill` gets each `part` in turn, zeroed, with its number; the last may be
/// shorter. A part is touched for the first time by the thread that fills it: the system's work for
/// new pages is spread over the threads too.
pub(crate) fn filled(
    pool: &Pool,
    len: usize,
    part: usize,
    fill: &(dyn Fn(usize, &mut [WeightBlock]) + Sync),
) -> Blocks {
    let mut memory = Memory::new(len);
    let zeroed = memory.is_zeroed();
    let part = part.max(1);
    let start = Start(memory.start());
    pool.run(len.div_ceil(part), &|task| {
        let first = task * part;
        let n = part.min(len - first);
        // SAFETY: the range lies within the memory and is this task's alone, since `run` gives out
        // each number once. Zero bytes are a block, and parts of mappings are zeros from the start,
        // so the part holds blocks before it is borrowed.
        #[allow(unsafe_code)]
        let blocks = unsafe {
            let first = start.get().add(first);
            if !zeroed {
                first.write_bytes(0, n);
            }
            std::slice::from_raw_parts_mut(first, n)
        };
        fill(task, blocks);
    });
    // `run` has returned, so every part holds blocks.
    Blocks(Arc::new(Filled {
        start: start.get(),
        len,
        _memory: memory,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_part_is_filled_once() {
        let large = if cfg!(miri) { 10 } else { 70_000 };
        for threads in [1, 3] {
            let pool = Pool::new(threads).unwrap();
            for (len, part) in [
                (0, 4),
                (1, 4),
                (4, 4),
                (9, 4),
                (9, 1),
                (9, 100),
                (3, 0),
                (large, 7),
            ] {
                let data = filled(&pool, len, part, &|i, blocks| {
                    for (j, block) in blocks.iter_mut().enumerate() {
                        assert_eq!(*block, WeightBlock::ZERO);
                        let number = (i * part.max(1) + j) as u32 + 1;
                        block.0[..4].copy_from_slice(&number.to_le_bytes());
                    }
                });
                let number = |b: &WeightBlock| {
                    b.0[0..4]
                        .iter()
                        .rev()
                        .fold(0, |n, b| n << 8 | usize::from(*b))
                };
                let all: Vec<usize> = data.iter().map(number).collect();
                assert_eq!(all, (1..=len).collect::<Vec<_>>(), "{len} {part}");
                // The same memory, which outlives the first.
                let clone = data.clone();
                assert!(clone == data && clone.as_ptr() == data.as_ptr());
                drop(data);
                assert!(clone.iter().map(number).eq(1..=len));
            }
        }
    }

    #[test]
    fn a_panic_leaves_nothing_behind() {
        let pool = Pool::new(2).unwrap();
        let fill = || filled(&pool, 5000, 100, &|i, _| assert_ne!(i, 30));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(fill));
        assert!(result.is_err());
    }
}
