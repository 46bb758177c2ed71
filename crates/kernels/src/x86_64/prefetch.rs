//! Asks for weights ahead of their use.
//!
//! What the processor fetches by itself ends with the page, and a core has few buffers for lines on
//! their way to the first-level cache: fewer than would keep memory busy all the time. So a line is
//! asked for twice, far ahead for the second-level cache, which waits for more lines at once, and
//! shortly before its use for the first. Plain reads of the same memory take as long as a product then
//! does, to some percent; with requests to the first level alone it took an eighth longer.

use std::arch::x86_64::*;

use crate::int6::Chunk;
use crate::layout::WeightBlock;

/// Blocks from a request to the first level to the use, and from one to the second level. The
/// second is also what is read while the sums of a row tile become outputs.
const BLOCKS: [usize; 2] = [16, 96];
/// The same in chunks.
const CHUNKS: [usize; 2] = [4, 12];

/// Asks for later blocks of a stream at the use of one; blocks past the end do no harm.
#[inline]
#[target_feature(enable = "sse")]
pub(super) fn after_block(block: &WeightBlock) {
    let at = std::ptr::from_ref(block);
    lines::<1>(BLOCKS.map(|n| at.wrapping_add(n).cast()));
}

/// Asks for all lines of later chunks of a stream at the use of one.
#[inline]
#[target_feature(enable = "sse")]
pub(super) fn after_chunk(chunk: &Chunk) {
    const LINES: usize = size_of::<Chunk>() / size_of::<WeightBlock>();
    let at = std::ptr::from_ref(chunk);
    lines::<LINES>(CHUNKS.map(|n| at.wrapping_add(n).cast()));
}

/// `N` lines to the first and `N` to the second level. An address is only a hint and may lie
/// outside of every allocation.
#[inline]
#[target_feature(enable = "sse")]
fn lines<const N: usize>([near, far]: [*const WeightBlock; 2]) {
    for i in 0..N {
        _mm_prefetch::<_MM_HINT_T0>(near.wrapping_add(i).cast());
        _mm_prefetch::<_MM_HINT_T1>(far.wrapping_add(i).cast());
    }
}
