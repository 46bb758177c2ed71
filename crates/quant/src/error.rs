//! The crate's error type.

use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, QuantError>;

/// What can go wrong with a model folder or a quantised tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder in question.
        path: PathBuf,
        /// The system's own words.
        source: std::io::Error,
    },
    /// `config.json` is not the configuration of a supported model.
    #[error("{}: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Every problem found.
        message: String,
    },
    /// A tensor file is malformed or disagrees with the configuration.
    #[error("{}: {message}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Tensor name, found and expected shapes, remedy.
        message: String,
    },
    /// Codes and shape given to a packer disagree, or a code is not −1, 0 or +1.
    #[error("{0}")]
    Pack(String),
}

impl QuantError {
    /// Names files of the folder `of` in place of those of `copy`, which was made from it and is not to
    /// stay.
    #[must_use]
    pub fn of_original(mut self, copy: &Path, of: &Path) -> Self {
        if let Self::Io { path, .. } | Self::Config { path, .. } | Self::Tensor { path, .. } =
            &mut self
            && let Ok(file) = path.strip_prefix(copy)
        {
            *path = of.join(file);
        }
        self
    }

    pub(crate) fn config(path: &Path, message: impl Into<String>) -> Self {
        Self::Config {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }
    pub(crate) fn tensor(path: &Path, message: impl Into<String>) -> Self {
        Self::Tensor {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }
}
