//! Quantisers, packed formats and the model folder that training and inference share.

pub mod act;
pub mod config;
pub mod error;
pub mod fs;
pub mod gguf;
pub mod hadamard;
pub mod hf_pack;
pub mod kv;
pub mod mmap;
pub mod scheme;
pub mod tensor_file;
pub mod ternary;
pub mod weight;

pub use error::{QuantError, Result};
pub use safetensors::Dtype;
