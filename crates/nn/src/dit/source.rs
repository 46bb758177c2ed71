//! Where the weights of a diffusion transformer come from.

use tritburn_quant::tensor_file::TensorFile;

use crate::Result;
use crate::weights::{RandomInit, WeightSource};

/// Standard deviation of the embeddings of timestep and class (Peebles & Xie 2023, the published
/// code).
const EMBEDDING_STD: f32 = 0.02;

/// Seeded initialisation: as [`RandomInit`], with zeros in every modulation and in the last layer
/// (adaLN-Zero), so that a new model answers 0 to everything.
#[derive(Debug)]
pub struct DitInit {
    blocks: RandomInit,
    embeddings: RandomInit,
}

impl DitInit {
    /// Standard deviation `std` in blocks and patch embedding.
    #[must_use]
    pub fn new(seed: u64, std: f32, layers: usize) -> Self {
        Self {
            blocks: RandomInit::new(seed, std, layers),
            embeddings: RandomInit::new(seed.wrapping_add(1), EMBEDDING_STD, layers),
        }
    }
}

impl WeightSource for DitInit {
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
        if name.ends_with("ada_ln.weight") || name == "final_proj.weight" {
            return Ok(vec![0.0; shape[0] * shape[1]]);
        }
        if name.starts_with("time_") || name.starts_with("class_") {
            return self.embeddings.matrix(name, shape);
        }
        self.blocks.matrix(name, shape)
    }

    fn norm(&mut self, name: &str, features: usize) -> Result<Vec<f32>> {
        self.blocks.norm(name, features)
    }

    fn bias(&mut self, name: &str, features: usize) -> Result<Vec<f32>> {
        self.blocks.bias(name, features)
    }
}

/// Master weights of a tensor file, under the names that the modules have.
#[derive(Debug)]
pub struct TensorSource(TensorFile);

impl TensorSource {
    /// Reads from `file`.
    #[must_use]
    pub fn new(file: TensorFile) -> Self {
        Self(file)
    }
}

impl WeightSource for TensorSource {
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
        Ok(self.0.tensor_f32(name, &shape)?)
    }

    fn norm(&mut self, name: &str, features: usize) -> Result<Vec<f32>> {
        Ok(self.0.tensor_f32(name, &[features])?)
    }

    fn bias(&mut self, name: &str, features: usize) -> Result<Vec<f32>> {
        Ok(self.0.tensor_f32(name, &[features])?)
    }
}
