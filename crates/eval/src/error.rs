//! What can go wrong in an evaluation.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, EvalError>;

/// An evaluation error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The data or the task cannot be used.
    #[error(transparent)]
    Data(#[from] tritburn_data::DataError),

    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] tritburn_engine::EngineError),

    /// Another kind of model failed.
    #[error("model: {0}")]
    Model(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// A result file could not be replaced.
    #[error(transparent)]
    Write(#[from] tritburn_quant::QuantError),

    /// A file could not be read, or a folder not be made.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },

    /// A scorer answered with another number of results than it was asked for.
    #[error("the scorer gave {got} answers to {asked} requests")]
    AnswerCount {
        /// Requests made.
        asked: usize,
        /// Answers given.
        got: usize,
    },

    /// A scorer's log-likelihood is not a number or above 0.
    #[error("row {doc_id}: log-likelihood {value} of label \"{label}\"; the weights may hold NaN")]
    LogLikelihood {
        /// Row of the split.
        doc_id: u64,
        /// The label scored.
        label: String,
        /// What the scorer said.
        value: f64,
    },

    /// There is nothing to evaluate.
    #[error("nothing to evaluate: {message}")]
    Nothing {
        /// What is missing, and what to do.
        message: String,
    },

    /// A per-sample file that cannot be read.
    #[error("{}, line {line}: {message}; write it again with `tritburn eval`", path.display())]
    Samples {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },

    /// Two per-sample files that are not of the same rows.
    #[error("the two evaluations cannot be paired: {message}")]
    Unpaired {
        /// What differs.
        message: String,
    },

    /// Window settings that do not fit.
    #[error(
        "window of {window} tokens with stride {stride}: need a window of at least 2 and a stride between 1 and window - 1"
    )]
    Window {
        /// Tokens in a window.
        window: usize,
        /// Tokens between windows.
        stride: usize,
    },
}
