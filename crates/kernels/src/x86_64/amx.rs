//! AMX-INT8: tiles of 16 tokens × 64 columns times 64 columns × 16 rows.
//!
//! A tile of weights is 16 blocks of one plane as they lie in memory: the packed bytes of a row tile
//! are spread into their prefixes ([`crate::layout`]) once, in a buffer that stays in the cache,
//! and used for all tokens. The intrinsics are not stable, so the tile instructions are inline
//! assembly. Fewer tokens than half a tile go through AVX-512 VNNI.

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::sync::OnceLock;

use super::avx512vnni::{Avx512Vnni, load, prefixes};
use crate::activations::{ActBlock, TOKEN_TILE};
use crate::kernel::{DenseTile, Kernel, PackedTile};
use crate::layout::{DEPTH_BLOCKS, Format, LANES, WeightBlock};

/// Fewest tokens for which a tile that is not full is faster than vectors.
const MIN_TOKENS: usize = 8;

/// The blocks of one plane for 64 columns: a tile of 16 rows of 64 bytes.
type WeightTile = [WeightBlock; DEPTH_BLOCKS];

thread_local! {
    /// Weight tiles of one row tile, `[64 columns each, planes]`.
    static SPREAD: RefCell<Vec<WeightTile>> = const { RefCell::new(Vec::new()) };
}

/// A processor with AMX-INT8 and AVX-512 VNNI, on a system that lets us use it.
#[derive(Debug, Clone, Copy)]
pub struct Amx {
    vectors: Avx512Vnni,
}

impl Amx {
    /// The kernel, where this processor and system can run it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        let vectors = Avx512Vnni::detect()?;
        let allowed = *ALLOWED.get_or_init(|| has_tiles() && ask_for_tiles());
        allowed.then_some(Self { vectors })
    }
}

