//! `tritburn train` and `quickstart` as a shell sees them: whole runs, kills, and what goes wrong.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{fails, ok, run, tritburn};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Arguments that train a shipped recipe from any working directory.
fn train_args(recipe: &str, out: &Path, more: &[&str]) -> Vec<String> {
    let mut args = vec![
        "train".to_owned(),
        root().join("recipes").join(recipe).display().to_string(),
        "--out".to_owned(),
        out.display().to_string(),
    ];
    for key in ["dir=data/mnli", "corpus=data/refinedweb"] {
        let (key, path) = key.split_once('=').unwrap();
        args.extend([
            "--set".to_owned(),
            format!("data.{key}={}", root().join(path).display()),
        ]);
    }
    for set in more {
        args.extend(["--set".to_owned(), (*set).to_owned()]);
    }
    args
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Runs to a failure that follows other lines on stderr; returns stderr.
fn stops(args: &[&str]) -> String {
    let output = run(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert!(stderr.contains("\nerror: "), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    stderr
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn a_run_killed_anywhere_and_resumed_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    // Long enough that the kill comes first.
    let set = [
        "stage.base.steps=60",
        "stage.fp-sft.steps=60",
        "stage.bitdistill-cpt.steps=40",
        "stage.bitdistill.steps=60",
        "train.save_every=7",
    ];
    let whole = dir.path().join("whole");
    ok(&strs(&train_args("mnli-smoke.toml", &whole, &set)));
    let bytes = |run: &Path| fs::read(run.join("final/model.safetensors")).unwrap();
    for kill_after in [1, 30, 75, 110, 130, 200] {
        let out = dir.path().join(format!("killed-{kill_after}"));
        let args = train_args("mnli-smoke.toml", &out, &set);
        let mut child = tritburn(&strs(&args))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while lines(&out.join("metrics.jsonl")) < kill_after {
            assert!(
                Instant::now() < deadline,
                "no {kill_after} lines of metrics"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            !out.join("final").exists(),
            "the run was faster than the kill"
        );
        let resume = out.display().to_string();
        ok(&["train", "unused", "--resume", &resume]);
        assert!(
            bytes(&out) == bytes(&whole),
            "killed after {kill_after} lines"
        );
    }
}

#[test]
fn a_killed_run_of_a_recipe_is_found_by_auto() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = root().join("recipes/mnli-smoke.toml").display().to_string();
    let runs = dir.path().join("runs").display().to_string();
    let stderr = fails(&["train", &recipe, "--resume", "auto", "--runs", &runs]);
    assert!(
        stderr.contains("no run of recipe \"mnli-smoke\""),
        "{stderr}"
    );
    let out = dir.path().join("runs/mnli-smoke-20260101-000000");
    ok(&strs(&train_args(
        "mnli-smoke.toml",
        &out,
        &["train.keep=9"],
    )));
    fs::remove_dir_all(out.join("final")).unwrap();
    fs::remove_dir_all(out.join("stages/bitdistill")).unwrap();
    ok(&["train", &recipe, "--resume", "auto", "--runs", &runs]);
    assert!(out.join("final/model.safetensors").is_file());
    let stderr = fails(&[
        "train", &recipe, "--resume", "auto", "--runs", &runs, "--set", "seed=1",
    ]);
    assert!(stderr.contains("--set"), "{stderr}");
}

#[test]
fn every_error_of_a_recipe_is_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = dir.path().join("bad.toml");
    let text = "name = 'bad'\nsede = 1\n[model]\nhidden_size = 'wide'\nnum_attention_heads = 3\n\
        [[stage]]\nname = 'a'\nsteps = -1\nlr = 1e-3\n[[stage]]\nname = 'a'\nfrom = 'nowhere'\n";
    fs::write(&recipe, text).unwrap();
    let recipe = recipe.display().to_string();
    let out = dir.path().join("run");
    let stderr = fails(&["train", &recipe, "--out", &out.display().to_string()]);
    for path in [
        "bad.toml",
        "sede",
        "model.hidden_size",
        "stage[0].steps",
        "stage[1].from",
    ] {
        assert!(stderr.contains(path), "{path} is missing in {stderr}");
    }
    assert!(!out.exists());
}

#[test]
fn devices_that_are_not_there_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let with = |device: &str| {
        let mut args = train_args("mnli-smoke.toml", &out, &[]);
        args.extend(["--device".to_owned(), device.to_owned()]);
        fails(&strs(&args))
    };
    let stderr = with("tpu");
    assert!(
        stderr.contains("tpu") && stderr.contains("cpu, ndarray, wgpu, cuda"),
        "{stderr}"
    );
    assert!(!out.exists());
    for device in ["wgpu", "cuda"] {
        let stderr = with(device);
        let remedy = format!("--features {device}");
        // A build with the feature, on a machine without the device, says what to install.
        assert!(
            stderr.contains(&remedy) || stderr.contains("answered"),
            "{stderr}"
        );
        assert!(!out.exists());
    }
}

#[test]
fn several_devices_share_the_steps_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let stages = ["base", "fp-sft", "bitdistill-cpt", "bitdistill"];
    let mut set: Vec<String> = stages.map(|s| format!("stage.{s}.grad_accum=2")).into();
    set.extend(stages.map(|s| format!("stage.{s}.steps=2")));
    set.extend(stages.map(|s| format!("stage.{s}.warmup=1")));
    let weights = |name: &str, devices: &str| {
        let out = dir.path().join(name);
        let set: Vec<&str> = strs(&set);
        let mut args = train_args("mnli-smoke.toml", &out, &set);
        args.extend(["--devices".to_owned(), devices.to_owned()]);
        ok(&strs(&args));
        fs::read(out.join("final/model.safetensors")).unwrap()
    };
    assert!(weights("one", "0") == weights("two", "0,1"));
    let args = train_args("mnli-smoke.toml", &dir.path().join("three"), &[]);
    let mut three = strs(&args);
    three.extend(["--devices", "0,1,2"]);
    let stderr = stops(&three);
    assert!(
        stderr.contains("stage.base.grad_accum: 1 cannot be shared by 3 devices"),
        "{stderr}"
    );
    let mut twice = strs(&args);
    twice.extend(["--devices", "0,0"]);
    let stderr = fails(&twice);
    assert!(stderr.contains("name each device once"), "{stderr}");
}

