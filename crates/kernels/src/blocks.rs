//! Memory for packed weights, filled on all threads.

use crate::layout::WeightBlock;
use crate::pool::Pool;

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
) -> Vec<WeightBlock> {
    let mut data: Vec<WeightBlock> = Vec::with_capacity(len);
    advise_large_pages(&mut data);
    let part = part.max(1);
    let start = Start(data.as_mut_ptr());
    pool.run(len.div_ceil(part), &|task| {
        let first = task * part;
        let n = part.min(len - first);
        // SAFETY: the range lies within the capacity and is this task's alone, since `run` gives out
        // each number once. Zero bytes are a block, so the part holds blocks before it is borrowed.
        #[allow(unsafe_code)]
        let blocks = unsafe {
            let first = start.get().add(first);
            first.write_bytes(0, n);
            std::slice::from_raw_parts_mut(first, n)
        };
        fill(task, blocks);
    });
    // SAFETY: `run` has returned, so every part was zeroed and filled.
    #[allow(unsafe_code)]
    unsafe {
        data.set_len(len);
    }
    data
}

/// Asks for pages of two megabytes, where the system has them only for who asks: a matrix then takes
/// some pages instead of a thousand, when it is filled and whenever it is read.
#[cfg(target_os = "linux")]
fn advise_large_pages(data: &mut Vec<WeightBlock>) {
    /// Smaller than any page that it could be in.
    const PAGE: usize = 4096;
    let bytes = data.spare_capacity_mut();
    let (first, len) = (bytes.as_mut_ptr().cast::<u8>(), size_of_val(bytes));
    let skip = first.align_offset(PAGE);
    if len < skip.saturating_add(1 << 21) {
        return;
    }
    // SAFETY: advice about a range that is ours changes no byte of it; where the system does not take
    // it, nothing happens.
    #[allow(unsafe_code)]
    unsafe {
        libc::madvise(first.add(skip).cast(), len - skip, libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_large_pages(_: &mut Vec<WeightBlock>) {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_part_is_filled_once() {
        for threads in [1, 3] {
            let pool = Pool::new(threads).unwrap();
            for (len, part) in [(0, 4), (1, 4), (4, 4), (9, 4), (9, 1), (9, 100), (3, 0)] {
                let data = filled(&pool, len, part, &|i, blocks| {
                    for (j, block) in blocks.iter_mut().enumerate() {
                        assert_eq!(*block, WeightBlock::ZERO);
                        block.0[0] = (i * part.max(1) + j) as u8 + 1;
                    }
                });
                let all: Vec<usize> = data.iter().map(|b| usize::from(b.0[0])).collect();
                assert_eq!(all, (1..=len).collect::<Vec<_>>(), "{len} {part}");
            }
        }
    }
}
