//! The embedded data sets, made by rule from a seed: a small inference task in the layout of
//! GLUE's `mnli`, a sentiment task in that of `sst2`, a corpus in FALCON RefinedWeb's schema, and
//! drawn digits in the format of MNIST.

mod digits;
mod files;
mod lexicon;
mod nli;
mod reviews;
mod scene;
mod stories;

pub use digits::{generate as generate_digits, write as write_digits};
pub use files::write_all;
pub use nli::{NliRow, NliTask, generate as generate_nli};
pub use reviews::{ReviewRow, generate as generate_reviews};

/// Seed of the files checked in under `data/`.
pub const SEED: u64 = 20_240_227;
/// Rows of `mnli/train`.
pub const NLI_TRAIN_ROWS: usize = 6_000;
/// Rows of `mnli/validation_matched` and of `mnli/validation_mismatched`.
pub const NLI_VALIDATION_ROWS: usize = 900;
/// Rows of `sst2/train`.
pub const REVIEW_TRAIN_ROWS: usize = 3_000;
/// Rows of `sst2/validation`.
pub const REVIEW_VALIDATION_ROWS: usize = 600;
/// Documents of `refinedweb/train`, about 1.2 kB each.
pub const CORPUS_TRAIN_DOCUMENTS: usize = 480;
/// Documents of `refinedweb/validation`.
pub const CORPUS_VALIDATION_DOCUMENTS: usize = 24;
/// Images of `digits/train`.
pub const DIGITS: usize = 400;
