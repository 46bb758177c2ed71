//! The tokenizer in a GGUF file as a `tokenizer.json`.

use std::path::Path;

use serde_json::{Map, Value, json};
use tritburn_quant::QuantError;
use tritburn_quant::gguf::GgufFile;

use super::{bpe, spm};
use crate::error::EngineError;

/// Type of a token that is a piece of text.
pub(super) const NORMAL: i64 = 1;
/// Type of a token that stands for itself only and is no text.
const CONTROL: i64 = 3;
/// Type of a token that was added to the vocabulary and is text.
const USER_DEFINED: i64 = 4;

/// What of a file makes no tokenizer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GgufTokenizerError {
    #[error(transparent)]
    File(#[from] QuantError),
    #[error("{0}")]
    Unsupported(String),
}

impl GgufTokenizerError {
    /// The error of the file at `path`.
    pub(crate) fn at(self, path: &Path) -> EngineError {
        match self {
            Self::File(e) => e.into(),
            Self::Unsupported(message) => EngineError::Tokenizer {
                path: path.to_path_buf(),
                message,
            },
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, GgufTokenizerError>;

pub(super) fn missing(key: &str) -> GgufTokenizerError {
    GgufTokenizerError::Unsupported(format!("`{key}` is missing"))
}

/// What kinds of tokenizers differ in; the JSON values are those of a `tokenizer.json`.
pub(super) struct Parts {
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) decoder: Value,
    pub(super) merges: Value,
    /// Text of the token for what no other token stands for.
    pub(super) unknown: Value,
    /// Bytes of text without tokens have tokens `<0x00>` and so on.
    pub(super) byte_fallback: bool,
    /// Words of the vocabulary are taken whole.
    pub(super) ignore_merges: bool,
    /// Whether a document starts with a token of its own where the file does not say.
    pub(super) add_bos: bool,
}

/// `tokenizer.json` of the tokenizer in `file`, `None` where there is none.
pub(crate) fn tokenizer_json(file: &GgufFile) -> Result<Option<Value>> {
    let Some(model) = file.text("tokenizer.ggml.model")? else {
        return Ok(None);
    };
    let key = "tokenizer.ggml.tokens";
    let tokens = file.texts(key)?.ok_or_else(|| missing(key))?;
    let kinds = file.ints("tokenizer.ggml.token_type")?.unwrap_or_default();
    let parts = match model {
        "gpt2" => bpe::parts(file)?,
        "llama" => spm::parts(file, &tokens, &kinds)?,
        other => {
            return Err(GgufTokenizerError::Unsupported(format!(
                "`tokenizer.ggml.model` \"{other}\" is not supported; supported are gpt2 \
                 (byte-level BPE) and llama (SentencePiece BPE). Use the model's Hugging Face \
                 folder, which has a tokenizer.json"
            )));
        }
    };
    let ids = || tokens.iter().enumerate();
    let added = ids().zip(&kinds).filter_map(|((id, token), kind)| {
        let added = matches!(*kind, CONTROL | USER_DEFINED);
        added.then(|| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": *kind == CONTROL})
        })
    });
    let added: Vec<Value> = added.collect();
    let vocab = ids().map(|(id, token)| (token.clone(), json!(id)));
    let vocab: Map<String, Value> = vocab.collect();
    let post = post_processor(file, &tokens, parts.add_bos)?;
    Ok(Some(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": parts.normalizer, "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": post, "decoder": parts.decoder,
        "model": {"type": "BPE", "dropout": null, "unk_token": parts.unknown,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": true, "byte_fallback": parts.byte_fallback,
                  "ignore_merges": parts.ignore_merges, "vocab": vocab, "merges": parts.merges},
    })))
}

/// Texts of the tokens that start and end a text, empty where the file names none.
pub(crate) fn token_texts(file: &GgufFile) -> Result<[String; 2]> {
    let tokens = file.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    let mut texts = [String::new(), String::new()];
    for (text, which) in texts.iter_mut().zip(["bos", "eos"]) {
        let id = special_id(file, which)?;
        *text = id
            .and_then(|id| tokens.get(id))
            .cloned()
            .unwrap_or_default();
    }
    Ok(texts)
}

fn special_id(file: &GgufFile, which: &str) -> Result<Option<usize>> {
    let id = file.int(&format!("tokenizer.ggml.{which}_token_id"))?;
    Ok(id.and_then(|id| usize::try_from(id).ok()))
}

/// Puts the tokens around a document that the file asks for.
fn post_processor(file: &GgufFile, tokens: &[String], add_bos: bool) -> Result<Value> {
    let add = |which: &str, default: bool| -> Result<Option<(usize, String)>> {
        let flag = file.flag(&format!("tokenizer.ggml.add_{which}_token"))?;
        let id = special_id(file, which)?.filter(|_| flag.unwrap_or(default));
        Ok(id.and_then(|id| Some((id, tokens.get(id)?.clone()))))
    };
    let (bos, eos) = (add("bos", add_bos)?, add("eos", false)?);
    if bos.is_none() && eos.is_none() {
        return Ok(Value::Null);
    }
    let special = |t: &(usize, String)| json!({"SpecialToken": {"id": t.1, "type_id": 0}});
    let text = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
    let around = |middle: Vec<Value>| -> Vec<Value> {
        let ends = (bos.iter().map(special), eos.iter().map(special));
        ends.0.chain(middle).chain(ends.1).collect()
    };
    let known = bos.iter().chain(&eos).map(|(id, text)| {
        (
            text.clone(),
            json!({"id": text, "ids": [id], "tokens": [text]}),
        )
    });
    Ok(json!({
        "type": "TemplateProcessing",
        "single": around(vec![text("A", 0)]),
        "pair": around(vec![text("A", 0), text("B", 1)]),
        "special_tokens": known.collect::<Map<String, Value>>(),
    }))
}
