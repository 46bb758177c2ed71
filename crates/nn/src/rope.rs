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

impl<B: Backend> Rope<B> {
    /// Tables for `positions` positions: `angle = position · theta^(−2i / head_dim)`, in f32.
    #[must_use]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    pub fn new(positions: usize, head_dim: usize, theta: f64, device: &B::Device) -> Self {
        let half = head_dim / 2;
        let inv_freq: Vec<f32> = (0..half)
            .map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32))
            .collect();
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = (0..positions)
                .flat_map(|p| {
                    inv_freq
                        .iter()
                        .chain(&inv_freq)
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
