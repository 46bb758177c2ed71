//! Text to tokens and back, through `tokenizer.json` or what a GGUF file has in its place.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use tritburn_quant::gguf::GgufFile;

use crate::error::{EngineError, Result};
use crate::gguf::tokenizer_json;

/// Largest JSON file that is read.
const MAX_JSON_BYTES: u64 = 1 << 28;
/// Tokens after which bytes that make no character are given up on; a character has at most four.
const MAX_PENDING: usize = 8;

/// The tokenizer of a model folder.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
}

impl TextTokenizer {
    /// Reads `tokenizer.json`, where the folder has one, and checks that every id is below
    /// `vocab_size`.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`].
    pub fn load(folder: &Path, vocab_size: usize) -> Result<Option<Self>> {
        let path = folder.join("tokenizer.json");
        if !path.exists() {
            return Ok(None);
        }
        let error = |message: String| EngineError::Tokenizer {
            path: path.clone(),
            message,
        };
        let json = read_json(&path)?;
        Self::new(json, vocab_size).map(Some).map_err(error)
    }

    /// The tokenizer in a GGUF file, where it has one.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`].
    pub(crate) fn of_gguf(file: &GgufFile, vocab_size: usize) -> Result<Option<Self>> {
        let json = tokenizer_json(file).map_err(|e| e.at(file.path()))?;
        let Some(json) = json else { return Ok(None) };
        let error = |message: String| EngineError::Tokenizer {
            path: file.path().to_path_buf(),
            message,
        };
        Self::new(json, vocab_size).map(Some).map_err(error)
    }

    /// Checks that the ids fit and switches off what a file made for training may do to texts.
    ///
    /// Takes parsed JSON because the library panics on some texts that are none.
    fn new(json: Value, vocab_size: usize) -> std::result::Result<Self, String> {
        let read = || -> std::result::Result<(Tokenizer, Option<u32>), String> {
            let mut inner: Tokenizer = serde_json::from_value(json)
                .map_err(|e| format!("not a tokenizer ({e}); export or download it again"))?;
            inner.with_truncation(None).map_err(|e| e.to_string())?;
            inner.with_padding(None);
            let largest = inner.get_vocab(true).into_values().max();
            Ok((inner, largest))
        };
        let (inner, largest) = guarded(read)??;
        match largest {
            Some(id) if id as usize >= vocab_size => Err(format!(
                "has token id {id}, but `vocab_size` of the model is {vocab_size}; the two are \
                 not of the same model"
            )),
            _ => Ok(Self { inner }),
        }
    }

    /// Tokens of a text, with those that the tokenizer puts around a document where
    /// `add_special_tokens`.
    ///
    /// # Errors
    /// [`EngineError::Encode`].
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.inner.encode_fast(text, add_special_tokens));
        let encoding = encoding.map_err(EngineError::Encode)?;
        let encoding = encoding.map_err(|e| EngineError::Encode(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of some tokens, without special tokens.
    ///
    /// # Errors
    /// [`EngineError::Encode`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let text = guarded(|| self.inner.decode(tokens, true)).map_err(EngineError::Encode)?;
        text.map_err(|e| EngineError::Encode(e.to_string()))
    }

    /// Id of a token by its text.
    #[must_use]
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Text of a token as the vocabulary spells it.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Number of tokens.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// A decoder for tokens that come one by one.
    #[must_use]
    pub fn incremental_decoder(&self) -> IncrementalDecoder<'_> {
        IncrementalDecoder {
            tokenizer: self,
            ids: Vec::new(),
            shown: 0,
            prefix: String::new(),
        }
    }
}

/// Turns tokens into text as they come, whole characters only.
#[derive(Debug)]
pub struct IncrementalDecoder<'a> {
    tokenizer: &'a TextTokenizer,
    /// Tokens of the last text given out, then those held back. The former stay because the text
    /// of a token can depend on the one before it.
    ids: Vec<u32>,
    shown: usize,
    /// Text of `ids[..shown]`.
    prefix: String,
}

impl IncrementalDecoder<'_> {
    /// Takes a token; returns the text that is now complete, maybe none.
    ///
    /// # Errors
    /// [`EngineError::Encode`].
    pub fn push(&mut self, token: u32) -> Result<String> {
        self.ids.push(token);
        let text = self.tokenizer.decode(&self.ids)?;
        let incomplete = text.ends_with(char::REPLACEMENT_CHARACTER)
            && self.ids.len() - self.shown < MAX_PENDING;
        if incomplete || text.len() <= self.prefix.len() {
            return Ok(String::new());
        }
        self.take(&text)
    }

    /// The text of what is held back; bytes that make no character become U+FFFD.
    ///
    /// # Errors
    /// [`EngineError::Encode`].
    pub fn finish(&mut self) -> Result<String> {
        if self.shown == self.ids.len() {
            return Ok(String::new());
        }
        let text = self.tokenizer.decode(&self.ids)?;
        self.take(&text)
    }

    fn take(&mut self, text: &str) -> Result<String> {
        let new = text.get(self.prefix.len()..).unwrap_or_default().to_owned();
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        self.prefix = self.tokenizer.decode(&self.ids)?;
        Ok(new)
    }
}

/// Calls the library, which panics over some files: where one part names a token that another lacks.
fn guarded<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| "tokenizer.json contradicts itself; export or download it again".into())
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let io = |source| {
        EngineError::Model(tritburn_quant::QuantError::Io {
            path: path.to_path_buf(),
            source,
        })
    };
    let len = std::fs::metadata(path).map_err(io)?.len();
    if len > MAX_JSON_BYTES {
        return Err(EngineError::Tokenizer {
            path: path.to_path_buf(),
            message: format!("{len} bytes are more than any such file has"),
        });
    }
    std::fs::read(path).map_err(io)
}

/// A JSON file beside the weights.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    serde_json::from_slice(&read_bounded(path)?).map_err(|e| EngineError::Tokenizer {
        path: path.to_path_buf(),
        message: format!("not JSON: {e}"),
    })
}

/// A text file beside the weights.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bounded(path)?).map_err(|e| EngineError::Tokenizer {
        path: path.to_path_buf(),
        message: format!("not UTF-8: {e}"),
    })
}
