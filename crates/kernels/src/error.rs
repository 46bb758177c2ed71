//! The crate's error type.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, KernelError>;

/// What can go wrong before a kernel runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The kernel asked for does not exist or needs instructions that this processor lacks.
    #[error("kernel \"{name}\" is not available on this machine; available are {available}")]
    Unavailable {
        /// The name asked for.
        name: String,
        /// The names that would work, best first.
        available: String,
    },
    /// A format of ternary weights that does not exist.
    #[error("there is no ternary format \"{name}\"; known are {known}")]
    Format {
        /// The name asked for.
        name: String,
        /// The names that would work.
        known: String,
    },
    /// A matrix whose shape and data disagree, or that is wider than sums in i32 allow.
    #[error("{0}")]
    Shape(String),
    /// Packed codes that are not ternary.
    #[error(transparent)]
    Codes(#[from] tritburn_quant::QuantError),
    /// No threads can be started.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's own words.
        source: std::io::Error,
    },
}
