//! The recipes that ship, and the promises a run makes: pinned curves, exact resume, no damage.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tritburn_nn::device::DeviceKind;
use tritburn_train::observer::TrainEvent;
use tritburn_train::recipe::{AnyRecipe, DitRecipe, Recipe, Written};
use tritburn_train::run::{Checkpoint, RunDir};
use tritburn_train::{TrainError, train};

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A shipped recipe with data paths that do not depend on the working directory.
fn recipe(name: &str, set: &[&str]) -> Recipe {
    let mut set: Vec<String> = set.iter().map(ToString::to_string).collect();
    let text = std::fs::read_to_string(root().join("recipes").join(name)).unwrap();
    for key in ["dir", "corpus"] {
        let line = text
            .lines()
            .find(|l| l.starts_with(&format!("{key} = \"data/")));
        if let Some(path) = line.and_then(|l| l.split('"').nth(1)) {
            set.push(format!("data.{key}={}", root().join(path).display()));
        }
    }
    Recipe::parse(&text, name, &set).unwrap()
}

fn losses(recipe: &Recipe, out: &Path) -> Vec<f32> {
    let run = RunDir::create_at(out.to_path_buf(), recipe).unwrap();
    let mut losses = Vec::new();
    let mut observer = |event: &TrainEvent| {
        if let TrainEvent::Step { loss, .. } = event {
            losses.push(*loss);
        }
    };
    let stop = AtomicBool::new(false);
    train(recipe, &run, &DeviceKind::Cpu.into(), &mut observer, &stop).unwrap();
    losses
}

#[test]
fn every_recipe_is_valid() {
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("recipes")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let recipe = AnyRecipe::read(&path, &[]).unwrap();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            assert_eq!(recipe.name(), stem, "a recipe is named after its file");
            let (text, origin) = (recipe.toml().unwrap(), "round trip");
            match recipe {
                AnyRecipe::Language(recipe) => {
                    assert_eq!(Recipe::parse(&text, origin, &[]).unwrap(), *recipe);
                }
                AnyRecipe::Diffusion(recipe) => {
                    assert_eq!(DitRecipe::parse(&text, origin, &[]).unwrap(), *recipe);
                }
            }
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen} recipes");
}

#[test]
fn a_run_stopped_and_resumed_anywhere_ends_with_the_same_bytes() {
    ends_with_the_same_bytes(&recipe("mnli-smoke.toml", &[]), &[1, 5, 6, 13]);
    // In the middle of a streamed corpus.
    let streamed = [
        "data.stream.shuffle_window=16",
        "data.stream.workers=2",
        "data.stream.separate_documents=true",
    ];
    ends_with_the_same_bytes(&recipe("mnli-smoke.toml", &streamed), &[1, 5, 6]);
    // Stops in the quantisation warm-up, after it, and in a stage that keeps the optimiser.
    ends_with_the_same_bytes(&recipe("a48-smoke.toml", &[]), &[2, 5, 9]);
    // The best evaluation of a stage may lie before the stop, or after it.
    let best = [
        "train.eval_every=2",
        "train.load_best=true",
        "stage.fp-sft.ema=0.9",
        "stage.bitdistill.ema=0.5",
    ];
    ends_with_the_same_bytes(&recipe("mnli-smoke.toml", &best), &[7, 9, 17, 19]);
}

