//! What can go wrong.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = HubError> = std::result::Result<T, E>;

/// Why a model could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The network must not be used.
    #[error(
        "{name} is not in the cache {}, and HF_HUB_OFFLINE forbids to download it; unset it, or \
         copy the model there",
        cache.display()
    )]
    Offline {
        /// The model.
        name: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The hub wants to know who asks.
    #[error(
        "{name}: the hub answers {status}. The model is gated or private, or does not exist: accept \
         its terms on its page and set HF_TOKEN to a token that may read it"
    )]
    Denied {
        /// The model.
        name: String,
        /// HTTP status.
        status: u16,
    },
    /// There is no such thing.
    #[error("{what}: the hub at {endpoint} has none of this name; check spelling and revision")]
    NotFound {
        /// Model or file.
        what: String,
        /// Where it was asked for.
        endpoint: String,
    },
    /// The hub, or what stands before it, did not answer as it should.
    #[error(
        "{what}: {message}. Check the network and HF_ENDPOINT ({endpoint}), then run it again: what was downloaded is kept"
    )]
    Request {
        /// Model or file.
        what: String,
        /// Where it was asked for.
        endpoint: String,
        /// What happened.
        message: String,
    },
    /// Nothing came for a while.
    #[error("{what}: nothing came for {seconds} s; run it again, what was downloaded is kept")]
    Stalled {
        /// File.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// The repository has nothing that can be loaded.
    #[error("{name}: {message}")]
    NoModel {
        /// The model.
        name: String,
        /// What it has instead, and what to do.
        message: String,
    },
    /// A file is not what the hub said it would be.
    #[error("{}: {message}; it was removed, run it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What differs.
        message: String,
    },
    /// A setting that means nothing.
    #[error("{variable}: {message}")]
    Setting {
        /// The environment variable.
        variable: &'static str,
        /// What is wrong, and what to set.
        message: String,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl HubError {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
