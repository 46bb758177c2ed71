//! Quantisers, packed formats and the model folder that training and inference share.

pub mod config;
pub mod error;

pub use error::{QuantError, Result};
