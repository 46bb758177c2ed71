//! Where threads run on a machine whose memory is nearer to some processors than to others.
//!
//! A decoded token reads every weight once, so what bounds it is how near the weights are. The system
//! puts a page near the thread that first writes it, and matrices are packed on the threads that later
//! multiply them; any thread may take any part of a product, so weights are near all threads only
//! where all threads are near each other.

mod affinity;
mod place;
#[cfg(test)]
mod tests;
mod topology;

pub use place::{Numa, Placement};
pub use topology::{Node, Topology};

pub(crate) use affinity::bind;
