//! The commands as a shell sees them: exit codes, stdout, stderr and files.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::{fails, ok, run, tritburn, write_model};
use serde_json::Value;

const COMMANDS: [&str; 15] = [
    "quickstart",
    "train",
    "sample",
    "eval",
    "compare",
    "perplexity",
    "export",
    "generate",
    "serve",
    "bench",
    "pull",
    "data",
    "plot",
    "doctor",
    "completions",
];

fn embedded(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
    root.join(name).to_str().unwrap().to_owned()
}

fn join<'a>(first: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [first, more].concat()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn every_command_explains_itself() {
    let all = ok(&["--help"]);
    for command in COMMANDS {
        assert!(all.contains(command), "{command} is missing in {all}");
        assert!(
            ok(&[command, "--help"]).contains("Usage: tritburn"),
            "{command}"
        );
    }
    assert!(ok(&["--version"]).starts_with("tritburn "));
}

#[test]
fn wrong_usage_ends_with_code_2() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["generate", "model"],
        &["generate", "model", "--prompt", "x", "--threads", "0"],
        &["generate", "model", "--prompt", "x", "--system", "y"],
        &["bench"],
        &["bench", "model", "--shape", "smollm2-135m"],
        &["serve", "model", "--port", "70000"],
        &["completions", "cmd.exe"],
        &["bench", "model", "--format", "abacus"],
        &["bench", "--shape", "smollm2-135m", "--weight-quant", "none"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn doctor_reports_the_machine() {
    let report: Value = serde_json::from_str(&ok(&["doctor", "--json"])).unwrap();
    for key in [
        "version", "os", "cpu", "memory", "numa", "kernels", "gpu", "devices", "caches",
    ] {
        assert!(!report[key].is_null(), "{key} is missing in {report:#}");
    }
    let kernels = report["kernels"]["available"].as_array().unwrap();
    assert_eq!(kernels.last().unwrap(), "scalar");
    assert_eq!(report["kernels"]["selected"], kernels[0]);
    let numa = &report["numa"];
    assert!(numa["threads"].as_u64().unwrap() >= 1);
    let nodes = numa["nodes"].as_array().unwrap();
    // Where there is nothing to choose from, nothing is bound.
    let bound = numa["bound_to"].as_array().unwrap();
    assert_eq!(bound.is_empty(), nodes.len() < 2);
    assert_eq!(report["devices"][0]["name"], "cpu");
    assert_eq!(report["devices"][0]["compiled"], true);
    assert!(ok(&["doctor"]).contains("(selected)"));
}

#[test]
fn doctor_outlives_what_it_diagnoses() {
    let mut command = tritburn(&["doctor"]);
    let output = command.env("TRITBURN_KERNEL", "abacus").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("abacus"));
}

