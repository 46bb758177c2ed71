//! The crate's error type.

use std::path::PathBuf;

use tritburn_kernels::KernelError;
use tritburn_quant::QuantError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, EngineError>;

/// What can go wrong when a model is loaded or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Configuration or weights cannot be read or disagree.
    #[error(transparent)]
    Model(#[from] QuantError),
    /// A kernel is not available, or no threads can be started.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// config.json asks for quantisers that the packed kernels do not have.
    #[error("config.json: {0}; evaluate the model with `--device cpu` instead")]
    Unsupported(String),
    /// A tensor's content is wrong.
    #[error("{}: `{name}`: {message}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// What is wrong, and the remedy.
        message: String,
    },
    /// `tokenizer.json` or a file beside it cannot be used.
    #[error("{}: {message}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        message: String,
    },
    /// Text was given or asked for, but the model folder has no `tokenizer.json`.
    #[error("the model folder has no tokenizer.json: put one there or use token ids")]
    NoTokenizer,
    /// The tokenizer refuses a text.
    #[error("the text cannot be tokenised: {0}")]
    Encode(String),
    /// The chat template refuses the messages.
    #[error("chat template: {0}")]
    ChatTemplate(String),
    /// There is nothing to continue.
    #[error("the prompt is empty: give at least one token")]
    EmptyPrompt,
    /// A token id outside the vocabulary.
    #[error("token {token} at position {position} is outside the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Its place in the input.
        position: usize,
        /// Ids run from 0 up to this number.
        vocab_size: usize,
    },
    /// More tokens than the model or the session has room for.
    #[error("{tokens} tokens do not fit the context of {max}: shorten the prompt")]
    ContextTooLong {
        /// Tokens there would be.
        tokens: usize,
        /// Most there may be.
        max: usize,
    },
    /// Sampling or generation parameters out of range.
    #[error("`{field}` is {value}: {expected}")]
    Parameter {
        /// Name of the field.
        field: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// Every logit is NaN or infinite.
    #[error("the model computed no finite logit: its weights are damaged")]
    NotFinite,
    /// A benchmark cannot be run.
    #[error("{0}")]
    Bench(String),
}
