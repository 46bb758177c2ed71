//! Data on stdout, talk on stderr.

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::path::Path;

use anyhow::Context;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;
use tracing_subscriber::EnvFilter;
use tritburn_engine::Engine;
use tritburn_engine::bench::rss_bytes;
use tritburn_quant::fs::write_atomic;

/// Sends log lines to stderr: those that `-v` asks for, else those of `RUST_LOG`, else warnings.
pub(crate) fn start_log(verbose: u8) {
    let from_env = match verbose {
        0 => EnvFilter::try_from_default_env().ok(),
        _ => None,
    };
    let level = ["warn", "info", "debug", "trace"][usize::from(verbose.min(3))];
    tracing_subscriber::fmt()
        .with_env_filter(from_env.unwrap_or_else(|| EnvFilter::new(level)))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // A closed stderr is no reason to fail.
        .log_internal_errors(false)
        .init();
}

/// Writes data to stdout at once.
pub(crate) fn print(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// What a loaded model takes: its weights, and all that the process has in memory where the system
/// tells.
pub(crate) fn memory(engine: &Engine) -> String {
    let weights = HumanBytes(engine.info().weights_bytes as u64);
    match rss_bytes() {
        Some(resident) => format!(
            "memory: {} resident, weights {weights}",
            HumanBytes(resident)
        ),
        None => format!("memory: weights {weights}"),
    }
}

/// Writes a line to stderr; that nobody reads it is no error.
pub(crate) fn say(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether the reader of stdout went away.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// An error and its causes, a line each. A cause whose words are already there is left out.
pub(crate) fn report(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            let _ = write!(text, "\n  caused by: {cause}");
        }
    }
    text
}

/// Replaces `path` by indented JSON, making its folder where needed.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write_file(path, text.as_bytes())
}

/// Replaces `path`, making its folder where needed.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    Ok(write_atomic(path, bytes)?)
}

/// A bar on stderr with the time left; invisible where stderr is no terminal.
pub(crate) fn progress(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_message(what);
    match ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A bar on stderr for a file that comes from elsewhere.
#[cfg(feature = "hub")]
pub(crate) fn bytes_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template(
        "{msg} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
    ) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Columns in line: the first to the left, the others to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(header[column].chars().count())
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let header: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["é", "10"], ["long", "2"]].map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(
            table(&["name", "n"], &rows),
            "name   n\né     10\nlong   2\n"
        );
    }

    #[test]
    fn causes_are_told_once() {
        let inner = io::Error::other("the disk is full");
        let error = anyhow::Error::new(inner).context("writing x: the disk is full");
        assert_eq!(report(&error), "error: writing x: the disk is full");
        let error = error.context("cannot save");
        let lines = "error: cannot save\n  caused by: writing x: the disk is full";
        assert_eq!(report(&error), lines);
        assert!(!is_broken_pipe(&error));
        let pipe = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_broken_pipe(&pipe.context("cannot print")));
    }
}
