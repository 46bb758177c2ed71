//! Batches of a streamed corpus.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config::StreamConfig;
use super::document::Source;
use super::index::ShardIndex;
use super::pack::{Packer, Place, Rows};
use super::parquet_source::ParquetSource;
use super::pipeline::Pipeline;
use super::plan::{Plan, units};
use super::prepared::{Manifest, PreparedSource};
use super::shards::expand_shards;
use crate::error::{DataError, Result};
use crate::loader::{Batch, BatchSource, LoaderState};
use crate::tokenizer::Tokenizer;

/// A process's place among those that share a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// From 0.
    pub rank: usize,
    /// Processes in all.
    pub world: usize,
}

impl Default for Rank {
    fn default() -> Self {
        Self { rank: 0, world: 1 }
    }
}

/// A place in a streamed corpus, beside the epoch: the next token to hand out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamPosition {
    /// Window of the epoch.
    pub window: u64,
    /// Place of the document in the shuffled window.
    pub document: u64,
    /// Place of the token in the document.
    pub token: u64,
    /// Names the shards and the settings that the order depends on.
    pub fingerprint: String,
}

/// What a loader is made from.
#[derive(Debug, Clone)]
pub struct StreamSetup<'a> {
    /// Settings.
    pub config: &'a StreamConfig,
    /// Shards where the settings name none.
    pub corpus: &'a str,
    /// Text column; `content` or `text` where none is named.
    pub column: Option<&'a str>,
    /// Tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Tokens of a row.
    pub seq_len: usize,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Seed of the order.
    pub seed: u64,
    /// Which part of the corpus is this process's.
    pub rank: Rank,
    /// File that keeps the row counts of the shards over the life of a run.
    pub index: Option<&'a Path>,
}

/// Hands out rows of a corpus as [`crate::CorpusLoader`] does, without holding the corpus.
pub struct StreamLoader {
    config: StreamConfig,
    origin: Origin,
    tokenizer: Arc<Tokenizer>,
    plan: Arc<Plan>,
    fingerprint: String,
    documents: u64,
    seq_len: usize,
    batch_size: usize,
    pipeline: Option<Pipeline>,
    packer: Packer,
    /// The next token, where the packer is empty.
    next: Place,
    /// Documents of the current epoch so far, to notice an epoch without any.
    seen: u64,
}

/// What documents are read from.
enum Origin {
    Parquet(ShardIndex),
    Prepared(PathBuf, Manifest),
}

impl Origin {
    fn source(&self) -> Box<dyn Source> {
        match self {
            Self::Parquet(index) => Box::new(ParquetSource::new(index)),
            Self::Prepared(folder, manifest) => Box::new(PreparedSource::new(folder, manifest)),
        }
    }
}

impl StreamLoader {
    /// Finds the shards and reads their row counts; the text is read later, by the first batch.
    ///
    /// # Errors
    /// If settings are impossible (the first of [`StreamConfig::faults`]), if there are fewer row
    /// groups than processes, and as [`expand_shards`], [`ShardIndex::keep`] and
    /// [`Manifest::open`].
    pub fn open(setup: &StreamSetup<'_>) -> Result<Self> {
        let config = setup.config;
        let fault = |message: String| DataError::Loader { message };
        if let Some(first) = config.faults().into_iter().next() {
            return Err(first);
        }
        if setup.seq_len == 0 || setup.batch_size == 0 {
            return Err(fault(format!(
                "sequence length {} and batch size {} must be at least 1",
                setup.seq_len, setup.batch_size
            )));
        }
        let Rank { rank, world } = setup.rank;
        if rank >= world {
            return Err(fault(format!("rank {rank} of {world}; ranks count from 0")));
        }
        let (origin, index) = origin(setup)?;
        let units = units(&index);
        let with_rows = units.iter().filter(|unit| unit.rows > 0).count();
        if with_rows < world {
            return Err(fault(format!(
                "{with_rows} row groups for {world} processes; write the shards with smaller row groups, or use fewer processes"
            )));
        }
        let plan = Plan {
            units: units.into(),
            seed: setup.seed,
            shuffle: config.shuffle_shards,
            window: config.shuffle_window as u64,
            rank,
            world,
        };
        let fingerprint = format!(
            "{}-{}-{}-{}-{:?}-{rank}/{world}",
            index.fingerprint(),
            u8::from(config.shuffle_shards),
            config.shuffle_window,
            config.validation_share,
            config.part,
        );
        Ok(Self {
            config: config.clone(),
            documents: index.rows(),
            origin,
            tokenizer: Arc::new(setup.tokenizer.clone()),
            plan: Arc::new(plan),
            fingerprint,
            seq_len: setup.seq_len,
            batch_size: setup.batch_size,
            pipeline: None,
            packer: Packer::default(),
            next: Place {
                epoch: 0,
                window: 0,
                index: 0,
                offset: 0,
            },
            seen: 0,
        })
    }

