//! The `tritburn` command: arguments, logging, and exit codes (0 done, 1 failed, 2 wrong usage).

mod args;
mod commands;
mod commit;
mod engine_args;
mod http;
#[cfg(feature = "hub")]
mod hub;
mod metrics;
mod model_path;
mod output;
mod png_grid;
mod progress;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use tritburn_kernels::LargePages;

/// Training frees and takes the same large blocks at every step; the system's allocator gives them
/// back and has them zeroed again each time. Of large pages for everything a server's threads would
/// hold several each.
#[global_allocator]
static ALLOCATOR: LargePages<MiMalloc> = LargePages(MiMalloc);

fn main() -> ExitCode {
    // Wrong usage ends here with code 2.
    let cli = args::Cli::parse();
    output::start_log(cli.verbose);
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has seen enough, as `head` does.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::say(output::report(&error));
            ExitCode::FAILURE
        }
    }
}
