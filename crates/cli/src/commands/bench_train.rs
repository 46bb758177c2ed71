//! `tritburn bench train`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::Serialize;
use tritburn_engine::bench::{SHAPES, shape};
use tritburn_nn::device::{DEVICE_NAMES, Devices};
use tritburn_train::recipe::ComputeChoice;
use tritburn_train::{StepBench, StepMode, StepTimes, bench_step};

use crate::output;

/// Arguments of `bench train`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shape of a published model, filled with random weights
    #[arg(long, value_name = "NAME", default_value = "smollm2-135m", help = format!("Shape of a published model, filled with random weights: {}", SHAPES.join(", ")))]
    shape: String,
    /// What to train: the model as it is, its ternary form, or that under a teacher
    #[arg(
        long,
        value_name = "MODE",
        value_delimiter = ',',
        default_value = "qat"
    )]
    mode: Vec<Mode>,
    /// Rows of a step on each device
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
    /// Tokens of a row
    #[arg(long, value_name = "N", default_value_t = 512)]
    seq: usize,
    /// Timed steps, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 20)]
    steps: usize,
    /// Steps before them
    #[arg(long, value_name = "N", default_value_t = 5)]
    warmup: usize,
    /// How products with weights in full precision are computed
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    compute: Compute,
    /// Run blocks again in the backward pass instead of keeping their activations
    #[arg(long)]
    checkpoint_activations: bool,
    /// Compute gradients for the inputs of projections from INT8 codes
    #[arg(long)]
    int8_grad_input: bool,
    /// Arithmetic that the device could do, TFLOP/s, to give the share of it that was used (MFU)
    #[arg(long, value_name = "N")]
    peak_tflops: Option<f64>,
    /// Where to run
    #[arg(long, value_name = "NAME", default_value = "cpu", help = format!("Where to run: {DEVICE_NAMES}"))]
    device: String,
    /// Numbers of the devices to train a replica on each, for example 0,1
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "0")]
    devices: Vec<usize>,
    /// Also write the rows to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Fp,
    Qat,
    Distill,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Compute {
    Auto,
    F32,
    Bf16,
}

#[derive(Serialize)]
struct Row<'a> {
    shape: &'a str,
    device: &'a str,
    #[serde(flatten)]
    times: StepTimes,
    mfu: Option<f64>,
}

/// Measures and reports.
pub(crate) fn run(args: &Args) -> Result<()> {
    for (name, value) in [
        ("--batch", args.batch),
        ("--seq", args.seq),
        ("--steps", args.steps),
    ] {
        ensure!(value > 0, "{name} must be at least 1");
    }
    let devices = Devices::named(&args.device, &args.devices)?;
    let config = shape(&args.shape)?;
    ensure!(
        args.seq <= config.max_position_embeddings,
        "--seq: {} takes at most {} tokens",
        args.shape,
        config.max_position_embeddings
    );
    let mut rows = Vec::new();
    for mode in &args.mode {
        let bench = StepBench {
            config: config.clone(),
            mode: match mode {
                Mode::Fp => StepMode::Fp,
                Mode::Qat => StepMode::Qat,
                Mode::Distill => StepMode::Distill,
            },
            batch: args.batch,
            seq: args.seq,
            steps: args.steps,
            warmup: args.warmup,
            compute: match args.compute {
                Compute::Auto => ComputeChoice::Auto,
                Compute::F32 => ComputeChoice::F32,
                Compute::Bf16 => ComputeChoice::Bf16,
            },
            checkpoint_activations: args.checkpoint_activations,
            int8_grad_input: args.int8_grad_input,
        };
        let times = bench_step(&bench, &devices)?;
        rows.push(Row {
            shape: &args.shape,
            device: devices.kind.name(),
            mfu: args.peak_tflops.map(|peak| times.tflops / peak),
            times,
        });
    }
    if let Some(path) = &args.json {
        output::write_json(path, &rows)?;
    }
    output::print(table(&rows))?;
    Ok(())
}

fn table(rows: &[Row<'_>]) -> String {
    let header = [
        "shape",
        "mode",
        "device",
        "batch",
        "ms a step",
        "host ms",
        "tok/s",
        "TFLOP/s",
        "MFU",
        "first step",
        "MiB",
    ];
    let dash = || "-".to_owned();
    let cells = |row: &Row<'_>| {
        let t = &row.times;
        vec![
            row.shape.to_owned(),
            format!("{:?}", t.mode).to_lowercase(),
            match t.devices {
                1 => row.device.to_owned(),
                n => format!("{} ×{n}", row.device),
            },
            format!("{}×{}", t.batch, t.seq),
            format!("{:.1}", t.ms_per_step),
            format!("{:.1}", t.host_ms),
            format!("{:.0}", t.tok_s),
            format!("{:.2}", t.tflops),
            row.mfu.map_or_else(dash, |m| format!("{:.1}%", m * 100.0)),
            format!("{:.1} s", t.first_step_s),
            t.peak_bytes.map_or_else(dash, |b| (b >> 20).to_string()),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    output::table(&header, &rows) + "\n"
}
