//! Operations and models against vectors made with PyTorch and transformers.
#![allow(clippy::unwrap_used, missing_docs)]

#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod gpu;
mod models;
mod operations;
mod vectors;
