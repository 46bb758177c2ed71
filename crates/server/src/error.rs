//! The crate's error type. What a client sees is `ApiError`.

use std::io;

/// A boxed error from the model or its loader.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the server could not start, or why a model could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting makes no sense.
    #[error("server setting `{field}`: {message}")]
    Config {
        /// Name of the setting.
        field: &'static str,
        /// What is wrong, and the remedy.
        message: String,
    },
    /// Another program listens there.
    #[error(
        "cannot listen on {address}: the port is in use. Stop the program that holds it, or \
         choose another with --port (0 picks a free one)"
    )]
    PortInUse {
        /// `host:port` as asked for.
        address: String,
    },
    /// The address cannot be bound for another reason.
    #[error("cannot listen on {address}: {source}. Check --host and --port")]
    Bind {
        /// `host:port` as asked for.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The async runtime, its thread or a signal handler could not be set up.
    #[error("cannot start the server: {source}")]
    Start {
        /// The system's reason.
        source: io::Error,
    },
    /// The model could not be loaded.
    #[error("cannot load the model: {source}")]
    Load {
        /// The loader's reason.
        source: BoxError,
    },
    /// The prompt cannot be served; the client's mistake.
    #[error("{message}")]
    Prompt {
        /// What is wrong with it.
        message: String,
    },
    /// The model failed; the server's mistake.
    #[error("the model failed: {source}")]
    Model {
        /// The model's reason.
        source: BoxError,
    },
}