fn ends_with_the_same_bytes(recipe: &Recipe, stops: &[usize]) {
    let total = recipe.total_steps();
    let dir = tempfile::tempdir().unwrap();
    losses(recipe, &dir.path().join("whole"));
    let bytes = |run: &str| std::fs::read(dir.path().join(run).join("final/model.safetensors"));
    let whole = bytes("whole").unwrap();
    for &stop_at in stops.iter().chain([&(total - 1)]) {
        let name = format!("stopped-{stop_at}");
        let out = dir.path().join(&name);
        let run = RunDir::create_at(out.clone(), recipe).unwrap();
        let stop = AtomicBool::new(false);
        let mut steps = 0;
        let mut observer = |event: &TrainEvent| {
            if matches!(event, TrainEvent::Step { .. }) {
                steps += 1;
                stop.store(steps == stop_at, Ordering::Relaxed);
            }
        };
        let result = train(recipe, &run, &DeviceKind::Cpu.into(), &mut observer, &stop);
        // The last step of a stage ends the stage: there is nothing to interrupt.
        if let Err(error) = result {
            assert!(matches!(error, TrainError::Interrupted { step, .. } if step == stop_at));
            let (run, recipe) = RunDir::open(&out).unwrap();
            let stop = AtomicBool::new(false);
            train(
                &recipe,
                &run,
                &DeviceKind::Cpu.into(),
                &mut |_: &TrainEvent| {},
                &stop,
            )
            .unwrap();
        }
        assert!(
            bytes(&name).unwrap() == whole,
            "stopped after step {stop_at}"
        );
        let lines = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let steps: Vec<u64> = lines
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap())
            .filter(|v| v.get("loss").is_some())
            .map(|v| v["step"].as_u64().unwrap())
            .collect();
        assert_eq!(
            steps,
            (1..=total as u64).collect::<Vec<_>>(),
            "stopped after {stop_at}"
        );
    }
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_its_checkpoints() {
    let recipe = recipe(
        "mnli-smoke.toml",
        &["stage.fp-sft.lr=1e30", "stage.fp-sft.clip=0"],
    );
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create_at(dir.path().join("run"), &recipe).unwrap();
    let stop = AtomicBool::new(false);
    let error = train(
        &recipe,
        &run,
        &DeviceKind::Cpu.into(),
        &mut |_: &TrainEvent| {},
        &stop,
    )
    .unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
    assert!(error.to_string().contains("stage.fp-sft.lr"), "{error}");
    assert!(!run.checkpoint_steps().is_empty());
    assert!(run.stage("base").join("model.safetensors").is_file());
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_older_ones() {
    let recipe = recipe("mnli-smoke.toml", &["train.keep=9"]);
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create_at(dir.path().join("run"), &recipe).unwrap();
    // A file where the second checkpoint's folder is to be filled.
    std::fs::write(run.path().join("checkpoint-10.tmp"), b"in the way").unwrap();
    let stop = AtomicBool::new(false);
    let error = train(
        &recipe,
        &run,
        &DeviceKind::Cpu.into(),
        &mut |_: &TrainEvent| {},
        &stop,
    )
    .unwrap_err();
    assert!(error.to_string().contains("checkpoint-10"), "{error}");
    assert_eq!(run.checkpoint_steps(), [5]);
    assert_eq!(run.newest_checkpoint().unwrap().unwrap().state.step, 5);
}

/// Lines of `metrics.jsonl` that hold `key`.
fn logged(run: &RunDir, key: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.metrics()).unwrap();
    let lines = text
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    lines.filter(|line| line.get(key).is_some()).collect()
}

#[test]
fn the_second_stage_of_a48_keeps_the_optimiser_and_is_sparse() {
    let recipe = recipe("a48-smoke.toml", &["train.save_every=10"]);
    let dir = tempfile::tempdir().unwrap();
    losses(&recipe, &dir.path().join("run"));
    let (run, _) = RunDir::open(&dir.path().join("run")).unwrap();
    let state = run.newest_checkpoint().unwrap().unwrap().state;
    assert_eq!((state.stage.as_str(), state.stage_step), ("a48", 2));
    assert_eq!(
        state.optim_step, 10,
        "8 steps of the first stage and 2 of its own"
    );
    let lines = logged(&run, "sparsity/out");
    let of = |stage: &str, key: &str| -> f64 {
        let last = lines.iter().rfind(|line| line["stage"] == stage).unwrap();
        last[key].as_f64().unwrap()
    };
    assert!(of("w158a8", "sparsity/out") < 0.1, "{lines:?}");
    assert!((of("a48", "sparsity/out") - 0.5).abs() < 0.05, "{lines:?}");
    assert!(of("a48", "sparsity/qkv") > of("w158a8", "sparsity/qkv"));
    assert!(of("a48", "sparsity/activated") < of("w158a8", "sparsity/activated"));
}