    /// Documents of all shards, blank ones included.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Takes the next window in.
    fn refill(&mut self) -> Result<()> {
        let (place, fresh) = (self.next, self.pipeline.is_none());
        let pipeline = match &mut self.pipeline {
            Some(pipeline) => pipeline,
            None => self.pipeline.insert(Pipeline::start(
                self.origin.source(),
                &self.plan,
                &self.config,
                &self.tokenizer,
                (place.epoch, place.window),
            )?),
        };
        let ready = match pipeline.next() {
            Ok(ready) => ready,
            Err(error) => {
                // The threads have ended; a further call begins at the same place.
                self.pipeline = None;
                return Err(error);
            }
        };
        if ready.epoch > place.epoch {
            if self.seen == 0 {
                return Err(DataError::Loader {
                    message: format!(
                        "a whole epoch of {} rows holds no document to hand out (part {:?}, validation_share {})",
                        self.documents, self.config.part, self.config.validation_share
                    ),
                });
            }
            self.seen = 0;
        }
        self.seen += ready.documents.len() as u64;
        // A fresh start may lie inside the window.
        let (first, offset) = if fresh {
            (place.index, place.offset)
        } else {
            (0, 0)
        };
        for (index, tokens) in (0..).zip(ready.documents).skip_while(|(i, _)| *i < first) {
            let at = Place {
                epoch: ready.epoch,
                window: ready.window,
                index,
                offset: if index == first { offset } else { 0 },
            };
            self.packer.push(at, tokens);
        }
        self.next = Place {
            epoch: ready.epoch,
            window: ready.window + 1,
            index: 0,
            offset: 0,
        };
        Ok(())
    }

    fn place(&self) -> Place {
        self.packer.place().unwrap_or(self.next)
    }
}

/// Shards of a setup, and their row counts.
fn origin(setup: &StreamSetup<'_>) -> Result<(Origin, ShardIndex)> {
    let config = setup.config;
    let own = [setup.corpus.to_owned()];
    let inputs = if config.shards.is_empty() {
        &own[..]
    } else {
        &config.shards
    };
    if let [folder] = inputs
        && Manifest::path(Path::new(folder)).is_file()
    {
        let folder = PathBuf::from(folder);
        let manifest = Manifest::open(&folder, setup.tokenizer, setup.column)?;
        let index = manifest.index();
        return Ok((Origin::Prepared(folder, manifest), index));
    }
    let shards = expand_shards(inputs, &config.split)?;
    let index = match setup.index {
        Some(file) => ShardIndex::keep(file, &shards, setup.column, config.bad_shards)?,
        None => ShardIndex::read(&shards, setup.column, config.bad_shards)?,
    };
    Ok((Origin::Parquet(index.clone()), index))
}

impl BatchSource for StreamLoader {
    fn next_batch(&mut self) -> Result<Batch> {
        let size = self.batch_size * self.seq_len;
        // All of it first, so that an error leaves the position as it was.
        while self.packer.waiting() <= size {
            self.refill()?;
        }
        let mut rows = Rows::default();
        for _ in 0..self.batch_size {
            let apart = self.config.separate_documents;
            self.packer.take_row(self.seq_len, apart, &mut rows);
        }
        Ok(Batch {
            batch: self.batch_size,
            seq: self.seq_len,
            tokens: rows.tokens,
            targets: rows.targets,
            loss_mask: rows.loss_mask,
            attention_mask: vec![1.0; size],
            tokens_in_batch: size,
            segments: self.config.separate_documents.then_some(rows.segments),
        })
    }

    fn state(&self) -> LoaderState {
        let place = self.place();
        LoaderState {
            epoch: place.epoch,
            position: place.window * self.plan.window,
            seed: self.plan.seed,
            items: self.documents,
            stream: Some(StreamPosition {
                window: place.window,
                document: place.index,
                token: place.offset,
                fingerprint: self.fingerprint.clone(),
            }),
        }
    }

    fn restore(&mut self, state: &LoaderState) -> Result<()> {
        let fault = |message: String| DataError::Loader {
            message: format!("{message}; resume with the data and settings of the saved run"),
        };
        let Some(position) = &state.stream else {
            return Err(fault(
                "the saved position is not one in a streamed corpus".to_owned(),
            ));
        };
        if position.fingerprint != self.fingerprint || state.seed != self.plan.seed {
            return Err(fault(format!(
                "the saved position belongs to the order {} of seed {}, this run has {} of seed {}",
                position.fingerprint, state.seed, self.fingerprint, self.plan.seed
            )));
        }
        self.pipeline = None;
        self.packer = Packer::default();
        self.seen = 0;
        self.next = Place {
            epoch: state.epoch,
            window: position.window,
            index: position.document,
            offset: position.token,
        };
        Ok(())
    }

    fn batches_per_epoch(&self) -> Option<usize> {
        None
    }
}
