//! `tritburn train`: runs a recipe.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use tritburn_nn::device::Devices;
use tritburn_train::recipe::{AnyRecipe, Written};
use tritburn_train::run::{RunDir, latest_run};

use crate::model_path;
use crate::output::say;
use crate::progress::Progress;

/// Run a recipe
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Recipe file, for example recipes/mnli.toml
    recipe: PathBuf,
    /// Replace a value, for example --set stage.bitdistill.lr=1e-3
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// cpu, ndarray, wgpu or cuda
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Numbers of the devices to share the micro-batches of each step among, for example 0,1
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "0")]
    devices: Vec<usize>,
    /// Go on with a run: `auto` for the newest of this recipe, or its folder
    #[arg(long, value_name = "auto|RUN")]
    resume: Option<PathBuf>,
    /// Folder that run folders are made in
    #[arg(long, default_value = "runs", value_name = "DIR")]
    runs: PathBuf,
    /// Folder of this run, instead of a new one under --runs
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    out: Option<PathBuf>,
}

/// The process was asked to stop.
static STOP: AtomicBool = AtomicBool::new(false);

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let devices = Devices::named(&args.device, &args.devices)?;
    let (run, recipe) = match &args.resume {
        Some(from) => {
            if !args.set.is_empty() {
                bail!("--set cannot change a run that is resumed; start a new one");
            }
            let path = if from == Path::new("auto") {
                latest_run(&args.runs, AnyRecipe::read(&args.recipe, &[])?.name())?
            } else {
                from.clone()
            };
            RunDir::open_any(&path)?
        }
        None => {
            let mut recipe = AnyRecipe::read(&args.recipe, &args.set)?;
            if let AnyRecipe::Language(recipe) = &mut recipe {
                model_path::of_recipe(&mut recipe.file.model.path)?;
                model_path::of_recipe(&mut recipe.file.tokenizer.path)?;
                for stage in &mut recipe.file.stage {
                    model_path::of_recipe(&mut stage.distill.teacher)?;
                    if stage.from.contains('/') {
                        model_path::of_recipe(&mut stage.from)?;
                    }
                }
            }
            let run = match args.out {
                Some(out) => RunDir::create_at(out, &recipe)?,
                None => RunDir::create(&args.runs, &recipe)?,
            };
            (run, recipe)
        }
    };
    say(format!("run {}", run.path().display()));
    let stop = stop_on_signals()?;
    let mut progress = Progress::new(recipe.total_steps());
    let outcome = tritburn_train::train_any(&recipe, &run, &devices, &mut progress, stop)?;
    say(format!(
        "{} steps, {} tokens in {:.1} s; weights in {}",
        outcome.steps,
        outcome.tokens,
        outcome.elapsed_s,
        outcome.last.display()
    ));
    Ok(())
}

/// What SIGINT and SIGTERM set.
pub(super) fn stop_on_signals() -> anyhow::Result<&'static AtomicBool> {
    ctrlc::set_handler(|| {
        // The second signal does not wait for the step.
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(1);
        }
        say("stopping after this step; once more to stop at once");
    })
    .context("cannot catch signals")?;
    Ok(&STOP)
}
