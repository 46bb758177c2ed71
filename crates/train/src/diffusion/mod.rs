//! Training and sampling of diffusion transformers (Ho et al. 2020; Song et al. 2021; Peebles & Xie
//! 2023).

mod folder;
mod learner;
mod noise;
mod pipeline;
mod sample;

pub(crate) use pipeline::train;
pub(crate) use sample::sample;
pub use sample::{SampleOptions, Samples};
