//! What the tests of whole runs share.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use tritburn_nn::device::DeviceKind;
use tritburn_train::observer::TrainEvent;
use tritburn_train::recipe::Recipe;
use tritburn_train::run::RunDir;
use tritburn_train::{TrainError, train};

/// The workspace.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Trains `recipe`, with `set` and the data that `data.KEY=PATH` of the workspace names, in `dir`;
/// returns the run's folder.
pub(crate) fn run(
    recipe: &str,
    data: &str,
    dir: &Path,
    set: &[String],
) -> Result<PathBuf, TrainError> {
    let (key, path) = data.split_once('=').unwrap();
    let mut set = set.to_vec();
    set.push(format!("data.{key}={}", root().join(path).display()));
    let recipe = Recipe::parse(recipe, "test", &set).unwrap();
    let run = RunDir::create_at(dir.to_path_buf(), &recipe)?;
    let (stop, mut quiet) = (AtomicBool::new(false), |_: &TrainEvent| {});
    train(&recipe, &run, &DeviceKind::Cpu.into(), &mut quiet, &stop)?;
    Ok(run.path().to_path_buf())
}
