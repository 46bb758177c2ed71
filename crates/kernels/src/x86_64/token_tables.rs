//! Prompts without products, with AVX2: sums of four columns are looked up for 16 tokens at once.
//!
//! The trits of a row in a quad of columns are one of 81, so 81 registers hold all that a quad can add to the sums of
//! a row, for as many tokens as have room in one as i16 (the method of the four Russians: Arlazarov, Dinic, Kronrod
//! and Faradžev, 1970, with numbers in place of bits). Additions of one load each then take the place of products: 64
//! weights each instead of the 32 of a `vpmaddubsw`, which an addition follows. A table costs 81 additions and serves
//! all rows of a task, so there must be hundreds of them.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::RangeInclusive;

use super::half_block::load;
use super::prefetch::ask_line;
use super::transpose::{transpose_bytes, transpose_words};
use super::{base3_256, two_bit_256};
use crate::activations::ActBlock;
use crate::kernel::PackedTile;
use crate::layout::{DEPTH, DEPTH_BLOCKS, LANES, MAX_TILE_ROWS, QUAD};
use crate::room::{Buffer, Plain};

/// Rows of a call: see [`crate::kernel::Together`]. Tables are to cost little beside what they save.
pub(super) const ROWS: RangeInclusive<usize> = 256..=3072;
/// Most tokens of a call: the sums of all rows then take 0.75 MiB.
pub(super) const MOST_TOKENS: usize = 64;
/// Tokens of a register.
pub(super) const WIDTH: usize = 16;
/// Sums that a quad can have.
const ENTRIES: usize = 81;
/// Quads whose tables are used together: 20 KiB, which stay in the nearest cache.
const QUADS: usize = 8;
/// Parts of so many quads in a deep block.
const PARTS: usize = DEPTH_BLOCKS / QUADS;
/// Deep blocks whose sums fit i16: 192 columns of at most 128.
const FLUSH: usize = 3;
/// Deep blocks of columns, one after the other, `[column, token]`.
type Turned = [[i8; WIDTH]; FLUSH * DEPTH];

/// Values of 16 tokens.
type Sums = [i16; WIDTH];
/// The same with more bits, in halves.
type Wide = [[i32; WIDTH / 2]; 2];
/// Where in the table of each quad the sum of each row of a plane begins.
type Offsets = [Bytes; QUADS];

/// Bytes from the beginning of a table to one of its entries, for 16 rows.
#[derive(Debug, Clone, Copy)]
struct Bytes([u16; LANES]);

// SAFETY: numbers, without padding; zeros are those of the first entry.
unsafe impl Plain for Bytes {}

impl Bytes {
    /// Of the last entry.
    const LAST: i16 = ((ENTRIES - 1) * size_of::<Sums>()) as i16;

    /// The only way to write them, but for zeros: never past the last entry.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn store(&mut self, bytes: __m256i) {
        let bytes = _mm256_min_epu16(bytes, _mm256_set1_epi16(Self::LAST));
        // SAFETY: the array is 32 bytes.
        unsafe { _mm256_storeu_si256(self.0.as_mut_ptr().cast(), bytes) }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    /// `[quad, entry]`.
    tables: Buffer<Sums>,
    /// `[part, row tile, plane]`.
    offsets: Buffer<Offsets>,
    /// `[row tile, plane, row]`.
    pairs: Buffer<[Sums; LANES]>,
    /// `[tokens in sixteens, row tile, plane, row]`.
    sums: Buffer<[Wide; LANES]>,
    /// Sums of the activations, `[tokens in sixteens]`.
    totals: Buffer<Wide>,
}

