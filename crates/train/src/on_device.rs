//! The operations of this crate on a device chosen at run time.
//!
//! Nothing here is generic, so each backend's code is made once, in this crate, whoever calls it.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::{Int, Tensor, TensorData};
use tritburn_eval::Scorer;
use tritburn_nn::CausalLm;
use tritburn_nn::device::{DeviceKind, Devices, OnDevice};
use tritburn_nn::folder::FolderSource;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_quant::config::ModelConfig;

use crate::bench::{StepBench, StepTimes};
use crate::diffusion::{self, SampleOptions, Samples};
use crate::error::Result;
use crate::observer::Observer;
use crate::pipeline::{self, Outcome};
use crate::recipe::{AnyRecipe, DitRecipe, Recipe};
use crate::run::RunDir;
use crate::scorer::{ModelScorer, to_i32};

/// Runs every stage of `recipe` that `run` has not finished, from the newest checkpoint if there is
/// one. `stop` ends the run after the step in work. On several devices, each holds a replica of the
/// model and takes its share of the micro-batches of a step.
///
/// # Errors
/// See [`TrainError`](crate::TrainError). After
/// [`TrainError::Interrupted`](crate::TrainError::Interrupted) the run can be resumed.
pub fn train(
    recipe: &Recipe,
    run: &RunDir,
    devices: &Devices,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    struct Work<'a>(
        &'a Recipe,
        &'a RunDir,
        &'a Devices,
        &'a mut dyn Observer,
        &'a AtomicBool,
    );
    impl OnDevice for Work<'_> {
        type Out = Result<Outcome>;
        fn run<B: Kernels + Ops>(self, _device: &B::Device) -> Self::Out {
            pipeline::train::<B>(self.0, self.1, self.2, self.3, self.4)
        }
    }
    devices
        .kind
        .run(Work(recipe, run, devices, observer, stop))?
}

/// [`train`] for a recipe of either kind.
///
/// # Errors
/// As [`train`].
pub fn train_any(
    recipe: &AnyRecipe,
    run: &RunDir,
    devices: &Devices,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    struct Work<'a>(
        &'a DitRecipe,
        &'a RunDir,
        &'a Devices,
        &'a mut dyn Observer,
        &'a AtomicBool,
    );
    impl OnDevice for Work<'_> {
        type Out = Result<Outcome>;
        fn run<B: Kernels + Ops>(self, _device: &B::Device) -> Self::Out {
            diffusion::train::<B>(self.0, self.1, self.2, self.3, self.4)
        }
    }
    match recipe {
        AnyRecipe::Language(recipe) => train(recipe, run, devices, observer, stop),
        AnyRecipe::Diffusion(recipe) => devices
            .kind
            .run(Work(recipe, run, devices, observer, stop))?,
    }
}

/// Times training steps.
///
/// # Errors
/// [`TrainError::NotFinite`](crate::TrainError::NotFinite) where the loss is no number.
pub fn bench_step(bench: &StepBench, devices: &Devices) -> Result<StepTimes> {
    struct Work<'a>(&'a StepBench, &'a Devices);
    impl OnDevice for Work<'_> {
        type Out = Result<StepTimes>;
        fn run<B: Kernels + Ops>(self, _device: &B::Device) -> Self::Out {
            self.0.run::<B>(self.1)
        }
    }
    devices.kind.run(Work(bench, devices))?
}

/// Draws images with the diffusion transformer in `folder`, on the CPU backends with packed layers
/// ([`tritburn_nn::packed`]). The same options give the same bytes
/// on one device; on another, sums may round differently.
///
/// # Errors
/// Where the folder is malformed or holds another kind of model.
pub fn sample(folder: &Path, options: &SampleOptions, device: DeviceKind) -> Result<Samples> {
    struct Work<'a>(&'a Path, &'a SampleOptions);
    impl OnDevice for Work<'_> {
        type Out = Result<Samples>;
        fn run<B: Kernels + Ops>(self, device: &B::Device) -> Self::Out {
            diffusion::sample::<B>(self.0, self.1, device)
        }
    }
    device.run(Work(folder, options))?
}

