//! What the machine can do at most, measured.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tritburn_kernels::{Activations, DenseMatrix, Scales, TernaryMatrix, memory};

use crate::engine::{Engine, EngineOptions, start};
use crate::error::Result;

/// Rows, columns and tokens of a product that stays in the caches.
const PRODUCT: [usize; 3] = [256, 1024, 64];
/// How long products are repeated.
const TIME: Duration = Duration::from_millis(100);

/// What the memory of the machine gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemorySpeed {
    bytes_per_second: f64,
}

impl MemorySpeed {
    /// Measures on the threads of `options`. It takes 256 MiB while it does: before there is a model, so
    /// that a process takes no more than the larger of the two.
    ///
    /// # Errors
    /// As [`Engine::random`] for `options`.
    pub fn measure(options: &EngineOptions) -> Result<Self> {
        Ok(Self {
            bytes_per_second: memory::read_speed(&start(options)?),
        })
    }
}

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
    /// Measures what the kernel of `engine` does; `memory` must have been measured with the same options.
    ///
    /// # Errors
    /// [`crate::EngineError::Kernel`], never in practice.
    pub fn measure(engine: &Engine, memory: MemorySpeed) -> Result<Self> {
        Ok(Self {
            bytes_per_second: memory.bytes_per_second,
            products_per_second: multiply(engine)?,
        })
    }
}

fn multiply(engine: &Engine) -> Result<f64> {
    let [rows, cols, tokens] = PRODUCT;
    let exec = &engine.core.exec;
    let x = vec![1.0; tokens * cols];
    let format = engine.core.model.ternary_format();
    let ternary = TernaryMatrix::with_scales(
        &vec![1; rows * cols],
        rows,
        cols,
        Scales::Tensor(1.0),
        format.unwrap_or_default(),
    )?;
    let dense = DenseMatrix::new(vec![1.0; rows * cols], rows, cols)?;
    let mut activations = Activations::new();
    activations.quantize(exec, &x, cols);
    let mut out = vec![0.0; tokens * rows];
    let mut product = || {
        if format.is_some() {
            ternary.gemm(exec, &activations, &mut out);
        } else {
            dense.gemm(exec, &x, &mut out);
        }
    };
    product();
    let start = Instant::now();
    let mut fastest = f64::INFINITY;
    while start.elapsed() < TIME {
        let start = Instant::now();
        product();
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    black_box(&out);
    Ok((rows * cols * tokens) as f64 / fastest)
}