#[test]
fn bad_parquet_is_named_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let good = root().join("data/mnli");
    let data = dir.path().join("mnli");
    let file = data.join("train-00000-of-00001.parquet");
    let validation = "validation_matched-00000-of-00001.parquet";
    let reset = || {
        fs::create_dir_all(&data).unwrap();
        fs::copy(good.join("train-00000-of-00001.parquet"), &file).unwrap();
        fs::copy(good.join(validation), data.join(validation)).unwrap();
    };
    let train = |words: &[&str]| {
        let out = dir.path().join("run");
        let set = format!("data.dir={}", data.display());
        let stderr = stops(&strs(&train_args("mnli-smoke.toml", &out, &[&set])));
        for word in words {
            assert!(stderr.contains(word), "{word} is missing in {stderr}");
        }
        fs::remove_dir_all(out).unwrap();
    };
    reset();
    fs::remove_file(&file).unwrap();
    train(&["mnli", "train"]);
    reset();
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    train(&["train-00000-of-00001.parquet"]);
    reset();
    fs::copy(root().join("data/sst2/train-00000-of-00001.parquet"), &file).unwrap();
    train(&["train-00000-of-00001.parquet", "premise"]);
    reset();
    fs::write(&file, b"").unwrap();
    train(&["train-00000-of-00001.parquet"]);
}

#[test]
fn a_loss_that_is_no_number_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let set = ["stage.fp-sft.lr=1e30", "stage.fp-sft.clip=0"];
    let stderr = stops(&strs(&train_args("mnli-smoke.toml", &out, &set)));
    assert!(
        stderr.contains("stage.fp-sft.lr") && stderr.contains("checkpoint-"),
        "{stderr}"
    );
    assert!(out.join("stages/base/model.safetensors").is_file());
}

