//! AdamW with decay groups, on global-norm clipped gradients.

use std::collections::BTreeMap;

use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData, backend::AutodiffBackend, backend::Backend};
use tritburn_nn::ops::{AdamWParam, AdamWStep, Kernels};
use tritburn_nn::weights::{HostTensor, Names, to_host};

/// Constants of a stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decay of the running average of weights; 0 for none.
    pub ema: f64,
}

/// Moments of one parameter, flat, and its running average where there is one.
#[derive(Debug, Clone)]
struct Moments<B: Backend> {
    m: Tensor<B, 1>,
    v: Tensor<B, 1>,
    ema: Option<Tensor<B, 1>>,
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
            grad_scale,
            bias1: (1.0 - beta1.powi(self.step)) as f32,
            bias2: (1.0 - beta2.powi(self.step)) as f32,
        };
        let mut taken = Taken {
            optim: self,
            grads,
            weight_decay: weight_decay as f32,
            names: Names::default(),
            params: Vec::new(),
            averages: Vec::new(),
        };
        model.visit(&mut taken);
        let Taken {
            params, averages, ..
        } = taken;
        let kept = self.kept();
        let before: Vec<_> = (params.iter())
            .map(|(_, param)| (self.config.ema > 0.0).then(|| param.value.clone()))
            .collect();
        let (names, params): (Vec<_>, Vec<_>) = params.into_iter().unzip();
        let new = B::adamw(params, &scalars);
        let mut values = BTreeMap::new();
        for (((name, [value, m, v]), before), average) in
            names.into_iter().zip(new).zip(before).zip(averages)
        {
            let ema = before
                .map(|before| average.unwrap_or(before) * kept + value.clone() * (1.0 - kept));
            self.moments.insert(name.clone(), Moments { m, v, ema });
            values.insert(name, value);
        }
        model.map(&mut Replaced {
            values,
            names: Names::default(),
        })
    }

    /// `model` with the running average of its weights; none where none is kept.
    #[must_use]
    pub fn averaged<A, M>(&self, model: &M) -> Option<M>
    where
        A: AutodiffBackend<InnerBackend = B>,
        M: AutodiffModule<A>,
    {
        let averages = self.moments.iter();
        let values: BTreeMap<_, _> = averages
            .filter_map(|(name, moments)| Some((name.clone(), moments.ema.clone()?)))
            .collect();
        (!values.is_empty()).then(|| {
            let names = Names::default();
            model.clone().map(&mut Replaced { values, names })
        })
    }

    /// Share of the average that a step keeps: less in the first steps, which start from weights that
    /// nothing was learned in.
    fn kept(&self) -> f64 {
        let step = f64::from(self.step);
        self.config.ema.min((1.0 + step) / (10.0 + step))
    }

    /// Steps taken.
    #[must_use]
    pub fn steps(&self) -> i32 {
        self.step
    }

    /// Step count and moments, for a checkpoint.
    #[must_use]
    pub fn state(&self) -> (i32, BTreeMap<String, HostTensor>) {
        let mut out = BTreeMap::new();
        for (name, moments) in &self.moments {
            let average = moments.ema.iter().map(|ema| ("ema", ema));
            for (kind, tensor) in average.chain([("m", &moments.m), ("v", &moments.v)]) {
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
                        ema: tensors.get(&format!("ema.{name}")).map(flat),
                    },
                );
            }
        }
    }
}

/// Takes out what a step needs of each parameter that has a gradient.
struct Taken<'a, B: Backend> {
    optim: &'a mut AdamW<B>,
    grads: GradientsParams,
    weight_decay: f32,
    names: Names,
    params: Vec<(String, AdamWParam<B>)>,
    averages: Vec<Option<Tensor<B, 1>>>,
}

impl<B: Kernels, A: AutodiffBackend<InnerBackend = B>> ModuleVisitor<A> for Taken<'_, B> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.names.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.names.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
        let Some(grad) = self.grads.remove::<B, D>(param.id) else {
            return;
        };
        let value = param.val().inner();
        let (size, device) = (value.shape().num_elements(), value.device());
        let name = self.names.current();
        let moments = self.optim.moments.remove(&name);
        let moments = moments.unwrap_or_else(|| Moments {
            m: Tensor::zeros([size], &device),
            v: Tensor::zeros([size], &device),
            ema: None,
        });
        self.averages.push(moments.ema);
        let param = AdamWParam {
            value: value.reshape([size]),
            grad: grad.reshape([size]),
            m: moments.m,
            v: moments.v,
            weight_decay: if D >= 2 { self.weight_decay } else { 0.0 },
        };
        self.params.push((name, param));
    }
}

/// Puts other values in the place of weights.
struct Replaced<B: Backend> {
    /// Flat, by the names of parameters.
    values: BTreeMap<String, Tensor<B, 1>>,
    names: Names,
}

impl<B: Kernels, A: AutodiffBackend<InnerBackend = B>> ModuleMapper<A> for Replaced<B> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.names.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.names.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
        let (id, tensor, mapper) = param.consume();
        let tensor = match self.values.remove(&self.names.current()) {
            Some(value) => Tensor::from_inner(value.reshape(tensor.dims())).require_grad(),
            None => tensor,
        };
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::backend::{Autodiff, Flex};
    use burn::module::Module;

    use super::*;

    type A = Autodiff<Flex>;

    #[derive(Module, Debug)]
    struct Two<B: Backend> {
        w: Param<Tensor<B, 1>>,
    }

    fn values(model: &Two<A>) -> Vec<f32> {
        to_host(model.w.val().inner())
    }

    #[test]
    fn the_average_runs_behind_the_weights_and_survives_a_checkpoint() {
        let config = AdamWConfig {
            betas: [0.9, 0.99],
            eps: 1e-8,
            ema: 0.4,
        };
        let device = Default::default();
        let w = Tensor::<A, 1>::from_data([1.0, -2.0], &device).require_grad();
        let mut model = Two {
            w: Param::from_tensor(w),
        };
        let mut optim = AdamW::<Flex>::new(config);
        assert!(optim.averaged(&model).is_none());
        let mut expected = values(&model);
        for kept in [2.0 / 11.0, 3.0 / 12.0, 4.0 / 13.0, 5.0 / 14.0, 0.4, 0.4] {
            let grads = (model.w.val() * model.w.val()).sum().backward();
            let grads = GradientsParams::from_grads(grads, &model);
            model = optim.step(model, grads, 0.1, 0.0, 1.0);
            for (average, value) in expected.iter_mut().zip(values(&model)) {
                *average = *average * kept + value * (1.0 - kept);
            }
            // As a run that was stopped here goes on.
            let (step, moments) = optim.state();
            optim = AdamW::new(config);
            optim.restore(step, &moments, &device);
            let found = values(&optim.averaged(&model).unwrap());
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-6, "{found:?} {expected:?}");
            }
        }
        assert_ne!(values(&model), expected);
    }

    #[test]
    fn without_a_decay_there_is_no_average() {
        let device = Default::default();
        let w = Tensor::<A, 1>::from_data([1.0, -2.0], &device).require_grad();
        let model = Two {
            w: Param::from_tensor(w),
        };
        let mut optim = AdamW::<Flex>::new(AdamWConfig {
            betas: [0.9, 0.99],
            eps: 1e-8,
            ema: 0.0,
        });
        let grads = GradientsParams::from_grads(model.w.val().sum().backward(), &model);
        let model = optim.step(model, grads, 0.1, 0.0, 1.0);
        assert!(optim.averaged(&model).is_none());
        assert!(optim.state().1.keys().all(|name| !name.starts_with("ema.")));
    }
}
