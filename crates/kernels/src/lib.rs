//! Products of int8 activations with packed ternary weights, and of f32 with f32, on the best
//! instruction set that the processor has.
//!
//! The integer products are exact: every kernel, thread count and tile shape gives the same bits
//! as [`scalar`]. The f32 products are the same for every thread count and number of tokens, and
//! differ between kernels by rounding.

#[cfg(target_arch = "aarch64")]
pub mod aarch64;
pub mod activations;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod arrays;
pub mod attention;
#[cfg(any(test, target_arch = "x86_64", target_arch = "aarch64"))]
#[cfg_attr(target_arch = "aarch64", allow(dead_code))] // Arm has tables of its own.
mod base3;
mod blocks;
pub mod choice;
mod columns;
pub mod dense;
pub mod dispatch;
mod epilogue;
pub mod error;
pub mod exec;
pub mod head;
pub mod int6;
pub mod kernel;
pub mod kv;
mod large_pages;
pub mod layout;
pub mod lookup;
pub mod memory;
pub mod numa;
pub mod ops;
mod packed;
pub mod planes;
pub mod pool;
mod room;
pub mod scalar;
pub mod scales;
mod shape;
pub mod sparse;
mod stages;
pub mod ternary;
mod vectors;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;

pub use activations::Activations;
pub use dense::DenseMatrix;
pub use dispatch::{available, default_kernel, select};
pub use error::{KernelError, Result};
pub use exec::Exec;
pub use head::Int8Matrix;
pub use int6::Int6Matrix;
pub use kernel::Kernel;
pub use large_pages::LargePages;
pub use layout::Format;
pub use numa::Numa;
pub use packed::PackedCodes;
pub use pool::Pool;
pub use room::Buffer;
pub use scales::Scales;
pub use ternary::TernaryMatrix;
