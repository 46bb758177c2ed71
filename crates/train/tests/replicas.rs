//! Replicas that share the micro-batches of every step.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tritburn_nn::device::{DeviceKind, Devices};
use tritburn_train::observer::TrainEvent;
use tritburn_train::recipe::Recipe;
use tritburn_train::run::RunDir;
use tritburn_train::{TrainError, train};

fn on(count: usize) -> Devices {
    Devices {
        kind: DeviceKind::Cpu,
        numbers: (0..count).collect(),
    }
}

/// The smoke recipe with `parts` micro-batches a step.
fn recipe(parts: usize, set: &[&str]) -> Recipe {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let text = std::fs::read_to_string(root.join("recipes/mnli-smoke.toml")).unwrap();
    let mut all: Vec<String> = set.iter().map(ToString::to_string).collect();
    for stage in STAGES {
        all.push(format!("stage.{stage}.grad_accum={parts}"));
        all.push(format!("stage.{stage}.batch_size=4"));
        all.push(format!("stage.{stage}.steps=3"));
        all.push(format!("stage.{stage}.warmup=1"));
    }
    let data = root.join("data");
    all.push(format!("data.dir={}", data.join("mnli").display()));
    all.push(format!("data.corpus={}", data.join("refinedweb").display()));
    Recipe::parse(&text, "mnli-smoke.toml", &all).unwrap()
}

const STAGES: [&str; 4] = ["base", "fp-sft", "bitdistill-cpt", "bitdistill"];

/// The losses of a run on `devices`, and the bytes of its weights.
fn trained(recipe: &Recipe, devices: &Devices, out: &Path) -> (Vec<f32>, Vec<u8>) {
    let run = RunDir::create_at(out.to_path_buf(), recipe).unwrap();
    let mut losses = Vec::new();
    let mut observer = |event: &TrainEvent| {
        if let TrainEvent::Step { loss, .. } = event {
            losses.push(*loss);
        }
    };
    train(
        recipe,
        &run,
        devices,
        &mut observer,
        &AtomicBool::new(false),
    )
    .unwrap();
    (losses, weights(out))
}

fn weights(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("final/model.safetensors")).unwrap()
}

#[test]
fn two_replicas_with_a_micro_batch_each_make_the_same_run_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let streamed: &[&str] = &["data.stream.shuffle_window=16", "data.stream.workers=2"];
    for (name, set) in [("whole", &[][..]), ("streamed", streamed)] {
        let recipe = recipe(2, set);
        let one = trained(&recipe, &on(1), &dir.path().join(format!("{name}-1")));
        let two = trained(&recipe, &on(2), &dir.path().join(format!("{name}-2")));
        assert_eq!(one.0, two.0, "{name}");
        assert!(one.1 == two.1, "{name}");
    }
}

#[test]
fn more_micro_batches_agree_within_rounding() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(4, &[]);
    let one = trained(&recipe, &on(1), &dir.path().join("1"));
    let two = trained(&recipe, &on(2), &dir.path().join("2"));
    let four = trained(&recipe, &on(4), &dir.path().join("4"));
    for other in [two, four] {
        for (a, b) in one.0.iter().zip(other.0) {
            assert!((a - b).abs() <= 1e-3 * a.abs(), "{a} {b}");
        }
    }
}

/// A run that is asked to stop behind its step `at`.
fn stop_after(at: usize, recipe: &Recipe, devices: &Devices, out: &Path) {
    let run = RunDir::create_at(out.to_path_buf(), recipe).unwrap();
    let (stop, mut steps) = (AtomicBool::new(false), 0);
    let mut observer = |event: &TrainEvent| {
        if matches!(event, TrainEvent::Step { .. }) {
            steps += 1;
            stop.store(steps == at, Ordering::Relaxed);
        }
    };
    let error = train(recipe, &run, devices, &mut observer, &stop).unwrap_err();
    assert!(matches!(error, TrainError::Interrupted { step, .. } if step == at));
}

#[test]
fn a_run_goes_on_with_other_devices() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(2, &[]);
    let (_, whole) = trained(&recipe, &on(1), &dir.path().join("whole"));
    for stop_at in [2, 7] {
        let out = dir.path().join(format!("stopped-{stop_at}"));
        stop_after(stop_at, &recipe, &on(2), &out);
        let (run, recipe) = RunDir::open(&out).unwrap();
        let quiet = &mut |_: &TrainEvent| {};
        train(&recipe, &run, &on(1), quiet, &AtomicBool::new(false)).unwrap();
        assert!(weights(&out) == whole, "stopped after {stop_at}");
    }
}

#[test]
fn devices_with_shards_of_their_own_read_other_data_and_go_on_where_each_was() {
    let dir = tempfile::tempdir().unwrap();
    let streamed = [
        "data.stream.shuffle_window=16",
        "data.stream.workers=1",
        "stage.bitdistill-cpt.norm_init=calibrated",
    ];
    let own = [&streamed[..], &["data.stream.shards_per_device=true"]].concat();
    let shared = trained(&recipe(2, &streamed), &on(2), &dir.path().join("shared"));
    let recipe = recipe(2, &own);
    let whole = trained(&recipe, &on(2), &dir.path().join("own"));
    assert_ne!(shared.0[..3], whole.0[..3]);
    for stop_at in [2, 7] {
        let out = dir.path().join(format!("stopped-{stop_at}"));
        stop_after(stop_at, &recipe, &on(2), &out);
        let (run, recipe) = RunDir::open(&out).unwrap();
        let resume = |count| {
            let quiet = &mut |_: &TrainEvent| {};
            train(&recipe, &run, &on(count), quiet, &AtomicBool::new(false))
        };
        let error = resume(1).unwrap_err().to_string();
        assert!(error.contains("shards_per_device"), "{error}");
        resume(2).unwrap();
        assert!(weights(&out) == whole.1, "stopped after {stop_at}");
    }
}

#[test]
fn steps_that_cannot_be_shared_are_refused_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(3, &[]);
    let run = RunDir::create_at(dir.path().join("run"), &recipe).unwrap();
    let quiet = &mut |_: &TrainEvent| {};
    let error = train(&recipe, &run, &on(2), quiet, &AtomicBool::new(false)).unwrap_err();
    for stage in STAGES {
        let field = format!("stage.{stage}.grad_accum: 3 cannot be shared by 2 devices");
        assert!(error.to_string().contains(&field), "{error}");
    }
}

#[test]
fn a_failure_ends_all_replicas() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(2, &["stage.fp-sft.lr=1e30", "stage.fp-sft.clip=0"]);
    let run = RunDir::create_at(dir.path().join("run"), &recipe).unwrap();
    let quiet = &mut |_: &TrainEvent| {};
    let error = train(&recipe, &run, &on(2), quiet, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
    // The first replica alone finds that its folder is gone: the others do not wait for it.
    let recipe = self::recipe(2, &["train.save_every=1"]);
    let out = dir.path().join("gone");
    let run = RunDir::create_at(out.clone(), &recipe).unwrap();
    let observer = &mut |event: &TrainEvent| {
        if matches!(event, TrainEvent::Step { .. }) && out.is_dir() {
            std::fs::remove_dir_all(&out).unwrap();
            std::fs::write(&out, "no folder").unwrap();
        }
    };
    let error = train(&recipe, &run, &on(2), observer, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, TrainError::Io { .. }), "{error}");
}
