//! Operations and models against vectors made with PyTorch and transformers.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

use burn::backend::{Autodiff, Flex, NdArray};
use burn::tensor::{Int, Tensor, TensorData};
use tritburn_nn::CausalLm;
use tritburn_nn::folder::FolderSource;
use tritburn_nn::hadamard::Hadamard;
use tritburn_nn::ops::{Kernels, LinearQuant, Ops};
use tritburn_quant::config::{HiddenAct, ModelConfig};
use tritburn_quant::scheme::WeightQuant;
use tritburn_quant::tensor_file::TensorFile;

fn golden() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden");
    let dir = std::env::var("TRITBURN_GOLDEN_DIR").unwrap_or_else(|_| default.into());
    let dir = PathBuf::from(dir);
    if !dir.is_dir() {
        eprintln!("skipped: no golden vectors in {}", dir.display());
        return None;
    }
    Some(dir)
}

struct Vectors(TensorFile);

impl Vectors {
    fn get(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let shape = self
            .0
            .info(name)
            .unwrap_or_else(|| panic!("{name} is missing"))
            .1
            .to_vec();
        let data = self.0.tensor_f32(name, &shape).unwrap();
        (shape, data)
    }

    /// All but the last dimension joined.
    fn rows<B: Kernels>(&self, name: &str) -> Tensor<B, 2> {
        let (shape, data) = self.get(name);
        let width = shape[shape.len() - 1];
        let rows = data.len() / width;
        Tensor::from_data(TensorData::new(data, [rows, width]), &B::Device::default())
    }
}

fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let diff = found
        .iter()
        .zip(expected)
        .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(
        diff <= tolerance * largest,
        "{what}: differs by {diff}, largest value {largest}"
    );
}

