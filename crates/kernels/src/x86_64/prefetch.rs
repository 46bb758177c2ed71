//! Asks for weights, keys and values ahead of their use.
//!
//! What the processor fetches by itself ends with the page, and a core has few buffers for lines on
//! their way to the first-level cache: fewer than would keep memory busy all the time. So a line is
//! asked for far ahead for the second-level cache, which waits for more lines at once, and shortly
//! before its use for the first. On a Xeon plain reads of the same memory then take as long as a
//! product, to some percent; with requests to the first level alone it took an eighth longer.
//!
//! On AMD's Zen 4 a loop that is faster than memory ran slower than one that is not, as if requests
//! that find no buffer were forgotten. With a line asked for once in each of the four pages in front
//! of it, it is the faster one.

use std::arch::x86_64::*;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::int6::Chunk;
use crate::layout::WeightBlock;

/// Whether requests are repeated.
static REPEATED: AtomicBool = AtomicBool::new(false);

/// Blocks from a request to the use: first to the first level, the others to the second. What is
/// asked for farthest ahead is also what is read while the sums of a row tile become outputs.
const BLOCKS: [usize; 2] = [16, 96];
/// The same where requests are repeated: a page is 64 blocks.
const BLOCKS_REPEATED: [usize; 5] = [16, 64, 128, 192, 256];
/// Lines at the beginning of a stream that are asked for before it is read.
const FIRST: usize = 64;
/// As [`BLOCKS`] in chunks.
const CHUNKS: [usize; 2] = [4, 12];
/// The same where requests are repeated: 26 to 312 lines, the best of some that were tried.
const CHUNKS_REPEATED: [usize; 5] = [2, 4, 8, 16, 24];

/// Looks who made the processor: called by `Avx2::detect`, and so before there is any other kernel.
/// Until then nothing is repeated.
pub(super) fn detect() {
    let id = __cpuid(0);
    let name = [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes);
    let amd: [&[u8]; 2] = [b"AuthenticAMD", b"HygonGenuine"];
    let repeated = amd.contains(&name.as_flattened());
    REPEATED.store(repeated, Ordering::Relaxed);
}

/// [`after_block`] for plain code.
pub(crate) fn ask_ahead(block: &WeightBlock) {
    // SAFETY: every processor of this family has SSE.
    unsafe { after_block(block) }
}

/// Asks for later blocks of a stream at the use of one; blocks past the end do no harm.
#[inline]
#[target_feature(enable = "sse")]
pub(super) fn after_block(block: &WeightBlock) {
    let at = std::ptr::from_ref(block);
    if REPEATED.load(Ordering::Relaxed) {
        lines::<1, _>(at, BLOCKS_REPEATED);
    } else {
        lines::<1, _>(at, BLOCKS);
    }
}

/// Asks for later lines, up to `end`, of a stream at the use of the one at `at`.
#[inline]
#[target_feature(enable = "sse")]
pub(super) fn after_line(at: *const u8, end: *const u8) {
    let within = |blocks: usize| at.wrapping_add(blocks * size_of::<WeightBlock>()) < end;
    let repeated = REPEATED.load(Ordering::Relaxed);
    if repeated && within(BLOCKS_REPEATED[4]) {
        lines::<1, _>(at.cast(), BLOCKS_REPEATED);
    } else if !repeated && within(BLOCKS[1]) {
        lines::<1, _>(at.cast(), BLOCKS);
    } else if within(BLOCKS[0]) {
        // Near the end, where what is farther away has been asked for.
        lines::<1, _>(at.cast(), [BLOCKS[0]]);
    }
}

/// Asks for the first lines of what is read next.
pub(crate) fn ask_first(next: *const u8) {
    for i in 0..FIRST {
        let line = next.wrapping_add(i * size_of::<WeightBlock>());
        // SAFETY: every processor of this family has SSE, and an address is only a hint.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) }
    }
}

/// Asks for all lines of later chunks of a stream at the use of one. `FAST` says that the loop
/// would take chunks faster than memory brings them.
#[inline]
#[target_feature(enable = "sse")]
pub(super) fn after_chunk<const FAST: bool>(chunk: &Chunk) {
    const LINES: usize = size_of::<Chunk>() / size_of::<WeightBlock>();
    let at = std::ptr::from_ref(chunk).cast();
    if FAST && REPEATED.load(Ordering::Relaxed) {
        lines::<LINES, _>(at, CHUNKS_REPEATED);
    } else {
        lines::<LINES, _>(at, CHUNKS);
    }
}

/// `N` lines as often as there are distances, in units of `N` lines. An address is only a hint and
/// may lie outside of every allocation.
#[inline]
#[target_feature(enable = "sse")]
fn lines<const N: usize, const D: usize>(at: *const WeightBlock, distances: [usize; D]) {
    for i in 0..N {
        for (d, distance) in distances.into_iter().enumerate() {
            let line = at.wrapping_add(distance * N + i).cast();
            if d == 0 {
                _mm_prefetch::<_MM_HINT_T0>(line);
            } else {
                _mm_prefetch::<_MM_HINT_T1>(line);
            }
        }
    }
}
