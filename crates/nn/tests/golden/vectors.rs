//! Where the vectors lie, and how close is close enough.

use std::path::PathBuf;

use burn::tensor::{Tensor, TensorData};
use tritburn_nn::ops::Kernels;
use tritburn_quant::tensor_file::TensorFile;

pub(crate) fn golden() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden");
    let dir = std::env::var("TRITBURN_GOLDEN_DIR").unwrap_or_else(|_| default.into());
    let dir = PathBuf::from(dir);
    if !dir.is_dir() {
        eprintln!("skipped: no golden vectors in {}", dir.display());
        return None;
    }
    Some(dir)
}

pub(crate) struct Vectors(pub(crate) TensorFile);

impl Vectors {
    pub(crate) fn get(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
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
    pub(crate) fn rows<B: Kernels>(&self, name: &str) -> Tensor<B, 2> {
        let (shape, data) = self.get(name);
        let width = shape[shape.len() - 1];
        let rows = data.len() / width;
        Tensor::from_data(TensorData::new(data, [rows, width]), &B::Device::default())
    }
}

pub(crate) fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
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

pub(crate) fn host<B: Kernels, const D: usize>(x: Tensor<B, D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}
