//! From noise to images.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use tritburn_nn::dit::patch::unpatchify;
use tritburn_nn::dit::{Condition, Dit};
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_nn::weights::to_host;
use tritburn_quant::config::DitConfig;

use super::folder;
use super::noise::{Draws, NoiseSchedule};
use crate::error::Result;

/// Images that go through the model at once.
const BATCH: usize = 64;

/// What to draw, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleOptions {
    /// Class of every image; one that the model does not know stands for "no class".
    pub classes: Vec<usize>,
    /// Steps from noise to image, at most as many as the model was trained with.
    pub steps: usize,
    /// Share of noise that is drawn anew at each step: 0 for DDIM, 1 for DDPM (Song et al. 2021,
    /// Eq. 16).
    pub eta: f64,
    /// Weight of the class: 1 as trained, more for classifier-free guidance (Ho & Salimans 2022).
    pub guidance: f32,
    /// Seed of the noise; image `i` starts from the same noise whatever the other images are.
    pub seed: u64,
}

/// Images that a model drew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples {
    /// Height and width in pixels.
    pub side: usize,
    /// `[images, side, side]`, 0 is the background.
    pub pixels: Vec<u8>,
}

/// See [`crate::sample`].
pub(crate) fn sample<B: Kernels + Ops>(
    path: &Path,
    options: &SampleOptions,
    device: &B::Device,
) -> Result<Samples> {
    let (config, mut model) = folder::read::<B>(path, device)?;
    model.pack()?;
    Ok(draw(&config, &model, options, device))
}

fn draw<B: Kernels + Ops>(
    config: &DitConfig,
    model: &Dit<B>,
    options: &SampleOptions,
    device: &B::Device,
) -> Samples {
    let schedule = NoiseSchedule::new(config.noise, config.noise_steps);
    let sampler = Sampler {
        config,
        model,
        schedule: &schedule,
        options,
        device,
    };
    let mut pixels = Vec::new();
    for (n, classes) in options.classes.chunks(BATCH).enumerate() {
        let patches = sampler.batch(n * BATCH, classes);
        let images = unpatchify(&patches, config.image_size, config.patch_size);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bytes = images
            .iter()
            .map(|x| ((x + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8);
        pixels.extend(bytes);
    }
    Samples {
        side: config.image_size,
        pixels,
    }
}

struct Sampler<'a, B: Kernels + Ops> {
    config: &'a DitConfig,
    model: &'a Dit<B>,
    schedule: &'a NoiseSchedule,
    options: &'a SampleOptions,
    device: &'a B::Device,
}

impl<B: Kernels + Ops> Sampler<'_, B> {
    /// Images `first..` of `classes`, as patches.
    fn batch(&self, first: usize, classes: &[usize]) -> Vec<f32> {
        let size = self.config.image_size * self.config.image_size;
        let mut draws: Vec<Draws> = (0..classes.len())
            .map(|i| Draws::new(self.options.seed, (first + i) as u64))
            .collect();
        let mut x: Vec<f32> = draws.iter_mut().flat_map(|d| d.normal(size)).collect();
        let times = times(self.schedule.steps(), self.options.steps);
        for (i, &t) in times.iter().enumerate() {
            let noise = self.noise(&x, t, classes);
            let next = times.get(i + 1).copied();
            let step = Step::new(self.schedule, t, next, self.options.eta);
            for (image, draws) in draws.iter_mut().enumerate() {
                let fresh = if step.fresh > 0.0 {
                    draws.normal(size)
                } else {
                    vec![0.0; size]
                };
                let range = image * size..(image + 1) * size;
                let (x, noise) = (&mut x[range.clone()], &noise[range]);
                for ((x, e), z) in x.iter_mut().zip(noise).zip(fresh) {
                    *x = step.apply(*x, *e, z);
                }
            }
        }
        x
    }

    /// The noise that the model sees in `x` at step `t`.
    fn noise(&self, x: &[f32], t: usize, classes: &[usize]) -> Vec<f32> {
        let with = self.predict(x, t, classes);
        let weight = self.options.guidance;
        #[allow(clippy::float_cmp)]
        if weight == 1.0 {
            return with;
        }
        let without = self.predict(x, t, &vec![self.config.num_classes; classes.len()]);
        let both = with.iter().zip(without);
        both.map(|(with, without)| without + weight * (with - without))
            .collect()
    }

    fn predict(&self, x: &[f32], t: usize, classes: &[usize]) -> Vec<f32> {
        let pixels = self.config.patch_pixels();
        let data = TensorData::new(x.to_vec(), [x.len() / pixels, pixels]);
        let patches = Tensor::<B, 2>::from_data(data, self.device);
        let steps = vec![t; classes.len()];
        let condition = Condition::new(self.config, &steps, classes, self.device);
        to_host(self.model.forward(patches, condition))
    }
}

