//! RMSNorm.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, backend::Backend};

use crate::ops::Ops;
use crate::weights::WeightSource;
use crate::{NnError, Result};

/// `y = x · rsqrt(mean(x²) + eps) · (offset + weight)` over the last dimension (Zhang & Sennrich
/// 2019); the offset is 0, or 1 in Gemma.
#[derive(Module, Debug)]
pub struct RmsNorm<B: Backend> {
    /// `[features]`.
    pub weight: Param<Tensor<B, 1>>,
    eps: f64,
    offset: f32,
}

impl<B: Backend> RmsNorm<B> {
    /// Takes `{name}.weight` `[features]` from `source`.
    ///
    /// # Errors
    /// What the source reports.
    pub fn new(
        source: &mut dyn WeightSource,
        name: &str,
        features: usize,
        eps: f64,
        device: &B::Device,
    ) -> Result<Self, NnError> {
        let data = source.norm(&format!("{name}.weight"), features)?;
        let weight = Param::from_tensor(Tensor::from_data(
            burn::tensor::TensorData::new(data, [features]),
            device,
        ));
        let offset = 0.0;
        Ok(Self {
            weight,
            eps,
            offset,
        })
    }

    /// The same norm with `offset` added to its weight.
    #[must_use]
    pub fn with_offset(self, offset: f32) -> Self {
        Self { offset, ..self }
    }

    /// # Shapes
    /// `[tokens, features]` → `[tokens, features]`.
    #[must_use]
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2>
    where
        B: Ops,
    {
        let weight = self.weight.val();
        let weight = if self.offset == 0.0 {
            weight
        } else {
            weight + self.offset
        };
        B::rms_norm(x, weight, self.eps)
    }
}
