//! `tritburn data`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tritburn_data::stream::{PrepareReport, PrepareSetup, prepare_shards};
use tritburn_data::{
    DataError, Label, RowReader, SplitFiles, Tokenizer, column_names, count_rows, synth,
};

use super::mnist;
use crate::output;

/// Longest text shown of a cell, in characters.
const CELL: usize = 60;

/// Arguments of `data`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Generate the embedded data sets: mnli, sst2, refinedweb and digits
    Synth {
        /// Folder to write to
        #[arg(long, value_name = "DIR", default_value = "data")]
        out: PathBuf,
        /// Seed; the default gives the files of the repository
        #[arg(long, value_name = "N", default_value_t = synth::SEED)]
        seed: u64,
    },
    /// Tokenise a corpus once, for runs whose data.corpus or data.stream.shards names the folder;
    /// what is there and still fits its sources is kept
    Prepare {
        /// Parquet files, folders of them, or patterns such as 'web/*.parquet'
        #[arg(required = true)]
        shards: Vec<String>,
        /// tokenizer.json, or a folder that holds it: a run's, a model's
        #[arg(long, value_name = "PATH")]
        tokenizer: PathBuf,
        /// Folder to write to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Split of a folder
        #[arg(long, default_value = "train")]
        split: String,
        /// Text column [default: content or text]
        #[arg(long, value_name = "NAME")]
        column: Option<String>,
    },
    /// Fetch MNIST's IDX files; what is there is not fetched again
    Mnist(mnist::Args),
    /// Show columns and first rows of a data set
    Inspect {
        /// Parquet file, or folder of such files
        path: PathBuf,
        /// Split of a folder
        #[arg(long, default_value = "train")]
        split: String,
        /// Rows to show
        #[arg(long, value_name = "N", default_value_t = 3)]
        rows: usize,
    },
}

/// Does it.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.what {
        What::Synth { out, seed } => {
            let mut written = synth::write_all(&out, seed)?;
            written.extend(synth::write_digits(&out, seed)?);
            let lines: String = written
                .iter()
                .map(|path| format!("{}\n", path.display()))
                .collect();
            output::print(lines)?;
        }
        What::Prepare {
            shards,
            tokenizer,
            out,
            split,
            column,
        } => {
            let setup = PrepareSetup {
                inputs: &shards,
                split: &split,
                column: column.as_deref(),
                tokenizer: &Tokenizer::load(&tokenizer)?,
                out: &out,
            };
            output::print(prepare(&setup)?)?;
        }
        What::Mnist(args) => mnist::run(args)?,
        What::Inspect { path, split, rows } => output::print(inspect(&path, &split, rows)?)?,
    }
    Ok(())
}

fn prepare(setup: &PrepareSetup<'_>) -> Result<String> {
    let mut rows = Vec::new();
    prepare_shards(setup, &mut |report: &PrepareReport| {
        let speed = |amount: u64| format!("{:.2}", amount as f64 / report.seconds / 1e6);
        let made = |text: String| if report.kept { "kept".to_owned() } else { text };
        output::say(format_args!("{} done", report.source.display()));
        rows.push(vec![
            report.source.display().to_string(),
            report.documents.to_string(),
            report.tokens.to_string(),
            made(speed(report.tokens)),
            made(speed(report.text_bytes)),
        ]);
    })?;
    let header = ["shard", "documents", "tokens", "Mtok/s", "MB/s"];
    Ok(output::table(&header, &rows))
}

/// A column as far as tasks and corpora can use it.
struct Column {
    name: String,
    kind: String,
    cells: Vec<String>,
}

fn inspect(path: &Path, split: &str, rows: usize) -> Result<String> {
    let files = SplitFiles::find(path, split)?.files;
    let mut columns = Vec::new();
    for name in column_names(&files[0])? {
        columns.push(read_column(&files, name, rows)?);
    }
    let mut text = String::new();
    for file in &files {
        let count = count_rows(std::slice::from_ref(file))?;
        text.push_str(&format!("{}: {count} rows\n", file.display()));
    }
    let kinds: Vec<Vec<String>> = columns
        .iter()
        .map(|column| vec![column.name.clone(), column.kind.clone()])
        .collect();
    text.push_str(&format!("\n{}", output::table(&["column", "type"], &kinds)));
    let shown = columns
        .iter()
        .map(|column| column.cells.len())
        .max()
        .unwrap_or(0);
    for row in 0..shown {
        text.push_str(&format!("\nrow {row}\n"));
        for column in &columns {
            if let Some(cell) = column.cells.get(row) {
                text.push_str(&format!("  {}: {cell}\n", column.name));
            }
        }
    }
    Ok(text)
}

/// Text and integers, which a label column may hold, are shown; of others the type alone.
fn read_column(files: &[PathBuf], name: String, rows: usize) -> Result<Column> {
    let reader = match RowReader::open(files, &[], Some(&name)) {
        Ok(reader) => reader,
        Err(DataError::WrongType { found, .. }) => {
            return Ok(Column {
                name,
                kind: found,
                cells: Vec::new(),
            });
        }
        Err(error) => return Err(error.into()),
    };
    let mut kind = "";
    let mut cells = Vec::new();
    for row in reader.take(rows) {
        match row {
            Ok(row) => match row.label {
                Some(Label::Int(number)) => {
                    kind = "integer";
                    cells.push(number.to_string());
                }
                Some(Label::Text(text)) => {
                    kind = "text";
                    cells.push(shorten(&text));
                }
                None => {}
            },
            Err(error @ (DataError::Null { .. } | DataError::NotUtf8 { .. })) => {
                cells.push(format!("({error})"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Column {
        name,
        kind: kind.to_owned(),
        cells,
    })
}

/// One line of limited length.
fn shorten(text: &str) -> String {
    let line = text.escape_debug().to_string();
    match line.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