/// Reads the master weights of `folder` and writes `out`: ternary projections as uint8 codes with
/// `weight_scale` = absmean (`linear_class: autobitlinear`), the rest in f32. With biases, which
/// transformers scales along there, `weight_scale` = 1 / absmean (`linear_class: bitlinear`). A
/// full-precision model is written as it is.
///
/// Codes and scales are those of the training forward pass on `device`.
///
/// # Errors
/// Where the folder is malformed, already packed, or `out` cannot be written.
pub fn export_hf(folder: &Path, out: &Path, device: DeviceKind) -> Result<()> {
    struct Work<'a>(&'a Path, &'a Path);
    impl OnDevice for Work<'_> {
        type Out = Result<()>;
        fn run<B: Kernels + Ops>(self, device: &B::Device) -> Self::Out {
            crate::export::export_hf::<B>(self.0, self.1, device)
        }
    }
    device.run(Work(folder, out))?
}

/// Logits of the model in `folder` for each prompt, `[prompt length × vocab_size]` row by row, as
/// the training forward pass in evaluation mode gives them.
///
/// # Errors
/// Where the folder is malformed.
pub fn logits(folder: &Path, prompts: &[Vec<u32>], device: DeviceKind) -> Result<Vec<Vec<f32>>> {
    struct Work<'a>(&'a [Vec<u32>]);
    impl OnModel for Work<'_> {
        type Out = Vec<Vec<f32>>;
        fn run<B: Kernels + Ops>(self, model: &CausalLm<B>, device: &B::Device) -> Self::Out {
            let one = |prompt: &Vec<u32>| {
                let ids: Vec<i32> = prompt.iter().map(|&t| to_i32(t)).collect();
                let ids = TensorData::new(ids, [1, prompt.len()]);
                let hidden = model
                    .forward(Tensor::<B, 2, Int>::from_data(ids, device), &[])
                    .hidden;
                model.logits(hidden).into_data().iter::<f32>().collect()
            };
            self.0.iter().map(one).collect()
        }
    }
    on_model(folder, device, Work(prompts))
}

/// Lets `work` score token sequences with the training forward pass of the model in `folder`.
/// Sequences of a batch are filled up with the token `pad`.
///
/// # Errors
/// Where the folder is malformed.
pub fn with_scorer(
    folder: &Path,
    pad: u32,
    device: DeviceKind,
    work: &mut dyn FnMut(&mut dyn Scorer),
) -> Result<()> {
    struct Work<'a>(u32, &'a mut dyn FnMut(&mut dyn Scorer));
    impl OnModel for Work<'_> {
        type Out = ();
        fn run<B: Kernels + Ops>(self, model: &CausalLm<B>, device: &B::Device) {
            (self.1)(&mut ModelScorer::new(model, device, self.0));
        }
    }
    on_model(folder, device, Work(pad, work))
}

trait OnModel {
    type Out;
    fn run<B: Kernels + Ops>(self, model: &CausalLm<B>, device: &B::Device) -> Self::Out;
}

fn on_model<W: OnModel>(folder: &Path, device: DeviceKind, work: W) -> Result<W::Out> {
    struct Load<'a, W>(&'a Path, W);
    impl<W: OnModel> OnDevice for Load<'_, W> {
        type Out = Result<W::Out>;
        fn run<B: Kernels + Ops>(self, device: &B::Device) -> Self::Out {
            let config = ModelConfig::read(&self.0.join("config.json"))?;
            let model = CausalLm::<B>::new(&config, &mut FolderSource::open(self.0)?, device)?;
            Ok(self.1.run(&model, device))
        }
    }
    device.run(Load(folder, work))?
}
