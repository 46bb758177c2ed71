//! Text to token ids: a byte-level BPE trained here, or any `tokenizer.json`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, models::TrainerWrapper};
use tritburn_quant::fs::write_atomic;

use crate::error::{DataError, Result};

/// Start of text in tokenizers trained here.
pub const BOS: &str = "<|bos|>";
/// End of text in tokenizers trained here.
pub const EOS: &str = "<|eos|>";
/// Padding in tokenizers trained here.
pub const PAD: &str = "<|pad|>";

/// Ids below this are taken by special tokens and single bytes in tokenizers trained here.
const SMALLEST_VOCAB: usize = 259;

/// Names tried when `tokenizer_config.json` names none. Qwen has no start token, so bos is
/// optional; a missing pad token is replaced by eos.
const BOS_NAMES: &[&str] = &[BOS, "<s>", "<|begin_of_text|>", "<bos>", "[BOS]"];
const EOS_NAMES: &[&str] = &[
    EOS,
    "</s>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<eos>",
    "<|im_end|>",
    "[EOS]",
];
const PAD_NAMES: &[&str] = &[PAD, "<pad>", "<|finetune_right_pad_id|>", "[PAD]"];

/// A tokenizer and its special tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vocab_size: usize,
    bos: Option<u32>,
    eos: u32,
    pad: u32,
}

