//! Reading ahead: one thread reads windows, several tokenise them, and they come out in order.
//!
//! Window `n` goes to worker `n mod workers` and is taken from it again, so the order does not depend
//! on which worker is faster. Each worker has room for one window to come and one that is done;
//! the reader waits for them, and they for the consumer. When the consumer goes away its ends of the
//! channels close, and the threads end by themselves.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::config::{BadShards, StreamConfig};
use super::document::{self, Document, Source};
use super::plan::Plan;
use crate::error::{DataError, Result};
use crate::tokenizer::Tokenizer;

/// A window on its way to a worker.
struct Raw {
    epoch: u64,
    window: u64,
    documents: Vec<Document>,
}

/// A window as it is packed.
pub(super) struct Ready {
    pub(super) epoch: u64,
    pub(super) window: u64,
    /// Tokens of the documents handed out, in their order.
    pub(super) documents: Vec<Vec<u32>>,
}

/// Windows in order, for ever.
pub(super) struct Pipeline {
    lanes: Vec<Receiver<Result<Ready>>>,
    next: usize,
}

impl Pipeline {
    /// Starts the threads at a window of an epoch.
    pub(super) fn start(
        mut source: Box<dyn Source>,
        plan: &Arc<Plan>,
        config: &StreamConfig,
        tokenizer: &Arc<Tokenizer>,
        (epoch, window): (u64, u64),
    ) -> Result<Self> {
        let (mut inputs, mut lanes) = (Vec::new(), Vec::new());
        for number in 0..config.threads() {
            let (raw, take) = sync_channel::<Result<Raw>>(1);
            let (give, ready) = sync_channel(1);
            inputs.push(raw);
            lanes.push(ready);
            let worker = Worker {
                config: config.clone(),
                tokenizer: tokenizer.clone(),
                plan: plan.clone(),
            };
            spawn(format!("tokenise-{number}"), move || {
                worker.run(&take, &give);
            })?;
        }
        let skip = config.bad_shards == BadShards::Skip;
        let plan = plan.clone();
        spawn("read-corpus".to_owned(), move || {
            read_all(&mut *source, &plan, skip, (epoch, window), &inputs);
        })?;
        Ok(Self { lanes, next: 0 })
    }

    /// The next window.
    pub(super) fn next(&mut self) -> Result<Ready> {
        let lane = self.next % self.lanes.len();
        self.next += 1;
        self.lanes[lane].recv().unwrap_or_else(|_| {
            Err(DataError::Loader {
                message:
                    "a thread that reads the corpus ended early; its last words are in the log"
                        .to_owned(),
            })
        })
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name).spawn(work);
    spawned.map(drop).map_err(|error| DataError::Loader {
        message: format!("cannot start a thread ({error}); lower data.stream.workers"),
    })
}

/// Reads until the workers are gone or something fails.
fn read_all(
    source: &mut dyn Source,
    plan: &Plan,
    skip: bool,
    (mut epoch, mut window): (u64, u64),
    workers: &[SyncSender<Result<Raw>>],
) {
    let mut lanes = workers.iter().cycle();
    loop {
        let order = plan.epoch(epoch);
        while window < order.windows() {
            let raw = read_window(source, &order.window(window), skip).map(|documents| Raw {
                epoch,
                window,
                documents,
            });
            let failed = raw.is_err();
            let gone = lanes.next().is_none_or(|lane| lane.send(raw).is_err());
            if failed || gone {
                return;
            }
            window += 1;
        }
        epoch += 1;
        window = 0;
    }
}

fn read_window(
    source: &mut dyn Source,
    parts: &[(usize, std::ops::Range<u64>)],
    skip: bool,
) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for (unit, rows) in parts {
        match source.read(*unit, rows.clone(), &mut documents) {
            Ok(()) => {}
            Err(error) if skip => tracing::warn!(%error, "rows left out"),
            Err(error) => return Err(error),
        }
    }
    Ok(documents)
}

struct Worker {
    config: StreamConfig,
    tokenizer: Arc<Tokenizer>,
    plan: Arc<Plan>,
}

impl Worker {
    fn run(&self, take: &Receiver<Result<Raw>>, give: &SyncSender<Result<Ready>>) {
        while let Ok(raw) = take.recv() {
            let ready = raw.and_then(|raw| self.work(raw));
            let failed = ready.is_err();
            if give.send(ready).is_err() || failed {
                return;
            }
        }
    }

    fn work(&self, mut raw: Raw) -> Result<Ready> {
        let keeps_all = self.config.validation_share == 0.0;
        raw.documents.retain(|document| match document {
            Document::Text(text) => {
                !document::is_blank(text)
                    && (keeps_all || self.config.keeps(document::hash_of(text)))
            }
            Document::Tokens { tokens, hash } => !tokens.is_empty() && self.config.keeps(*hash),
        });
        self.plan
            .shuffle_window(raw.epoch, raw.window, &mut raw.documents);
        let encode = |document| match document {
            Document::Text(text) => document::encode(&self.tokenizer, &text),
            Document::Tokens { tokens, .. } => Ok(tokens),
        };
        Ok(Ready {
            epoch: raw.epoch,
            window: raw.window,
            documents: raw
                .documents
                .into_iter()
                .map(encode)
                .collect::<Result<_>>()?,
        })
    }
}
