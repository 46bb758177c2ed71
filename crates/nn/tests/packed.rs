//! Packed layers against the fake-quantised ones that they take the place of.
#![allow(clippy::unwrap_used, missing_docs)]

use burn::backend::{Autodiff, Flex, NdArray};
use burn::module::AutodiffModule;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tritburn_nn::dit::{Condition, Dit};
use tritburn_nn::linear::{BitLinear, LinearSpec};
use tritburn_nn::ops::{Kernels, LinearQuant, Ops};
use tritburn_nn::weights::{WeightSource, host_weights, to_host};
use tritburn_nn::{CausalLm, Result};
use tritburn_quant::config::{
    DIT, DitConfig, HiddenAct, ModelConfig, NoiseKind, QuantizationMode, SubNorm, Ternary,
};
use tritburn_quant::scheme::{ActQuant, Granularity, Preset, QuantScheme, WeightQuant};

const WEIGHTS: [WeightQuant; 5] = [
    WeightQuant::B1,
    WeightQuant::Absmean,
    WeightQuant::AbsmeanRow,
    WeightQuant::AbsmeanBlock256,
    WeightQuant::AbsmeanGroup128,
];

const ACTS: [&str; 9] = [
    "int8",
    "int4",
    "fp4-e2m1",
    "fp4-e1m2",
    "top50%+int8",
    "top2:4+int8",
    "top40%+int8+l2",
    "hadamard+int8",
    "hadamard+int4",
];

/// Tokens, input and output width: one of each, below and above blocks and tiles, and whole ones.
const SHAPES: [[usize; 3]; 8] = [
    [1, 1, 1],
    [2, 3, 70],
    [3, 67, 5],
    [1, 64, 64],
    [17, 132, 65],
    [1, 256, 300],
    [16, 384, 16],
    [33, 512, 129],
];

/// What only the order of sums may differ by, as a share of the largest value.
const ROUNDING: f32 = 2e-5;
/// What activations on the other side of a rounding boundary may do, as between training and engine
/// (`tritburn_train::parity`).
const TURNED: f32 = 2e-2;

/// Numbers without a pattern for every tensor.
struct Numbers(ChaCha8Rng);

impl Numbers {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn take(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.0.random_range(-2.0f32..2.0)).collect()
    }
}

impl WeightSource for Numbers {
    fn matrix(&mut self, _: &str, [rows, cols]: [usize; 2]) -> Result<Vec<f32>> {
        let mut all = self.take(rows * cols);
        all.iter_mut().for_each(|w| *w *= 0.1);
        Ok(all)
    }

    fn norm(&mut self, _: &str, features: usize) -> Result<Vec<f32>> {
        Ok(self.take(features))
    }

    fn bias(&mut self, _: &str, features: usize) -> Result<Vec<f32>> {
        Ok(self.take(features))
    }
}

fn spec([_, d_in, d_out]: [usize; 3], quant: LinearQuant, norm: SubNorm) -> LinearSpec {
    LinearSpec {
        d_in,
        d_out,
        quant: Some(quant),
        norm,
        norm_eps: 1e-6,
        bias: d_out.is_multiple_of(2),
    }
}

fn layer<B: Backend>(spec: LinearSpec) -> BitLinear<B> {
    BitLinear::new(&mut Numbers::new(1), "layer", spec, &B::Device::default()).unwrap()
}

fn input<B: Backend>([tokens, d_in, _]: [usize; 3]) -> Tensor<B, 2> {
    let data = TensorData::new(Numbers::new(2).take(tokens * d_in), [tokens, d_in]);
    Tensor::from_data(data, &B::Device::default())
}

fn close(what: &str, a: &[f32], b: &[f32], tolerance: f32) {
    let largest = b.iter().fold(1e-9f32, |m, x| m.max(x.abs()));
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * largest,
            "{what}[{i}]: {a} and {b}, largest {largest}"
        );
    }
}

/// Every quantiser of both operands that widths allow, at full strength.
fn pairs(shape: [usize; 3]) -> Vec<LinearQuant> {
    let acts = ACTS.map(|act| act.parse::<ActQuant>().unwrap());
    let all = WEIGHTS.iter().flat_map(|&weight| {
        acts.map(|act| LinearQuant {
            weight,
            act,
            lambda: 1.0,
            int8_grad_input: false,
        })
    });
    let fits =
        |q: &LinearQuant| q.weight.problem(shape[1]).is_none() && q.act.problem(shape[1]).is_none();
    all.filter(fits).collect()
}

/// The outputs before and after packing.
fn both<B: Kernels + Ops>(spec: LinearSpec, shape: [usize; 3]) -> [Vec<f32>; 2] {
    let mut linear = layer::<B>(spec);
    let before = to_host(linear.forward(input(shape)));
    assert!(linear.pack().unwrap() && linear.pack().unwrap());
    [before, to_host(linear.forward(input(shape)))]
}

