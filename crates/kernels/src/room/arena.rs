//! Memory of large matrices and caches, cut from mappings without gaps.
//!
//! An allocator rounds what is asked for up, in steps of an eighth of it, and where pages are of two
//! megabytes what was rounded up is in memory too. Matrices beside each other also share such pages,
//! which those of a megabyte could not have alone.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use memmap2::{MmapMut, MmapOptions};

use crate::layout::WeightBlock;

/// Bytes of a mapping. Only what is written is memory, up to the end of the last page: the fewer
/// mappings, the less of that.
const MAPPING: usize = if cfg!(test) { 8 << 20 } else { 256 << 20 };
/// A large page, where mappings begin.
const LARGE_PAGE: usize = 2 << 20;

/// Memory that parts are cut from, one after the other and each once.
#[derive(Debug)]
struct Mapping {
    /// Unmapped with the last part.
    _memory: MmapMut,
    start: *mut WeightBlock,
    /// Blocks from `start` on.
    len: usize,
}

// SAFETY: nothing is read or written through a mapping, only through its parts, each with blocks of
// its own.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

/// Blocks of a mapping that nobody else has. Zeros until they are written.
#[derive(Debug)]
pub(crate) struct Part {
    mapping: Arc<Mapping>,
    first: usize,
    len: usize,
}

/// The mapping that the next parts come from, and the blocks that are taken.
static OPEN: Mutex<(Weak<Mapping>, usize)> = Mutex::new((Weak::new(), 0));

impl Mapping {
    fn new(blocks: usize) -> Option<Arc<Self>> {
        let bytes = blocks.checked_mul(size_of::<WeightBlock>())?;
        let mut options = MmapOptions::new();
        options
            .len(bytes.checked_add(LARGE_PAGE)?)
            .no_reserve_swap();
        let mut memory = options.map_anon().ok()?;
        // Where the system has large pages only for who asks; another has them, or does not.
        let _ = memory.advise(memmap2::Advice::HugePage);
        let skip = memory.as_ptr().align_offset(LARGE_PAGE);
        let start = memory.get_mut(skip..skip.checked_add(bytes)?)?;
        Some(Arc::new(Self {
            start: start.as_mut_ptr().cast(),
            len: blocks,
            _memory: memory,
        }))
    }
}

impl Part {
    /// `len` blocks; `None` where the system gives none.
    pub(super) fn new(len: usize) -> Option<Self> {
        const BLOCKS: usize = MAPPING / size_of::<WeightBlock>();
        if len > BLOCKS / 2 {
            // The rest of the open mapping is kept for smaller ones.
            let mapping = Mapping::new(len)?;
            return Some(Self {
                mapping,
                first: 0,
                len,
            });
        }
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (mapping, first) = match open.0.upgrade() {
            Some(mapping) if len <= mapping.len - open.1 => (mapping, open.1),
            _ => (Mapping::new(BLOCKS)?, 0),
        };
        *open = (Arc::downgrade(&mapping), first + len);
        Some(Self {
            mapping,
            first,
            len,
        })
    }

    /// Where the blocks begin.
    pub(super) fn start(&self) -> *mut WeightBlock {
        // SAFETY: a part lies inside its mapping.
        #[allow(unsafe_code)]
        unsafe {
            self.mapping.start.add(self.first)
        }
    }
}

impl Drop for Part {
    /// Gives whole pages back: other parts may keep the mapping for long.
    fn drop(&mut self) {
        let page = rustix::param::page_size();
        let bytes = self.len * size_of::<WeightBlock>();
        let start = self.start().cast::<u8>();
        let skip = start.align_offset(page);
        let whole = bytes.saturating_sub(skip) / page * page;
        if whole > 0 {
            // SAFETY: whole pages inside a part, which nobody else has and nobody reads again.
            #[allow(unsafe_code)]
            unsafe {
                libc::madvise(start.add(skip).cast(), whole, libc::MADV_DONTNEED);
            }
        }
    }
}

// Miri knows no mapping of this kind.
#[cfg(all(test, not(miri)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BLOCK: usize = size_of::<WeightBlock>();

    /// All blocks, to be written.
    fn blocks(part: &mut Part) -> &mut [WeightBlock] {
        // SAFETY: the part's own, zeros at first.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(part.start(), part.len)
        }
    }

    #[test]
    fn parts_keep_what_is_written_while_others_come_and_go() {
        // Some share a mapping, some begin one, and the last has its own.
        let sizes = [1, 3000, 20_000, 60_000, 5, 40_000, 70_000, 131_072];
        let mut parts: Vec<(usize, Part)> = Vec::new();
        for round in 0..4 {
            for (i, len) in sizes.into_iter().enumerate() {
                let mut part = Part::new(len).unwrap();
                assert!(part.start().is_aligned());
                let all = blocks(&mut part);
                assert_eq!(all.len(), len);
                assert!(all.iter().all(|b| *b == WeightBlock::ZERO), "{len}");
                let mark = round * 8 + i + 1;
                all.iter_mut().for_each(|b| b.0.fill(mark as u8));
                parts.push((mark, part));
            }
            // Every third goes.
            let mut at = 0;
            parts.retain(|_| {
                at += 1;
                at % 3 != 0
            });
            for (mark, part) in &mut parts {
                let mark = *mark as u8;
                assert!(blocks(part).iter().all(|b| b.0 == [mark; BLOCK]), "{mark}");
            }
        }
    }

    #[test]
    fn what_is_dropped_is_given_back() {
        // Other tests may begin a mapping in between.
        let beside = || {
            (0..100).find_map(|_| {
                let (part, next) = (Part::new(1000)?, Part::new(1)?);
                Arc::ptr_eq(&part.mapping, &next.mapping).then_some((part, next))
            })
        };
        let (mut part, mut next) = beside().unwrap();
        blocks(&mut part).fill(WeightBlock([7; BLOCK]));
        blocks(&mut next).fill(WeightBlock([8; BLOCK]));
        let middle = part.start().wrapping_add(500);
        // SAFETY: `next` keeps the mapping, and nobody else is given these blocks.
        #[allow(unsafe_code)]
        let read = || unsafe { middle.read_volatile() };
        assert_eq!(read().0, [7; BLOCK]);
        drop(part);
        assert_eq!(read(), WeightBlock::ZERO);
        assert_eq!(blocks(&mut next)[0].0, [8; BLOCK]);
    }

    #[test]
    fn more_than_there_is_is_refused() {
        assert!(Part::new(usize::MAX / 2).is_none());
        assert!(Part::new(usize::MAX / BLOCK).is_none());
    }
}
