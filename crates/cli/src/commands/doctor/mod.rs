//! `tritburn doctor`.

mod gpu;
mod host;
mod numa;

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use tritburn_nn::device::DeviceKind;

use crate::{commit, output};
use gpu::Gpu;
use host::{Cpu, Memory, Os};
use numa::Placement;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// All that is known.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    git_hash: Option<String>,
    os: Os,
    cpu: Cpu,
    memory: Memory,
    numa: Placement,
    kernels: Kernels,
    gpu: Gpu,
    devices: Vec<Device>,
    caches: Vec<Cache>,
}

/// Kernels of the engine.
#[derive(Debug, Serialize)]
struct Kernels {
    /// Those that this processor runs, best first.
    available: Vec<&'static str>,
    /// The one that is taken without `--kernel`.
    selected: Option<&'static str>,
    /// Why none is.
    problem: Option<String>,
}

/// A device that training can be asked to run on.
#[derive(Debug, Serialize)]
struct Device {
    name: &'static str,
    /// Whether this program was built with it.
    compiled: bool,
    /// Whether the machine has what it needs, as far as files tell.
    present: bool,
    /// What to do to use it.
    remedy: Option<&'static str>,
}

/// A folder that holds downloads.
#[derive(Debug, Serialize)]
struct Cache {
    name: &'static str,
    path: PathBuf,
    exists: bool,
}

/// Looks and reports.
pub(crate) fn run(args: Args) -> Result<()> {
    let report = Report::new();
    let text = if args.json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        report.text()
    };
    output::print(text)?;
    Ok(())
}

impl Report {
    fn new() -> Self {
        let gpu = Gpu::look();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            git_hash: commit::of_this_program(),
            os: Os::look(),
            cpu: Cpu::look(),
            memory: Memory::look(),
            numa: Placement::look(),
            kernels: Kernels::look(),
            devices: devices(&gpu),
            gpu,
            caches: caches(),
        }
    }

    fn text(&self) -> String {
        let path = |path: &Option<PathBuf>| {
            path.as_ref()
                .map_or_else(|| "not found".to_owned(), |path| path.display().to_string())
        };
        let bytes = |bytes: Option<u64>| {
            bytes.map_or_else(
                || "unknown".to_owned(),
                |bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
            )
        };
        let unknown = || "unknown".to_owned();
        let mut lines = vec![
            (
                "version",
                format!(
                    "{} ({})",
                    self.version,
                    self.git_hash.as_deref().unwrap_or("no commit")
                ),
            ),
            (
                "system",
                format!(
                    "{}, {}, {}",
                    self.os.name,
                    self.os.kernel.clone().unwrap_or_else(unknown),
                    self.os.arch
                ),
            ),
            ("processor", self.cpu.model.clone().unwrap_or_else(unknown)),
            ("threads", self.cpu.threads.to_string()),
            ("instruction sets", self.cpu.features.join(" ")),
            (
                "memory",
                format!(
                    "{}, {} available",
                    bytes(self.memory.total_bytes),
                    bytes(self.memory.available_bytes)
                ),
            ),
        ];
        if self.memory.limit_bytes.is_some() {
            lines.push(("memory limit", bytes(self.memory.limit_bytes)));
        }
        lines.extend(self.numa.lines());
        lines.push(("kernels", self.kernels.text()));
        lines.push((
            "NVIDIA driver",
            self.gpu
                .nvidia_driver
                .clone()
                .unwrap_or_else(|| "not found".into()),
        ));
        lines.extend(
            self.gpu
                .nvidia_gpus
                .iter()
                .map(|name| ("NVIDIA GPU", name.clone())),
        );
        lines.push(("libcuda", path(&self.gpu.libcuda)));
        lines.push(("libnvrtc", path(&self.gpu.libnvrtc)));
        lines.push(("Vulkan loader", path(&self.gpu.vulkan_loader)));
        let drivers: Vec<String> = self
            .gpu
            .vulkan_drivers
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        lines.push((
            "Vulkan drivers",
            if drivers.is_empty() {
                "not found".into()
            } else {
                drivers.join(" ")
            },
        ));
        for device in &self.devices {
            lines.push((
                "device",
                format!("{}: {}", device.name, device.remedy.unwrap_or("ready")),
            ));
        }
        for cache in &self.caches {
            let state = if cache.exists { "" } else { " (absent)" };
            lines.push((cache.name, format!("{}{state}", cache.path.display())));
        }
        lines
            .into_iter()
            .map(|(name, value)| format!("{name:<17} {value}\n"))
            .collect()
    }
}

impl Kernels {
    fn look() -> Self {
        let selected = tritburn_kernels::default_kernel();
        Self {
            available: tritburn_kernels::available()
                .iter()
                .map(|kernel| kernel.name())
                .collect(),
            problem: selected.as_ref().err().map(ToString::to_string),
            selected: selected.ok().map(|kernel| kernel.name()),
        }
    }

    fn text(&self) -> String {
        let mark = |name: &&'static str| {
            if Some(*name) == self.selected {
                format!("{name} (selected)")
            } else {
                (*name).to_owned()
            }
        };
        let names: Vec<String> = self.available.iter().map(mark).collect();
        match &self.problem {
            Some(problem) => format!("{}; {problem}", names.join(", ")),
            None => names.join(", "),
        }
    }
}

fn devices(gpu: &Gpu) -> Vec<Device> {
    let rows = [
        (DeviceKind::Cpu, true, "", ""),
        (DeviceKind::NdArray, true, "", ""),
        (
            DeviceKind::Wgpu,
            gpu.has_vulkan(),
            "not compiled in: build with --features wgpu",
            "no Vulkan driver found: install one, such as mesa-vulkan-drivers for the CPU",
        ),
        (
            DeviceKind::Cuda,
            gpu.libcuda.is_some(),
            "not compiled in: build with --features cuda",
            "no libcuda found: install the NVIDIA driver",
        ),
    ];
    rows.into_iter()
        .map(|(kind, present, build, install)| Device {
            name: kind.name(),
            compiled: kind.is_compiled(),
            present,
            remedy: match (kind.is_compiled(), present) {
                (true, true) => None,
                (false, _) => Some(build),
                (true, false) => Some(install),
            },
        })
        .collect()
}

/// Where the Hugging Face libraries keep downloads.
fn caches() -> Vec<Cache> {
    let var = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache_home = var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache")));
    let home = var("HF_HOME").or_else(|| Some(cache_home?.join("huggingface")));
    let hub = var("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub")));
    [("HF_HOME", home), ("HF_HUB_CACHE", hub)]
        .into_iter()
        .filter_map(|(name, path)| {
            let path = path?;
            Some(Cache {
                name,
                exists: path.is_dir(),
                path,
            })
        })
        .collect()
}
