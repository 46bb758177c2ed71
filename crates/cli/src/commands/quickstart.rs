//! `tritburn quickstart`: the whole road on the embedded data.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::json;
use tritburn_data::{Tokenizer, read_task};
use tritburn_engine::bench::{BenchOptions, Limits, MemorySpeed, Phase};
use tritburn_engine::{Engine, EngineOptions};
use tritburn_eval::{EngineScorer, evaluate_task};
use tritburn_nn::device::DeviceKind;
use tritburn_quant::fs::write_atomic;
use tritburn_server::{EngineModel, ServerConfig};
use tritburn_train::parity;
use tritburn_train::recipe::Recipe;
use tritburn_train::run::RunDir;

use super::train::stop_on_signals;
use crate::output::{print, say};
use crate::progress::Progress;

/// Teacher, baseline and BitDistill on the embedded data, exported, served and asked once
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the table as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// cpu, ndarray, wgpu or cuda
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Folder that the run is made in
    #[arg(long, default_value = "runs", value_name = "DIR")]
    runs: PathBuf,
    /// Folder of the embedded data sets; made where it is missing
    #[arg(long, default_value = "data", value_name = "DIR")]
    data: PathBuf,
    /// Replace a value of the recipe
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

const RECIPE: &str = include_str!("../../../../recipes/quickstart.toml");

/// Stages that end in a row of the table.
const ROWS: [&str; 3] = ["fp-sft", "bitnet-sft", "bitdistill"];

/// Prompts whose logits are compared between training and engine.
const PARITY_PROMPTS: usize = 16;

struct Row {
    name: &'static str,
    accuracy: f64,
    stderr: f64,
    bytes: u64,
    prompt_tok_s: f64,
    decode_tok_s: f64,
    parity: f64,
    folder: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let device = DeviceKind::named(&args.device)?;
    if !args.data.join("mnli").is_dir() {
        tritburn_data::synth::write_all(&args.data, tritburn_data::synth::SEED)
            .with_context(|| format!("cannot write the data sets to {}", args.data.display()))?;
    }
    let mut overrides = vec![
        format!("data.dir={}", args.data.join("mnli").display()),
        format!("data.corpus={}", args.data.join("refinedweb").display()),
    ];
    overrides.extend(args.set);
    let recipe = Recipe::parse(RECIPE, "recipes/quickstart.toml", &overrides)?;
    let run = RunDir::create(&args.runs, &recipe)?;
    say(format!("run {}", run.path().display()));
    let mut progress = Progress::new(recipe.total_steps());
    let stop = stop_on_signals()?;
    tritburn_train::train(&recipe, &run, &device.into(), &mut progress, stop)?;

    let mut rows = Vec::new();
    for name in ROWS {
        say(format!("{name}: exporting and evaluating"));
        rows.push(measure(name, &recipe, &run, device)?);
    }
    let student = &rows[2];
    let reply = ask_server(&student.folder, &recipe)?;
    let wall = started.elapsed().as_secs_f64();
    print(table(&rows, &run, &reply, wall))?;
    if let Some(path) = args.json {
        write_json(&path, &rows, wall)?;
    }
    Ok(())
}

fn measure(
    name: &'static str,
    recipe: &Recipe,
    run: &RunDir,
    device: DeviceKind,
) -> anyhow::Result<Row> {
    let master = run.stage(name);
    let folder = run.path().join("exports").join(name);
    tritburn_train::export_hf(&master, &folder, device)?;
    let options = EngineOptions::default();
    let engine = Engine::load(&folder, options.clone())?;
    let tokenizer = Tokenizer::load(&folder)?;
    let (task, data) = (&recipe.task, &recipe.file.data);
    let rows = read_task(Path::new(&data.dir), &task.eval_split, task, None)?;
    let evaluation = evaluate_task(
        &mut EngineScorer::new(&engine),
        &tokenizer,
        task,
        &rows,
        data.max_length,
        &mut |_, _| {},
    )?;
    let encoder = tritburn_data::TaskEncoder::new(task, &tokenizer, data.max_length)?;
    let prompts = rows
        .iter()
        .take(PARITY_PROMPTS)
        .map(|row| Ok(encoder.prompt(&row.texts)?.0))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let exact = Engine::load(&folder, EngineOptions::exact())?;
    let parity = parity::max_rel_diff(&master, &exact, &prompts, device)?;
    ensure!(
        parity <= parity::TOLERANCE,
        "{name}: training forward and engine differ by {parity:.2e} of the largest logit, \
         more than {:.0e}",
        parity::TOLERANCE
    );
    let bench = tritburn_engine::bench::run(
        &engine,
        name,
        &BenchOptions::default(),
        &Limits::measure(&engine, MemorySpeed::measure(&options)?)?,
    )?;
    let speed = |phase| {
        bench
            .iter()
            .find(|r| r.phase == phase)
            .map_or(0.0, |r| r.tok_s)
    };
    Ok(Row {
        name,
        accuracy: evaluation.acc.value,
        stderr: evaluation.acc.stderr,
        bytes: folder_bytes(&folder)?,
        prompt_tok_s: speed(Phase::Prefill),
        decode_tok_s: speed(Phase::Decode),
        parity,
        folder,
    })
}

fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let path = folder.join("model.safetensors");
    Ok(std::fs::metadata(&path)
        .with_context(|| path.display().to_string())?
        .len())
}

/// Starts the server on a free port and sends it one validation row.
fn ask_server(folder: &Path, recipe: &Recipe) -> anyhow::Result<String> {
    let (task, data) = (&recipe.task, &recipe.file.data);
    let rows = read_task(Path::new(&data.dir), &task.eval_split, task, Some(1))?;
    let prompt = task.prompt(&rows[0].texts)?;
    let engine = Engine::load(folder, EngineOptions::default())?;
    let config = ServerConfig {
        port: 0,
        ..ServerConfig::default()
    };
    let server = tritburn_server::spawn(config, Arc::new(EngineModel::new("bitdistill", engine)))?;
    let address = server.address();
    say(format!("listening on http://{address}"));
    let body = json!({
        "model": "bitdistill", "prompt": prompt, "max_tokens": 4, "temperature": 0
    });
    let reply = crate::http::post_json(address, "/v1/completions", &body)?;
    server.stop()?;
    let text = reply["choices"][0]["text"]
        .as_str()
        .context("the reply holds no text")?;
    let right = task.answer(rows[0].label).unwrap_or_default();
    Ok(format!(
        "POST http://{address}/v1/completions\n  prompt: {}\n  reply: {} (right: {})",
        prompt.replace('\n', " "),
        text.trim(),
        right.trim()
    ))
}

fn table(rows: &[Row], run: &RunDir, reply: &str, wall: f64) -> String {
    let mut out = format!(
        "\n{:<12} {:>16} {:>10} {:>13} {:>13} {:>9}\n",
        "model", "accuracy", "size", "prompt tok/s", "decode tok/s", "parity"
    );
    for r in rows {
        #[allow(clippy::cast_precision_loss)]
        let mib = r.bytes as f64 / 1_048_576.0;
        out += &format!(
            "{:<12} {:>7.2}% ± {:>5.2} {:>6.2} MiB {:>13.0} {:>13.0} {:>9.1e}\n",
            r.name,
            r.accuracy * 100.0,
            r.stderr * 100.0,
            mib,
            r.prompt_tok_s,
            r.decode_tok_s,
            r.parity
        );
    }
    out += &format!("\n{reply}\n\nrun      {}\n", run.path().display());
    for r in rows {
        out += &format!("export   {}\n", r.folder.display());
    }
    out + &format!("wall     {wall:.0} s\n")
}

fn write_json(path: &Path, rows: &[Row], wall: f64) -> anyhow::Result<()> {
    let list: Vec<_> = rows
        .iter()
        .map(|r| {
            json!({
                "name": r.name,
                "accuracy": r.accuracy,
                "accuracy_stderr": r.stderr,
                "size_bytes": r.bytes,
                "prompt_tok_s": r.prompt_tok_s,
                "decode_tok_s": r.decode_tok_s,
            })
        })
        .collect();
    let parity = rows.iter().map(|r| r.parity).fold(0.0, f64::max);
    let json = json!({ "rows": list, "parity_max_rel_diff": parity, "wall_s": wall });
    let mut text = serde_json::to_vec_pretty(&json)?;
    text.push(b'\n');
    Ok(write_atomic(path, &text)?)
}