impl Kernel for Amx {
    fn name(&self) -> &'static str {
        "amx"
    }

    fn ternary_tile(&self, format: Format, tile: PackedTile<'_>, acc: &mut [i32]) {
        let (tiled, rest) = split(tile, acc, format.tile_rows());
        if let Some((tile, acc)) = tiled {
            // SAFETY: `detect` has found AVX-512 and AMX-INT8 and asked for its use.
            unsafe {
                match format {
                    Format::TwoBit => multiply::<4>(tile, acc),
                    Format::Base3 => multiply::<5>(tile, acc),
                }
                separate(format, acc);
            }
        }
        if let Some((tile, acc)) = rest {
            self.vectors.ternary_tile(format, tile, acc);
        }
    }

    fn byte_tile(&self, tile: PackedTile<'_>, acc: &mut [i32]) {
        let (tiled, rest) = split(tile, acc, LANES);
        if let Some((tile, acc)) = tiled {
            // SAFETY: `detect` has found AVX-512 and AMX-INT8 and asked for its use.
            unsafe { multiply::<1>(tile, acc) }
        }
        if let Some((tile, acc)) = rest {
            self.vectors.byte_tile(tile, acc);
        }
    }

    fn dense_tile(&self, tile: DenseTile<'_>, acc: &mut [f32]) {
        self.vectors.dense_tile(tile, acc);
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn separate(format: Format, acc: &mut [i32]) {
    for acc in acc.chunks_exact_mut(format.tile_rows()) {
        format.separate(acc);
    }
}

/// A tile with its sums, `[tokens, rows]`.
type Part<'a, 'b> = Option<(PackedTile<'a>, &'b mut [i32])>;

/// The tokens that go through tiles and those that do not.
fn split<'a, 'b>(
    tile: PackedTile<'a>,
    acc: &'b mut [i32],
    rows: usize,
) -> (Part<'a, 'b>, Part<'a, 'b>) {
    let over = tile.tokens % TOKEN_TILE;
    // The last tile reads rows of activations past the tokens, where there are such.
    let last = tile.tokens.next_multiple_of(TOKEN_TILE).saturating_sub(1);
    let readable = tile.x.len() >= last * tile.stride + tile.depth();
    let tiled = if over >= MIN_TOKENS && readable {
        tile.tokens
    } else {
        tile.tokens - over
    };
    let (low, high) = acc.split_at_mut(tiled * rows);
    let first = PackedTile {
        tokens: tiled,
        ..tile
    };
    let second = PackedTile {
        x: tile.x.get(tiled * tile.stride..).unwrap_or_default(),
        tokens: tile.tokens - tiled,
        ..tile
    };
    (
        (tiled > 0).then_some((first, low)),
        (second.tokens > 0).then_some((second, high)),
    )
}

/// `acc[t, plane, lane] = Σ u · x` for prefixes `u`.
#[target_feature(enable = "avx512f,avx512bw")]
fn multiply<const P: usize>(tile: PackedTile<'_>, acc: &mut [i32]) {
    let depth = tile.depth();
    if depth == 0 {
        return acc.fill(0);
    }
    SPREAD.with_borrow_mut(|buffer| {
        let weights = if P == 1 {
            tile.deep_blocks()
        } else {
            spread::<P>(tile, buffer);
            &buffer[..]
        };
        let _guard = TileConfig::load();
        let mut sums = [[WeightBlock::ZERO; TOKEN_TILE]; 4];
        for t in (0..tile.tokens).step_by(2 * TOKEN_TILE) {
            let two = tile.tokens - t > TOKEN_TILE;
            for p in (0..P).step_by(2) {
                let pair = P - p > 1;
                let x: [&[ActBlock]; 2] =
                    [t, if two { t + TOKEN_TILE } else { t }].map(|t| &tile.x[t * tile.stride..]);
                let w: [&[WeightTile]; 2] =
                    [p, if pair { p + 1 } else { p }].map(|p| &weights[p..]);
                for x in x {
                    assert!(x.len() >= (TOKEN_TILE - 1) * tile.stride + depth);
                }
                for w in w {
                    assert!(w.len() > (depth - 1) * P);
                }
                let walk = Walk {
                    x: x.map(<[ActBlock]>::as_ptr),
                    x_stride: tile.stride * size_of::<ActBlock>(),
                    w: w.map(<[WeightTile]>::as_ptr),
                    w_step: P * size_of::<WeightTile>(),
                    depth,
                };
                // SAFETY: the assertions above say that `depth` tiles can be read from each pointer
                // at these distances, and tiles are configured.
                unsafe {
                    match (two, pair) {
                        (true, true) => four(&walk, &mut sums),
                        (false, true) => two_planes(&walk, &mut sums),
                        (true, false) => two_tokens(&walk, &mut sums),
                        (false, false) => single(&walk, &mut sums),
                    }
                }
                for (i, sums) in sums.iter().enumerate() {
                    let (first, p) = (t + i / 2 * TOKEN_TILE, p + i % 2);
                    if p < P {
                        store_sums::<P>(sums, first, p, tile.tokens, acc);
                    }
                    if i % 2 == 1 && !two {
                        break;
                    }
                }
            }
        }
    });
}

/// Copies a tile of sums, one token a block, to its place.
#[inline]
fn store_sums<const P: usize>(
    sums: &[WeightBlock; TOKEN_TILE],
    first: usize,
    plane: usize,
    tokens: usize,
    acc: &mut [i32],
) {
    let rows = P * LANES;
    let acc = acc[first * rows..].chunks_exact_mut(rows);
    for (acc, sums) in acc.zip(sums).take(tokens - first) {
        let acc = &mut acc[plane * LANES..][..LANES];
        for (acc, bytes) in acc.iter_mut().zip(sums.0.as_chunks().0) {
            *acc = i32::from_ne_bytes(*bytes);
        }
    }
}

/// Prefixes of all blocks of a row tile.
#[target_feature(enable = "avx512f,avx512bw")]
fn spread<const P: usize>(tile: PackedTile<'_>, buffer: &mut Vec<WeightTile>) {
    buffer.resize(tile.depth() * P, [WeightBlock::ZERO; DEPTH_BLOCKS]);
    for (blocks, out) in tile.deep_blocks().iter().zip(buffer.chunks_exact_mut(P)) {
        for (q, block) in blocks.iter().enumerate() {
            for (out, prefix) in out.iter_mut().zip(prefixes::<P>(load(block))) {
                // SAFETY: a `WeightBlock` is 64 bytes and aligned to 64.
                unsafe { _mm512_store_si512(out[q].0.as_mut_ptr().cast(), prefix) }
            }
        }
    }
}

/// Where a product reads: `depth` tiles of activations from each of `x`, 64 bytes apart, and of
/// weights from each of `w`, `w_step` bytes apart.
struct Walk {
    x: [*const ActBlock; 2],
    /// Bytes from one token to the next.
    x_stride: usize,
    w: [*const WeightTile; 2],
    w_step: usize,
    depth: usize,
}

/// Sums of 16 tokens × 16 rows: `[x[0]·w[0], x[0]·w[1], x[1]·w[0], x[1]·w[1]]`.
type Tiles = [[WeightBlock; TOKEN_TILE]; 4];

/// Defines a product of some of the tiles of a [`Walk`].
macro_rules! product {
    ($(#[$doc:meta])* $name:ident, zero: [$($zero:literal)*], body: [$($body:literal)*],
     store: [$($store:literal)*]) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Tiles are configured by [`TileConfig`], and `walk` stays within its buffers.
        unsafe fn $name(walk: &Walk, out: &mut Tiles) {
            // SAFETY: reads what the caller allows and writes four tiles of 1 KiB.
            unsafe {
                asm!(
                    $($zero,)*
                    "2:",
                    $($body,)*
                    "add {x0}, 64",
                    "add {x1}, 64",
                    "add {w0}, {step}",
                    "add {w1}, {step}",
                    "dec {n}",
                    "jnz 2b",
                    $($store,)*
                    x0 = inout(reg) walk.x[0] => _,
                    x1 = inout(reg) walk.x[1] => _,
                    w0 = inout(reg) walk.w[0] => _,
                    w1 = inout(reg) walk.w[1] => _,
                    xs = in(reg) walk.x_stride,
                    ws = in(reg) 64usize,
                    step = in(reg) walk.w_step,
                    n = inout(reg) walk.depth => _,
                    out = in(reg) out.as_mut_ptr(),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

product!(
    /// Two tiles of tokens and two planes: one load for each product.
    four,
    zero: ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"],
    body: [
        "tileloadd tmm4, [{x0} + {xs}*1]"
        "tileloadd tmm6, [{w0} + {ws}*1]"
        "tdpbsud tmm0, tmm4, tmm6"
        "tileloadd tmm7, [{w1} + {ws}*1]"
        "tdpbsud tmm1, tmm4, tmm7"
        "tileloadd tmm5, [{x1} + {xs}*1]"
        "tdpbsud tmm2, tmm5, tmm6"
        "tdpbsud tmm3, tmm5, tmm7"
    ],
    store: [
        "tilestored [{out} + {ws}*1], tmm0"
        "tilestored [{out} + {ws}*1 + 1024], tmm1"
        "tilestored [{out} + {ws}*1 + 2048], tmm2"
        "tilestored [{out} + {ws}*1 + 3072], tmm3"
    ]
);
product!(
    /// One tile of tokens and two planes.
    two_planes,
    zero: ["tilezero tmm0" "tilezero tmm1"],
    body: [
        "tileloadd tmm4, [{x0} + {xs}*1]"
        "tileloadd tmm6, [{w0} + {ws}*1]"
        "tdpbsud tmm0, tmm4, tmm6"
        "tileloadd tmm7, [{w1} + {ws}*1]"
        "tdpbsud tmm1, tmm4, tmm7"
    ],
    store: [
        "tilestored [{out} + {ws}*1], tmm0"
        "tilestored [{out} + {ws}*1 + 1024], tmm1"
    ]
);
product!(
    /// Two tiles of tokens and one plane.
    two_tokens,
    zero: ["tilezero tmm0" "tilezero tmm2"],
    body: [
        "tileloadd tmm4, [{x0} + {xs}*1]"
        "tileloadd tmm6, [{w0} + {ws}*1]"
        "tdpbsud tmm0, tmm4, tmm6"
        "tileloadd tmm5, [{x1} + {xs}*1]"
        "tdpbsud tmm2, tmm5, tmm6"
    ],
    store: [
        "tilestored [{out} + {ws}*1], tmm0"
        "tilestored [{out} + {ws}*1 + 2048], tmm2"
    ]
);
product!(
    /// One tile of tokens and one plane.
    single,
    zero: ["tilezero tmm0"],
    body: [
        "tileloadd tmm4, [{x0} + {xs}*1]"
        "tileloadd tmm6, [{w0} + {ws}*1]"
        "tdpbsud tmm0, tmm4, tmm6"
    ],
    store: ["tilestored [{out} + {ws}*1], tmm0"]
);

/// The shape of the tiles, for as long as this value lives: eight of 16 rows of 64 bytes.
struct TileConfig(());

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Palette {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

const _: () = assert!(size_of::<Palette>() == 64);

impl TileConfig {
    fn load() -> Self {
        const PALETTE: Palette = Palette {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
            rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        // SAFETY: reads 64 bytes; palette 1 has eight tiles of this size. Only code that has
        // found AMX gets here, and nothing else in the process uses tiles on this thread between
        // here and `drop`.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &PALETTE, options(nostack, readonly)) };
        Self(())
    }
}

impl Drop for TileConfig {
    fn drop(&mut self) {
        // SAFETY: tiles were configured by this value.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Whether processor and system save tiles and the processor multiplies int8 in them.
fn has_tiles() -> bool {
    const AMX_TILE_AND_INT8: u32 = 0b11 << 24;
    const XCR0_TILES: u64 = 0b11 << 17;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & (1 << 27) == 0 {
        return false;
    }
    // SAFETY: bit 27 of leaf 1, OSXSAVE, says that the instruction exists.
    let xcr0 = unsafe { read_xcr0() };
    __cpuid_count(7, 0).edx & AMX_TILE_AND_INT8 == AMX_TILE_AND_INT8
        && xcr0 & XCR0_TILES == XCR0_TILES
}

#[target_feature(enable = "xsave")]
fn read_xcr0() -> u64 {
    // SAFETY: register 0 exists where the instruction does.
    unsafe { _xgetbv(0) }
}

/// Linux gives a process the room to save tiles only on request.
#[cfg(target_os = "linux")]
fn ask_for_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        )
    };
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn ask_for_tiles() -> bool {
    false
}