/// A file system that is full after some checkpoints: needs the right to mount one.
#[test]
fn a_full_disk_ends_the_run_and_keeps_its_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let out = disk.join("run");
    let set = [
        "train.keep=99",
        "train.save_every=1",
        "stage.base.steps=2000",
    ];
    let args = train_args("mnli-smoke.toml", &out, &set);
    let script = r#"mount -t tmpfs -o size=2m none "$1" || exit 77
        disk=$1; shift
        "$@"; code=$?
        ls "$disk/run"; for c in "$disk"/run/checkpoint-*; do
            case $c in *.tmp) echo "left $c" ;; *) test -s "$c/state.json" || echo "torn $c" ;; esac
        done
        exit $code"#;
    let output = std::process::Command::new("unshare")
        .args(["-rm", "sh", "-c", script, "sh"])
        .arg(&disk)
        .arg(env!("CARGO_BIN_EXE_tritburn"))
        .args(&args)
        .output();
    let Ok(output) = output.map_err(|e| eprintln!("skipped: no unshare: {e}")) else {
        return;
    };
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if output.status.code() == Some(77) || stderr.contains("unshare failed") {
        eprintln!("skipped: this machine lets nobody mount a file system: {stderr}");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("No space left on device"), "{stderr}");
    assert!(
        stderr.contains("disk/run") && !stderr.contains("panicked"),
        "{stderr}"
    );
    assert!(stdout.contains("checkpoint-1\n"), "{stdout}");
    assert!(
        !stdout.contains("left ") && !stdout.contains("torn "),
        "{stdout}"
    );
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    common::write_model(dir.path());
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    let stderr = fails(&["serve", &dir.path().display().to_string(), "--port", &port]);
    assert!(
        stderr.contains(&port) && stderr.contains("0 picks a free one"),
        "{stderr}"
    );
}

/// The main job with a handful of steps: every part of it runs.
#[test]
fn quickstart_goes_the_whole_road() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("quickstart.json");
    let (runs, data) = (dir.path().join("runs"), root().join("data"));
    let mut args = vec![
        "quickstart".to_owned(),
        format!("--json={}", report.display()),
        format!("--runs={}", runs.display()),
        format!("--data={}", data.display()),
    ];
    for stage in [
        "base",
        "fp-sft",
        "bitnet-sft",
        "bitdistill-cpt",
        "bitdistill",
    ] {
        args.push(format!("--set=stage.{stage}.steps=3"));
        args.push(format!("--set=stage.{stage}.warmup=1"));
    }
    args.push("--set=train.eval_rows=12".to_owned());
    let table = ok(&strs(&args));
    for word in [
        "fp-sft",
        "bitnet-sft",
        "bitdistill",
        "reply:",
        "export",
        "wall",
    ] {
        assert!(table.contains(word), "{word} is missing in {table}");
    }
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["fp-sft", "bitnet-sft", "bitdistill"]);
    for row in rows {
        let accuracy = row["accuracy"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&accuracy), "{row}");
        for key in ["accuracy_stderr", "prompt_tok_s", "decode_tok_s"] {
            assert!(row[key].as_f64().unwrap() > 0.0, "{key} of {row}");
        }
    }
    let bytes = |i: usize| rows[i]["size_bytes"].as_u64().unwrap();
    assert!(
        bytes(2) * 2 < bytes(0),
        "ternary weights are not packed: {rows:?}"
    );
    assert!(report["parity_max_rel_diff"].as_f64().unwrap() < 2e-2);
    assert!(report["wall_s"].as_f64().unwrap() > 0.0);

    // What the run left can be exported, evaluated on either side, and plotted.
    let run_dir = fs::read_dir(&runs).unwrap().next().unwrap().unwrap().path();
    let name = run_dir.display().to_string();
    let out = dir.path().join("out").display().to_string();
    ok(&["export", &name, "--out", &out]);
    let data = data.join("mnli").display().to_string();
    let accuracy = |more: &[&str]| {
        let json = dir.path().join("eval.json").display().to_string();
        let eval = [
            "eval", &name, "--data", &data, "--limit", "40", "--json", &json,
        ];
        ok(&[&eval[..], more].concat());
        let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
        report["results"]["mnli"]["acc,none"].as_f64().unwrap()
    };
    let (engine, cpu) = (accuracy(&[]), accuracy(&["--device", "cpu"]));
    assert!((engine - cpu).abs() < 0.06, "{engine} and {cpu}");
    assert!(ok(&["plot", &name]).contains(".svg"));
    assert_eq!(
        run(&["export", &name]).status.code(),
        Some(2),
        "--out is required"
    );
    assert!(fails(&["export", &out, "--out", &name]).contains("packed already"));
}

