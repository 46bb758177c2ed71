//! Corpora of any size: shards are read row group by row group, tokenised on worker threads and
//! packed into rows, in an order that follows from the seed alone and can be resumed anywhere.
//!
//! What is in memory at a time is a few windows of documents ([`StreamConfig::shuffle_window`]), not a
//! shard. A position is five numbers and a fingerprint, see [`StreamPosition`].

mod config;
mod document;
mod index;
mod loader;
mod pack;
mod parquet_source;
mod pipeline;
mod plan;
mod prepare;
mod prepared;
mod shards;

pub use config::{BadShards, Part, StreamConfig};
pub use index::{Shard, ShardIndex};
pub use loader::{Rank, StreamLoader, StreamPosition, StreamSetup};
pub use prepare::{PrepareReport, PrepareSetup, prepare_shards};
pub use prepared::{Manifest, PreparedShard};
pub use shards::expand_shards;

#[cfg(test)]
mod prepare_tests;
#[cfg(test)]
mod test_corpus;
