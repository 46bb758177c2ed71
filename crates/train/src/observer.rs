//! What a run tells whoever watches it.

use std::path::PathBuf;

use crate::run::Score;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TrainEvent {
    /// A stage begins, or goes on after a resume.
    StageStart {
        /// Its name.
        stage: String,
        /// Steps done before.
        done: usize,
        /// Steps in all.
        steps: usize,
        /// Trained weights.
        parameters: usize,
    },
    /// A step is done.
    Step {
        /// Stage.
        stage: String,
        /// Steps of the stage that are done.
        step: usize,
        /// Steps of the stage.
        steps: usize,
        /// Loss of the step.
        loss: f32,
        /// Learning rate of the step.
        lr: f64,
        /// Tokens a second of this step.
        tok_s: f64,
    },
    /// An evaluation.
    Eval {
        /// Stage.
        stage: String,
        /// For example `eval/mnli/acc`.
        metric: String,
        /// Value.
        value: f64,
    },
    /// A stage is done and its weights are written.
    StageEnd {
        /// Its name.
        stage: String,
        /// Its folder.
        path: PathBuf,
        /// Seconds it took in this process.
        seconds: f64,
    },
    /// A stage took the weights of its best evaluation back.
    Best {
        /// Its name.
        stage: String,
        /// The evaluation.
        score: Score,
    },
    /// A checkpoint was written.
    Saved {
        /// Its folder.
        path: PathBuf,
    },
}

/// Receives events; progress bars and tests implement it.
pub trait Observer {
    /// Called for each event, in order.
    fn event(&mut self, event: &TrainEvent);
}

impl<F: FnMut(&TrainEvent)> Observer for F {
    fn event(&mut self, event: &TrainEvent) {
        self(event);
    }
}
