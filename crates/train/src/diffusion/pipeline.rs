//! A whole run of a diffusion recipe, resumable at any step.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::backend::Autodiff;
use burn::module::Module;
use tritburn_data::{ImageLoader, LabelledImages, read_labelled};
use tritburn_nn::device::Devices;
use tritburn_nn::dit::{Dit, DitInit};
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_nn::ranks::Rank;
use tritburn_nn::weights::WeightSource;
use tritburn_quant::config::DitConfig;

use super::folder;
use super::learner::DitLearner;
use super::noise::NoiseSchedule;
use crate::error::{Result, TrainError};
use crate::observer::{Observer, TrainEvent};
use crate::optim::{AdamW, AdamWConfig};
use crate::pipeline::Outcome;
use crate::recipe::{DIT_STAGE, DitRecipe};
use crate::replicas;
use crate::run::{MetricsLog, RunDir, TextLog, replace_dir};
use crate::steps::{self, Plan, Progress, Rates, Start};

/// See [`crate::train_any`].
pub(crate) fn train<B: Kernels + Ops>(
    recipe: &DitRecipe,
    run: &RunDir,
    devices: &Devices,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let file = &recipe.file;
    let share = ("optim.grad_accum".to_owned(), file.optim.grad_accum);
    replicas::check::<B>(devices, &file.name, std::iter::once(share))?;
    let first = |rank: &Rank| {
        let observer = &mut TextLog::open(&run.log(), file.train.log_every, observer)?;
        replica::<B>(recipe, run, rank, observer, stop)
    };
    let other =
        |rank: &Rank| replica::<B>(recipe, run, rank, &mut |_: &TrainEvent| (), stop).map(drop);
    replicas::run(devices, first, other)
}

/// The run on one device. Only the first replica writes and reports.
fn replica<B: Kernels + Ops>(
    recipe: &DitRecipe,
    run: &RunDir,
    rank: &Rank,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let (file, device) = (&recipe.file, &rank.device::<B>());
    let checkpoint = run.newest_checkpoint()?;
    let mut progress = checkpoint
        .as_ref()
        .map_or_else(Progress::default, |c| Progress::from(&c.state));
    let last = run.stage(DIT_STAGE);
    if !last.join("config.json").is_file() {
        let config = recipe.config();
        let images = images(recipe, &config)?;
        let (train, held_out) = images.hold_out(file.data.held_out, file.seed)?;
        let mut source: Box<dyn WeightSource> = match &checkpoint {
            Some(checkpoint) => Box::new(folder::source(&checkpoint.path)?),
            None => Box::new(DitInit::new(
                file.seed,
                file.dit.init_std,
                config.num_hidden_layers,
            )),
        };
        let mut learner = DitLearner::<B> {
            recipe,
            model: Dit::<Autodiff<B>>::new(&config, source.as_mut(), device)?,
            loader: ImageLoader::new(train, file.optim.batch_size, file.seed)?,
            held_out,
            noise: NoiseSchedule::new(config.noise, config.noise_steps),
            config,
            device,
        };
        let mut optim = AdamW::<B>::new(AdamWConfig {
            betas: file.optim.betas,
            eps: file.optim.eps,
            ema: file.optim.ema,
        });
        let mut start = Start::default();
        if let Some(checkpoint) = &checkpoint {
            learner.loader.restore(&checkpoint.state.loader)?;
            optim.restore(checkpoint.state.optim_step, &checkpoint.optim()?, device);
            start = Start::from(&checkpoint.state);
        }
        let plan = plan(recipe, run, rank, stop);
        if rank.is_first() {
            let mut log = MetricsLog::open(run, progress.step)?;
            observer.event(&TrainEvent::StageStart {
                stage: DIT_STAGE.into(),
                done: start.done,
                steps: file.optim.steps,
                parameters: learner.model.num_params(),
            });
            steps::run(
                &mut learner,
                &mut optim,
                &plan,
                &mut progress,
                start,
                &mut log,
                observer,
            )?;
        } else {
            steps::follow(&mut learner, &mut optim, &plan, &mut progress, &start)?;
        }
    }
    let end = run.last();
    if rank.is_first() {
        let (config, model) = folder::read::<B>(&last, device)?;
        replace_dir(&end, |aside| folder::write(aside, &config, &model))?;
    }
    Ok(Outcome {
        last: end,
        steps: file.optim.steps,
        tokens: progress.tokens,
        elapsed_s: progress.elapsed_s,
    })
}

fn plan<'a>(
    recipe: &'a DitRecipe,
    run: &'a RunDir,
    rank: &'a Rank,
    stop: &'a AtomicBool,
) -> Plan<'a> {
    let optim = &recipe.file.optim;
    Plan {
        stage: DIT_STAGE,
        lr_field: "optim.lr".into(),
        rates: Rates {
            steps: optim.steps,
            grad_accum: optim.grad_accum,
            lr: optim.lr,
            warmup: optim.warmup,
            schedule: optim.schedule,
            weight_decay: optim.weight_decay,
            clip: optim.clip,
        },
        train: &recipe.file.train,
        run,
        stop,
        rank,
        hands_on: false,
    }
}

/// The images of the recipe, if they are what its model takes.
fn images(recipe: &DitRecipe, config: &DitConfig) -> Result<LabelledImages> {
    let data = &recipe.file.data;
    let images = read_labelled(Path::new(&data.dir), &data.split)?;
    let mut problems = Vec::new();
    if (images.rows, images.cols) != (config.image_size, config.image_size) {
        problems.push(format!(
            "dit.image_size: is {0}×{0}, but the images of data.dir are {1}×{2}",
            config.image_size, images.rows, images.cols
        ));
    }
    let largest = images.labels.iter().max().copied().unwrap_or(0);
    if usize::from(largest) >= config.num_classes {
        problems.push(format!(
            "dit.num_classes: is {}, but a label of data.dir is {largest}",
            config.num_classes
        ));
    }
    if data.held_out >= images.len() {
        problems.push(format!(
            "data.held_out: is {}, but data.dir holds {} images",
            data.held_out,
            images.len()
        ));
    }
    if problems.is_empty() {
        return Ok(images);
    }
    Err(TrainError::Recipe {
        origin: recipe.file.name.clone(),
        problems,
    })
}