/// Weights of a folder in a run.
fn weights(run: &RunDir, folder: &str) -> Vec<u8> {
    std::fs::read(run.path().join(folder).join("model.safetensors")).unwrap()
}

#[test]
fn the_best_checkpoint_of_a_stage_is_kept() {
    let set = [
        "train.eval_every=1",
        "train.save_every=1",
        "train.keep=99",
        "train.eval_rows=60",
    ];
    let mut found = Vec::new();
    for load_best in ["train.load_best=false", "train.load_best=true"] {
        let set: Vec<&str> = set.into_iter().chain([load_best]).collect();
        let recipe = recipe("mnli-smoke.toml", &set);
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("run");
        losses(&recipe, &out);
        let (run, _) = RunDir::open(&out).unwrap();
        let scores = logged(&run, "eval/mnli/acc");
        for stage in recipe.file.stage.iter().map(|s| s.name.as_str()) {
            let scores = scores.iter().filter(|line| line["stage"] == stage);
            let scores: Vec<(f64, u64)> = scores
                .map(|l| {
                    (
                        l["eval/mnli/acc"].as_f64().unwrap(),
                        l["step"].as_u64().unwrap(),
                    )
                })
                .collect();
            if scores.is_empty() {
                assert!(!run.best(stage).exists(), "{stage} is not evaluated");
                continue;
            }
            let highest = scores.iter().map(|s| s.0).fold(0.0, f64::max);
            let (_, step) = *scores.iter().find(|s| s.0 == highest).unwrap();
            let last = scores.last().unwrap().1;
            let state = Checkpoint::read(&run.best(stage)).unwrap().state;
            let best = state.best.unwrap();
            assert_eq!((best.value, best.step as u64), (highest, step), "{stage}");
            let best = weights(&run, &format!("best/{stage}"));
            let end = weights(&run, &format!("stages/{stage}"));
            if step < last {
                assert!(
                    best == weights(&run, &format!("checkpoint-{step}")),
                    "{stage}"
                );
            }
            assert_eq!(best == end, recipe.file.train.load_best || step == last);
            found.push((stage.to_owned(), step < last));
        }
    }
    assert!(
        found.iter().any(|(_, earlier)| *earlier),
        "no stage had its best evaluation before its end: {found:?}"
    );
}

#[test]
fn surgery_reports_its_drift() {
    let cpt = recipe("cpt-falcon-smoke.toml", &[]);
    let dir = tempfile::tempdir().unwrap();
    losses(&cpt, &dir.path().join("run"));
    let (run, _) = RunDir::open(&dir.path().join("run")).unwrap();
    let lines = logged(&run, "surgery/logits_rel");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["stage"], "cpt");
    let value = |key: &str| lines[0][format!("surgery/{key}")].as_f64().unwrap();
    let (norms, all) = (value("norms_rel"), value("logits_rel"));
    assert!(norms > 0.01 && all > 0.01 && norms != all, "{lines:?}");

    // No norm is put in between the stages of a48, only quantisers.
    let recipe = recipe("a48-smoke.toml", &[]);
    losses(&recipe, &dir.path().join("a48"));
    let (run, _) = RunDir::open(&dir.path().join("a48")).unwrap();
    assert!(logged(&run, "surgery/norms_rel").is_empty());
    assert_eq!(logged(&run, "surgery/logits_rel").len(), 1);
}

#[test]
fn quantisers_that_do_not_fit_are_reported_together() {
    let text = std::fs::read_to_string(root().join("recipes/a48-smoke.toml")).unwrap();
    let set = [
        "stage.w158a8.quant.weights=absmean-group128",
        "stage.w158a8.quant.qkv=top2:5+int8",
        "stage.w158a8.quant.warmup=8",
        "stage.w158a8.keep_optimizer=true",
        "stage.w158a8.quant.kv_bits=5",
        "stage.a48.ternary=false",
    ];
    let error = Recipe::parse(&text, "a48", &set.map(str::to_owned))
        .unwrap_err()
        .to_string();
    for part in [
        "stage[0].quant.weights: scales of 128 weights",
        "stage[0].quant.qkv: 32 values are no multiple of 5",
        "stage[0].quant.warmup",
        "stage[0].keep_optimizer",
        "stage[0].quant.kv_bits",
        "stage[1].quant: needs `ternary = true`",
    ] {
        assert!(error.contains(part), "{part} is missing from {error}");
    }
    let set = ["stage.a48.quant.o=int5".to_owned()];
    let error = Recipe::parse(&text, "a48", &set).unwrap_err().to_string();
    assert!(
        error.contains("int5") && error.contains("fp4-e2m1"),
        "{error}"
    );
}

