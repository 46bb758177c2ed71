//! Batches of running text, packed without padding.

use super::order::Order;
use super::{Batch, BatchSource, LoaderState};
use crate::error::{DataError, Result};

/// Joins documents with an end token between them, cuts the stream into rows of a fixed length and
/// hands these out shuffled. Row `i` has inputs `i·seq .. (i+1)·seq` and targets one further, so
/// every token of the stream but the first is a target once per epoch; a tail that does not fill a
/// row is left out.
#[derive(Debug, Clone)]
pub struct CorpusLoader {
    stream: Vec<u32>,
    order: Order,
    seq_len: usize,
    batch_size: usize,
}

impl CorpusLoader {
    /// Makes a loader.
    ///
    /// # Errors
    /// If `seq_len` or `batch_size` is 0, or if the documents do not fill one row.
    pub fn new(
        documents: impl IntoIterator<Item = Vec<u32>>,
        seq_len: usize,
        batch_size: usize,
        seed: u64,
        eos: u32,
    ) -> Result<Self> {
        if seq_len == 0 || batch_size == 0 {
            return Err(DataError::Loader {
                message: format!(
                    "sequence length {seq_len} and batch size {batch_size} must be at least 1"
                ),
            });
        }
        let mut stream = Vec::new();
        for document in documents {
            stream.extend(document);
            stream.push(eos);
        }
        let rows = stream.len().saturating_sub(1) / seq_len;
        if rows == 0 {
            return Err(DataError::Loader {
                message: format!(
                    "a corpus of {} tokens does not fill one row of {seq_len}; use more text or a shorter sequence length",
                    stream.len()
                ),
            });
        }
        Ok(Self {
            order: Order::new(rows, seed)?,
            stream,
            seq_len,
            batch_size,
        })
    }

    /// Tokens of the packed stream, end tokens included.
    pub fn tokens(&self) -> usize {
        self.stream.len()
    }
}

impl BatchSource for CorpusLoader {
    fn next_batch(&mut self) -> Result<Batch> {
        let (seq, size) = (self.seq_len, self.seq_len * self.batch_size);
        let mut tokens = Vec::with_capacity(size);
        let mut targets = Vec::with_capacity(size);
        for _ in 0..self.batch_size {
            let start = self.order.next() * seq;
            tokens.extend_from_slice(&self.stream[start..start + seq]);
            targets.extend_from_slice(&self.stream[start + 1..start + seq + 1]);
        }
        Ok(Batch {
            batch: self.batch_size,
            seq,
            tokens,
            targets,
            loss_mask: vec![1.0; size],
            attention_mask: vec![1.0; size],
            tokens_in_batch: size,
            segments: None,
        })
    }

    fn state(&self) -> LoaderState {
        self.order.state()
    }

    fn restore(&mut self, state: &LoaderState) -> Result<()> {
        self.order.restore(state)
    }

    fn batches_per_epoch(&self) -> Option<usize> {
        Some(self.order.len().div_ceil(self.batch_size))
    }
}
