//! Batches in a seeded order whose position can be saved and restored.

mod corpus;
mod images;
mod order;
mod sft;

pub use corpus::CorpusLoader;
pub use images::ImageLoader;
pub use sft::SftLoader;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::stream::StreamPosition;

/// Token sequences of one step, row-major `[batch, seq]`, padded on the right.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Rows.
    pub batch: usize,
    /// Columns.
    pub seq: usize,
    /// Input tokens.
    pub tokens: Vec<u32>,
    /// The token that follows each input token; the pad id where there is none.
    pub targets: Vec<u32>,
    /// 1 where the target counts in the loss, else 0.
    pub loss_mask: Vec<f32>,
    /// 1 where the input is a real token, 0 on padding.
    pub attention_mask: Vec<f32>,
    /// Real input tokens, without padding.
    pub tokens_in_batch: usize,
    /// Where documents begin, if attention is to stay inside them.
    pub segments: Option<Segments>,
}

/// The documents that a batch's rows are packed from, row-major `[batch, seq]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Segments {
    /// Number of the token's document in its row, from 0. A token may attend to tokens of the same
    /// number only.
    pub ids: Vec<u32>,
    /// Place of the token among those of its document in this row, from 0.
    pub positions: Vec<u32>,
}

/// Where a loader stands; saved in checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderState {
    /// Passes over the data that are complete.
    pub epoch: u64,
    /// Items of the current pass that were handed out.
    pub position: u64,
    /// Seed of the order, to refuse a state of another run.
    pub seed: u64,
    /// Number of items, to refuse a state of other data.
    pub items: u64,
    /// The place in a streamed corpus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamPosition>,
}

/// Something that hands out batches for ever.
pub trait BatchSource {
    /// The next batch; all batches have the same number of rows.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn next_batch(&mut self) -> Result<Batch>;

    /// Position behind the last batch handed out.
    fn state(&self) -> LoaderState;

    /// Continues from a saved position: the following batches are those that the loader which was
    /// asked for the state would have given.
    ///
    /// # Errors
    /// If the state belongs to other data or to another seed.
    fn restore(&mut self, state: &LoaderState) -> Result<()>;

    /// Batches in which every item has been seen once, if that is known.
    fn batches_per_epoch(&self) -> Option<usize>;
}

#[cfg(test)]
mod tests;
