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
use crate::kernel::RowPart;
use crate::layout::{QUAD, WeightBlock};

/// Whether requests are repeated.
static REPEATED: AtomicBool = AtomicBool::new(false);

/// Blocks from a request to the use: first to the first level, the others to the second. What is
/// asked for farthest ahead is also what is read while the sums of a row tile become outputs.
const BLOCKS: [usize; 2] = [16, 96];
/// The same where requests are repeated: a page is 64 blocks.
const BLOCKS_REPEATED: [usize; 5] = [16, 64, 128, 192, 256];
/// Lines at the beginning of a stream that are asked for before it is read.
const FIRST: usize = 64;
/// As [`BLOCKS`] in quads of columns, a line each column.
const QUADS: [usize; 2] = [4, 24];
/// The same where requests are repeated; not measured.
const QUADS_REPEATED: [usize; 5] = [4, 16, 32, 48, 64];
/// As [`BLOCKS`] in rows of some ten lines.
const ROWS: [usize; 2] = [4, 12];
/// The same where requests are repeated; not measured.
const ROWS_REPEATED: [usize; 5] = [4, 8, 12, 20, 28];
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

/// Asks for lines of later quads of the list `columns` at the use of quad `i`; after the last come those of the next
/// tile, whose lines follow.
#[inline]
#[target_feature(enable = "sse")]
pub(super) fn after_quad(tile: &[WeightBlock], columns: &[[u32; QUAD]], i: usize) {
    if REPEATED.load(Ordering::Relaxed) {
        later_quads(tile, columns, i, QUADS_REPEATED);
    } else {
        later_quads(tile, columns, i, QUADS);
    }
}

#[inline]
#[target_feature(enable = "sse")]
fn later_quads<const D: usize>(
    tile: &[WeightBlock],
    columns: &[[u32; QUAD]],
    i: usize,
    distances: [usize; D],
) {
    for (d, distance) in distances.into_iter().enumerate() {
        let place = i + distance;
        let (place, tile) = if place < columns.len() {
            (place, tile.as_ptr())
        } else {
            (place - columns.len(), tile.as_ptr_range().end)
        };
        for column in columns.get(place).into_iter().flatten() {
            ask(tile.wrapping_add(*column as usize), d == 0);
        }
    }
}

/// Where later rows of a list begin, to ask for all lines of as many as are used together.
#[derive(Clone, Copy)]
pub(super) struct LaterRows<const R: usize> {
    rows: [[*const WeightBlock; R]; ROWS_REPEATED.len()],
    used: usize,
}

impl<const R: usize> LaterRows<R> {
    /// Those that come after `R` rows at place `i` of the list of `part`.
    #[inline]
    pub(super) fn of(part: RowPart<'_>, i: usize) -> Self {
        let mut distances = ROWS_REPEATED;
        let mut used = ROWS_REPEATED.len();
        if !REPEATED.load(Ordering::Relaxed) {
            used = ROWS.len();
            distances[..used].copy_from_slice(&ROWS);
        }
        let mut rows = [[part.weights.as_ptr(); R]; ROWS_REPEATED.len()];
        for (rows, distance) in rows.iter_mut().zip(distances) {
            for (r, at) in rows.iter_mut().enumerate() {
                // Nothing follows the last, which is about to be read itself.
                let row = part.rows.get(i + distance + r).or(part.rows.last());
                *at = at.wrapping_add(row.map_or(0, |row| *row as usize) * part.lines);
            }
        }
        Self { rows, used }
    }

    /// Asks for line `line` of all.
    #[inline]
    #[target_feature(enable = "sse")]
    pub(super) fn ask(&self, line: usize) {
        for (d, rows) in self.rows[..self.used].iter().enumerate() {
            for row in rows {
                ask(row.wrapping_add(line), d == 0);
            }
        }
    }
}

/// Asks for a line, near for the first level and otherwise for the second. An address is only a hint and may
/// lie outside of every allocation.
#[inline]
#[target_feature(enable = "sse")]
fn ask(line: *const WeightBlock, near: bool) {
    if near {
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    } else {
        _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
}

/// Asks for the first lines of what is read next.
pub(crate) fn ask_first(next: *const u8) {
    for i in 0..FIRST {
        ask_line(next.wrapping_add(i * size_of::<WeightBlock>()));
    }
}

/// Asks for a line that is read soon.
#[inline(always)]
pub(super) fn ask_line(line: *const u8) {
    // SAFETY: every processor of this family has SSE.
    unsafe { ask(line.cast(), false) }
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

/// `N` lines as often as there are distances, in units of `N` lines.
#[inline]
#[target_feature(enable = "sse")]
fn lines<const N: usize, const D: usize>(at: *const WeightBlock, distances: [usize; D]) {
    for i in 0..N {
        for (d, distance) in distances.into_iter().enumerate() {
            ask(at.wrapping_add(distance * N + i), d == 0);
        }
    }
}
