//! The command line.

use clap::{Parser, Subcommand};

use crate::commands;

/// Ternary language models from parquet files to a server.
#[derive(Debug, Parser)]
#[command(name = "tritburn", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Log more: -v what happens, -vv how; RUST_LOG chooses finer where this is not given
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Teacher, baseline and BitDistill on the embedded data, exported, served and asked once
    Quickstart(commands::quickstart::Args),
    /// Run a recipe
    Train(commands::train::Args),
    /// Accuracy, F1, Matthews correlation, or ROUGE and BLEU of a model on a task
    Eval(commands::eval::Args),
    /// Test whether two evaluated models differ, row by row
    Compare(commands::compare::Args),
    /// Perplexity of a model on running text
    Perplexity(commands::perplexity::Args),
    /// Write a run as a folder that the engine and others load
    Export(commands::export::Args),
    /// Draw images with a trained diffusion transformer
    Sample(commands::sample::Args),
    /// Continue a prompt
    Generate(commands::generate::Args),
    /// Serve a model over HTTP, as the OpenAI API does
    Serve(commands::serve::Args),
    /// Measure the speed of a model, or of a known shape
    Bench(commands::bench::Args),
    /// Download a model of the Hugging Face hub
    #[cfg(feature = "hub")]
    Pull(commands::pull::Args),
    /// Generate and look at data
    Data(commands::data::Args),
    /// Draw a run's curves as SVG
    Plot(commands::plot::Args),
    /// What this machine and this build can do
    Doctor(commands::doctor::Args),
    /// Print a completion script for a shell
    Completions(commands::completions::Args),
}
