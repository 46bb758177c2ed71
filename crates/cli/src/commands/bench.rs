//! `tritburn bench`.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tritburn_engine::bench::{self, BenchOptions, BenchRow, Limits, MemorySpeed, Phase, Profile};
use tritburn_engine::{Engine, EngineOptions, Format, HeadFormat, KvFormat, Numa, Sparsity};
use tritburn_quant::config::QuantizationMode;
use tritburn_quant::scheme::{QuantScheme, WeightQuant};

use crate::commands::bench_train;
use crate::{engine_args, model_path, output};

/// Seed of the weights of a `--shape`.
const SEED: u64 = 0;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Folder of an export, a run, a stage or a checkpoint
    #[arg(required_unless_present = "shape", conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// Shape of a published model, filled with random weights
    #[arg(long, value_name = "NAME", help = format!("Shape of a published model, filled with random weights: {}", bench::SHAPES.join(", ")))]
    shape: Option<String>,
    /// Numbers of threads to measure, one after another [default: one for each core of those nodes
    /// that --numa chooses]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    threads: Vec<NonZeroUsize>,
    /// Where threads run on a machine with several NUMA nodes: auto, isolate, distribute or off
    #[arg(long, value_name = "NAME", default_value = Numa::Auto.name(), value_parser = engine_args::numa)]
    numa: Numa,
    /// Kernel by name [default: TRITBURN_KERNEL, else the best]
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = BenchOptions::default().prefill_tokens)]
    prefill: usize,
    /// Tokens to write
    #[arg(long, value_name = "N", default_value_t = BenchOptions::default().decode_tokens)]
    decode: usize,
    /// Tokens in the context before those that are written
    #[arg(long, value_name = "N", default_value_t = BenchOptions::default().depth)]
    depth: usize,
    /// Runs, of which the median counts
    #[arg(long, value_name = "N", default_value_t = BenchOptions::default().runs)]
    runs: usize,
    /// How ternary weights are packed: 2bit or base3
    #[arg(long, value_name = "NAME", default_value = Format::default().name(), value_parser = engine_args::format)]
    format: Format,
    /// How output head and embedding are stored: int6, int8 or f32 [default: int6 for ternary
    /// models, f32 for others]
    #[arg(long, value_name = "NAME", value_parser = engine_args::head)]
    head: Option<HeadFormat>,
    /// How keys and values are stored: f32, f16, int8, int4 or int3 [default: what the model was
    /// trained with, else f16 for ternary models and f32 for others]
    #[arg(long, value_name = "NAME", value_parser = engine_args::kv_format)]
    kv_cache_dtype: Option<KvFormat>,
    /// Quantiser of the weights of a --shape: absmean, absmean-row, absmean-block256, absmean-group128 or b1
    /// [default: absmean]
    #[arg(long, value_name = "NAME", conflicts_with = "model", value_parser = weight_quant)]
    weight_quant: Option<WeightQuant>,
    /// Whether decoding leaves out what zeros make needless: auto, on (also where the kernel loses by
    /// it) or off
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = sparsity)]
    sparsity: Sparsity,
    /// Also show where the time of a token goes
    #[arg(long)]
    profile: bool,
    /// Print the rows as JSON instead of a table, or write them to a file beside it
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
}

/// What is measured instead of inference.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Measure training steps on random tokens
    Train(bench_train::Args),
}

