//! Batches of labelled images.

use super::LoaderState;
use super::order::Order;
use crate::error::{DataError, Result};
use crate::idx::LabelledImages;

/// Hands out images in a seeded order, for ever; every batch has the same number.
#[derive(Debug, Clone)]
pub struct ImageLoader {
    images: LabelledImages,
    order: Order,
    batch_size: usize,
}

impl ImageLoader {
    /// Makes a loader.
    ///
    /// # Errors
    /// If there are no images or `batch_size` is 0.
    pub fn new(images: LabelledImages, batch_size: usize, seed: u64) -> Result<Self> {
        if batch_size == 0 {
            return Err(DataError::Loader {
                message: "batch size 0 must be at least 1".into(),
            });
        }
        Ok(Self {
            order: Order::new(images.len(), seed)?,
            images,
            batch_size,
        })
    }

    /// The next batch.
    pub fn next_batch(&mut self) -> LabelledImages {
        let places: Vec<usize> = (0..self.batch_size).map(|_| self.order.next()).collect();
        self.images.select(&places)
    }

    /// Images handed out so far.
    #[must_use]
    pub fn handed_out(&self) -> u64 {
        let state = self.order.state();
        state.epoch * state.items + state.position
    }

    /// Position behind the last batch handed out.
    #[must_use]
    pub fn state(&self) -> LoaderState {
        self.order.state()
    }

    /// Continues from a saved position.
    ///
    /// # Errors
    /// If the state belongs to other data or to another seed.
    pub fn restore(&mut self, state: &LoaderState) -> Result<()> {
        self.order.restore(state)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_restored_loader_goes_on_where_the_other_stood() {
        let images = LabelledImages {
            rows: 1,
            cols: 1,
            pixels: (0..10).collect(),
            labels: (0..10).collect(),
        };
        let mut loader = ImageLoader::new(images.clone(), 4, 3).unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.extend(loader.next_batch().labels);
        }
        let mut first: Vec<u8> = seen[..10].to_vec();
        first.sort_unstable();
        assert_eq!(first, images.labels);
        assert_eq!(loader.handed_out(), 12);
        let mut again = ImageLoader::new(images.clone(), 4, 3).unwrap();
        again.restore(&loader.state()).unwrap();
        assert_eq!(again.next_batch(), loader.next_batch());
        let mut other = ImageLoader::new(images, 4, 4).unwrap();
        assert!(other.restore(&loader.state()).is_err());
    }
}
