//! What the machine can do at most, measured.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use tritburn_kernels::{Activations, DenseMatrix, TernaryMatrix};

use crate::engine::Engine;
use crate::error::Result;

/// Bytes read to measure the memory: more than the caches of most processors hold.
const MEMORY: usize = 1 << 28;
/// Passes over it, of which the fastest counts.
const PASSES: usize = 4;
/// Rows, columns and tokens of a product that stays in the caches.
const PRODUCT: [usize; 3] = [256, 1024, 64];
/// How long products are repeated.
const TIME: Duration = Duration::from_millis(100);

/// Upper bounds of speed for one engine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Bytes that the engine's threads together read from memory.
    pub bytes_per_second: f64,
    /// Products of a weight with an activation that its kernel computes from the caches, in the
    /// form that the projections have.
    pub products_per_second: f64,
}

impl Limits {
    /// Measures on the threads and with the kernel of `engine`; takes below a second.
    ///
    /// # Errors
    /// [`crate::EngineError::Kernel`], never in practice.
    pub fn measure(engine: &Engine) -> Result<Self> {
        let pool = &engine.core.pool;
        let bytes_per_second = pool.install(read_memory);
        let products_per_second = pool.install(|| multiply(engine))?;
        Ok(Self {
            bytes_per_second,
            products_per_second,
        })
    }
}

fn read_memory() -> f64 {
    // Not zeros, which the system could map to one page.
    let words: Vec<u64> = (0..(MEMORY / 8) as u64).into_par_iter().collect();
    let pass = || {
        let start = Instant::now();
        let sum = |part: &[u64]| part.iter().fold(0u64, |a, &b| a.wrapping_add(b));
        black_box(
            words
                .par_chunks(1 << 16)
                .map(sum)
                .reduce(|| 0, u64::wrapping_add),
        );
        MEMORY as f64 / start.elapsed().as_secs_f64()
    };
    (0..PASSES).map(|_| pass()).fold(0.0, f64::max)
}

fn multiply(engine: &Engine) -> Result<f64> {
    let [rows, cols, tokens] = PRODUCT;
    let kernel = engine.core.kernel;
    let threads = rayon::current_num_threads();
    let x = vec![1.0; tokens * cols];
    let ternary = TernaryMatrix::from_codes(&vec![1; rows * cols], rows, cols, 1.0)?;
    let dense = DenseMatrix::new(vec![1.0; rows * cols], rows, cols)?;
    let is_ternary = engine.core.model.format() != "f32";
    let mut activations = Activations::new();
    activations.quantize(kernel, &x, cols);
    let mut out = vec![0.0; tokens * rows];
    let mut product = || {
        if is_ternary {
            ternary.gemm(kernel, &activations, &mut out);
        } else {
            dense.gemm(kernel, &x, &mut out);
        }
    };
    product();
    let start = Instant::now();
    let mut count = 0;
    while count < threads || start.elapsed() < TIME {
        product();
        count += 1;
    }
    black_box(&out);
    Ok((count * rows * cols * tokens) as f64 / start.elapsed().as_secs_f64())
}