#[test]
fn completions_are_scripts() {
    for (shell, word) in [
        ("bash", "_tritburn"),
        ("zsh", "#compdef tritburn"),
        ("fish", "complete"),
    ] {
        assert!(ok(&["completions", shell]).contains(word), "{shell}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut command = tritburn(&["completions", "bash"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn synth_writes_the_embedded_data_and_inspect_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("data");
    let listed = ok(&["data", "synth", "--out", out.to_str().unwrap()]);
    let name = "mnli/validation_matched-00000-of-00001.parquet";
    assert!(
        listed.lines().any(|line| Path::new(line) == out.join(name)),
        "{listed}"
    );
    assert_eq!(
        fs::read(out.join(name)).unwrap(),
        fs::read(embedded(name)).unwrap()
    );

    let mnli = out.join("mnli");
    let shown = ok(&["data", "inspect", mnli.to_str().unwrap(), "--rows", "2"]);
    for word in ["6000 rows", "premise", "hypothesis", "integer", "row 1"] {
        assert!(shown.contains(word), "{word} is missing in {shown}");
    }
    assert!(!shown.contains("row 2"), "{shown}");
    let corpus = ok(&["data", "inspect", &embedded("refinedweb")]);
    assert!(
        corpus.contains("timestamp") && corpus.contains("Timestamp"),
        "{corpus}"
    );
    assert!(fails(&["data", "inspect", mnli.to_str().unwrap(), "--split", "dev"]).contains("dev"));

    let model = dir.path().join("model");
    write_model(&model);
    let prepared = dir.path().join("prepared");
    let corpus = embedded("refinedweb");
    let args = ["data", "prepare", &corpus, "--tokenizer"];
    let more = [model.to_str().unwrap(), "--out", prepared.to_str().unwrap()];
    assert!(ok(&join(&args, &more)).contains("Mtok/s"));
    assert!(ok(&join(&args, &more)).contains("kept"));
    assert!(prepared.join("manifest.json").is_file());
}

#[test]
fn a_missing_model_is_named_with_a_remedy() {
    let data = embedded("sst2");
    for args in [
        &["generate", "no/such", "--prompt", "x"][..],
        &["eval", "no/such", "--task", "sst2", "--data", &data],
        &["perplexity", "no/such", "--data", &data],
        &["bench", "no/such"],
        &["serve", "no/such", "--port", "0"],
    ] {
        let stderr = fails(args);
        assert!(
            stderr.contains("no/such") && stderr.contains("Give the folder"),
            "{stderr}"
        );
    }
}

#[test]
fn an_export_that_lies_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    write_model(&model);
    let path = model.join("config.json");
    let mut config = json(&path);
    config["intermediate_size"] = 96.into();
    fs::write(&path, config.to_string()).unwrap();
    let before = fs::read(model.join("model.safetensors")).unwrap();
    let name = model.to_str().unwrap();
    let stderr = fails(&["eval", name, "--task", "sst2", "--data", &embedded("sst2")]);
    assert!(
        stderr.contains("gate_proj") && stderr.contains("config.json"),
        "{stderr}"
    );
    assert_eq!(fs::read(model.join("model.safetensors")).unwrap(), before);

    fs::write(model.join("model.safetensors"), &before[..before.len() / 2]).unwrap();
    let stderr = fails(&["generate", name, "--prompt", "x"]);
    assert!(stderr.contains("model.safetensors"), "{stderr}");
}

#[test]
fn generate_prints_text_or_json() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path());
    let model = dir.path().to_str().unwrap();
    let common = [
        "generate",
        model,
        "--prompt",
        "A man",
        "--max-tokens",
        "6",
        "--threads",
        "1",
    ];
    let report: Value = serde_json::from_str(&ok(&join(&common, &["--json"]))).unwrap();
    assert_eq!(report.as_object().unwrap().len(), 7, "{report}");
    let tokens = report["tokens"].as_array().unwrap().len() as u64;
    assert_eq!(report["completion_tokens"], tokens);
    assert!(report["prompt_tokens"].as_u64().unwrap() > 0);
    assert!(report["prompt_tok_s"].as_f64().unwrap() > 0.0);
    let reason = report["finish_reason"].as_str().unwrap();
    assert!(
        (reason == "length" && tokens == 6) || reason == "stop",
        "{report}"
    );
    assert_eq!(
        ok(&common),
        format!("{}\n", report["text"].as_str().unwrap())
    );

    let warm = [
        "--temperature",
        "1.5",
        "--top-k",
        "50",
        "--seed",
        "7",
        "--json",
    ];
    let text = |args: &[&str]| {
        let report: Value = serde_json::from_str(&ok(&join(&common, args))).unwrap();
        report["tokens"].clone()
    };
    assert_eq!(text(&warm), text(&warm));
    let chat = ok(&join(
        &common,
        &["--chat", "--system", "Be brief.", "--json"],
    ));
    let chat: Value = serde_json::from_str(&chat).unwrap();
    assert!(
        chat["prompt_tokens"].as_u64() > report["prompt_tokens"].as_u64(),
        "{chat}"
    );
    assert!(fails(&join(&common, &["--top-p", "0"])).contains("top_p"));
    assert!(fails(&join(&common, &["--kernel", "abacus"])).contains("scalar"));
}

#[test]
fn generate_takes_the_prompt_from_stdin() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path());
    let args = [
        "generate",
        dir.path().to_str().unwrap(),
        "--max-tokens",
        "4",
        "--prompt",
    ];
    let from_args = ok(&join(&args, &["A man sleeps."]));
    let with_stdin = |input: &[u8]| {
        let mut command = tritburn(&join(&args, &["-"]));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    };
    assert_eq!(
        String::from_utf8(with_stdin(b"A man sleeps.").stdout).unwrap(),
        from_args
    );
    let latin = with_stdin(b"caf\xe9");
    assert_eq!(latin.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&latin.stderr).contains("UTF-8"));
}

#[test]
fn eval_writes_the_harness_form_and_compares() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    write_model(&model);
    let (model, data) = (model.to_str().unwrap(), embedded("mnli"));
    let out = dir.path().join("results/eval.json");
    let args = [
        "eval", model, "--task", "mnli", "--data", &data, "--limit", "8",
    ];
    let table = ok(&join(&args, &["--json", out.to_str().unwrap()]));
    assert!(table.contains("exact_match"), "{table}");
    let results = json(&out);
    let acc = results["results"]["mnli"]["acc,none"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&acc));
    assert_eq!(results["n-samples"]["mnli"]["effective"], 8);
    assert_eq!(results["n-samples"]["mnli"]["original"], 900);
    let samples = out.with_file_name("samples_mnli.jsonl");
    assert_eq!(fs::read_to_string(&samples).unwrap().lines().count(), 8);

    let compared = ok(&join(&args, &["--compare", samples.to_str().unwrap()]));
    assert!(
        compared.contains("+0.0000") && compared.contains("1.0000"),
        "{compared}"
    );
    let folder = out.parent().unwrap().to_str().unwrap();
    let table = ok(&["compare", folder, folder, "--markdown"]);
    assert!(table.contains("| mnli | acc | 8 |"), "{table}");
    let stderr = fails(&["compare", folder, model]);
    assert!(stderr.contains("tritburn eval"), "{stderr}");
    ok(&join(&args, &["--prompts", "lm-eval"]));

    let stderr = fails(&["eval", model, "--task", "nli", "--data", &data]);
    assert!(
        stderr.contains("nli") && stderr.contains("mnli"),
        "{stderr}"
    );
    assert!(fails(&["eval", model]).contains("--task"));
}