#[test]
fn a_run_is_exported_as_gguf_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    // Rows in whole blocks of 128.
    let set = ["model.hidden_size=128", "model.intermediate_size=128"];
    ok(&strs(&train_args("cpt-falcon-smoke.toml", &run, &set)));
    let run = run.display().to_string();
    let (hf, gguf) = (dir.path().join("hf"), dir.path().join("gguf/small.gguf"));
    ok(&["export", &run, "--out", &hf.display().to_string()]);
    let file = gguf.display().to_string();
    ok(&["export", &run, "--format", "gguf-i2_s", "--out", &file]);
    let (latent, out) = (dir.path().join("latent"), hf.display().to_string());
    let latent = latent.display().to_string();
    let master = ["--format", "safetensors-latent", "--out", &latent];
    ok(&[&["export", &run][..], &master].concat());
    assert!(fails(&[&["export", &out][..], &master].concat()).contains("no master weights"));
    let few_bits = ["--out", &out, "--embedding-type", "q8_0"];
    assert!(fails(&[&["export", &run][..], &few_bits].concat()).contains("--embedding-type"));
    let left: Vec<_> = fs::read_dir(gguf.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "the folder on the way is gone: {left:?}");
    let answer = |model: &str| {
        let prompt = [
            "--prompt",
            "once there was",
            "--max-tokens",
            "12",
            "--temperature",
            "0",
        ];
        ok(&[&["generate", model][..], &prompt].concat())
    };
    // The embedding is f16 in the one and f32 in the other, so later words may differ.
    assert!(!answer(&file).trim().is_empty());
    let packed = answer(&out);
    assert!(!packed.trim().is_empty());
    assert_eq!(
        answer(&latent),
        packed,
        "master weights become the same codes"
    );

    // A file in full precision becomes a folder to train from, by the same answers.
    let (base, fp) = (format!("{run}/stages/base"), dir.path().join("fp.gguf"));
    let fp = fp.display().to_string();
    ok(&["export", &base, "--format", "gguf-tq2_0", "--out", &fp]);
    let folder = dir.path().join("imported").display().to_string();
    let import = ["--format", "safetensors-latent", "--out", &folder];
    ok(&[&["export", &fp][..], &import].concat());
    assert_eq!(answer(&folder), answer(&fp));
    let again = dir.path().join("again");
    let from = format!("model.path={folder}");
    ok(&strs(&train_args(
        "cpt-falcon-smoke.toml",
        &again,
        &[&from],
    )));
    assert!(fails(&[&["export", &file][..], &import].concat()).contains("no master weights"));
    assert!(fails(&["export", &fp, "--out", &folder]).contains("safetensors-latent"));

    let narrow = dir.path().join("narrow");
    ok(&strs(&train_args("cpt-falcon-smoke.toml", &narrow, &[])));
    let out = dir.path().join("narrow.gguf").display().to_string();
    let error = fails(&[
        "export",
        &narrow.display().to_string(),
        "--format",
        "gguf-i2_s",
        "--out",
        &out,
    ]);
    assert!(error.contains("128") && error.contains("proj"), "{error}");
    let weights = narrow.join("final/model.safetensors");
    assert!(error.contains(&weights.display().to_string()), "{error}");
    assert!(!Path::new(&out).exists());
}
