//! Tests of the engine through its public interface.
#![allow(clippy::unwrap_used)]

mod bad_folders;
mod bad_gguf;
mod bench;
#[cfg(target_os = "linux")]
mod changing;
mod common;
mod drive;
mod engine;
mod families;
mod gguf;
mod gguf_file;
mod gguf_q2;
mod gguf_types;
mod gguf_write;
mod golden;
mod judges;
mod large;
mod mutants;
mod published;
mod sparsity;
mod templates;
mod tokenizers;
