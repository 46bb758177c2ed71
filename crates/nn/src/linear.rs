//! The projection of every block: a plain linear layer or a BitLinear.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData, backend::Backend};
use tritburn_quant::config::{ModelConfig, SubNorm};
use tritburn_quant::scheme::{Granularity, Input, WeightQuant};

use crate::hadamard::Hadamard;
use crate::norm::RmsNorm;
use crate::ops::{Compute, Kernels, LinearQuant, Ops, QuantActs, QuantWeight};
use crate::packed::Packed;
use crate::weights::WeightSource;
use crate::{NnError, Result};

/// Shape and kind of one projection.
#[derive(Debug, Clone, Copy)]
pub struct LinearSpec {
    /// Input features.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
    /// Quantisers of the forward pass; none for a plain linear layer.
    pub quant: Option<LinearQuant>,
    /// Norm inside the projection: none, RMSNorm or LayerNorm.
    pub norm: SubNorm,
    /// Epsilon of that norm.
    pub norm_eps: f64,
    /// Whether a bias is added.
    pub bias: bool,
}

impl LinearSpec {
    /// The projection `module` from `input` as `config` wants it.
    #[must_use]
    pub fn of(config: &ModelConfig, module: &str, input: Input, [d_in, d_out]: [usize; 2]) -> Self {
        let converted = config.quantization_config.as_ref();
        let scheme = config
            .quant_scheme()
            .filter(|_| converted.is_some_and(|q| !q.excludes(module)));
        let quant = scheme.map(|scheme| LinearQuant {
            weight: scheme.weights,
            act: scheme.act(input),
            lambda: 1.0,
            int8_grad_input: false,
        });
        Self {
            d_in,
            d_out,
            quant,
            norm: config.sub_norm(),
            norm_eps: config.projection_norm().1,
            bias: false,
        }
    }

    /// The same with a bias.
    #[must_use]
    pub fn with_bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }
}

/// `y = Q_act(norm(x)) · Q_weight(W)ᵀ + bias`; norm, quantisers and bias where the configuration has
/// them.
///
/// The weight keeps Hugging Face's orientation `[out, in]`.
#[derive(Module, Debug)]
pub struct BitLinear<B: Backend> {
    /// Master weight `[out, in]`; absent once it is packed.
    pub weight: Option<Param<Tensor<B, 2>>>,
    /// `[out]`, in full precision.
    pub bias: Option<Param<Tensor<B, 1>>>,
    /// Norm in front of the quantiser, in the layout that has one in every projection.
    pub norm: Option<RmsNorm<B>>,
    hadamard: Option<Hadamard<B>>,
    /// The quantised weight, while it is held.
    held: Option<QuantWeight<B>>,
    /// What stands in for the master weight.
    #[module(skip)]
    packed: Option<Arc<Packed>>,
    #[module(skip)]
    layer_norm: Option<f64>,
    #[module(skip)]
    quant: Option<LinearQuant>,
    #[module(skip)]
    compute: Compute,
}

/// See [`Kernels::frozen`].
pub(crate) fn freeze<B: Kernels>(weight: &mut Param<Tensor<B, 2>>, compute: Compute) {
    *weight = weight.clone().map(|weight| B::frozen(weight, compute));
}