#[test]
fn every_quantiser_and_shape_packed_is_as_before() {
    let (mut exact, mut turned, mut tokens) = (0, 0, 0);
    for shape in SHAPES {
        for quant in pairs(shape) {
            for norm in [SubNorm::None, SubNorm::All, SubNorm::LayerNorm] {
                let spec = spec(shape, quant, norm);
                let what = format!("{shape:?} {quant:?} {norm:?}");
                let [before, after] = both::<Flex>(spec, shape);
                if matches!(quant.weight.granularity(), Granularity::Group(_)) {
                    close(&what, &after, &before, ROUNDING);
                } else {
                    assert!(before == after, "{what}");
                    exact += 1;
                }
                // Its quantisers round the steps in another way than those on the host.
                let [before, after] = both::<NdArray>(spec, shape);
                close(&format!("{what}, ndarray"), &after, &before, TURNED);
                let largest = before.iter().fold(0f32, |m, x| m.max(x.abs()));
                let rows = before.chunks(shape[2]).zip(after.chunks(shape[2]));
                turned += rows
                    .filter(|(a, b)| {
                        let mut pairs = a.iter().zip(*b);
                        pairs.any(|(a, b)| (a - b).abs() > ROUNDING * largest)
                    })
                    .count();
                tokens += shape[0];
            }
        }
    }
    assert!(exact > 300, "{exact}");
    assert!(turned * 50 < tokens, "{turned} of {tokens} tokens");
}

#[test]
fn tokens_of_zeros_and_no_tokens_at_all() {
    let device = Default::default();
    let mut linear = layer::<Flex>(spec([0, 20, 6], LinearQuant::B158, SubNorm::None));
    let bias = to_host(linear.bias.as_ref().unwrap().val());
    linear.pack().unwrap();
    let zeros = Tensor::<Flex, 2>::zeros([3, 20], &device);
    assert_eq!(
        to_host(linear.forward(zeros)),
        [bias.clone(), bias.clone(), bias].concat()
    );
    let mut plain = layer::<Flex>(LinearSpec {
        bias: false,
        ..spec([0, 20, 6], LinearQuant::B158, SubNorm::None)
    });
    plain.pack().unwrap();
    assert_eq!(
        plain.forward(Tensor::zeros([0, 20], &device)).dims(),
        [0, 6]
    );
}

#[test]
fn what_has_no_codes_stays_as_it_is() {
    let shape = [5, 128, 12];
    let b158 = LinearQuant::B158;
    for quant in [
        None,
        Some(LinearQuant {
            weight: WeightQuant::None,
            ..b158
        }),
        Some(LinearQuant {
            act: "none".parse().unwrap(),
            ..b158
        }),
        Some(LinearQuant {
            act: "top50%+none".parse().unwrap(),
            ..b158
        }),
        Some(LinearQuant {
            lambda: 0.5,
            int8_grad_input: false,
            ..b158
        }),
    ] {
        let spec = LinearSpec {
            quant,
            ..spec(shape, b158, SubNorm::None)
        };
        let mut linear = layer::<Flex>(spec);
        let before = to_host(linear.forward(input(shape)));
        assert!(!linear.pack().unwrap(), "{quant:?}");
        assert!(linear.packed().is_none() && linear.weight.is_some());
        assert_eq!(to_host(linear.forward(input(shape))), before);
    }
}

#[test]
fn weights_too_wide_for_sums_in_32_bits_are_refused() {
    let shape = [1, (1 << 16) + 1, 1];
    let mut linear = layer::<Flex>(spec(shape, LinearQuant::B158, SubNorm::None));
    let error = linear.pack().unwrap_err().to_string();
    assert!(
        error.contains("65537") && error.contains("65536"),
        "{error}"
    );
    assert_eq!(linear.forward(input(shape)).dims(), [1, 1]);
}

#[test]
fn two_bits_a_weight_are_left_of_it() {
    let shape = [1, 512, 256];
    for weight in WEIGHTS {
        let quant = LinearQuant {
            weight,
            ..LinearQuant::B158
        };
        let mut linear = layer::<Flex>(spec(shape, quant, SubNorm::None));
        let codes = |linear: &BitLinear<Flex>| {
            let weight = linear.weight_codes().unwrap();
            let shape = weight.scale.dims();
            (to_host(weight.codes.float()), to_host(weight.scale), shape)
        };
        let before = codes(&linear);
        let scales = before.1.len();
        linear.pack().unwrap();
        // Groups of 256 are two of 128.
        let bytes = linear.packed().unwrap().bytes();
        assert!(
            bytes <= 512 * 256 / 4 + 8 * scales,
            "{weight:?}: {bytes} bytes"
        );
        let left: Vec<String> = host_weights(&linear).into_keys().collect();
        assert_eq!(left, ["bias"], "{weight:?}");
        assert_eq!(codes(&linear), before, "{weight:?}");
        BitLinear::hold_weights([&mut linear]);
        linear.release_weight();
        assert_eq!(linear.forward(input(shape)).dims(), [1, 256]);
    }
}

