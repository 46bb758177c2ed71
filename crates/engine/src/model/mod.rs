//! The transformer: its parts, how they are loaded and how tokens go through them.

mod buffers;
mod build;
mod cache;
mod clock;
mod forward;
mod gate;
mod heads;
mod input;
mod linear;
mod mlp;
mod norm;
mod rope;
mod source;
mod sparsity;
mod table;

pub(crate) use build::{Model, WeightFormats, build};
pub(crate) use cache::KvCache;
pub(crate) use clock::{Clock, Op};
pub(crate) use forward::Scratch;
pub(crate) use linear::{Layout, Weight};
pub(crate) use source::{FileSource, NOT_FINITE, RandomSource, Source};
pub use sparsity::Sparsity;
pub use table::HeadFormat;
pub(crate) use table::Table;
