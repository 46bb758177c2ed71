//! Tables of the rotary position embedding.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::ops::Ops;

/// Cosines and sines of every position, halves convention (Su et al. 2021, as in Hugging Face's
/// Llama).
#[derive(Module, Debug)]
pub struct Rope<B: Backend> {
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
}

/// Positions that a table covers at the most: 8 MiB for heads of width 128.
pub const MAX_POSITIONS: usize = 8192;

impl<B: Backend> Rope<B> {
    /// Tables for `positions` positions, but no more than 8,192: `angle = position · inv_freq`, in
    /// f32, with one frequency for each of the `head_dim / 2` pairs.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn new(positions: usize, inv_freq: &[f32], device: &B::Device) -> Self {
        let (positions, head_dim) = (positions.min(MAX_POSITIONS), 2 * inv_freq.len());
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = (0..positions)
                .flat_map(|p| {
                    inv_freq
                        .iter()
                        .chain(inv_freq)
                        .map(move |freq| f(p as f32 * freq))
                })
                .collect();
            Tensor::from_data(TensorData::new(values, [positions, head_dim]), device)
        };
        Self {
            cos: table(f32::cos),
            sin: table(f32::sin),
        }
    }

    /// Longest sequence the tables cover.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.cos.dims()[0]
    }

    /// # Shapes
    /// `[batch · seq, heads · head_dim]` → the same, every sequence at positions `0..seq`.
    #[must_use]
    pub fn forward(&self, x: Tensor<B, 2>, seq: usize) -> Tensor<B, 2>
    where
        B: Ops,
    {
        let cos = self.cos.clone().narrow(0, 0, seq);
        let sin = self.sin.clone().narrow(0, 0, seq);
        B::rope(x, cos, sin, seq)
    }
}
