//! Training: recipes, the step loop, losses, schedules, checkpoints and export.

pub mod error;
pub mod export;
pub mod loss;
mod objective;
pub mod observer;
pub mod optim;
mod pipeline;
pub mod recipe;
pub mod run;
pub mod schedule;
pub mod scorer;
mod stage;
mod task_eval;

pub use error::{Result, TrainError};
pub use pipeline::{Outcome, train};