/// See [`crate::kernel::Together::ternary_tiles`]; `P` is the number of planes.
#[target_feature(enable = "avx2")]
pub(super) fn multiply<const P: usize>(
    tiles: usize,
    tile: PackedTile<'_>,
    each: &mut dyn FnMut(usize, usize, &[i32]),
) {
    let (planes, sixteens) = (tiles * P, tile.tokens.div_ceil(WIDTH));
    let depth = tile.depth() / tiles.max(1);
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.tables.resize(QUADS * ENTRIES);
        scratch.offsets.resize(FLUSH * PARTS * planes);
        scratch.pairs.resize(planes);
        scratch.sums.resize(sixteens * planes);
        scratch.totals.resize(sixteens);
        scratch.sums.fill([[[0; WIDTH / 2]; 2]; LANES]);
        scratch.totals.fill([[0; WIDTH / 2]; 2]);
        let mut turned = [[0; WIDTH]; FLUSH * DEPTH];
        for first in (0..depth).step_by(FLUSH) {
            let blocks = FLUSH.min(depth - first);
            place::<P>(tiles, tile, (first, blocks), &mut scratch.offsets);
            for s in 0..sixteens {
                turn(tile, s, (first, blocks), &mut turned);
                scratch.pairs.fill([[0; WIDTH]; LANES]);
                let mut total = [0; WIDTH];
                for part in 0..blocks * PARTS {
                    let columns = &turned[part * QUADS * QUAD..][..QUADS * QUAD];
                    fill(columns, &mut scratch.tables, &mut total);
                    let offsets = &scratch.offsets[part * planes..][..planes];
                    add(offsets, &scratch.tables, &mut scratch.pairs);
                }
                let sums = &mut scratch.sums[s * planes..][..planes];
                widen(scratch.pairs.as_flattened(), sums.as_flattened_mut());
                widen(&[total], &mut scratch.totals[s..=s]);
            }
        }
        hand_over::<P>(scratch, tile.tokens, each);
    });
}

/// Looks up where the sums of all rows begin in the tables of some deep blocks.
#[inline]
#[target_feature(enable = "avx2")]
fn place<const P: usize>(
    tiles: usize,
    tile: PackedTile<'_>,
    (first, blocks): (usize, usize),
    offsets: &mut [Offsets],
) {
    let all = tile.deep_blocks();
    let (depth, planes) = (all.len() / tiles, tiles * P);
    for i in 0..tiles {
        for (d, weights) in all[i * depth + first..][..blocks].iter().enumerate() {
            let next = all.get((i + 1) * depth + first + d);
            for (q, block) in weights.iter().enumerate() {
                if let Some(next) = next {
                    ask_line(next[q].0.as_ptr());
                }
                let (low, high) = (codes::<P>(load(block, 0)), codes::<P>(load(block, 1)));
                let part = d * PARTS + q / QUADS;
                let offsets = &mut offsets[part * planes + i * P..][..P];
                for p in 0..P {
                    offsets[p][q % QUADS].store(bytes_of(low[p], high[p]));
                }
            }
        }
    }
}

/// The codes 0…2 of each plane.
#[inline]
#[target_feature(enable = "avx2")]
fn codes<const P: usize>(w: __m256i) -> [__m256i; P] {
    let mut out = [w; P];
    if P == 4 {
        out.copy_from_slice(&two_bit_256::codes(w)[..P]);
    } else {
        out.copy_from_slice(&base3_256::codes(w)[..P]);
    }
    out
}

/// `32 · (c₀ + 3c₁ + 9c₂ + 27c₃)` for the codes of 16 rows.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes_of(low: __m256i, high: __m256i) -> __m256i {
    let places = _mm256_set1_epi32(0x1B09_0301);
    let size = _mm256_set1_epi16(size_of::<Sums>() as i16);
    let low = _mm256_madd_epi16(_mm256_maddubs_epi16(low, places), size);
    let high = _mm256_madd_epi16(_mm256_maddubs_epi16(high, places), size);
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high))
}

/// The activations of 16 tokens in some deep blocks, column by column. Where there are fewer tokens, the last is there
/// again.
#[inline]
#[target_feature(enable = "avx2")]
fn turn(
    tile: PackedTile<'_>,
    sixteen: usize,
    (first, blocks): (usize, usize),
    turned: &mut Turned,
) {
    for (d, columns) in turned.as_chunks_mut::<DEPTH>().0[..blocks]
        .iter_mut()
        .enumerate()
    {
        let mut rows = [&ActBlock([0; DEPTH]); WIDTH];
        for (t, row) in rows.iter_mut().enumerate() {
            let token = (sixteen * WIDTH + t).min(tile.tokens - 1);
            *row = &tile.x[token * tile.stride + first + d];
        }
        for (i, columns) in columns.as_chunks_mut::<WIDTH>().0.iter_mut().enumerate() {
            let mut square = [_mm_setzero_si128(); WIDTH];
            for t in 0..WIDTH {
                square[t] = load_codes(&rows[t].0.as_chunks().0[i]);
            }
            let square = transpose_bytes(square);
            for c in 0..WIDTH {
                store_codes(&mut columns[c], square[c]);
            }
        }
    }
}

