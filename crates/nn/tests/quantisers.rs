//! Every pair of quantisers: definitions, straight-through gradients, backends.
#![allow(clippy::unwrap_used, missing_docs)]

use burn::backend::{Autodiff, Flex, NdArray};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tritburn_nn::CausalLm;
use tritburn_nn::hadamard::Hadamard;
use tritburn_nn::ops::{CacheQuant, Kernels, LinearQuant, Ops};
use tritburn_nn::sparsity::sparsity;
use tritburn_nn::weights::RandomInit;
use tritburn_quant::config::{HiddenAct, ModelConfig, QuantizationMode};
use tritburn_quant::hadamard::Factors;
use tritburn_quant::kv;
use tritburn_quant::scheme::{Preset, QuantScheme, WeightQuant};

const WEIGHTS: [WeightQuant; 6] = [
    WeightQuant::None,
    WeightQuant::B1,
    WeightQuant::Absmean,
    WeightQuant::AbsmeanRow,
    WeightQuant::AbsmeanBlock256,
    WeightQuant::AbsmeanGroup128,
];

const ACTS: [&str; 9] = [
    "none",
    "int8",
    "int4",
    "fp4-e2m1",
    "fp4-e1m2",
    "top50%+int8",
    "top2:4+int8",
    "top40%+int8+l2",
    "top50%+none",
];

fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-2.0f32..2.0)).collect()
}

fn matrix<B: Backend>(data: &[f32], shape: [usize; 2]) -> Tensor<B, 2> {
    Tensor::from_data(TensorData::new(data.to_vec(), shape), &B::Device::default())
}

fn host<B: Backend, const D: usize>(x: Tensor<B, D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn close(what: &str, a: &[f32], b: &[f32], tolerance: f32) {
    let largest = b.iter().fold(1e-9f32, |m, x| m.max(x.abs()));
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * largest,
            "{what}[{i}]: {a} and {b}"
        );
    }
}

fn quant(weight: WeightQuant, act: &str, lambda: f32) -> LinearQuant {
    LinearQuant {
        weight,
        act: act.parse().unwrap(),
        lambda,
        int8_grad_input: false,
    }
}

/// Output and gradients for input and weight.
fn run<B: Kernels + Ops>(q: LinearQuant, shape: [usize; 3]) -> [Vec<f32>; 3] {
    let [tokens, width, out] = shape;
    let x = matrix::<Autodiff<B>>(&random(1, tokens * width), [tokens, width]).require_grad();
    let w = matrix::<Autodiff<B>>(&random(2, out * width), [out, width]).require_grad();
    let y = <Autodiff<B> as Ops>::bit_linear(x.clone(), w.clone(), None, q);
    let g = matrix::<Autodiff<B>>(&random(3, tokens * out), [tokens, out]);
    let grads = (y.clone() * g).sum().backward();
    [
        host(y.inner()),
        host(x.grad(&grads).unwrap()),
        host(w.grad(&grads).unwrap()),
    ]
}

#[test]
fn backends_agree_for_every_pair() {
    for weight in WEIGHTS {
        for act in ACTS {
            for lambda in [1.0, 0.3] {
                let q = quant(weight, act, lambda);
                let (fast, plain) = (
                    run::<Flex>(q, [5, 256, 12]),
                    run::<NdArray>(q, [5, 256, 12]),
                );
                for (a, b) in fast.iter().zip(&plain) {
                    close(&format!("{weight:?}, {act}, {lambda}"), a, b, 2e-5);
                }
            }
        }
    }
}

#[test]
fn gradients_pass_quantisers_and_masks_unchanged() {
    for weight in WEIGHTS {
        for act in ACTS {
            let q = quant(weight, act, 1.0);
            let (tokens, width, out) = (5, 256, 12);
            let [_, gx, gw] = run::<Flex>(q, [tokens, width, out]);
            let g = matrix::<Flex>(&random(3, tokens * out), [tokens, out]);
            let wq = Flex::quantise_weight(matrix(&random(2, out * width), [out, width]), weight);
            let xq =
                Flex::quantise_acts(matrix(&random(1, tokens * width), [tokens, width]), q.act);
            let expected_x = g.clone().matmul(wq.dense());
            let expected_w = g.transpose().matmul(xq.dense());
            let what = format!("{weight:?}, {act}");
            close(&what, &gx, &host(expected_x), 1e-5);
            close(&what, &gw, &host(expected_w), 1e-5);
            assert!(
                gx.iter().all(|g| *g != 0.0),
                "{what}: a masked input lost its gradient"
            );
        }
    }
}

#[test]
fn lambda_leads_from_full_precision_to_the_quantised_product() {
    let shape = [3, 64, 7];
    let full = run::<Flex>(quant(WeightQuant::None, "none", 1.0), shape);
    let start = run::<Flex>(quant(WeightQuant::Absmean, "int8", 0.0), shape);
    for (a, b) in start.iter().zip(&full) {
        close("lambda 0", a, b, 1e-5);
    }
    let end = run::<Flex>(quant(WeightQuant::Absmean, "int8", 1.0), shape);
    let nearly = run::<Flex>(quant(WeightQuant::Absmean, "int8", 0.999_99), shape);
    for (a, b) in nearly.iter().zip(&end) {
        close("lambda 1", a, b, 1e-4);
    }
}

