//! Noise prediction: what a diffusion transformer learns.

use std::path::Path;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::GradientsAccumulator;
use burn::tensor::{Tensor, TensorData, backend::Backend};
use serde_json::{Map, Value, json};
use tritburn_data::{ImageLoader, LabelledImages, LoaderState};
use tritburn_nn::dit::patch::patchify;
use tritburn_nn::dit::{Condition, Dit};
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_nn::weights::to_host;
use tritburn_quant::config::DitConfig;

use super::folder;
use super::noise::{Draws, NoiseSchedule, noised};
use crate::error::Result;
use crate::objective::Loss;
use crate::recipe::DitRecipe;
use crate::reduction::Reduction;
use crate::steps::{Learner, Steps};

/// Key of the held-out loss in `metrics.jsonl`.
const HELD_OUT: &str = "eval/held_out/mse";
/// Streams of the dice from here on belong to measurements: no run hands out as many images.
const MEASURE: u64 = 1 << 62;

/// A diffusion transformer with its images.
pub(super) struct DitLearner<'a, B: Kernels + Ops> {
    pub(super) recipe: &'a DitRecipe,
    pub(super) config: DitConfig,
    pub(super) model: Dit<Autodiff<B>>,
    pub(super) loader: ImageLoader,
    pub(super) held_out: LabelledImages,
    pub(super) noise: NoiseSchedule,
    pub(super) device: &'a B::Device,
}

/// Noisy images and the noise in them, as patches on the host, with what the model is told.
struct Noisy {
    patches: Vec<f32>,
    noise: Vec<f32>,
    steps: Vec<usize>,
    classes: Vec<usize>,
}

/// Bytes as numbers from -1 to 1.
fn scaled(bytes: &[u8]) -> Vec<f32> {
    bytes.iter().map(|&b| f32::from(b) / 127.5 - 1.0).collect()
}

impl<B: Kernels + Ops> DitLearner<'_, B> {
    /// Adds noise to `images`, as much as `step` says of each.
    fn noisy(
        &self,
        images: &LabelledImages,
        draws: &mut Draws,
        dropout: f64,
        step: impl Fn(usize, &mut Draws) -> usize,
    ) -> Noisy {
        let (side, patch) = (self.config.image_size, self.config.patch_size);
        let count = images.len();
        let mut out = Noisy {
            patches: Vec::with_capacity(images.pixels.len()),
            noise: draws.normal(images.pixels.len()),
            steps: (0..count).map(|i| step(i, draws)).collect(),
            classes: images.labels.iter().map(|&l| usize::from(l)).collect(),
        };
        for class in &mut out.classes {
            if draws.chance(dropout) {
                *class = self.config.num_classes;
            }
        }
        // Noise is the same in any order: it is drawn in that of the patches.
        let clean = patchify(&scaled(&images.pixels), side, patch);
        let size = side * side;
        for (i, (clean, noise)) in clean.chunks(size).zip(out.noise.chunks(size)).enumerate() {
            let left = self.noise.left(Some(out.steps[i]));
            out.patches.extend(noised(clean, noise, left));
        }
        out
    }

    /// Mean squared error of the predicted noise (Ho et al. 2020, Eq. 14).
    fn mse<C: Ops>(&self, model: &Dit<C>, noisy: Noisy, device: &C::Device) -> Tensor<C, 1> {
        let shape = [
            noisy.classes.len() * self.config.patches(),
            self.config.patch_pixels(),
        ];
        let condition = Condition::new(&self.config, &noisy.steps, &noisy.classes, device);
        let seen = model.forward(tensor(noisy.patches, shape, device), condition);
        let difference = seen - tensor(noisy.noise, shape, device);
        (difference.clone() * difference).mean()
    }
}

fn tensor<B: Backend>(data: Vec<f32>, shape: [usize; 2], device: &B::Device) -> Tensor<B, 2> {
    Tensor::from_data(TensorData::new(data, shape), device)
}

impl<B: Kernels + Ops> Steps<B> for DitLearner<'_, B> {
    type Model = Dit<Autodiff<B>>;

    fn model(&mut self) -> &mut Self::Model {
        &mut self.model
    }

    fn device(&self) -> &B::Device {
        self.device
    }

    fn hold_weights(&mut self) {
        self.model.hold_weights();
    }

    fn release_weights(&mut self) {
        self.model.release_weights();
    }

    fn next_loss(
        &mut self,
        _reduction: Option<&Reduction<B>>,
        _into: &mut GradientsAccumulator<Self::Model>,
    ) -> Result<(Loss<Autodiff<B>>, usize)> {
        let mut draws = Draws::new(self.recipe.file.seed, self.loader.handed_out());
        let images = self.loader.next_batch();
        let dropout = self.recipe.file.optim.label_dropout;
        let steps = self.noise.steps();
        let noisy = self.noisy(&images, &mut draws, dropout, |_, draws| draws.below(steps));
        let loss = Loss {
            total: self.mse(&self.model, noisy, self.device),
            terms: Vec::new(),
        };
        Ok((loss, images.len() * self.config.patches()))
    }

    fn skip(&mut self) -> Result<usize> {
        Ok(self.loader.next_batch().len() * self.config.patches())
    }
}

impl<B: Kernels + Ops> Learner<B> for DitLearner<'_, B> {
    fn begin_step(&mut self, at: usize) {
        let quant = &self.recipe.file.dit.quant;
        self.model.set_lambda(quant.lambda.at(at, quant.warmup));
        self.model.set_int8_grad_input(quant.int8_grad_input);
        let compute = self.recipe.file.train.compute;
        self.model.set_compute(compute.on::<B>(self.device));
    }

    /// The same error on held-out images, with the same noise at every measurement and every
    /// amount of noise equally often.
    #[allow(clippy::cast_precision_loss)]
    fn measure(&mut self) -> Result<Map<String, Value>> {
        let mut model = self.model.valid();
        model.set_lambda(1.0);
        model.hold_weights();
        let file = &self.recipe.file;
        let rows = file.train.eval_rows.min(self.held_out.len());
        let (mut sum, mut from) = (0.0, 0);
        while from < rows {
            let places: Vec<usize> = (from..rows.min(from + file.optim.batch_size)).collect();
            let images = self.held_out.select(&places);
            let mut draws = Draws::new(file.seed, MEASURE + from as u64);
            let steps = self.noise.steps();
            let spread = |i: usize, _: &mut Draws| (2 * (from + i) + 1) * steps / (2 * rows);
            let noisy = self.noisy(&images, &mut draws, 0.0, spread);
            let mse = to_host(self.mse(&model, noisy, self.device))[0];
            sum += f64::from(mse) * images.len() as f64;
            from += images.len();
        }
        let mut out = Map::new();
        out.insert(HELD_OUT.into(), json!(sum / rows as f64));
        Ok(out)
    }

    fn improves(&self, new: f64, old: f64) -> bool {
        new < old
    }

    fn position(&self) -> LoaderState {
        self.loader.state()
    }

    fn write_model(&self, path: &Path) -> Result<()> {
        folder::write(path, &self.config, &self.model)
    }

    fn read_model(&mut self, path: &Path) -> Result<()> {
        let mut source = folder::source(path)?;
        self.model = Dit::new(&self.config, &mut source, self.device)?;
        Ok(())
    }
}