/// `count` of the steps `0..all`, evenly spread, from the last to the first.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn times(all: usize, count: usize) -> Vec<usize> {
    let count = count.clamp(1, all);
    let gap = (all - 1) as f64 / (count.max(2) - 1) as f64;
    let from_end = |i: usize| (i as f64 * gap).round() as usize;
    (0..count).map(|i| all - 1 - from_end(i)).collect()
}

/// Factors of one step from `t` to `next` (Song et al. 2021, Eq. 12 and 16).
struct Step {
    /// √ᾱ and √(1 − ᾱ) at `t`.
    keep: f32,
    noise: f32,
    /// √ᾱ at `next`, and the deviations of the old and of fresh noise there.
    next: f32,
    old: f32,
    fresh: f32,
}

impl Step {
    #[allow(clippy::cast_possible_truncation)]
    fn new(schedule: &NoiseSchedule, t: usize, next: Option<usize>, eta: f64) -> Self {
        let (here, there) = (schedule.left(Some(t)), schedule.left(next));
        let variance = (1.0 - there) / (1.0 - here) * (1.0 - here / there);
        let fresh = eta * variance.max(0.0).sqrt();
        Self {
            keep: here.sqrt() as f32,
            noise: (1.0 - here).sqrt() as f32,
            next: there.sqrt() as f32,
            old: (1.0 - there - fresh * fresh).max(0.0).sqrt() as f32,
            fresh: fresh as f32,
        }
    }

    /// One pixel: the image that `x` and its noise `e` amount to is kept within what a pixel can
    /// be, and the noise made to fit.
    fn apply(&self, x: f32, e: f32, z: f32) -> f32 {
        let image = ((x - self.noise * e) / self.keep).clamp(-1.0, 1.0);
        let e = (x - self.keep * image) / self.noise;
        self.next * image + self.old * e + self.fresh * z
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::backend::Flex;
    use tritburn_nn::weights::RandomInit;
    use tritburn_quant::config::{DIT, HiddenAct, NoiseKind, SubNorm, Ternary};
    use tritburn_quant::scheme::QuantScheme;

    use super::*;

    /// Products of packed layers are those of the training forward pass, so images are too.
    #[test]
    fn packed_layers_draw_the_same_images() {
        for ternary in [Ternary::None, Ternary::Blocks, Ternary::All] {
            let config = DitConfig {
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
                noise_steps: 20,
                noise: NoiseKind::Linear,
            };
            let device = Default::default();
            // Not adaLN-Zero, by which a new model answers 0.
            let source = &mut RandomInit::new(1, 0.3, 2);
            let mut model = Dit::<Flex>::new(&config, source, &device).unwrap();
            let options = SampleOptions {
                classes: vec![0, 1, 2],
                steps: 5,
                eta: 0.5,
                guidance: 2.0,
                seed: 3,
            };
            let before = draw(&config, &model, &options, &device);
            assert!(before.pixels.iter().any(|p| *p != before.pixels[0]));
            let packed = model.pack().unwrap();
            assert_eq!(packed > 0, ternary != Ternary::None);
            assert_eq!(draw(&config, &model, &options, &device), before);
        }
    }

    #[test]
    fn steps_lead_from_the_last_to_the_first() {
        assert_eq!(times(10, 10), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(times(1000, 3), [999, 499, 0]);
        assert_eq!(times(1000, 1), [999]);
        assert_eq!(times(5, 99).len(), 5);
    }

    #[test]
    fn true_noise_leads_back_to_the_image() {
        let schedule = NoiseSchedule::new(NoiseKind::Cosine, 100);
        for eta in [0.0, 1.0] {
            let (image, mut e) = (0.25f32, 1.3f32);
            let times = times(100, 20);
            let at = |t: Option<usize>, e: f32| {
                let left = schedule.left(t) as f32;
                left.sqrt() * image + (1.0 - left).sqrt() * e
            };
            let mut x = at(Some(99), e);
            for (i, &t) in times.iter().enumerate() {
                let step = Step::new(&schedule, t, times.get(i + 1).copied(), eta);
                x = step.apply(x, e, 0.7);
                if let Some(&next) = times.get(i + 1) {
                    let left = schedule.left(Some(next)) as f32;
                    e = (x - left.sqrt() * image) / (1.0 - left).sqrt();
                }
            }
            assert!((x - image).abs() < 1e-3, "eta {eta}: {x}");
        }
    }
}
