//! Runs ternary and full-precision Llama-type models on the CPU: loading, KV cache, sampling,
//! chat templates and scoring. Synchronous, without a training framework and without HTTP.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use tritburn_engine::{Engine, EngineOptions, GenerationParams};
//!
//! # fn main() -> Result<(), tritburn_engine::EngineError> {
//! let engine = Engine::load("model".as_ref(), EngineOptions::default())?;
//! let prompt = engine.encode("Once upon a time", true)?;
//! let params = GenerationParams::default();
//! let generation = engine.generate(&prompt, &params, &mut |_| ControlFlow::Continue(()))?;
//! println!("{}", generation.text);
//! # Ok(()) }
//! ```

pub mod bench;
mod chat;
mod engine;
mod error;
mod generate;
mod gguf;
mod model;
mod sampling;
mod score;
mod session;
mod stop;
mod tokenizer;

pub use chat::{ChatMessage, ChatTemplate};
pub use engine::{Engine, EngineInfo, EngineOptions};
pub use error::{EngineError, Result};
pub use generate::{Event, FinishReason, Generation, GenerationParams};
pub use gguf::gguf_tokenizer;
pub use model::{HeadFormat, Sparsity};
pub use sampling::{Sampler, SamplingParams};
pub use session::Session;
pub use tokenizer::{IncrementalDecoder, TextTokenizer};
pub use tritburn_kernels::Format;
pub use tritburn_kernels::Numa;
pub use tritburn_kernels::kv::KvFormat;
pub use tritburn_quant::config::ModelConfig;
