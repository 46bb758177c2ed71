//! `tritburn perplexity`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use serde::Serialize;
use tritburn_data::read_corpus;
use tritburn_eval::{EngineScorer, PerplexityReport, Windows, perplexity};

use crate::engine_args::EngineArgs;
use crate::{model_path, output};

/// Tokens of a window where none are asked for and the model has room for them.
const WINDOW: usize = 2048;
/// Bytes read for each of `--limit-docs` at first.
const BYTES_PER_DOCUMENT: usize = 1 << 13;

/// Arguments of `perplexity`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of an export, a run, a stage or a checkpoint
    model: PathBuf,
    /// Parquet file with a text column, or folder of such files
    #[arg(long, value_name = "PARQUET")]
    data: PathBuf,
    /// Split of a folder
    #[arg(long, default_value = "validation")]
    split: String,
    /// Text column [default: content or text]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Most documents to read
    #[arg(long, value_name = "N")]
    limit_docs: Option<usize>,
    /// Tokens that the model sees at once [default: its context, at most 2048]
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// Tokens scored per window [default: all but one]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Also write the report to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a Path,
    data: &'a Path,
    split: &'a str,
    #[serde(flatten)]
    report: PerplexityReport,
    seconds: f64,
}

/// Measures and reports.
pub(crate) fn run(args: Args) -> Result<()> {
    let folder = model_path::resolve(&args.model)?;
    let documents = documents(&args)?;
    let engine = args.engine.load(&folder)?;
    let tokenizer = model_path::tokenizer(&folder)?;
    let context = engine.config().max_position_embeddings;
    let window = args.window.unwrap_or_else(|| context.min(WINDOW));
    if window > context {
        bail!("--window {window} is longer than the model's context; give at most {context}");
    }
    let windows = Windows {
        stride: args.stride.unwrap_or(Windows::disjoint(window).stride),
        window,
    };
    let start = Instant::now();
    let bar = output::progress("documents");
    let report = perplexity(
        &mut EngineScorer::new(&engine),
        &tokenizer,
        &documents,
        windows,
        &mut |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        },
    )?;
    bar.finish_and_clear();
    if let Some(path) = &args.json {
        let whole = Report {
            model: &args.model,
            data: &args.data,
            split: &args.split,
            report,
            seconds: start.elapsed().as_secs_f64(),
        };
        output::write_json(path, &whole)?;
    }
    let row = vec![
        model_path::name(&args.model),
        report.documents.to_string(),
        report.tokens.to_string(),
        format!("{:.3}", report.ppl),
        format!("{:.4}", report.bits_per_byte),
    ];
    let header = ["model", "documents", "tokens", "perplexity", "bits/byte"];
    output::print(output::table(&header, &[row]))?;
    Ok(())
}

/// Reads no more of a large corpus than the limit needs.
fn documents(args: &Args) -> Result<Vec<String>> {
    let read = |bytes| read_corpus(&args.data, &args.split, args.column.as_deref(), bytes);
    let Some(limit) = args.limit_docs else {
        return Ok(read(None)?);
    };
    if limit == 0 {
        bail!("--limit-docs 0 leaves nothing to score; give at least 1");
    }
    let mut bytes = limit.saturating_mul(BYTES_PER_DOCUMENT);
    loop {
        let mut documents = read(Some(bytes))?;
        let all_read = documents.iter().map(String::len).sum::<usize>() < bytes;
        if all_read || documents.len() >= limit {
            documents.truncate(limit);
            return Ok(documents);
        }
        bytes = bytes.saturating_mul(4);
    }
}