#[test]
fn a_run_is_logged_for_people_and_for_tensorboard() {
    let recipe = recipe("mnli-smoke.toml", &[]);
    let dir = tempfile::tempdir().unwrap();
    losses(&recipe, &dir.path().join("run"));
    let (run, _) = RunDir::open(&dir.path().join("run")).unwrap();
    let log = std::fs::read_to_string(run.log()).unwrap();
    for part in [
        "base: starts after 0 of",
        "eval/mnli/acc",
        "saved ",
        "bitdistill: done in",
    ] {
        assert!(log.contains(part), "{part} is missing from {log}");
    }
    let files: Vec<_> = std::fs::read_dir(run.tensorboard()).unwrap().collect();
    assert_eq!(
        files.len(),
        recipe.file.stage.len(),
        "one file for each stage"
    );
    let bytes = files
        .into_iter()
        .flat_map(|f| std::fs::read(f.unwrap().path()).unwrap());
    let bytes: Vec<u8> = bytes.collect();
    for tag in ["loss/relation", "eval/mnli/acc", "lr"] {
        assert!(
            bytes.windows(tag.len()).any(|w| w == tag.as_bytes()),
            "{tag}"
        );
    }
}

#[test]
fn a_run_folder_is_never_overwritten() {
    let recipe = recipe("mnli-smoke.toml", &[]);
    let dir = tempfile::tempdir().unwrap();
    RunDir::create_at(dir.path().join("run"), &recipe).unwrap();
    let error = RunDir::create_at(dir.path().join("run"), &recipe).unwrap_err();
    assert!(error.to_string().contains("already holds a run"), "{error}");
}

#[test]
fn accumulated_micro_batches_equal_one_batch() {
    // Constant rows per batch: the mean of the parts is the mean of the whole only where every
    // part has as many targets, as packed corpus rows have.
    let set = |rows: usize, accum: usize| {
        let keys = [
            format!("stage.cpt.batch_size={rows}"),
            format!("stage.cpt.grad_accum={accum}"),
            format!("stage.base.batch_size={rows}"),
            format!("stage.base.grad_accum={accum}"),
        ];
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        recipe("cpt-falcon-smoke.toml", &keys)
    };
    let dir = tempfile::tempdir().unwrap();
    let whole = losses(&set(8, 1), &dir.path().join("8x1"));
    let parts = losses(&set(2, 4), &dir.path().join("2x4"));
    assert_eq!(whole.len(), parts.len());
    for (step, (a, b)) in whole.iter().zip(&parts).enumerate() {
        assert!(
            (a - b).abs() < 2e-3 * a.abs(),
            "step {}: {a} and {b}",
            step + 1
        );
    }
}

/// Losses of the smoke recipes step by step; vector widths move them in the last digits.
#[test]
fn smoke_recipes_follow_their_pinned_curves() {
    for name in ["mnli-smoke", "sst2-smoke", "cpt-falcon-smoke", "a48-smoke"] {
        let path = root().join(format!("crates/train/tests/curves/{name}.json"));
        let pinned: Vec<f32> =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let found = losses(
            &recipe(&format!("{name}.toml"), &[]),
            &dir.path().join("run"),
        );
        assert_eq!(found.len(), pinned.len(), "{name}");
        for (step, (a, b)) in found.iter().zip(&pinned).enumerate() {
            assert!(
                (a - b).abs() <= 0.02 * b.abs(),
                "{name}, step {}: {a}, pinned {b}",
                step + 1
            );
        }
    }
}
