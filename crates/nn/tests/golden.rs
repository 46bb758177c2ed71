//! Operations and models against vectors made with PyTorch and transformers.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;

use burn::backend::{Autodiff, Flex, NdArray};
use burn::tensor::{Int, Tensor, TensorData};
use tritburn_nn::CausalLm;
use tritburn_nn::folder::FolderSource;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_quant::config::ModelConfig;
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

fn quantisers_and_bit_linear<B: Kernels + Ops>() {
    let Some(dir) = golden() else { return };
    let v = Vectors(TensorFile::open(&dir.join("quant_and_losses.safetensors")).unwrap());
    let w = B::ternary(v.rows::<B>("w"));
    close("w_b158", &host(w.codes * w.scale), &v.get("w_b158").1, 1e-6);
    let x = B::int8_tokens(v.rows::<B>("x"));
    close("a_int8", &host(x.codes * x.step), &v.get("a_int8").1, 1e-6);

    let x = Tensor::<Autodiff<B>, 2>::from_inner(v.rows::<B>("x")).require_grad();
    let w = Tensor::<Autodiff<B>, 2>::from_inner(v.rows::<B>("w")).require_grad();
    let y = <Autodiff<B> as Ops>::bit_linear(x.clone(), w.clone());
    close(
        "y",
        &host(y.clone().inner()),
        &v.get("lin.b158_a8.y").1,
        1e-5,
    );
    let grad = Tensor::from_inner(v.rows::<B>("lin.b158_a8.gout"));
    let grads = (y * grad).sum().backward();
    close(
        "gx",
        &host(x.grad(&grads).unwrap()),
        &v.get("lin.b158_a8.gx").1,
        1e-5,
    );
    close(
        "gw",
        &host(w.grad(&grads).unwrap()),
        &v.get("lin.b158_a8.gw").1,
        1e-5,
    );
}

#[test]
fn golden_bit_linear_on_flex() {
    quantisers_and_bit_linear::<Flex>();
}

#[test]
fn golden_bit_linear_on_ndarray() {
    quantisers_and_bit_linear::<NdArray>();
}

#[test]
fn golden_norm_then_bit_linear() {
    let Some(dir) = golden() else { return };
    let v = Vectors(TensorFile::open(&dir.join("quant_and_losses.safetensors")).unwrap());
    type A = Autodiff<Flex>;
    let x = Tensor::<A, 2>::from_inner(v.rows("x")).require_grad();
    let w = Tensor::<A, 2>::from_inner(v.rows("w")).require_grad();
    let ones = Tensor::ones([64], &Default::default());
    let y = A::bit_linear(A::rms_norm(x.clone(), ones, 1e-6), w.clone());
    close(
        "y",
        &host(y.clone().inner()),
        &v.get("rmslin.b158_a8.y").1,
        1e-5,
    );
    let grad = Tensor::from_inner(v.rows("lin.b158_a8.gout"));
    let grads = (y * grad).sum().backward();
    close(
        "gx",
        &host(x.grad(&grads).unwrap()),
        &v.get("rmslin.b158_a8.gx").1,
        1e-5,
    );
    close(
        "gw",
        &host(w.grad(&grads).unwrap()),
        &v.get("rmslin.b158_a8.gw").1,
        1e-5,
    );
}

/// Logits on the positions that are not padding.
fn model_logits<B: Kernels + Ops>(name: &str, tolerance: f32) {
    let Some(dir) = golden() else { return };
    let folder = dir.join(name);
    let config = ModelConfig::read(&folder.join("config.json")).unwrap();
    let device = B::Device::default();
    let mut source = FolderSource::open(&folder).unwrap();
    let model = CausalLm::<B>::new(&config, &mut source, &device).unwrap();
    let file = TensorFile::open(&folder.join("golden.safetensors")).unwrap();
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
fn golden_llama_logits() {
    model_logits::<Flex>("llama", 1e-4);
    model_logits::<NdArray>("llama", 1e-4);
}

#[test]
fn golden_bitnet_unquantised_logits() {
    model_logits::<Flex>("bitnet_unquantised", 1e-4);
}

#[test]
fn golden_bitnet_online_logits() {
    model_logits::<Flex>("bitnet_online_autobitlinear", 1e-4);
    model_logits::<NdArray>("bitnet_online_autobitlinear", 1e-4);
}
