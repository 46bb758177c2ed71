//! System, processor and memory.

use serde::Serialize;

/// The operating system.
#[derive(Debug, Serialize)]
pub(super) struct Os {
    /// Name and version.
    pub(super) name: String,
    /// Version of the kernel.
    pub(super) kernel: Option<String>,
    /// Architecture that the program was built for.
    pub(super) arch: &'static str,
}

impl Os {
    pub(super) fn look() -> Self {
        let release = read("/etc/os-release").unwrap_or_default();
        let name = release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Self {
            name: name
                .map_or(std::env::consts::OS, |name| name.trim_matches('"'))
                .to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
            arch: std::env::consts::ARCH,
        }
    }
}

/// The processor.
#[derive(Debug, Serialize)]
pub(super) struct Cpu {
    /// Its name.
    pub(super) model: Option<String>,
    /// Threads that this process may use.
    pub(super) threads: usize,
    /// Instruction sets that matter here.
    pub(super) features: Vec<&'static str>,
}

impl Cpu {
    pub(super) fn look() -> Self {
        let info = read("/proc/cpuinfo").unwrap_or_default();
        Self {
            model: field(&info, "model name"),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            features: features(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    use std::arch::is_x86_feature_detected as has;
    let all = [
        ("avx", has!("avx")),
        ("avx2", has!("avx2")),
        ("fma", has!("fma")),
        ("f16c", has!("f16c")),
        ("avxvnni", has!("avxvnni")),
        ("avx512f", has!("avx512f")),
        ("avx512bw", has!("avx512bw")),
        ("avx512vl", has!("avx512vl")),
        ("avx512vbmi", has!("avx512vbmi")),
        ("avx512vnni", has!("avx512vnni")),
        ("avx512bf16", has!("avx512bf16")),
    ];
    all.into_iter()
        .filter_map(|(name, has)| has.then_some(name))
        .collect()
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    use std::arch::is_aarch64_feature_detected as has;
    let all = [
        ("neon", has!("neon")),
        ("dotprod", has!("dotprod")),
        ("i8mm", has!("i8mm")),
        ("sve", has!("sve")),
    ];
    all.into_iter()
        .filter_map(|(name, has)| has.then_some(name))
        .collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

/// Memory in bytes; `None` where the system does not tell.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    /// Of the machine.
    pub(super) total_bytes: Option<u64>,
    /// Free, or freed when asked for.
    pub(super) available_bytes: Option<u64>,
    /// Most that this process may take, where it is in a group with a limit.
    pub(super) limit_bytes: Option<u64>,
}

impl Memory {
    pub(super) fn look() -> Self {
        let info = read("/proc/meminfo").unwrap_or_default();
        let bytes = |name| {
            let kib: u64 = field(&info, name)?
                .strip_suffix("kB")?
                .trim()
                .parse()
                .ok()?;
            Some(kib * 1024)
        };
        let limit = read("/sys/fs/cgroup/memory.max");
        Self {
            total_bytes: bytes("MemTotal"),
            available_bytes: bytes("MemAvailable"),
            // The word `max` stands for no limit.
            limit_bytes: limit.and_then(|text| text.trim().parse().ok()),
        }
    }
}

/// Value of the first line `name : value`.
pub(super) fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

pub(super) fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}
