//! BitNet modules on burn: one source for every backend.
//!
//! A model is described by [`ModelConfig`](tritburn_quant::config::ModelConfig) and takes its
//! weights from a [`WeightSource`](weights::WeightSource), so that random initialisation, loading
//! and surgery are one code path. [`dit`] makes a diffusion transformer of the same modules, and
//! [`packed`] runs what was trained on the integer kernels.

pub mod attention;
pub mod calibrate;
pub mod device;
pub mod dit;
pub mod error;
pub mod folder;
pub mod gguf;
pub mod hadamard;
pub mod linear;
pub mod mlp;
pub mod model;
pub mod norm;
pub mod ops;
pub mod packed;
pub mod probe;
pub mod ranks;
pub mod rope;
pub mod sparsity;
pub mod weights;

pub use error::{NnError, Result};
pub use model::CausalLm;
