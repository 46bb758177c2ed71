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
    /// A matrix whose shape and data disagree, or that is wider than sums in i32 allow.
    #[error("{0}")]
    Shape(String),
    /// Packed codes that are not ternary.
    #[error(transparent)]
    Codes(#[from] tritburn_quant::QuantError),
}