impl Tokenizer {
    /// Trains a byte-level BPE with at most `vocab_size` tokens on `texts`.
    ///
    /// Token 0 is [`PAD`], 1 [`BOS`], 2 [`EOS`], then come the 256 bytes, then the merges. The same
    /// texts give the same tokenizer.
    ///
    /// # Errors
    /// If `vocab_size` is under 259, or if training fails.
    pub fn train_bpe<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        vocab_size: usize,
    ) -> Result<Self> {
        let failed = |action: &'static str| {
            move |error: tokenizers::Error| DataError::Tokenize {
                action,
                message: error.to_string(),
            }
        };
        if vocab_size < SMALLEST_VOCAB {
            return Err(DataError::Tokenize {
                action: "train",
                message: format!(
                    "vocabulary of {vocab_size} is too small: 256 bytes and 3 special tokens need {SMALLEST_VOCAB}"
                ),
            });
        }
        let special = [PAD, BOS, EOS].map(|name| AddedToken::from(name, true));
        let trainer = BpeTrainerBuilder::new()
            .vocab_size(vocab_size)
            .min_frequency(2)
            .special_tokens(special.to_vec())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build();
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        inner
            .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
            .with_decoder(Some(ByteLevel::new(false, true, true)));
        // Collected because the trainer wants an iterator that can be sent between threads.
        let texts: Vec<&str> = texts.into_iter().collect();
        inner
            .train(&mut TrainerWrapper::from(trainer), texts.into_iter())
            .map_err(failed("train"))?;
        Self::from_inner(inner, Path::new("trained tokenizer"), &Value::Null)
    }

    /// Loads `tokenizer.json`, or the one in a folder. Special tokens are those that
    /// `tokenizer_config.json` beside it names, otherwise the usual names are tried.
    ///
    /// # Errors
    /// If the file is missing or not a tokenizer, or if no end-of-text token is found.
    pub fn load(path: &Path) -> Result<Self> {
        let path: PathBuf = if path.is_dir() {
            path.join("tokenizer.json")
        } else {
            path.to_owned()
        };
        let bytes = std::fs::read(&path).map_err(DataError::io(&path, "read"))?;
        // The library may panic on what is not even JSON.
        let json = serde_json::from_slice(&bytes).map_err(|error| DataError::Tokenizer {
            path: path.clone(),
            message: error.to_string(),
        })?;
        let config_path = path.with_file_name("tokenizer_config.json");
        let config = match std::fs::read(&config_path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| DataError::Tokenizer {
                path: config_path,
                message: error.to_string(),
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(DataError::io(config_path, "read")(error)),
        };
        Self::from_json(json, &config, &path)
    }

    /// From the contents of `tokenizer.json` and `tokenizer_config.json` (null where there is none),
    /// which `origin` holds.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn from_json(json: Value, config: &Value, origin: &Path) -> Result<Self> {
        let bad = |message: String| DataError::Tokenizer {
            path: origin.to_owned(),
            message,
        };
        let mut inner: tokenizers::Tokenizer =
            serde_json::from_value(json).map_err(|e| bad(e.to_string()))?;
        // Files saved by training scripts may carry these; here lengths are the loader's business.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| bad(error.to_string()))?;
        Self::from_inner(inner, origin, config)
    }

    fn from_inner(inner: tokenizers::Tokenizer, path: &Path, config: &Value) -> Result<Self> {
        let find = |role: &'static str, key: &str, names: &[&str]| {
            let entry = &config[key];
            let named = entry.as_str().or_else(|| entry["content"].as_str());
            let names = named.map_or_else(|| names.to_vec(), |name| vec![name]);
            let id = names.iter().find_map(|name| inner.token_to_id(name));
            id.ok_or_else(|| DataError::MissingSpecialToken {
                path: path.to_owned(),
                role,
                looked_for: names.iter().map(|&name| name.to_owned()).collect(),
            })
        };
        let eos = find("eos", "eos_token", EOS_NAMES)?;
        let bos = find("bos", "bos_token", BOS_NAMES).ok();
        let pad = find("pad", "pad_token", PAD_NAMES).unwrap_or(eos);
        // Ids may have gaps, and a model needs a row for the largest one.
        let vocab_size = inner
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |largest| largest as usize + 1);
        Ok(Self {
            inner,
            vocab_size,
            bos,
            eos,
            pad,
        })
    }

    /// Token ids of a text. `add_special` runs the tokenizer's own post-processor, which may put a
    /// start token in front.
    ///
    /// # Errors
    /// If the tokenizer's model cannot represent the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = guarded("encode", || self.inner.encode_fast(text, add_special))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of many texts, on all cores; the order is kept.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_batch(&self, texts: &[String], add_special: bool) -> Result<Vec<Vec<u32>>> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let encodings = guarded("encode", || {
            self.inner.encode_batch_fast(texts, add_special)
        })?;
        Ok(encodings
            .into_iter()
            .map(|encoding| encoding.get_ids().to_vec())
            .collect())
    }

    /// The text without its last `count` tokens, cut between characters. A text that is not empty
    /// becomes shorter by at least one character where `count` is at least 1.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn without_last<'t>(&self, text: &'t str, count: usize) -> Result<&'t str> {
        let encoding = self
            .inner
            .encode(text, false)
            .map_err(|error| DataError::Tokenize {
                action: "encode",
                message: error.to_string(),
            })?;
        let offsets = encoding.get_offsets();
        if count == 0 {
            return Ok(text);
        }
        let kept = offsets.len().saturating_sub(count);
        let end = kept.checked_sub(1).map_or(0, |last| offsets[last].1);
        // Tokens may stand for spaces at the end that their offsets leave out.
        let last = text.char_indices().next_back().map_or(0, |(at, _)| at);
        Ok(&text[..text.floor_char_boundary(end.min(last))])
    }

    /// Text of token ids; `skip_special` leaves out special tokens. Ids outside the vocabulary are
    /// skipped, and bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        guarded("decode", || self.inner.decode(ids, skip_special))
    }

    /// Rows that an embedding needs: the largest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Start-of-text token, if there is one (Qwen has none).
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// End-of-text token.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// Padding token; the end-of-text token if the tokenizer has none of its own.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The text of a single token as stored in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token by its text as stored in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The tokenizer of the `tokenizers` library inside.
    pub fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    /// Names the tokenizer: SHA-256, in hex, over its definition and the special tokens in use.
    ///
    /// # Errors
    /// If the tokenizers library cannot write its definition.
    pub fn sha256(&self) -> Result<String> {
        let text = self
            .inner
            .to_string(false)
            .map_err(|error| DataError::Tokenize {
                action: "save",
                message: error.to_string(),
            })?;
        let mut hash = Sha256::new();
        hash.update(text.as_bytes());
        hash.update(format!("{:?} {} {}", self.bos, self.eos, self.pad));
        Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into `dir`.
    ///
    /// `model_max_length` is the context length that the config names.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path, model_max_length: usize) -> Result<()> {
        let text = self
            .inner
            .to_string(true)
            .map_err(|error| DataError::Tokenize {
                action: "save",
                message: error.to_string(),
            })?;
        std::fs::create_dir_all(dir).map_err(DataError::io(dir, "make the folder"))?;
        write_atomic(&dir.join("tokenizer.json"), text.as_bytes())?;
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos.and_then(|id| self.id_to_token(id)),
            "eos_token": self.id_to_token(self.eos),
            "pad_token": self.id_to_token(self.pad),
            "model_max_length": model_max_length,
            "clean_up_tokenization_spaces": false,
        });
        Ok(write_atomic(
            &dir.join("tokenizer_config.json"),
            format!("{config:#}\n").as_bytes(),
        )?)
    }
}

/// Calls the library, which panics over some files: where one part names a token that another lacks.
fn guarded<T>(action: &'static str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    let message = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "tokenizer.json contradicts itself; export or download it again".into(),
    };
    Err(DataError::Tokenize { action, message })
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