fn host<B: Kernels, const D: usize>(x: Tensor<B, D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

/// Forward values and gradients of BitLinear, with a norm without weight in front where `prefix` is
/// `rmslin`.
fn bit_linear<B: Kernels + Ops>(
    v: &Vectors,
    prefix: &str,
    case: &str,
    quant: LinearQuant,
    [forward, backward]: [f32; 2],
) {
    type A<B> = Autodiff<B>;
    let x = Tensor::<A<B>, 2>::from_inner(v.rows::<B>("x")).require_grad();
    let w = Tensor::<A<B>, 2>::from_inner(v.rows::<B>("w")).require_grad();
    let input = if prefix == "rmslin" {
        let ones = Tensor::ones([64], &x.device());
        <A<B> as Ops>::rms_norm(x.clone(), ones, 1e-6)
    } else {
        x.clone()
    };
    let y = <A<B> as Ops>::bit_linear(input, w.clone(), None, quant);
    let name = |what: &str| format!("{prefix}.{case}.{what}");
    let check = |what: &str, found: Tensor<B, 2>, tolerance: f32| {
        close(&name(what), &host(found), &v.get(&name(what)).1, tolerance);
    };
    check("y", y.clone().inner(), forward);
    let grad = Tensor::from_inner(v.rows::<B>(&format!("lin.{case}.gout")));
    let grads = (y * grad).sum().backward();
    check("gx", x.grad(&grads).unwrap(), backward);
    check("gw", w.grad(&grads).unwrap(), backward);
}

/// Tolerances are relative to the largest value, of outputs and of gradients of BitLinear.
fn quantisers_and_bit_linear<B: Kernels + Ops>(tolerance: [f32; 2]) {
    let Some(dir) = golden() else { return };
    let v = Vectors(TensorFile::open(&dir.join("quant_and_losses.safetensors")).unwrap());
    for (name, quant) in [("w_b158", WeightQuant::Absmean), ("w_b1", WeightQuant::B1)] {
        let w = B::quantise_weight(v.rows::<B>("w"), quant).dense();
        close(name, &host(w), &v.get(name).1, 1e-6);
    }
    let more = Vectors(TensorFile::open(&dir.join("losses_and_more.safetensors")).unwrap());
    for (file, x, name, quant) in [
        (&v, "x", "a_int8", "int8"),
        (&v, "x", "a_int4", "int4"),
        (&v, "x", "a_topk50_int8", "top50%+int8"),
        (&more, "fp4.x", "fp4.e2m1", "fp4-e2m1"),
        (&more, "fp4.x", "fp4.e1m2", "fp4-e1m2"),
    ] {
        let x = B::quantise_acts(file.rows::<B>(x), quant.parse().unwrap());
        close(name, &host(x.dense()), &file.get(name).1, 2e-6);
    }
    let hadamard = Hadamard::<B>::new(64, &B::Device::default()).unwrap();
    let turned = host(hadamard.forward(more.rows::<B>("fp4.x")));
    // A product: on a GPU its operands may have fewer bits than f32.
    let bound = if tolerance[0] > 1e-5 {
        tolerance[0]
    } else {
        1e-6
    };
    close("hadamard", &turned, &more.get("hadamard.y").1, bound);

    for prefix in ["lin", "rmslin"] {
        for (case, weight, act) in [
            ("b158_a8", WeightQuant::Absmean, "int8"),
            ("b158_a4", WeightQuant::Absmean, "int4"),
            ("b1_a8", WeightQuant::B1, "int8"),
            ("b158_a8_top50", WeightQuant::Absmean, "top50%+int8"),
        ] {
            let quant = LinearQuant {
                weight,
                act: act.parse().unwrap(),
                lambda: 1.0,
            };
            bit_linear::<B>(&v, prefix, case, quant, tolerance);
        }
    }
}

fn gated_activation<B: Kernels + Ops>() {
    let Some(dir) = golden() else { return };
    let v = Vectors(TensorFile::open(&dir.join("quant_and_losses.safetensors")).unwrap());
    let up = v.rows::<B>("x");
    let y = <B as Kernels>::gated_act(up.clone().flip([1]), up, HiddenAct::Relu2);
    close("relu2glu", &host(y), &v.get("relu2glu").1, 1e-6);
}

#[test]
fn golden_quantisers_on_flex() {
    quantisers_and_bit_linear::<Flex>([1e-5; 2]);
    gated_activation::<Flex>();
}

#[test]
fn golden_quantisers_on_ndarray() {
    quantisers_and_bit_linear::<NdArray>([1e-5; 2]);
    gated_activation::<NdArray>();
}

/// Logits on the positions that are not padding.
fn model_logits<B: Kernels + Ops>(name: &str, tolerance: f32) {
    let Some(dir) = golden() else { return };
    let folder = dir.join(name);
    logits_against::<B>(&folder, &folder.join("golden.safetensors"), tolerance);
}

fn logits_against<B: Kernels + Ops>(folder: &Path, expected: &Path, tolerance: f32) {
    let name = folder.file_name().unwrap().to_string_lossy();
    let config = ModelConfig::read(&folder.join("config.json")).unwrap();
    let device = B::Device::default();
    let mut source = FolderSource::open(folder).unwrap();
    let model = CausalLm::<B>::new(&config, &mut source, &device).unwrap();
    let file = TensorFile::open(expected).unwrap();
    let integers = |name: &str| -> (Vec<usize>, Vec<i32>) {
        let (dtype, shape) = file.info(name).unwrap();
        let bytes = file.bytes(name, dtype, shape).unwrap();
        let size = bytes.len() / shape.iter().product::<usize>();
        let values = bytes.chunks_exact(size).map(|c| {
            let mut low = [0; 4];
            low[..size.min(4)].copy_from_slice(&c[..size.min(4)]);
            i32::from_le_bytes(low)
        });
        (shape.to_vec(), values.collect())
    };
    let (shape, ids) = integers("input_ids");
    let (_, mask) = integers("attention_mask");
    let ids = Tensor::<B, 1, Int>::from_data(TensorData::new(ids, [mask.len()]), &device)
        .reshape([shape[0], shape[1]]);
    let found = host(model.logits(model.forward(ids, &[]).hidden));
    let (_, expected) = Vectors(file).get("logits");
    let vocab = config.vocab_size;
    for (row, &valid) in mask.iter().enumerate() {
        if valid != 0 {
            let at = row * vocab..(row + 1) * vocab;
            close(
                &format!("{name}, row {row}"),
                &found[at.clone()],
                &expected[at],
                tolerance,
            );
        }
    }
}

#[test]
fn golden_logits_of_every_backbone() {
    for name in [
        "llama",
        "llama3_rope",
        "qwen2",
        "qwen3",
        "gemma3",
        "bitnet_unquantised",
        "bitnet_online_autobitlinear",
    ] {
        model_logits::<Flex>(name, 1e-4);
        model_logits::<NdArray>(name, 1e-4);
    }
}

/// transformers computes packed weights partly in bf16, so only the online form is a sharp
/// reference for them.
#[test]
fn golden_logits_of_packed_weights() {
    let Some(dir) = golden() else { return };
    let online = dir.join("bitnet_online_autobitlinear/golden.safetensors");
    logits_against::<Flex>(&dir.join("bitnet_offline_autobitlinear"), &online, 1e-4);
}

/// Operands of the gradients are rounded to bf16.
#[cfg(feature = "cuda")]
const CUDA_GRADIENTS: f32 = 8e-3;

/// Attention multiplies in bf16, and what differs there turns some codes of the next activations.
#[cfg(feature = "cuda")]
const CUDA_TERNARY: f32 = 2e-2;

#[cfg(feature = "cuda")]
#[test]
fn golden_on_cuda() {
    type Cuda = burn::backend::Cuda;
    quantisers_and_bit_linear::<Cuda>([GPU, CUDA_GRADIENTS]);
    gated_activation::<Cuda>();
    model_logits::<Cuda>("llama", GPU);
    model_logits::<Cuda>("bitnet_online_autobitlinear", CUDA_TERNARY);
}

#[cfg(feature = "wgpu")]
#[test]
fn golden_on_wgpu() {
    type Wgpu = burn::backend::Wgpu;
    quantisers_and_bit_linear::<Wgpu>([GPU; 2]);
    gated_activation::<Wgpu>();
    model_logits::<Wgpu>("llama", GPU);
    model_logits::<Wgpu>("bitnet_online_autobitlinear", GPU);
}

/// GPU products may take operands of f32 in fewer bits: codes are exact there, the rest is not.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
const GPU: f32 = 1e-3;
