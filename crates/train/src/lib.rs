//! Training: recipes, the step loop, losses, schedules, checkpoints and export; diffusion and its
//! sampling.

mod bench;
mod blockwise;
mod diffusion;
pub mod error;
mod export;
pub mod loss;
mod measure;
mod objective;
pub mod observer;
mod on_device;
pub mod optim;
pub mod parity;
mod pipeline;
pub mod recipe;
mod reduction;
mod replicas;
pub mod run;
pub mod schedule;
mod scorer;
mod stage;
mod steps;
mod surgery;
mod task_eval;
mod teacher;

pub use bench::{StepBench, StepMode, StepTimes};
pub use diffusion::{SampleOptions, Samples};
pub use error::{Result, TrainError};
pub use export::{export_latent, import_gguf};
pub use on_device::{bench_step, export_hf, logits, sample, train, train_any, with_scorer};
pub use pipeline::Outcome;
