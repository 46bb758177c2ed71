//! `metrics.jsonl`, and the same for TensorBoard.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Map, Value};
use tritburn_quant::fs::write_atomic;

use super::dir::RunDir;
use super::tensorboard::EventFile;
use crate::error::{Result, TrainError};

/// Appends one JSON object a line, and writes its numbers to an event file.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    events: EventFile,
}

impl MetricsLog {
    /// Opens the log for a run that stands at `step`: lines of later steps, and a last line cut
    /// short by a crash, are dropped.
    ///
    /// # Errors
    /// [`TrainError::Io`] where the system refuses.
    pub fn open(run: &RunDir, step: usize) -> Result<Self> {
        let path = &run.metrics();
        let fail = |source| TrainError::Io {
            path: path.clone(),
            source,
        };
        if path.exists() {
            let text = std::fs::read_to_string(path).map_err(fail)?;
            let kept: String = text
                .lines()
                .filter(|line| {
                    let value: Option<Value> = serde_json::from_str(line).ok();
                    let at = value
                        .as_ref()
                        .and_then(|v| v.get("step"))
                        .and_then(Value::as_u64);
                    at.is_some_and(|s| s <= step as u64)
                })
                .flat_map(|line| [line, "\n"])
                .collect();
            if kept != text {
                write_atomic(path, kept.as_bytes())?;
            }
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(fail)?;
        Ok(Self {
            path: path.clone(),
            file,
            events: EventFile::create(&run.tensorboard(), step)?,
        })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// [`TrainError::Io`] where the system refuses.
    pub fn append(&mut self, fields: Map<String, Value>) -> Result<()> {
        self.events.append(&fields)?;
        let line = format!("{}\n", Value::Object(fields));
        self.file
            .write_all(line.as_bytes())
            .map_err(|source| TrainError::Io {
                path: self.path.clone(),
                source,
            })
    }
}