/// Measures and reports.
pub(crate) fn run(args: Args) -> Result<()> {
    if let Some(What::Train(args)) = &args.what {
        return bench_train::run(args);
    }
    let options = |threads: Option<NonZeroUsize>| EngineOptions {
        threads: threads.map(NonZeroUsize::get),
        numa: args.numa,
        kernel: args.kernel.clone(),
        format: args.format,
        head: args.head,
        kv: args.kv_cache_dtype,
        sparsity: args.sparsity,
    };
    let counts: Vec<Option<NonZeroUsize>> = if args.threads.is_empty() {
        vec![None]
    } else {
        args.threads.iter().copied().map(Some).collect()
    };
    let name = match (&args.model, &args.shape) {
        (Some(model), _) => model_path::name(model),
        (None, shape) => shape.clone().unwrap_or_default(),
    };
    let model = match &args.model {
        Some(model) => Ok(model_path::resolve(model)?),
        None => {
            let mut shape = bench::shape(&name)?;
            if let Some(weights) = args.weight_quant {
                let scheme = shape.quant_scheme().unwrap_or_default();
                let scheme = QuantScheme { weights, ..scheme };
                shape.set_quant(Some(scheme), QuantizationMode::Offline);
            }
            Err(shape)
        }
    };
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    let show = |text: String| {
        if to_stdout {
            output::say(text);
            Ok(())
        } else {
            output::print(text)
        }
    };
    let load = |threads| match &model {
        Ok(model) => Engine::load(model, options(threads)),
        Err(shape) => Engine::random(shape, SEED, options(threads)),
    };
    let what = BenchOptions {
        prefill_tokens: args.prefill,
        decode_tokens: args.decode,
        depth: args.depth,
        runs: args.runs,
    };
    let mut rows = Vec::new();
    // Before there is a model: it takes memory, too.
    let speeds = counts.iter().map(|t| MemorySpeed::measure(&options(*t)));
    let speeds = speeds.collect::<Result<Vec<_>, _>>()?;
    let mut loaded = load(None)?;
    for (threads, memory) in counts.into_iter().zip(speeds) {
        let mut engine = loaded.with_options(&options(threads))?;
        if engine.info().nodes != loaded.info().nodes {
            // Weights lie near the threads that loaded them; two models take twice the memory.
            drop((engine, loaded));
            loaded = load(threads)?;
            engine = loaded.with_options(&options(threads))?;
        }
        output::say(format_args!(
            "{name}: measuring on {} threads",
            engine.info().threads
        ));
        let limits = Limits::measure(&engine, memory)?;
        rows.extend(bench::run(&engine, &name, &what, &limits)?);
        if args.profile {
            show(profile(&engine, &what)?)?;
        }
    }
    if to_stdout {
        let json = serde_json::to_string_pretty(&rows)?;
        output::print(format_args!("{json}\n"))?;
        return Ok(());
    }
    if let Some(path) = &args.json {
        output::write_json(path, &rows)?;
    }
    output::print(table(&rows))?;
    Ok(())
}

fn weight_quant(name: &str) -> Result<WeightQuant, String> {
    let known = serde_json::from_value(name.into()).ok();
    known.filter(|w| *w != WeightQuant::None).ok_or_else(|| {
        "no ternary quantiser of this name; there are absmean, absmean-row, absmean-block256, \
         absmean-group128 and b1"
            .into()
    })
}

fn sparsity(name: &str) -> Result<Sparsity, String> {
    let known = Sparsity::ALL.into_iter().find(|s| s.name() == name);
    known.ok_or_else(|| {
        let names = Sparsity::ALL.map(Sparsity::name).join(", ");
        format!("no choice of this name; there are {names}")
    })
}

fn profile(engine: &Engine, what: &BenchOptions) -> Result<String> {
    let cells = |op: &bench::OpShare| {
        vec![
            op.op.to_owned(),
            format!("{:.1}", op.seconds * 1e6),
            format!("{:.1}%", op.share * 100.0),
            format!("{:.0}%", op.left_out * 100.0),
        ]
    };
    let mut text = String::new();
    for phase in [Phase::Prefill, Phase::Decode] {
        let (depth, tokens) = what.tokens(phase);
        let Profile { ops, regions } = bench::profile(engine, phase, what)?;
        let rows: Vec<Vec<String>> = ops.iter().map(cells).collect();
        let table = output::table(&["operation", "µs a token", "share", "left out"], &rows);
        let threads = engine.info().threads;
        writeln!(
            text,
            "{}, {tokens} tokens after {depth}, {threads} threads\n{table}\n\
             barriers: {:.2} parallel regions a token, {:.2} a layer; one in which threads only meet takes {:.2} µs, \
             all of them {:.1}% of the time\n",
            phase.name(),
            regions.per_token,
            regions.per_layer,
            regions.empty_seconds * 1e6,
            regions.share * 100.0,
        )?;
    }
    Ok(text)
}

fn table(rows: &[BenchRow]) -> String {
    let header = [
        "shape",
        "format",
        "isa",
        "threads",
        "phase",
        "tokens",
        "depth",
        "tok/s",
        "GB/s",
        "left out",
        "of roofline",
        "in turn",
        "MiB",
        "peak MiB",
    ];
    let percent = |share: f64| format!("{:.0}%", 100.0 * share);
    let mib = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |b| (b >> 20).to_string());
    let cells = |row: &BenchRow| {
        vec![
            row.shape.clone(),
            row.format.to_owned(),
            row.isa.to_owned(),
            row.threads.to_string(),
            row.phase.name().to_owned(),
            row.tokens.to_string(),
            row.depth.to_string(),
            format!("{:.1}", row.tok_s),
            format!("{:.2}", row.gb_s),
            percent(row.left_out),
            percent(row.roofline_share),
            row.roofline_share_in_turn
                .map_or_else(|| "-".to_owned(), percent),
            mib(row.rss_bytes),
            mib(row.peak_bytes),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    output::table(&header, &rows)
}