/// Of the input alone: the straight-through gradient sees the quantised weight.
#[test]
fn the_input_keeps_its_gradient() {
    let shape = [5, 256, 12];
    for weight in WEIGHTS {
        let quant = LinearQuant {
            weight,
            ..LinearQuant::B158
        };
        let mut linear = layer::<Flex>(spec(shape, quant, SubNorm::All));
        let grad = |linear: &BitLinear<Flex>| {
            let linear = BitLinear::<Autodiff<Flex>>::from_inner(linear.clone());
            let x = Tensor::<Autodiff<Flex>, 2>::from_inner(input(shape)).require_grad();
            let y = linear.forward(x.clone());
            let grads = (y.clone() * y).sum().backward();
            to_host(x.grad(&grads).unwrap())
        };
        let before = grad(&linear);
        linear.pack().unwrap();
        close(&format!("{weight:?}"), &grad(&linear), &before, ROUNDING);
    }
}

fn language_model<B: Kernels>(scheme: QuantScheme) -> CausalLm<B> {
    let mut config: ModelConfig = serde_json::from_value(serde_json::json!({
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 40, "max_position_embeddings": 32, "hidden_act": "silu",
        "tie_word_embeddings": true,
    }))
    .unwrap();
    config.set_quant(Some(scheme), QuantizationMode::Online);
    CausalLm::new(&config, &mut Numbers::new(3), &B::Device::default()).unwrap()
}

fn logits<B: Kernels + Ops>(model: &CausalLm<B>) -> Vec<f32> {
    let tokens = Tensor::<B, 2, Int>::from_data(
        [[1, 2, 3, 39, 5], [7, 0, 9, 11, 38]],
        &B::Device::default(),
    );
    to_host(model.logits(model.forward(tokens, &[]).hidden))
}

fn language_models<B: Kernels + Ops>(exact: bool) {
    for preset in [
        Preset::B1,
        Preset::B158,
        Preset::A48,
        Preset::A48Fp4,
        Preset::QSparse,
        Preset::V2,
        Preset::V2A4,
    ] {
        for weights in [
            None,
            Some(WeightQuant::AbsmeanRow),
            Some(WeightQuant::AbsmeanGroup128),
        ] {
            let mut scheme = QuantScheme::from(preset);
            scheme.weights = weights.unwrap_or(scheme.weights);
            let mut model = language_model::<B>(scheme);
            let before = logits(&model);
            assert_eq!(model.pack().unwrap(), 14);
            let after = logits(&model);
            let what = format!("{preset:?} {weights:?}");
            if exact && weights != Some(WeightQuant::AbsmeanGroup128) {
                assert!(before == after, "{what}");
            } else {
                close(&what, &after, &before, TURNED);
            }
        }
    }
}

#[test]
fn language_models_packed_are_as_before_on_flex() {
    language_models::<Flex>(true);
}

#[test]
fn language_models_packed_are_as_before_on_ndarray() {
    language_models::<NdArray>(false);
}

fn diffusion_model<B: Kernels + Ops>(ternary: Ternary, exact: bool) -> usize {
    let config = DitConfig {
        model_type: DIT.into(),
        image_size: 8,
        patch_size: 2,
        num_classes: 3,
        hidden_size: 48,
        intermediate_size: 72,
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
    };
    let device = B::Device::default();
    let mut model = Dit::<B>::new(&config, &mut Numbers::new(4), &device).unwrap();
    let answer = |model: &Dit<B>| {
        let shape = [3 * config.patches(), config.patch_pixels()];
        let patches = TensorData::new(Numbers::new(5).take(shape[0] * shape[1]), shape);
        let condition = Condition::new(&config, &[1, 50, 99], &[0, 2, 3], &device);
        to_host(model.forward(Tensor::from_data(patches, &device), condition))
    };
    let before = answer(&model);
    let packed = model.pack().unwrap();
    let after = answer(&model);
    if exact {
        assert!(before == after, "{ternary:?}");
    } else {
        close(&format!("{ternary:?}"), &after, &before, TURNED);
    }
    packed
}

#[test]
fn diffusion_transformers_packed_are_as_before() {
    for (ternary, packed) in [
        (Ternary::None, 0),
        (Ternary::Blocks, 14),
        (Ternary::All, 22),
    ] {
        assert_eq!(diffusion_model::<Flex>(ternary, true), packed);
        assert_eq!(diffusion_model::<NdArray>(ternary, false), packed);
    }
}
