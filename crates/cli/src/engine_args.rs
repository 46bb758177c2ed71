//! How the engine runs: arguments that several commands share.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context;
use tritburn_engine::{Engine, EngineOptions, Format};

/// Threads and kernel.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EngineArgs {
    /// Threads to compute with [default: all that the machine has]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Kernel by name, as `tritburn doctor` lists them [default: TRITBURN_KERNEL, else the best]
    #[arg(long, value_name = "NAME")]
    pub(crate) kernel: Option<String>,
    /// How ternary weights are packed: 2bit, or base3 (five weights a byte: less memory traffic,
    /// more arithmetic)
    #[arg(long, value_name = "NAME", default_value = Format::default().name(), value_parser = format)]
    pub(crate) format: Format,
}

/// A packing of ternary weights by name.
pub(crate) fn format(name: &str) -> Result<Format, String> {
    Format::from_name(name).map_err(|e| e.to_string())
}

impl EngineArgs {
    /// The engine's own form.
    pub(crate) fn options(&self) -> EngineOptions {
        EngineOptions {
            threads: self.threads.map(NonZeroUsize::get),
            kernel: self.kernel.clone(),
            format: self.format,
            ..EngineOptions::default()
        }
    }

    /// Loads a model folder.
    pub(crate) fn load(&self, folder: &Path) -> anyhow::Result<Engine> {
        Engine::load(folder, self.options())
            .with_context(|| format!("cannot load the model in {}", folder.display()))
    }
}
