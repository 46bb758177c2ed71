//! From parquet files to token batches: readers, tokenizer, tasks as language modelling, and
//! seeded loaders whose position can be saved and restored. Also the generator of the embedded
//! data sets.

mod built_in;
mod corpus;
mod dice;
mod error;
mod examples;
mod generation;
mod idx;
pub mod loader;
pub mod mnist;
#[cfg(feature = "remote")]
mod remote;
mod rows;
mod shard_file;
mod split;
pub mod stream;
pub mod synth;
mod task;
mod template;
mod tokenizer;

pub use built_in::PromptStyle;
pub use corpus::{encode_corpus, read_corpus};
pub use error::{DataError, Result};
pub use examples::{
    Example, Examples, TaskEncoder, TaskRow, read_examples, read_prompts, read_task, render_texts,
};
pub use generation::{TextEncoder, TextRow, read_text_rows};
pub use idx::{LabelledImages, read_labelled, write_labelled};
pub use loader::{Batch, BatchSource, CorpusLoader, ImageLoader, LoaderState, Segments, SftLoader};
pub use rows::{Label, Row, RowReader, column_names, count_rows};
pub use split::SplitFiles;
pub use task::{TaskConfig, TaskSpec};
pub use tokenizer::{BOS, EOS, PAD, Tokenizer};
