//! The projection of every block: a plain linear layer or a BitLinear.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData, backend::Backend};

use tritburn_quant::config::{ModelConfig, SubNorm};

use crate::norm::RmsNorm;
use crate::ops::{Kernels, Ops, TernaryWeight};
use crate::weights::WeightSource;
use crate::{NnError, Result};

/// Shape and kind of one projection.
#[derive(Debug, Clone, Copy)]
pub struct LinearSpec {
    /// Input features.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
    /// Whether weights and activations are quantised in the forward pass.
    pub ternary: bool,
    /// Epsilon of the norm in front, where the layout has one inside every projection.
    pub norm_eps: Option<f64>,
}

impl LinearSpec {
    /// A projection as `config` wants it.
    #[must_use]
    pub fn of(config: &ModelConfig, d_in: usize, d_out: usize) -> Self {
        let norm_eps = (config.sub_norm() == SubNorm::All).then_some(config.rms_norm_eps);
        Self {
            d_in,
            d_out,
            ternary: config.is_ternary(),
            norm_eps,
        }
    }
}

/// `y = x · Wᵀ`, without bias; ternary where the configuration says so.
///
/// The weight keeps Hugging Face's orientation `[out, in]`.
#[derive(Module, Debug)]
pub struct BitLinear<B: Backend> {
    /// Master weight `[out, in]`.
    pub weight: Param<Tensor<B, 2>>,
    /// Norm in front of the quantiser, in the layout that has one in every projection.
    pub norm: Option<RmsNorm<B>>,
    ternary: bool,
}

impl<B: Backend> BitLinear<B> {
    /// Takes `{name}.weight` (and `{name}.norm.weight`) from `source`.
    ///
    /// # Errors
    /// What the source reports.
    pub fn new(
        source: &mut dyn WeightSource,
        name: &str,
        spec: LinearSpec,
        device: &B::Device,
    ) -> Result<Self, NnError> {
        let data = source.matrix(&format!("{name}.weight"), [spec.d_out, spec.d_in])?;
        let weight = Tensor::from_data(TensorData::new(data, [spec.d_out, spec.d_in]), device);
        let norm = spec
            .norm_eps
            .map(|eps| RmsNorm::new(source, &format!("{name}.norm"), spec.d_in, eps, device))
            .transpose()?;
        Ok(Self {
            weight: Param::from_tensor(weight),
            norm,
            ternary: spec.ternary,
        })
    }

    /// # Shapes
    /// `[tokens, in]` → `[tokens, out]`.
    #[must_use]
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2>
    where
        B: Ops,
    {
        let x = match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        if self.ternary {
            B::bit_linear(x, self.weight.val())
        } else {
            x.matmul(self.weight.val().transpose())
        }
    }

    /// Codes and scale as the forward pass uses them; none for a plain linear layer.
    #[must_use]
    pub fn ternary_weight(&self) -> Option<TernaryWeight<B>>
    where
        B: Kernels,
    {
        self.ternary.then(|| B::ternary(self.weight.val()))
    }
}