#[test]
fn the_transform_is_the_hosts_and_its_gradient_its_transpose() {
    for width in [1, 2, 64, 12, 96] {
        let device = Default::default();
        let h = Hadamard::<Autodiff<Flex>>::new(width, &device).unwrap();
        let x = random(4, 3 * width);
        let leaf = matrix::<Autodiff<Flex>>(&x, [3, width]).require_grad();
        let y = h.forward(leaf.clone());
        let factors = Factors::of(width).unwrap();
        let mut expected = x.clone();
        expected.chunks_mut(width).for_each(|x| factors.apply(x));
        close("transform", &host(y.clone().inner()), &expected, 1e-5);
        // Half the squared norm has the gradient x, as the transform keeps norms.
        let grads = ((y.clone() * y).sum() * 0.5).backward();
        close("gradient", &host(leaf.grad(&grads).unwrap()), &x, 1e-5);
    }
    assert!(Hadamard::<Flex>::new(31, &Default::default()).is_none());
}

#[test]
fn the_cache_gives_back_what_its_codes_say() {
    let (batch, seq, heads, head_dim) = (2, 5, 3, 8);
    let shape = [batch * seq, heads * head_dim];
    let x = random(5, shape[0] * shape[1]);
    for bits in kv::BITS {
        let quant = CacheQuant {
            bits,
            head_dim,
            seq,
        };
        let leaf = matrix::<Autodiff<Flex>>(&x, shape).require_grad();
        let y = <Autodiff<Flex> as Ops>::cache_quant(leaf.clone(), quant);
        let mut expected = Vec::new();
        for (i, head) in x.chunks(head_dim).enumerate() {
            let bits = kv::bits_at(bits, i / heads % seq);
            let mut codes = [0; 8];
            let step = kv::quantise_head(head, bits, &mut codes);
            let middle = f32::from(1u8 << (bits - 1));
            expected.extend(codes.map(|c| (f32::from(c) - middle) * step));
        }
        close("cache", &host(y.clone().inner()), &expected, 1e-6);
        let grads = y.sum().backward();
        assert!(host(leaf.grad(&grads).unwrap()).iter().all(|g| *g == 1.0));
    }
}

fn model(scheme: QuantScheme, act: HiddenAct) -> (CausalLm<Flex>, ModelConfig) {
    let mut config: ModelConfig = serde_json::from_value(serde_json::json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 40, "max_position_embeddings": 32, "hidden_act": "silu",
        "tie_word_embeddings": true,
    }))
    .unwrap();
    config.hidden_act = act;
    config.set_quant(Some(scheme), QuantizationMode::Online);
    assert!(config.problems().is_empty(), "{:?}", config.problems());
    let mut init = RandomInit::new(7, 0.1, 2);
    let model = CausalLm::new(&config, &mut init, &Default::default()).unwrap();
    (model, config)
}

#[test]
fn sparsity_has_the_shape_of_the_papers_table() {
    let tokens =
        || Tensor::<Flex, 2, Int>::from_data([[1, 2, 3, 4], [5, 6, 7, 0]], &Default::default());
    let rows = || Tensor::<Flex, 1, Int>::from_data([0, 1, 2, 3, 4, 5, 6], &Default::default());
    let (m, config) = model(Preset::A48.into(), HiddenAct::Relu2);
    let s = sparsity(&m, &config, tokens(), rows());
    assert!((s.out - 0.5).abs() < 0.05, "{s:?}");
    assert_eq!((s.qkv > 0.02, s.qkv < 0.4), (true, true), "{s:?}");
    assert!((s.up - (1.0 - (1.0 - s.gate) * 0.5)).abs() < 0.15, "{s:?}");
    assert!(s.down > 0.4 && s.overall > 0.2 && s.overall < 0.8, "{s:?}");
    let weights = 2.0 * (64.0 * 128.0 * 3.0 + 64.0 * 192.0);
    assert!((s.activated - weights * (1.0 - s.overall)).abs() < 1.0);
    let (m, config) = model(Preset::B158.into(), HiddenAct::Silu);
    let s = sparsity(&m, &config, tokens(), rows());
    assert!(
        s.out < 0.1 && s.down < 0.4 && (s.up - s.gate).abs() < 1e-9,
        "{s:?}"
    );
}

#[test]
fn every_preset_runs() {
    for preset in [
        Preset::B1,
        Preset::B158,
        Preset::A48,
        Preset::A48Fp4,
        Preset::QSparse,
        Preset::V2,
        Preset::V2A4,
    ] {
        for bits in [None, Some(8), Some(4), Some(3)] {
            let scheme = QuantScheme {
                q_bits: bits.map(|_| 4),
                kv_bits: bits,
                ..preset.into()
            };
            let (m, _) = model(scheme, HiddenAct::Relu2);
            let tokens = Tensor::from_data([[1, 2, 3], [4, 5, 6]], &Default::default());
            let logits = host(m.logits(m.forward(tokens, &[]).hidden));
            assert!(logits.iter().all(|v| v.is_finite()), "{preset:?} {bits:?}");
        }
    }
}
