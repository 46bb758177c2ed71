//! AdamW with decay groups, on global-norm clipped gradients.

use std::collections::BTreeMap;

use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData, backend::AutodiffBackend, backend::Backend};
use tritburn_nn::ops::{AdamWStep, Kernels};
use tritburn_nn::weights::{HostTensor, Names, to_host};

/// Constants of a stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// Moments of one parameter, flat.
#[derive(Debug, Clone)]
struct Moments<B: Backend> {
    m: Tensor<B, 1>,
    v: Tensor<B, 1>,
}

/// Decoupled AdamW (Loshchilov & Hutter 2019) with moments kept by parameter name.
///
/// Weight decay applies to matrices, not to norms: every parameter of two dimensions.
#[derive(Debug)]
pub struct AdamW<B: Backend> {
    config: AdamWConfig,
    step: i32,
    moments: BTreeMap<String, Moments<B>>,
}

impl<B: Kernels> AdamW<B> {
    /// No steps taken yet.
    #[must_use]
    pub fn new(config: AdamWConfig) -> Self {
        Self {
            config,
            step: 0,
            moments: BTreeMap::new(),
        }
    }

    /// One step at learning rate `lr`, gradients scaled by `grad_scale` first.
    #[must_use]
    pub fn step<A, M>(
        &mut self,
        model: M,
        grads: GradientsParams,
        lr: f64,
        weight_decay: f64,
        grad_scale: f32,
    ) -> M
    where
        A: AutodiffBackend<InnerBackend = B>,
        M: AutodiffModule<A>,
    {
        self.step += 1;
        let [beta1, beta2] = self.config.betas;
        #[allow(clippy::cast_possible_truncation)]
        let scalars = AdamWStep {
            lr: lr as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            eps: self.config.eps as f32,
            weight_decay: weight_decay as f32,
            grad_scale,
            bias1: (1.0 - beta1.powi(self.step)) as f32,
            bias2: (1.0 - beta2.powi(self.step)) as f32,
        };
        let mut update = Update {
            optim: self,
            grads,
            scalars,
            names: Names::default(),
        };
        model.map(&mut update)
    }

    /// Step count and moments, for a checkpoint.
    #[must_use]
    pub fn state(&self) -> (i32, BTreeMap<String, HostTensor>) {
        let mut out = BTreeMap::new();
        for (name, moments) in &self.moments {
            for (kind, tensor) in [("m", &moments.m), ("v", &moments.v)] {
                let shape = tensor.dims().to_vec();
                let data = to_host(tensor.clone());
                out.insert(format!("{kind}.{name}"), HostTensor { shape, data });
            }
        }
        (self.step, out)
    }

    /// Puts a saved state back.
    pub fn restore(
        &mut self,
        step: i32,
        tensors: &BTreeMap<String, HostTensor>,
        device: &B::Device,
    ) {
        self.step = step;
        let flat = |t: &HostTensor| {
            Tensor::from_data(TensorData::new(t.data.clone(), [t.data.len()]), device)
        };
        for (name, m) in tensors {
            let Some(name) = name.strip_prefix("m.") else {
                continue;
            };
            if let Some(v) = tensors.get(&format!("v.{name}")) {
                self.moments.insert(
                    name.to_owned(),
                    Moments {
                        m: flat(m),
                        v: flat(v),
                    },
                );
            }
        }
    }
}

struct Update<'a, B: Backend> {
    optim: &'a mut AdamW<B>,
    grads: GradientsParams,
    scalars: AdamWStep,
    names: Names,
}

impl<B: Kernels, A: AutodiffBackend<InnerBackend = B>> ModuleMapper<A> for Update<'_, B> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.names.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.names.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
        let (id, tensor, mapper) = param.consume();
        let Some(grad) = self.grads.remove::<B, D>(id) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let shape = tensor.dims();
        let size = shape.iter().product::<usize>();
        let value = tensor.inner();
        let device = value.device();
        let moments = self
            .optim
            .moments
            .remove(&self.names.current())
            .unwrap_or_else(|| Moments {
                m: Tensor::zeros([size], &device),
                v: Tensor::zeros([size], &device),
            });
        let decay = if D >= 2 {
            self.scalars.weight_decay
        } else {
            0.0
        };
        let scalars = AdamWStep {
            weight_decay: decay,
            ..self.scalars
        };
        let [value, m, v] = B::adamw(
            value.reshape([size]),
            grad.reshape([size]),
            moments.m,
            moments.v,
            &scalars,
        );
        self.optim
            .moments
            .insert(self.names.current(), Moments { m, v });
        let tensor = Tensor::from_inner(value.reshape(shape)).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}

/// L2 norm of all gradients together, `[1]`; none where there is no gradient.
#[must_use]
pub fn grad_norm<A, M>(model: &M, grads: &GradientsParams) -> Option<Tensor<A::InnerBackend, 1>>
where
    A: AutodiffBackend<InnerBackend: Kernels>,
    M: AutodiffModule<A>,
{
    struct Sum<'a, B: Kernels> {
        grads: &'a GradientsParams,
        all: Vec<Tensor<B, 1>>,
    }
    impl<A: AutodiffBackend<InnerBackend: Kernels>> ModuleVisitor<A> for Sum<'_, A::InnerBackend> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
            if let Some(grad) = self.grads.get::<A::InnerBackend, D>(param.id) {
                let size = grad.shape().num_elements();
                self.all.push(grad.reshape([size]));
            }
        }
    }
    let mut sum = Sum::<A::InnerBackend> {
        grads,
        all: Vec::new(),
    };
    model.visit(&mut sum);
    A::InnerBackend::sum_squares(sum.all).map(Tensor::sqrt)
}

/// Factor that brings a gradient of norm `norm` under `clip` (PyTorch's `clip_grad_norm_`).
#[must_use]
#[allow(clippy::cast_possible_truncation)]
pub fn clip_factor(norm: f32, clip: f64) -> f32 {
    if clip <= 0.0 {
        1.0
    } else {
        (clip as f32 / (norm + 1e-6)).min(1.0)
    }
}