impl<B: Backend> BitLinear<B> {
    /// Takes `{name}.weight` (and `{name}.bias`, `{name}.norm.weight`) from `source`.
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
        let norm = (spec.norm == SubNorm::All)
            .then(|| {
                let name = format!("{name}.norm");
                RmsNorm::new(source, &name, spec.d_in, spec.norm_eps, device)
            })
            .transpose()?;
        let bias = spec
            .bias
            .then(|| source.bias(&format!("{name}.bias"), spec.d_out));
        let bias = bias.transpose()?.map(|data| {
            Param::from_tensor(Tensor::from_data(
                TensorData::new(data, [spec.d_out]),
                device,
            ))
        });
        let turned = spec.quant.is_some_and(|q| q.act.hadamard);
        Ok(Self {
            weight: Some(Param::from_tensor(weight)),
            bias,
            norm,
            held: None,
            packed: None,
            hadamard: turned.then(|| Hadamard::new(spec.d_in, device)).flatten(),
            layer_norm: (spec.norm == SubNorm::LayerNorm).then_some(spec.norm_eps),
            quant: spec.quant,
            compute: Compute::default(),
        })
    }

    /// # Shapes
    /// `[tokens, in]` → `[tokens, out]`.
    #[must_use]
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2>
    where
        B: Ops,
    {
        let x = self.prepare(x);
        let y = match (&self.packed, self.quant) {
            (Some(packed), _) => B::packed_matmul(x, packed),
            (None, Some(quant)) => B::bit_linear(x, self.master(), self.held.clone(), quant),
            (None, None) => B::dense_matmul(x, self.master(), self.compute),
        };
        match &self.bias {
            Some(bias) => {
                let dtype = y.dtype();
                y + bias.val().unsqueeze().cast(dtype)
            }
            None => y,
        }
    }

    fn master(&self) -> Tensor<B, 2> {
        let weight = self.weight.as_ref().map(Param::val);
        weight.unwrap_or_else(|| unreachable!("only packed layers have none"))
    }

    /// Puts two bits a weight in the place of the master weight, for inference on the CPU backends
    /// (`Flex` and `NdArray`): from then on products are of whole numbers, by the kernels that serve
    /// exported models. Says whether it did; a layer in full precision, one without a quantiser of
    /// its input, one whose λ is below 1 and one on another device stay as they are.
    ///
    /// Every other quantiser of weights and inputs is there. With one scale a matrix or a row, sums
    /// are exact with and without packing; with scales of groups they are added up in another order.
    ///
    /// There is no way back: the module then has no master weight to train, store or
    /// [hold](BitLinear::hold_weights). Gradients reach the input, as ever.
    ///
    /// # Errors
    /// [`NnError::Kernel`] where there are more inputs than sums in 32 bits allow (65,536), where
    /// `TRITBURN_KERNEL` names a kernel that this machine lacks, or where no threads can be started.
    pub fn pack(&mut self) -> Result<bool>
    where
        B: Kernels,
    {
        if let (Some(quant), None) = (self.quant, &self.packed) {
            self.packed = Packed::new(self.master(), quant)?;
        }
        if self.packed.is_some() {
            (self.weight, self.held) = (None, None);
        }
        Ok(self.packed.is_some())
    }

    /// The packed weight, once there is one.
    #[must_use]
    pub fn packed(&self) -> Option<&Packed> {
        self.packed.as_deref()
    }

    /// What the quantiser sees: the input after norm and Hadamard transform.
    fn prepare(&self, x: Tensor<B, 2>) -> Tensor<B, 2>
    where
        B: Ops,
    {
        let x = match (&self.norm, self.layer_norm) {
            (Some(norm), _) => norm.forward(x),
            (None, Some(eps)) => {
                let ones = Tensor::ones([x.dims()[1]], &x.device());
                B::rms_norm(x.clone() - x.mean_dim(1), ones, eps)
            }
            (None, None) => x,
        };
        match &self.hadamard {
            Some(hadamard) => hadamard.forward(x),
            None => x,
        }
    }

    /// Codes of an input as the forward pass uses them; none for a plain linear layer.
    #[must_use]
    pub fn input_codes(&self, x: Tensor<B, 2>) -> Option<QuantActs<B>>
    where
        B: Kernels + Ops,
    {
        let quant = self.quant?;
        Some(B::quantise_acts(self.prepare(x), quant.act))
    }

    /// Codes and scale of the weight as the forward pass uses them; none where it stays in full
    /// precision.
    #[must_use]
    pub fn weight_codes(&self) -> Option<QuantWeight<B>>
    where
        B: Kernels,
    {
        let quant = self.quant.filter(|q| q.weight != WeightQuant::None)?;
        Some(match &self.packed {
            Some(packed) => packed.weight(&B::Device::default()),
            None => B::quantise_weight(self.master(), quant.weight),
        })
    }

    /// What one scale of the quantised weight covers; none where it stays in full precision.
    #[must_use]
    pub fn granularity(&self) -> Option<Granularity> {
        let quant = self.quant.filter(|q| q.weight != WeightQuant::None)?;
        Some(quant.weight.granularity())
    }

    /// Quantises the weights of all `linears` once for all forward passes until
    /// [`BitLinear::release_weight`]. They must not change in between. Nothing happens to those that are
    /// packed.
    pub fn hold_weights<'a>(linears: impl IntoIterator<Item = &'a mut Self>)
    where
        B: Ops,
    {
        let linears = linears.into_iter().filter_map(|linear| {
            let quant = linear.quant.filter(|q| q.weight != WeightQuant::None)?;
            let wanted = linear.packed.is_none();
            wanted.then(|| (linear.master(), quant.weight, linear))
        });
        let (weights, held): (Vec<_>, Vec<_>) = linears
            .map(|(master, quant, linear)| ((master, quant), &mut linear.held))
            .unzip();
        for (held, weight) in held.into_iter().zip(B::hold_weights(weights)) {
            *held = Some(weight);
        }
    }

    /// Quantises the weight in every forward pass again.
    pub fn release_weight(&mut self) {
        self.held = None;
    }

    /// Keeps the weight as it is multiplied fastest, where it is not quantised: it must not be trained any more.
    pub fn freeze(&mut self)
    where
        B: Kernels,
    {
        if let (Some(weight), None) = (&mut self.weight, self.quant) {
            freeze(weight, self.compute);
        }
    }

    /// Sets how the product is computed where the weight is not quantised.
    pub fn set_compute(&mut self, compute: Compute) {
        self.compute = compute;
    }

    /// Sets how the gradient for the input is computed (see [`LinearQuant::int8_grad_input`]).
    pub fn set_int8_grad_input(&mut self, int8: bool) {
        if let Some(quant) = &mut self.quant {
            quant.int8_grad_input = int8;
        }
    }

    /// Sets λ of the warm-up (see [`LinearQuant::lambda`]).
    pub fn set_lambda(&mut self, lambda: f32) {
        if let Some(quant) = &mut self.quant {
            quant.lambda = lambda;
        }
    }
}
