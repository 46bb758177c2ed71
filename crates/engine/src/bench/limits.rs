//! What the machine can do at most, measured.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tritburn_kernels::{
    Activations, Buffer, DenseMatrix, PackedCodes, Scales, TernaryMatrix, memory,
};
use tritburn_quant::hf_pack::packed_rows;

use crate::engine::{Engine, EngineOptions, start};
use crate::error::Result;

/// Rows for each thread, columns and tokens of a product that stays in the caches. Rows are whole tiles of
/// every format, so that nothing is computed that does not count, and as many as share what kernels compute once for
/// all of them in a model.
const PRODUCT: [usize; 3] = [1280, 1024, 64];
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

/// What bounds the speed of one engine, as far as it is measured.
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
    let exec = &engine.core.exec;
    let [rows, cols, tokens] = PRODUCT;
    let rows = rows * exec.threads();
    let mut x = Buffer::<f32>::new();
    x.resize(tokens * cols);
    x.fill(1.0);
    let mut out = Buffer::<f32>::new();
    out.resize(tokens * rows);
    let mut activations = Activations::new();
    let mut product: Box<dyn FnMut()> = if let Some(format) = engine.core.model.ternary_format() {
        let packed = vec![0; packed_rows(rows) * cols];
        let codes = PackedCodes::new(&exec.pool, &packed, rows, cols, Scales::Tensor(1.0))?;
        let ternary = TernaryMatrix::pack(&exec.pool, &codes, format);
        activations.quantize(exec, &x, cols);
        Box::new(move || {
            ternary.gemm(exec, &activations, &mut out);
            black_box(&*out);
        })
    } else {
        let dense = DenseMatrix::from_rows(&exec.pool, rows, cols, |_, row| row.fill(1.0))?;
        Box::new(move || {
            dense.gemm(exec, &x, &mut out);
            black_box(&*out);
        })
    };
    product();
    let start = Instant::now();
    let mut fastest = f64::INFINITY;
    while start.elapsed() < TIME {
        let start = Instant::now();
        product();
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    Ok((rows * cols * tokens) as f64 / fastest)
}
