//! Quantisers, packed formats and the model folder that training and inference share.

pub mod act;
pub mod config;
pub mod error;
pub mod fs;
pub mod gguf;
pub mod hf_pack;
pub mod mmap;
pub mod tensor_file;
pub mod ternary;

pub use error::{QuantError, Result};
pub use safetensors::Dtype;
