//! The tile instructions, as inline assembly: the intrinsics are not stable.

use std::arch::asm;

use super::WeightTile;
use crate::activations::{ActBlock, TOKEN_TILE};
use crate::layout::WeightBlock;

/// Where a product reads: `depth` tiles of activations from each of `x`, 64 bytes apart, and of
/// weights from each of `w`, `w_step` bytes apart.
pub(super) struct Walk {
    pub(super) x: [*const ActBlock; 2],
    /// Bytes from one token to the next.
    pub(super) x_stride: usize,
    pub(super) w: [*const WeightTile; 2],
    pub(super) w_step: usize,
    pub(super) depth: usize,
}

/// Sums of 16 tokens × 16 rows: `[x[0]·w[0], x[0]·w[1], x[1]·w[0], x[1]·w[1]]`.
pub(super) type Tiles = [[WeightBlock; TOKEN_TILE]; 4];

/// Defines a product of some of the tiles of a [`Walk`].
macro_rules! product {
    ($(#[$doc:meta])* $name:ident, zero: [$($zero:literal)*], body: [$($body:literal)*],
     store: [$($store:literal)*]) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Tiles are configured by [`TileConfig`], and `walk` stays within its buffers.
        pub(super) unsafe fn $name(walk: &Walk, out: &mut Tiles) {
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
pub(super) struct TileConfig(());

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
    pub(super) fn load() -> Self {
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
