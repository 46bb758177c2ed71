//! Where weights come from and how they leave: random initialisation, model folders, surgery.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, backend::Backend};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::Result;

/// Supplies the tensors of a model by Hugging Face name, on the host, in f32.
pub trait WeightSource {
    /// A matrix, row-major.
    ///
    /// # Errors
    /// Where the source has no such tensor of this shape.
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>>;

    /// The weight of an RMSNorm.
    ///
    /// # Errors
    /// Where the source has no such tensor of this length.
    fn norm(&mut self, name: &str, features: usize) -> Result<Vec<f32>>;

    /// The bias of a projection.
    ///
    /// # Errors
    /// Where the source has no such tensor of this length.
    fn bias(&mut self, name: &str, features: usize) -> Result<Vec<f32>>;

    /// To be asked after the last tensor: whether all were read from what is still there.
    ///
    /// # Errors
    /// Where a file changed meanwhile.
    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// Seeded normal initialisation with ones for norms and zeros for biases, the same on every backend.
#[derive(Debug)]
pub struct RandomInit {
    rng: ChaCha8Rng,
    std: f32,
    residual_std: f32,
}

impl RandomInit {
    /// Standard deviation `std`; projections that write into the residual stream (`o_proj`,
    /// `down_proj`) get `std / √(2 · layers)` (Radford et al. 2019).
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn new(seed: u64, std: f32, layers: usize) -> Self {
        let residual_std = std / (2.0 * layers.max(1) as f32).sqrt();
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            std,
            residual_std,
        }
    }
}

impl WeightSource for RandomInit {
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
        let residual = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
        let std = if residual {
            self.residual_std
        } else {
            self.std
        };
        let normal = Normal::new(0.0f32, std).unwrap_or_else(|_| unreachable!("finite deviation"));
        Ok((0..shape[0] * shape[1])
            .map(|_| normal.sample(&mut self.rng))
            .collect())
    }

    fn norm(&mut self, _name: &str, features: usize) -> Result<Vec<f32>> {
        Ok(vec![1.0; features])
    }

    fn bias(&mut self, _name: &str, features: usize) -> Result<Vec<f32>> {
        Ok(vec![0.0; features])
    }
}

/// One tensor on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Vec<f32>,
}

struct Collect(Names, BTreeMap<String, HostTensor>);

/// Tracks the Hugging Face name of the parameter at hand while a module is walked.
#[derive(Debug, Default)]
pub struct Names(Vec<String>);

impl Names {
    /// Descends into a field or list element.
    pub fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    /// Comes back out.
    pub fn exit(&mut self) {
        self.0.pop();
    }

    /// Name of the parameter at hand, for example `model.layers.0.mlp.up_proj.weight`.
    #[must_use]
    pub fn current(&self) -> String {
        self.0.join(".")
    }
}

impl<B: Backend> ModuleVisitor<B> for Collect {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        let data = to_host(tensor);
        self.1.insert(self.0.current(), HostTensor { shape, data });
    }
}

/// Values of a tensor, row-major, in f32.
#[must_use]
pub fn to_host<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Every parameter of a module by name, in order of name.
#[must_use]
pub fn host_weights<B: Backend, M: Module<B>>(module: &M) -> BTreeMap<String, HostTensor> {
    let mut collect = Collect(Names::default(), BTreeMap::new());
    module.visit(&mut collect);
    collect.1
}
