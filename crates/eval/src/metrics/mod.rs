//! Scores of predictions that need no model: classification tables, ROUGE and BLEU.

mod binary;
mod bleu;
mod lcs;
mod porter;
mod rouge;
mod tokens_13a;

pub use binary::{f1, matthews};
pub use bleu::{Bleu, BleuCounts};
pub use rouge::{Rouge, RougeScore, RougeScorer};
