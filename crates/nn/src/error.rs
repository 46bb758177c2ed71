//! The crate's error type.

use tritburn_kernels::KernelError;
use tritburn_quant::QuantError;

/// Result of this crate.
pub type Result<T, E = NnError> = std::result::Result<T, E>;

/// What can go wrong when a model is built or a device chosen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NnError {
    /// A model folder is missing, malformed or lies.
    #[error(transparent)]
    Folder(#[from] QuantError),
    /// A tensor of a model folder holds what no model can have.
    #[error("{}: {message}", path.display())]
    Weights {
        /// The file.
        path: std::path::PathBuf,
        /// Which tensor, and what is wrong.
        message: String,
    },
    /// A weight cannot be packed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// No backend of this name.
    #[error("unknown device \"{name}\"; known devices are {known}")]
    UnknownDevice {
        /// What was asked for.
        name: String,
        /// What there is.
        known: &'static str,
    },
    /// The backend exists but is not in this binary.
    #[error(
        "device \"{name}\" is not in this binary; build it with \
         `cargo build --release --features {name}`"
    )]
    NotCompiled {
        /// What was asked for.
        name: &'static str,
    },
    /// The backend is compiled in but this machine has no such device.
    #[error("device \"{name}\" cannot be used on this machine: {reason}")]
    Unavailable {
        /// What was asked for.
        name: &'static str,
        /// Why, and what to install.
        reason: String,
    },
    /// The devices that were asked for are not there.
    #[error("device {message}")]
    Devices {
        /// Which, and what there is.
        message: String,
    },
    /// Of several replicas that learn together, another one has ended.
    #[error("the training of another replica of the model ended; its own error says why")]
    RankGone,
}
