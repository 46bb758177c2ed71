//! The crate's error type.

use std::path::PathBuf;

use tritburn_data::DataError;
use tritburn_nn::NnError;
use tritburn_quant::QuantError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, TrainError>;

/// What can go wrong in a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The recipe has errors; all of them are listed.
    #[error("{origin}: {} in the recipe:\n  {}", count(problems), problems.join("\n  "))]
    Recipe {
        /// File or run the recipe came from.
        origin: String,
        /// One line each, starting with the field's path.
        problems: Vec<String>,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder in question.
        path: PathBuf,
        /// The system's own words.
        source: std::io::Error,
    },
    /// A model folder or tensor file.
    #[error(transparent)]
    Folder(#[from] QuantError),
    /// Data sets and tokenizers.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The engine, when compared with the training forward pass.
    #[error(transparent)]
    Engine(#[from] tritburn_engine::EngineError),
    /// Model construction and devices.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// The loss or a gradient is no number any more.
    #[error(
        "stage {stage}, step {step}: {what} is {value}; nothing of this step was kept. {remedy}"
    )]
    NotFinite {
        /// Stage.
        stage: String,
        /// Step of the stage, from 1.
        step: usize,
        /// Loss or gradient norm.
        what: &'static str,
        /// The value.
        value: f32,
        /// Where to go on from.
        remedy: String,
    },
    /// A checkpoint or run directory cannot be continued from.
    #[error("{}: {message}", path.display())]
    Resume {
        /// The run or checkpoint.
        path: PathBuf,
        /// Why, and what to do.
        message: String,
    },
    /// The user asked to stop; the run can be resumed.
    #[error("stopped on request at step {step}; continue with `--resume {}`", run.display())]
    Interrupted {
        /// Steps done in all.
        step: usize,
        /// The run directory.
        run: PathBuf,
    },
}

fn count(problems: &[String]) -> String {
    match problems.len() {
        1 => "1 error".into(),
        n => format!("{n} errors"),
    }
}
