//! `train.log`: what happened in a run, for people.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::dir::timestamp;
use crate::error::{Result, TrainError};
use crate::observer::{Observer, TrainEvent};

/// Writes events to a file, and passes them on.
pub(crate) struct TextLog<'a> {
    file: File,
    log_every: usize,
    next: &'a mut dyn Observer,
}

impl<'a> TextLog<'a> {
    /// Appends to `path`; a step in `log_every` gets a line.
    pub(crate) fn open(path: &Path, log_every: usize, next: &'a mut dyn Observer) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|source| TrainError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        Ok(Self {
            file,
            log_every,
            next,
        })
    }
}

impl Observer for TextLog<'_> {
    fn event(&mut self, event: &TrainEvent) {
        let line = match event {
            TrainEvent::StageStart {
                stage,
                done,
                steps,
                parameters,
            } => Some(format!(
                "{stage}: starts after {done} of {steps} steps, {parameters} weights"
            )),
            TrainEvent::Step {
                stage,
                step,
                steps,
                loss,
                lr,
                tok_s,
            } => (step.is_multiple_of(self.log_every) || step == steps).then(|| {
                format!("{stage} {step}/{steps}: loss {loss:.4}, lr {lr:.3e}, {tok_s:.0} tok/s")
            }),
            TrainEvent::Eval {
                stage,
                metric,
                value,
            } => Some(format!("{stage}: {metric} {value:.4}")),
            TrainEvent::Best { stage, score } => Some(format!(
                "{stage}: ends with the weights of step {}, {} {:.4}",
                score.step, score.metric, score.value
            )),
            TrainEvent::Saved { path } => Some(format!("saved {}", path.display())),
            TrainEvent::StageEnd {
                stage,
                seconds,
                path,
            } => Some(format!(
                "{stage}: done in {seconds:.1} s, {}",
                path.display()
            )),
        };
        if let Some(line) = line {
            // The log is for people: a full disk must not end a run here, the checkpoint says so.
            let _ = writeln!(self.file, "{} {line}", timestamp());
        }
        self.next.event(event);
    }
}
