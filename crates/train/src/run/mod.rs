//! What a run leaves on disk: its directory, metrics and checkpoints.

mod checkpoint;
mod dir;
mod metrics;
mod tensorboard;
mod text_log;

pub use checkpoint::{Checkpoint, CheckpointState, Score, read_host_tensors, save_model};
pub(crate) use checkpoint::{replace_dir, write_model, write_tensors};
pub use dir::{RunDir, latest_run};
pub use metrics::MetricsLog;
pub(crate) use text_log::TextLog;