#[test]
fn an_unfinished_run_offers_its_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), "").unwrap();
    let checkpoint = dir.path().join("checkpoint-20");
    write_model(&checkpoint);
    let args = ["--prompt", "A", "--max-tokens", "1"];
    let stderr = fails(&join(&["generate", dir.path().to_str().unwrap()], &args));
    assert!(
        stderr.contains("checkpoint-20") && stderr.contains("--resume"),
        "{stderr}"
    );
    ok(&join(&["generate", checkpoint.to_str().unwrap()], &args));
    fs::rename(checkpoint, dir.path().join("final")).unwrap();
    ok(&join(&["generate", dir.path().to_str().unwrap()], &args));
}

#[test]
fn perplexity_of_the_embedded_corpus() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path());
    let out = dir.path().join("ppl.json");
    let args = [
        "perplexity",
        dir.path().to_str().unwrap(),
        "--data",
        &embedded("refinedweb"),
    ];
    let limit = ["--limit-docs", "2", "--json", out.to_str().unwrap()];
    let table = ok(&join(&args, &limit));
    assert!(table.contains("bits/byte"), "{table}");
    let report = json(&out);
    assert_eq!(report["documents"], 2);
    // Random weights know about nothing: worse than the uniform guess over 300 tokens, if anything.
    assert!(report["ppl"].as_f64().unwrap() > 100.0, "{report:#}");
    assert!(fails(&join(&args, &["--window", "4096"])).contains("128"));
}

#[test]
fn bench_rows_have_the_stable_keys() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    write_model(&model);
    let out = dir.path().join("bench.json");
    let table = ok(&[
        "bench",
        model.to_str().unwrap(),
        "--threads",
        "1,2",
        "--prefill",
        "8",
        "--decode",
        "4",
        "--depth",
        "5",
        "--runs",
        "1",
        "--profile",
        "--json",
        out.to_str().unwrap(),
    ]);
    for word in ["prefill", "decode", "µs a token", "attention", "a layer"] {
        assert!(table.contains(word), "{word} is missing in {table}");
    }
    let rows = json(&out);
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 4);
    let keys = [
        "shape",
        "format",
        "scales",
        "head",
        "kv_cache_dtype",
        "isa",
        "threads",
        "phase",
        "tokens",
        "depth",
        "tok_s",
        "gb_s",
        "roofline_share",
        "roofline_share_in_turn",
        "memory_gb_s",
        "weights_gb_s",
        "kernel_gop_s",
        "rss_bytes",
        "peak_bytes",
    ];
    for row in rows {
        assert!(row.as_object().unwrap().keys().eq(keys), "{row}");
        assert_eq!(row["shape"], "model");
        assert_eq!(row["format"], "ternary-2bit");
    }
    assert_eq!(rows[3]["threads"], 2);
    assert_eq!(
        (&rows[2]["depth"], &rows[3]["depth"]),
        (&0.into(), &5.into())
    );
    assert!(
        table.contains("decode, 4 tokens after 5, 2 threads"),
        "{table}"
    );
    let few = [
        "bench",
        model.to_str().unwrap(),
        "--threads",
        "1",
        "--prefill",
        "3",
        "--decode",
        "2",
        "--runs",
        "1",
    ];
    let printed = ok(&join(
        &few,
        &["--kv-cache-dtype", "int8", "--profile", "--json"],
    ));
    let rows: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(rows[1]["kv_cache_dtype"], "int8");
    let many = fails(&join(&few[..2], &["--threads", "99999"]));
    assert!(many.contains("at most 4096"), "{many}");
    assert!(fails(&["bench", "--shape", "gpt-9"]).contains("smollm2-135m"));
    let mut scalar = tritburn(&join(&few, &["--json"]));
    let output = scalar.env("TRITBURN_KERNEL", "scalar").output().unwrap();
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows[0]["isa"], "scalar");
    let mut abacus = tritburn(&few);
    let output = abacus.env("TRITBURN_KERNEL", "abacus").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(fails(&["bench", "train", "--shape", "gpt-9"]).contains("qwen3-0.6b"));
}

#[test]
fn plot_draws_or_names_the_bad_line() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().to_str().unwrap();
    assert!(fails(&["plot", run]).contains("metrics.jsonl"));
    let metrics = dir.path().join("metrics.jsonl");
    let line = r#"{"step":1,"stage":"teacher","loss":2.5,"loss/ce":2.5,"eval/mnli/acc":0.4}"#;
    fs::write(&metrics, format!("{line}\n{{\"step\":\n")).unwrap();
    assert!(fails(&["plot", run]).contains("line 2"));
    fs::write(&metrics, format!("{line}\n")).unwrap();
    let printed = ok(&["plot", run]);
    let svg = fs::read_to_string(printed.trim_end()).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("teacher"), "{svg}");
}
