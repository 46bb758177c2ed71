//! RMSNorm.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, backend::Backend};

use crate::ops::Ops;
use crate::weights::WeightSource;
use crate::{NnError, Result};

/// `y = x · rsqrt(mean(x²) + eps) · weight` over the last dimension (Zhang & Sennrich 2019).
#[derive(Module, Debug)]
pub struct RmsNorm<B: Backend> {
    /// `[features]`.
    pub weight: Param<Tensor<B, 1>>,
    eps: f64,
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
        Ok(Self { weight, eps })
    }

    /// # Shapes
    /// `[tokens, features]` → `[tokens, features]`.
    #[must_use]
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2>
    where
        B: Ops,
    {
        B::rms_norm(x, self.weight.val(), self.eps)
    }
}
