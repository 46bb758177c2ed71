//! How the engine runs: arguments that several commands share.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context;
use tritburn_engine::{Engine, EngineOptions, Format, HeadFormat, KvFormat, Numa};

/// Threads and kernel.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EngineArgs {
    /// Threads to compute with [default: one for each core of those nodes that --numa chooses]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Where threads run on a machine with several NUMA nodes: auto (on one socket, on all nodes where
    /// more threads are asked for than it has cores), isolate (on the node with most cores), distribute
    /// (on all nodes) or off (anywhere)
    #[arg(long, value_name = "NAME", default_value = Numa::Auto.name(), value_parser = numa)]
    pub(crate) numa: Numa,
    /// Kernel by name, as `tritburn doctor` lists them [default: TRITBURN_KERNEL, else the best]
    #[arg(long, value_name = "NAME")]
    pub(crate) kernel: Option<String>,
    /// How keys and values are stored: f32, f16, int8, int4 or int3 [default: what the model was
    /// trained with, else f16 for ternary models and f32 for others]
    #[arg(long, value_name = "NAME", value_parser = kv_format)]
    pub(crate) kv_cache_dtype: Option<KvFormat>,
    /// How ternary weights are packed: 2bit, base3 (five weights a byte: less memory traffic, more
    /// arithmetic) or lookup (tables of pairs)
    #[arg(long, value_name = "NAME", default_value = Format::default().name(), value_parser = format)]
    pub(crate) format: Format,
    /// How output head and embedding are stored: int6, int8 or f32 [default: int6 for ternary models,
    /// f32 for others]
    #[arg(long, value_name = "NAME", value_parser = head)]
    pub(crate) head: Option<HeadFormat>,
}

/// A format of output head and embedding by name.
pub(crate) fn head(name: &str) -> Result<HeadFormat, String> {
    let known = HeadFormat::ALL.into_iter().find(|f| f.name() == name);
    known.ok_or_else(|| {
        let names = HeadFormat::ALL.map(HeadFormat::name).join(", ");
        format!("no head format of this name; there are {names}")
    })
}

/// A packing of ternary weights by name.
pub(crate) fn format(name: &str) -> Result<Format, String> {
    Format::from_name(name).map_err(|e| e.to_string())
}

/// A placement of threads by name.
pub(crate) fn numa(name: &str) -> Result<Numa, String> {
    let known = Numa::ALL.into_iter().find(|n| n.name() == name);
    known.ok_or_else(|| {
        let names = Numa::ALL.map(Numa::name).join(", ");
        format!("no placement of this name; there are {names}")
    })
}

/// A cache format by name.
pub(crate) fn kv_format(name: &str) -> Result<KvFormat, String> {
    let known = KvFormat::ALL.into_iter().find(|f| f.name() == name);
    known.ok_or_else(|| {
        let names = KvFormat::ALL.map(KvFormat::name).join(", ");
        format!("no cache format of this name; there are {names}")
    })
}

impl EngineArgs {
    /// The engine's own form.
    pub(crate) fn options(&self) -> EngineOptions {
        EngineOptions {
            threads: self.threads.map(NonZeroUsize::get),
            numa: self.numa,
            kernel: self.kernel.clone(),
            format: self.format,
            head: self.head,
            kv: self.kv_cache_dtype,
            ..EngineOptions::default()
        }
    }

    /// Loads a model folder.
    pub(crate) fn load(&self, folder: &Path) -> anyhow::Result<Engine> {
        Engine::load(folder, self.options())
            .with_context(|| format!("cannot load the model in {}", folder.display()))
    }
}
