//! One file per command, each with its arguments and its `run`.

pub(crate) mod bench;
pub(crate) mod bench_train;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod mnist;
pub(crate) mod perplexity;
pub(crate) mod plot;
#[cfg(feature = "hub")]
pub(crate) mod pull;
pub(crate) mod quickstart;
pub(crate) mod sample;
pub(crate) mod serve;
pub(crate) mod train;

use crate::args::Command;

/// Runs a command.
pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Quickstart(args) => quickstart::run(args),
        Command::Train(args) => train::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Perplexity(args) => perplexity::run(args),
        Command::Export(args) => export::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Bench(args) => bench::run(args),
        #[cfg(feature = "hub")]
        Command::Pull(args) => pull::run(&args),
        Command::Data(args) => data::run(args),
        Command::Plot(args) => plot::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(args),
    }
}
