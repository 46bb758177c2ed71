//! From parquet files to token batches: readers, tokenizer, tasks as language modelling, and
//! seeded loaders whose position can be saved and restored. Also the generator of the embedded
//! data sets.

mod error;
mod rows;
mod split;

pub use error::{DataError, Result};
pub use rows::{Label, Row, RowReader, column_names, count_rows};
pub use split::SplitFiles;
