//! The transformer: its parts, how they are loaded and how tokens go through them.

mod attention;
mod build;
mod cache;
mod clock;
mod forward;
mod gate;
mod input;
mod linear;
mod norm;
mod rope;
mod source;
mod table;

pub(crate) use build::{Model, WeightFormats, build};
pub(crate) use cache::KvCache;
pub(crate) use clock::{Clock, Op};
pub(crate) use forward::Scratch;
pub(crate) use linear::Weight;
pub(crate) use source::{FileSource, NOT_FINITE, RandomSource, Source};
pub use table::HeadFormat;
pub(crate) use table::Table;
