//! One generation at a time, with a bounded queue in front of it.
//!
//! A request first takes a place (or gets 429), then waits for its turn, then generates on a
//! blocking thread and sends what comes through a channel. Dropping the channel's receiver, which
//! happens when the client leaves, gives up the place in the queue or ends the generation.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::api_error::ApiError;
use crate::metrics::{Gauge, Metrics, Observer};
use crate::model::TextModel;
use tritburn_engine::{Event, FinishReason, Generation, GenerationParams};

/// What one request sends back while it is served.
#[derive(Debug)]
pub(crate) enum Update {
    /// A piece of text of the choice `index`.
    Text { index: usize, text: String },
    /// The choice `index` is complete.
    Done {
        index: usize,
        finish_reason: &'static str,
    },
    /// All choices are complete.
    Usage(Usage),
    /// The request failed; nothing follows.
    Failed(ApiError),
}

/// Token counts of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
}

/// Hands out places and turns.
#[derive(Debug)]
pub(crate) struct Scheduler {
    queue: usize,
    places: Arc<Semaphore>,
    turn: Arc<Semaphore>,
    stopping: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

/// A request's place: one of the waiting ones, or the one that runs.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    gauge: Gauge,
    arrived: Instant,
}

/// One prompt and what to make of it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) prompt: Vec<u32>,
    pub(crate) params: GenerationParams,
}

impl Scheduler {
    /// With `queue` places for requests that wait while one runs.
    pub(crate) fn new(queue: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            queue,
            places: Arc::new(Semaphore::new(queue + 1)),
            turn: Arc::new(Semaphore::new(1)),
            stopping: Arc::new(AtomicBool::new(false)),
            metrics,
        }
    }

    /// Takes a place, or says that there is none.
    pub(crate) fn admit(&self) -> Result<Place, ApiError> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(ApiError::shutting_down());
        }
        let permit = self.places.clone().try_acquire_owned();
        let permit = permit.map_err(|_| ApiError::queue_full(self.queue))?;
        let gauge = Gauge::waiting(self.metrics.clone());
        Ok(Place {
            _permit: permit,
            gauge,
            arrived: Instant::now(),
        })
    }

    /// Ends all generations at their next event and admits no more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Waits for the turn of `place`, then runs its jobs one after the other.
    ///
    /// The channel is unbounded so that a client that reads slowly does not hold up the others;
    /// what it can hold is bounded by the jobs' `max_tokens`.
    pub(crate) fn start(
        &self,
        place: Place,
        model: Arc<dyn TextModel>,
        jobs: Vec<Job>,
    ) -> mpsc::UnboundedReceiver<Update> {
        let (updates, receiver) = mpsc::unbounded_channel();
        let turn = self.turn.clone();
        let mut worker = Worker {
            place,
            model,
            updates,
            stopping: self.stopping.clone(),
            metrics: self.metrics.clone(),
        };
        tokio::spawn(async move {
            let turn = tokio::select! {
                turn = turn.acquire_owned() => turn,
                () = worker.updates.closed() => return,
            };
            worker.place.gauge.run();
            tokio::task::spawn_blocking(move || {
                worker.run(&jobs);
                // The turn ends before the place does: whoever gets the place finds a free turn.
                drop(turn);
                drop(worker);
            });
        });
        receiver
    }
}

/// The blocking half of a request.
struct Worker {
    place: Place,
    model: Arc<dyn TextModel>,
    updates: mpsc::UnboundedSender<Update>,
    stopping: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl Worker {
    fn run(&self, jobs: &[Job]) {
        let mut observer = Observer::new(self.metrics.clone(), self.place.arrived);
        let mut usage = Usage::default();
        for (index, job) in jobs.iter().enumerate() {
            if self.cancelled() {
                break;
            }
            observer.next_prompt();
            let generation = match self.generate(index, job, &mut observer) {
                Ok(generation) => generation,
                Err(error) => {
                    self.send(Update::Failed(error));
                    return;
                }
            };
            self.metrics
                .add_tokens(generation.prompt_tokens, generation.completion_tokens);
            usage.prompt_tokens += generation.prompt_tokens;
            usage.completion_tokens += generation.completion_tokens;
            let finish_reason = match generation.finish_reason {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
                FinishReason::Cancelled => break,
            };
            self.send(Update::Done {
                index,
                finish_reason,
            });
        }
        if self.stopping.load(Ordering::Relaxed) {
            self.send(Update::Failed(ApiError::shutting_down()));
        } else {
            self.send(Update::Usage(usage));
        }
    }

    fn generate(
        &self,
        index: usize,
        job: &Job,
        observer: &mut Observer,
    ) -> Result<Generation, ApiError> {
        let mut on_event = |event: Event<'_>| {
            match event {
                Event::Token(_) => observer.token(),
                Event::Text(text) => self.send(Update::Text {
                    index,
                    text: text.to_owned(),
                }),
                // Reading of the prompt: nothing to tell, but a chance to cancel.
                _ => {}
            }
            if self.cancelled() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        Ok(self
            .model
            .generate(&job.prompt, &job.params, &mut on_event)?)
    }

    fn cancelled(&self) -> bool {
        self.updates.is_closed() || self.stopping.load(Ordering::Relaxed)
    }

    /// Without a receiver there is no one left to tell; `cancelled` says so.
    fn send(&self, update: Update) {
        let _ = self.updates.send(update);
    }
}