/// All sums that each quad of columns can have. The last of a quad is that of its activations, which is added to what
/// `total` holds.
#[inline]
#[target_feature(enable = "avx2")]
fn fill(columns: &[[i8; WIDTH]], tables: &mut [Sums], total: &mut Sums) {
    let tables = tables.as_chunks_mut::<ENTRIES>().0;
    let mut all = load_sums(total);
    for (columns, table) in columns.as_chunks::<QUAD>().0.iter().zip(tables) {
        let mut terms = [[_mm256_setzero_si256(); 3]; QUAD];
        for (terms, column) in terms.iter_mut().zip(columns) {
            let x = _mm256_cvtepi8_epi16(load_codes(column));
            *terms = [_mm256_sub_epi16(terms[1], x), terms[1], x];
        }
        let [a, b, c, d] = terms;
        let mut last = terms[0][1];
        for i in 0..9 {
            let upper = _mm256_add_epi16(d[i / 3], c[i % 3]);
            for j in 0..9 {
                last = _mm256_add_epi16(upper, _mm256_add_epi16(b[j / 3], a[j % 3]));
                store_sums(&mut table[9 * i + j], last);
            }
        }
        all = _mm256_add_epi16(all, last);
    }
    store_sums(total, all);
}

/// Adds what the quads of a part give.
#[inline]
#[target_feature(enable = "avx2")]
fn add(offsets: &[Offsets], tables: &[Sums], pairs: &mut [[Sums; LANES]]) {
    assert_eq!(tables.len(), QUADS * ENTRIES);
    for (offsets, pairs) in offsets.iter().zip(pairs) {
        for (r, pairs) in pairs.iter_mut().enumerate() {
            let mut sum = load_sums(pairs);
            for (q, bytes) in offsets.iter().enumerate() {
                // SAFETY: there is a table for each quad, and `Bytes` are those of an entry.
                let entry = unsafe {
                    let table = tables.as_ptr().add(q * ENTRIES);
                    _mm256_loadu_si256(table.byte_add(bytes.0[r].into()).cast())
                };
                sum = _mm256_add_epi16(sum, entry);
            }
            store_sums(pairs, sum);
        }
    }
}

/// Adds sums in i16 to those in i32.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(pairs: &[Sums], sums: &mut [Wide]) {
    for (pairs, sums) in pairs.iter().zip(sums) {
        let pairs = load_sums(pairs);
        let halves = [
            _mm256_castsi256_si128(pairs),
            _mm256_extracti128_si256::<1>(pairs),
        ];
        for (half, sums) in halves.into_iter().zip(sums) {
            let more = _mm256_cvtepi16_epi32(half);
            store_words(sums, _mm256_add_epi32(load_words(sums), more));
        }
    }
}

/// Gives `each` the sums of 16 tokens after 16, row tile by row tile.
#[target_feature(enable = "avx2")]
fn hand_over<const P: usize>(
    scratch: &Scratch,
    tokens: usize,
    each: &mut dyn FnMut(usize, usize, &[i32]),
) {
    let tiles = scratch.pairs.len() / P;
    let mut out = [[0; 8]; WIDTH * MAX_TILE_ROWS / 8];
    for (i, planes) in scratch.sums.chunks_exact(P).enumerate() {
        let (sixteen, tile) = (i / tiles, i % tiles);
        for (p, rows) in planes.iter().enumerate() {
            for (k, rows) in rows.as_chunks::<8>().0.iter().enumerate() {
                for half in 0..2 {
                    let total = load_words(&scratch.totals[sixteen][half]);
                    let mut square = [total; 8];
                    for (sums, row) in square.iter_mut().zip(rows) {
                        *sums = _mm256_add_epi32(*sums, load_words(&row[half]));
                    }
                    for (t, sums) in transpose_words(square).into_iter().enumerate() {
                        store_words(&mut out[2 * (P * (8 * half + t) + p) + k], sums);
                    }
                }
            }
        }
        let first = sixteen * WIDTH;
        let sums = &out.as_flattened()[..WIDTH.min(tokens - first) * P * LANES];
        each(tile, first, sums);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_codes(codes: &[i8; WIDTH]) -> __m128i {
    // SAFETY: the array is 16 bytes.
    unsafe { _mm_loadu_si128(codes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_codes(codes: &mut [i8; WIDTH], v: __m128i) {
    // SAFETY: the array is 16 bytes.
    unsafe { _mm_storeu_si128(codes.as_mut_ptr().cast(), v) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_sums(sums: &Sums) -> __m256i {
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_loadu_si256(sums.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_sums(sums: &mut Sums, v: __m256i) {
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), v) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_words(words: &[i32; 8]) -> __m256i {
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_words(words: &mut [i32; 8], v: __m256i) {
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), v) }
}
