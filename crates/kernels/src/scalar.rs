//! The reference: plain Rust that every processor runs and every other kernel is compared with.

use tritburn_quant::act::absmax_int8;

use crate::kernel::{self, DenseTile, Kernel, TernaryTile};
use crate::ternary::LANES;

/// Sums that [`dot`] keeps apart, so that the loop becomes vector code.
const DENSE_LANES: usize = 8;

/// Runs on every processor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scalar;

impl Kernel for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn ternary_tile(&self, tile: TernaryTile<'_>, acc: &mut [i32]) {
        for t in 0..tile.tokens {
            let [x] = tile.tokens(t);
            for r in 0..tile.rows {
                let [w] = tile.rows(r);
                let mut sum = 0;
                for (w, x) in w.iter().zip(x) {
                    for (i, x) in x.0.chunks_exact(LANES).enumerate() {
                        for (w, &x) in w.0.iter().zip(x) {
                            sum += i32::from((w >> (2 * i)) & 3) * i32::from(x);
                        }
                    }
                }
                acc[t * tile.rows + r] = sum;
            }
        }
    }

    fn dense_tile(&self, tile: DenseTile<'_>, acc: &mut [f32]) {
        for t in 0..tile.tokens {
            let [x] = tile.tokens(t);
            for r in 0..tile.rows {
                let [w] = tile.rows(r);
                acc[t * tile.rows + r] = dot(w, x);
            }
        }
    }

    fn add_weighted_rows(&self, weights: &[f32], rows: &[f32], out: &mut [f32]) {
        kernel::add_weighted_rows(weights, rows, out);
    }

    fn quantize(&self, x: &[f32], codes: &mut [i8]) -> f32 {
        absmax_int8(x, codes)
    }
}

fn dot(w: &[f32], x: &[f32]) -> f32 {
    let (w, w_tail) = w.as_chunks::<DENSE_LANES>();
    let (x, x_tail) = x.as_chunks::<DENSE_LANES>();
    let mut lanes = [0f32; DENSE_LANES];
    for (w, x) in w.iter().zip(x) {
        for ((lane, w), x) in lanes.iter_mut().zip(w).zip(x) {
            *lane += w * x;
        }
    }
    let tail: f32 = w_tail.iter().zip(x_tail).map(|(w, x)| w * x).sum();
    lanes.iter().sum::<f32>() + tail
}
