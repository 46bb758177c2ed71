//! From parquet files to token batches: readers, tokenizer, tasks as language modelling, and
//! seeded loaders whose position can be saved and restored. Also the generator of the embedded
//! data sets.

mod corpus;
mod dice;
mod error;
mod examples;
mod idx;
pub mod loader;
pub mod mnist;
mod rows;
mod split;
pub mod synth;
mod task;
mod template;
mod tokenizer;

pub use corpus::{encode_corpus, read_corpus};
pub use error::{DataError, Result};
pub use examples::{Example, Examples, TaskEncoder, TaskRow, read_task, render_texts};
pub use idx::{LabelledImages, read_labelled, write_labelled};
pub use loader::{Batch, BatchSource, CorpusLoader, ImageLoader, LoaderState, SftLoader};
pub use rows::{Label, Row, RowReader, column_names, count_rows};
pub use split::SplitFiles;
pub use task::{TaskConfig, TaskSpec};
pub use tokenizer::{BOS, EOS, PAD, Tokenizer};
