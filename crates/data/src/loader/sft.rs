//! Batches of examples, padded to a common length.

use super::order::Order;
use super::{Batch, BatchSource, LoaderState};
use crate::error::{DataError, Result};
use crate::examples::Example;

/// Hands out shuffled examples, those of like length together. A batch that reaches the end of an epoch is filled from the next
/// one, so every batch has the same number of rows and no example is dropped.
#[derive(Debug, Clone)]
pub struct SftLoader {
    examples: Vec<Example>,
    order: Order,
    batch_size: usize,
    pad_id: u32,
    pad_multiple: usize,
}

impl SftLoader {
    /// Makes a loader. The length of a batch is that of its longest row, rounded up to a multiple
    /// of `pad_multiple`: a multiple as large as the longest example gives one shape for all.
    ///
    /// # Errors
    /// If there are no examples, if an example has no answer behind at least one other token, or
    /// if `batch_size` or `pad_multiple` is 0.
    pub fn new(
        examples: Vec<Example>,
        batch_size: usize,
        seed: u64,
        pad_id: u32,
        pad_multiple: usize,
    ) -> Result<Self> {
        if batch_size == 0 || pad_multiple == 0 {
            return Err(DataError::Loader {
                message: format!(
                    "batch size {batch_size} and pad multiple {pad_multiple} must be at least 1"
                ),
            });
        }
        let bad = examples
            .iter()
            .position(|e| e.answer_start == 0 || e.answer_start >= e.tokens.len());
        if let Some(index) = bad {
            return Err(DataError::Loader {
                message: format!("example {index} has no answer behind a prompt"),
            });
        }
        let lengths = examples
            .iter()
            .map(|e| u32::try_from(e.tokens.len()).unwrap_or(u32::MAX))
            .collect();
        let order = Order::grouped(lengths, batch_size, seed)?;
        Ok(Self {
            examples,
            order,
            batch_size,
            pad_id,
            pad_multiple,
        })
    }

    /// The examples, in the order given.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }
}

impl BatchSource for SftLoader {
    fn next_batch(&mut self) -> Result<Batch> {
        let picked: Vec<usize> = (0..self.batch_size).map(|_| self.order.next()).collect();
        let rows: Vec<&Example> = picked.iter().map(|&index| &self.examples[index]).collect();
        // The last token is a target only.
        let longest = rows
            .iter()
            .map(|row| row.tokens.len() - 1)
            .max()
            .unwrap_or(1);
        let seq = longest.next_multiple_of(self.pad_multiple);
        let size = self.batch_size * seq;
        let mut batch = Batch {
            batch: self.batch_size,
            seq,
            tokens: vec![self.pad_id; size],
            targets: vec![self.pad_id; size],
            loss_mask: vec![0.0; size],
            attention_mask: vec![0.0; size],
            tokens_in_batch: 0,
            segments: None,
        };
        for (row, example) in rows.iter().enumerate() {
            let length = example.tokens.len() - 1;
            let start = row * seq;
            batch.tokens[start..start + length].copy_from_slice(&example.tokens[..length]);
            batch.targets[start..start + length].copy_from_slice(&example.tokens[1..]);
            batch.loss_mask[start + example.answer_start - 1..start + length].fill(1.0);
            batch.attention_mask[start..start + length].fill(1.0);
            batch.tokens_in_batch += length;
        }
        Ok(batch)
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
