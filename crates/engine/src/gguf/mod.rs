//! Models in GGUF files: weights, tokenizer and chat template.

mod bpe;
mod source;
mod spm;
mod tokenizer;

pub(crate) use source::GgufSource;
pub(crate) use tokenizer::{GgufTokenizerError, token_texts, tokenizer_json};
