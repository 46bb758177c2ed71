//! Models in GGUF files: weights, tokenizer and chat template.

use std::path::Path;

use serde_json::{Value, json};
use tritburn_quant::gguf::GgufFile;

use crate::error::Result;

mod bpe;
mod source;
mod spm;
mod tokenizer;

pub(crate) use source::GgufSource;
pub(crate) use tokenizer::{token_texts, tokenizer_json};

/// The tokenizer of a GGUF file, as a Hugging Face folder would have it: the contents of
/// `tokenizer.json`, and of `tokenizer_config.json` as far as they name special tokens. `None` where
/// the file has no tokenizer.
///
/// # Errors
/// Where the file is damaged or changes meanwhile, or its kind of tokenizer is not supported.
pub fn gguf_tokenizer(path: &Path) -> Result<Option<[Value; 2]>> {
    let file = GgufFile::open(path)?;
    let Some(json) = tokenizer_json(&file).map_err(|e| e.at(path))? else {
        return Ok(None);
    };
    let mut config = json!({});
    let texts = token_texts(&file).map_err(|e| e.at(path))?;
    for (key, text) in ["bos_token", "eos_token"].into_iter().zip(texts) {
        if !text.is_empty() {
            config[key] = text.into();
        }
    }
    file.check_unchanged()?;
    Ok(Some([json, config]))
}
