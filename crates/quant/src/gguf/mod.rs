//! GGUF, the model file of llama.cpp: version 3 and the equal layout of version 2, little-endian.
//!
//! [`GgufFile`] is the file as it is: metadata and typed tensors, mapped. [`GgufModel`] is the model
//! in it, with the configuration, names and row order of a Hugging Face folder; [`write_gguf`] makes
//! such a file from a folder. Every count and
//! length is held against the size of the file before anything is allocated for it.

mod config;
mod cursor;
mod dequant;
mod encode;
mod file;
mod groups;
mod header;
mod kind;
mod metadata;
mod model;
mod names;
mod plan;
mod requant;
mod scales;
mod ternary;
mod value;
mod vocab;
mod write;

pub use file::{GgufFile, TensorInfo};
pub use kind::TensorKind;
pub use model::{GgufModel, Rows};
pub use ternary::{TernaryScales, TernaryTensor};
pub use value::{Array, Scalar, Value};
pub use write::{GgufEmbedding, GgufTernary, write_gguf};

#[cfg(test)]
mod q2_tests;
#[cfg(test)]
mod scales_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod write_tests;
