//! The diffusion transformer: shapes, gradients, and what adaLN-Zero promises.
#![allow(clippy::unwrap_used, missing_docs)]

use burn::backend::{Autodiff, Flex, NdArray};
use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData, backend::Backend};
use tritburn_nn::dit::{Condition, Dit, DitInit};
use tritburn_nn::ops::Ops;
use tritburn_nn::weights::{Names, host_weights, to_host};
use tritburn_quant::config::{DIT, DitConfig, HiddenAct, NoiseKind, SubNorm, Ternary};
use tritburn_quant::scheme::QuantScheme;

type A = Autodiff<Flex>;

fn config(ternary: Ternary) -> DitConfig {
    DitConfig {
        model_type: DIT.into(),
        image_size: 8,
        patch_size: 2,
        num_classes: 3,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        hidden_act: HiddenAct::GeluTanh,
        frequencies: 8,
        norm_eps: 1e-6,
        ternary,
        sub_norm: SubNorm::SubLn,
        quant: QuantScheme::default(),
        noise_steps: 100,
        noise: NoiseKind::Linear,
    }
}

/// Values without a pattern, the same at every call.
fn values(count: usize, salt: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 7919 + salt * 104_729) as f32 * 0.618).sin())
        .collect()
}

fn patches<B: Backend>(config: &DitConfig, batch: usize) -> Tensor<B, 2> {
    let shape = [batch * config.patches(), config.patch_pixels()];
    let data = TensorData::new(values(shape[0] * shape[1], 1), shape);
    Tensor::from_data(data, &B::Device::default())
}

/// Replaces parameters by name.
struct Set<F>(Names, F);

impl<B: Backend, F: FnMut(&str, &mut [f32])> ModuleMapper<B> for Set<F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let (shape, device) = (tensor.dims(), tensor.device());
        let mut data = to_host(tensor);
        (self.1)(&self.0.current(), &mut data);
        let tensor = Tensor::from_data(TensorData::new(data, shape), &device).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}

fn changed<B: Backend>(model: Dit<B>, change: impl FnMut(&str, &mut [f32])) -> Dit<B> {
    model.map(&mut Set(Names::default(), change))
}

/// A model in which nothing is zero any more.
fn awake<B: Backend>(config: &DitConfig) -> Dit<B> {
    let source = &mut DitInit::new(7, 0.2, config.num_hidden_layers);
    let model = Dit::<B>::new(config, source, &B::Device::default()).unwrap();
    changed(model, |name, data| {
        if name.ends_with("ada_ln.weight") || name.starts_with("final_proj") {
            let salt = name.len();
            let new = values(data.len(), salt);
            data.iter_mut().zip(new).for_each(|(d, v)| *d = 0.3 * v);
        }
    })
}

fn answer<B: Ops>(
    model: &Dit<B>,
    config: &DitConfig,
    steps: &[usize],
    classes: &[usize],
) -> Vec<f32> {
    let condition = Condition::new(config, steps, classes, &B::Device::default());
    to_host(model.forward(patches(config, steps.len()), condition))
}

#[test]
fn a_new_model_answers_zero_and_its_blocks_pass_their_input_on() {
    for ternary in [Ternary::None, Ternary::Blocks, Ternary::All] {
        let config = config(ternary);
        let device = Default::default();
        let model = Dit::<Flex>::new(&config, &mut DitInit::new(1, 0.1, 2), &device).unwrap();
        let out = answer(&model, &config, &[3, 70], &[0, 2]);
        assert_eq!(out.len(), 2 * 64);
        assert!(out.iter().all(|x| *x == 0.0), "{ternary:?}");

        let shape = [2 * config.patches(), config.hidden_size];
        let data = values(shape[0] * shape[1], 3);
        let x = Tensor::<Flex, 2>::from_data(TensorData::new(data.clone(), shape), &device);
        let c = Tensor::ones([2, config.hidden_size], &device);
        for block in &model.blocks {
            let y = block.forward(x.clone(), c.clone(), config.patches());
            assert_eq!(to_host(y), data, "{ternary:?}");
        }
    }
}

