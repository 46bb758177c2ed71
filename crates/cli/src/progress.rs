//! Progress of a run: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use tritburn_train::observer::{Observer, TrainEvent};

use crate::output::say;

/// Seconds between lines where there is no terminal.
const LINE_EVERY: f64 = 10.0;

/// Shows training events.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    done: usize,
    stage_start: usize,
    started: Instant,
    first: Option<usize>,
    last_line: f64,
}

impl Progress {
    /// For a run of `total` steps in all stages.
    pub(crate) fn new(total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "{prefix:>12} [{bar:30}] {pos}/{len} {msg}, {eta} left",
            );
            let bar = ProgressBar::new(total as u64);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self {
            bar,
            total,
            done: 0,
            stage_start: 0,
            started: Instant::now(),
            first: None,
            last_line: 0.0,
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => say(text),
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn seconds_left(&self) -> f64 {
        let first = self.first.unwrap_or(self.done);
        let steps = (self.done - first).max(1) as f64;
        self.started.elapsed().as_secs_f64() / steps * (self.total - self.done) as f64
    }
}

impl Observer for Progress {
    fn event(&mut self, event: &TrainEvent) {
        match event {
            TrainEvent::StageStart {
                stage,
                done,
                steps,
                parameters,
            } => {
                self.line(&format!("{stage}: {steps} steps, {parameters} weights"));
                if *done > 0 {
                    self.line(&format!("{stage}: goes on after step {done}"));
                }
                self.done = self.stage_start + done;
                self.first.get_or_insert(self.done);
                if let Some(bar) = &self.bar {
                    bar.set_prefix(stage.clone());
                }
            }
            TrainEvent::Step {
                stage,
                step,
                steps,
                loss,
                tok_s,
                ..
            } => {
                self.done = self.stage_start + step;
                if let Some(bar) = &self.bar {
                    bar.set_position(self.done as u64);
                    bar.set_message(format!("loss {loss:.3}, {tok_s:.0} tok/s"));
                }
                let now = self.started.elapsed().as_secs_f64();
                if self.bar.is_none() && now - self.last_line >= LINE_EVERY {
                    self.last_line = now;
                    let left = std::time::Duration::from_secs_f64(self.seconds_left());
                    say(format!(
                        "{stage} {step}/{steps}: loss {loss:.3}, {tok_s:.0} tok/s, about {} left",
                        HumanDuration(left)
                    ));
                }
            }
            TrainEvent::Eval {
                stage,
                metric,
                value,
            } => {
                self.line(&format!("{stage}: {metric} {value:.3}"));
            }
            TrainEvent::StageEnd {
                stage,
                seconds,
                path,
            } => {
                self.stage_start = self.done;
                self.line(&format!(
                    "{stage}: done in {seconds:.1} s, {}",
                    path.display()
                ));
            }
            _ => {}
        }
    }
}
