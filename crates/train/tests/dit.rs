//! Runs of diffusion recipes: what the learner promises beside what every run does.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tritburn_nn::device::DeviceKind;
use tritburn_train::observer::TrainEvent;
use tritburn_train::recipe::{AnyRecipe, DitRecipe, Recipe};
use tritburn_train::run::RunDir;
use tritburn_train::{SampleOptions, TrainError, sample, train_any};

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The smoke recipe with data that do not depend on the working directory.
fn recipe(set: &[&str]) -> AnyRecipe {
    let text = std::fs::read_to_string(root().join("recipes/dit-mnist-smoke.toml")).unwrap();
    let mut set: Vec<String> = set.iter().map(ToString::to_string).collect();
    set.push(format!("data.dir={}", root().join("data/digits").display()));
    AnyRecipe::Diffusion(Box::new(DitRecipe::parse(&text, "smoke", &set).unwrap()))
}

/// Trains in `out` and returns the loss of every step.
fn losses(recipe: &AnyRecipe, out: &Path) -> Result<Vec<f32>, TrainError> {
    let run = RunDir::create_at(out.to_path_buf(), recipe)?;
    let mut losses = Vec::new();
    let mut observer = |event: &TrainEvent| {
        if let TrainEvent::Step { loss, .. } = event {
            losses.push(*loss);
        }
    };
    let stop = AtomicBool::new(false);
    train_any(recipe, &run, &DeviceKind::Cpu.into(), &mut observer, &stop)?;
    Ok(losses)
}

fn weights(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("final/model.safetensors")).unwrap()
}

fn lines(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|l| serde_json::from_str(l).unwrap());
    lines.collect()
}

#[test]
fn the_smoke_recipe_follows_its_pinned_curve_and_leaves_a_whole_run() {
    let path = root().join("crates/train/tests/curves/dit-mnist-smoke.json");
    let pinned: Vec<f32> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let found = losses(&recipe(&[]), &out).unwrap();
    assert_eq!(found.len(), pinned.len());
    for (step, (a, b)) in found.iter().zip(&pinned).enumerate() {
        assert!(
            (a - b).abs() <= 0.02 * b.abs(),
            "step {}: {a}, pinned {b}",
            step + 1
        );
    }
    for file in ["config.toml", "train.log", "tb", "checkpoint-10", "final"] {
        assert!(out.join(file).exists(), "{file}");
    }
    let held_out: Vec<f64> = lines(&out)
        .iter()
        .filter_map(|line| line["eval/held_out/mse"].as_f64())
        .collect();
    assert_eq!(held_out.len(), 2, "at steps 6 and 12");
    assert!(
        held_out[1] < held_out[0] && held_out[0] < 1.1,
        "{held_out:?}"
    );
}

#[test]
fn a_run_stopped_and_resumed_anywhere_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(&[
        "dit.ternary=all",
        "dit.quant.warmup=6",
        "optim.grad_accum=2",
    ]);
    losses(&recipe, &dir.path().join("whole")).unwrap();
    for stop_at in [1, 4, 11] {
        let out = dir.path().join(format!("stopped-{stop_at}"));
        let run = RunDir::create_at(out.clone(), &recipe).unwrap();
        let stop = AtomicBool::new(false);
        let mut steps = 0;
        let mut observer = |event: &TrainEvent| {
            if matches!(event, TrainEvent::Step { .. }) {
                steps += 1;
                stop.store(steps == stop_at, Ordering::Relaxed);
            }
        };
        let error =
            train_any(&recipe, &run, &DeviceKind::Cpu.into(), &mut observer, &stop).unwrap_err();
        assert!(matches!(error, TrainError::Interrupted { step, .. } if step == stop_at));
        let (run, recipe) = RunDir::open_any(&out).unwrap();
        let stop = AtomicBool::new(false);
        let mut quiet = |_: &TrainEvent| {};
        train_any(&recipe, &run, &DeviceKind::Cpu.into(), &mut quiet, &stop).unwrap();
        assert!(
            weights(&out) == weights(&dir.path().join("whole")),
            "stopped after step {stop_at}"
        );
        let steps: Vec<u64> = lines(&out)
            .iter()
            .filter(|line| line.get("loss").is_some())
            .map(|line| line["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, (1..=12).collect::<Vec<_>>());
    }
}

#[test]
fn samples_are_the_same_for_a_seed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    // Learnt enough for the class to show.
    losses(&recipe(&["optim.lr=2e-2", "optim.label_dropout=0"]), &out).unwrap();
    let options = SampleOptions {
        classes: (0..70).map(|i| i % 10).collect(),
        steps: 4,
        eta: 0.0,
        guidance: 1.0,
        seed: 3,
    };
    let draw = |options: &SampleOptions| {
        let samples = sample(&out.join("final"), options, DeviceKind::Cpu).unwrap();
        assert_eq!(samples.side, 28);
        assert_eq!(samples.pixels.len(), options.classes.len() * 784);
        samples.pixels
    };
    let all = draw(&options);
    assert!(all == draw(&options));
    let first = SampleOptions {
        classes: vec![0, 1],
        ..options.clone()
    };
    // Batches of another size may round sums differently, and no more than that.
    let alone = draw(&first);
    let apart = all
        .iter()
        .zip(&alone)
        .map(|(a, b)| f64::from(a.abs_diff(*b)));
    let mean = apart.sum::<f64>() / alone.len() as f64;
    assert!(mean < 2.0, "{mean} of 255 apart");
    for other in [
        SampleOptions {
            seed: 4,
            ..first.clone()
        },
        SampleOptions {
            eta: 1.0,
            ..first.clone()
        },
        SampleOptions {
            guidance: 3.0,
            ..first.clone()
        },
        SampleOptions {
            classes: vec![0, 2],
            ..first.clone()
        },
    ] {
        assert!(draw(&other) != alone, "{other:?}");
    }
}

#[test]
fn images_and_labels_must_fit_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let set = [
        "dit.image_size=32",
        "dit.num_classes=9",
        "data.held_out=400",
    ];
    let error = losses(&recipe(&set), &dir.path().join("run"))
        .unwrap_err()
        .to_string();
    for part in [
        "dit.image_size",
        "28×28",
        "dit.num_classes",
        "data.held_out",
    ] {
        assert!(error.contains(part), "{part} is missing in {error}");
    }
    let AnyRecipe::Diffusion(mut recipe) = recipe(&[]) else {
        unreachable!("a diffusion recipe")
    };
    recipe.file.data.dir = dir.path().display().to_string();
    let error = losses(&AnyRecipe::Diffusion(recipe), &dir.path().join("run2"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("tritburn data mnist"), "{error}");
}

#[test]
fn a_loss_that_is_no_number_names_its_field() {
    let dir = tempfile::tempdir().unwrap();
    let set = ["optim.lr=1e30", "optim.clip=0", "optim.warmup=0"];
    let error = losses(&recipe(&set), &dir.path().join("run")).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
    assert!(error.to_string().contains("Lower optim.lr"), "{error}");
}

#[test]
fn readers_of_language_recipes_say_what_this_one_is() {
    let path = root().join("recipes/dit-mnist-smoke.toml");
    let error = Recipe::read(&path, &[]).unwrap_err().to_string();
    assert!(
        error.contains("diffusion") && error.contains("tritburn sample"),
        "{error}"
    );
}