#[test]
fn timestep_and_class_change_the_answer_and_images_do_not_mix() {
    let config = config(Ternary::Blocks);
    let model = awake::<Flex>(&config);
    let base = answer(&model, &config, &[10, 10], &[1, 1]);
    let later = answer(&model, &config, &[90, 10], &[1, 1]);
    let other = answer(&model, &config, &[10, 10], &[3, 1]);
    let (first, second) = (..64, 64..);
    for changed in [&later, &other] {
        assert_ne!(base[first], changed[first]);
        assert_eq!(base[second.clone()], changed[second.clone()]);
    }
    // A label that the model does not have is "no class", the last one.
    assert_eq!(other, answer(&model, &config, &[10, 10], &[99, 1]));
}

#[test]
fn every_patch_sees_every_other() {
    let config = config(Ternary::None);
    let model = awake::<Flex>(&config);
    let answer = |x: Tensor<Flex, 2>| {
        let condition = Condition::new(&config, &[10], &[1], &x.device());
        to_host(model.forward(x, condition))
    };
    let [rows, width] = [config.patches(), config.patch_pixels()];
    let x = patches::<Flex>(&config, 1);
    let base = answer(x.clone());
    for moved in [0, rows - 1] {
        let other = x.clone().slice_assign(
            [moved..moved + 1, 0..width],
            Tensor::ones([1, width], &x.device()),
        );
        let changed = answer(other);
        for (row, (a, b)) in base.chunks(width).zip(changed.chunks(width)).enumerate() {
            assert_ne!(a, b, "patch {row} does not see patch {moved}");
        }
    }
}

#[test]
fn backends_agree() {
    let config = config(Ternary::None);
    let flex = answer(&awake::<Flex>(&config), &config, &[5, 50], &[0, 1]);
    let plain = answer(&awake::<NdArray>(&config), &config, &[5, 50], &[0, 1]);
    for (a, b) in flex.iter().zip(&plain) {
        assert!((a - b).abs() < 1e-4, "{a} and {b}");
    }
}

/// Parameters with their gradients by name.
struct Grads<'a>(
    Names,
    &'a <A as burn::tensor::backend::AutodiffBackend>::Gradients,
    Vec<(String, Option<Vec<f32>>)>,
);

impl ModuleVisitor<A> for Grads<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
        let grad = param.val().grad(self.1).map(to_host);
        self.2.push((self.0.current(), grad));
    }
}

fn loss<B: Ops>(model: &Dit<B>, config: &DitConfig) -> Tensor<B, 1> {
    let condition = Condition::new(config, &[4, 60], &[2, 0], &B::Device::default());
    let out = model.forward(patches(config, 2), condition);
    let shape = out.dims();
    let target = TensorData::new(values(shape[0] * shape[1], 9), shape);
    let target = Tensor::from_data(target, &B::Device::default());
    (out - target).powf_scalar(2.0).mean()
}

fn gradients(model: &Dit<A>, config: &DitConfig) -> Vec<(String, Option<Vec<f32>>)> {
    let grads = loss(model, config).backward();
    let mut all = Grads(Names::default(), &grads, Vec::new());
    model.visit(&mut all);
    all.2
}

#[test]
fn every_weight_of_every_precision_gets_a_gradient() {
    for ternary in [Ternary::None, Ternary::Blocks, Ternary::All] {
        let config = config(ternary);
        let found = gradients(&awake::<A>(&config), &config);
        assert_eq!(found.len(), host_weights(&awake::<Flex>(&config)).len());
        for (name, grad) in found {
            let grad = grad.unwrap_or_else(|| panic!("{ternary:?}: {name} has no gradient"));
            let sum: f32 = grad.iter().map(|g| g.abs()).sum();
            assert!(sum > 0.0 && sum.is_finite(), "{ternary:?}: {name}: {sum}");
        }
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    // In full precision: a quantiser's gradient is by design not its slope.
    let config = config(Ternary::None);
    let model = awake::<A>(&config);
    for (name, grad) in gradients(&model, &config) {
        let grad = grad.unwrap();
        let at = (0..grad.len())
            .max_by(|&a, &b| grad[a].abs().total_cmp(&grad[b].abs()))
            .unwrap();
        let step = 2e-3;
        let moved = |by: f32| {
            let moved = changed(model.valid(), |here, data| {
                if here == name {
                    data[at] += by;
                }
            });
            f64::from(to_host(loss(&moved, &config))[0])
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
        let difference = (slope - f64::from(grad[at])).abs();
        assert!(
            difference < 2e-4 + 0.02 * slope.abs(),
            "{name}: gradient {}, slope {slope}",
            grad[at]
        );
    }
}
