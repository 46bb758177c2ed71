//! Processors, cores and memory of the machine, as far as this process may use them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use super::affinity;

/// Where Linux tells.
const SYSTEM: &str = "/sys/devices/system";
/// Nodes nearer than this share a socket: firmware gives 10 for a node itself and 20 or more for
/// another socket, and 11 to 16 for another part of one that was divided.
const OTHER_SOCKET: u32 = 20;

/// Processors with memory of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The system's number.
    pub id: usize,
    /// Processors that this process may use; at least one.
    pub cpus: BTreeSet<usize>,
    /// Cores among them: processors that share one count once.
    pub cores: usize,
    /// Whether this process gets memory here.
    pub memory: bool,
    /// Numbers of the nodes of the same socket, this one among them.
    pub near: BTreeSet<usize>,
}

/// What this process may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    nodes: Vec<Node>,
    threads: usize,
}

/// What bounds a process on a machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounds {
    /// Processors; `None` where the system does not tell.
    pub(super) cpus: Option<BTreeSet<usize>>,
    /// Nodes to take memory from; `None` where the system does not tell.
    pub(super) memory: Option<BTreeSet<usize>>,
    /// Threads that run at a time.
    pub(super) threads: usize,
}

impl Topology {
    /// Of this machine, as it was when it was first asked for: later the calling thread may be bound.
    #[must_use]
    pub fn of_system() -> &'static Self {
        static TOPOLOGY: OnceLock<Topology> = OnceLock::new();
        TOPOLOGY.get_or_init(|| {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let memory = status
                .lines()
                .find_map(|line| numbers(line.strip_prefix("Mems_allowed_list:")?));
            let bounds = Bounds {
                cpus: affinity::allowed(),
                memory,
                threads: std::thread::available_parallelism().map_or(1, usize::from),
            };
            Self::read(Path::new(SYSTEM), &bounds)
        })
    }

    /// From a tree like `/sys/devices/system`. What is missing there is not known: no file is needed.
    pub(super) fn read(root: &Path, bounds: &Bounds) -> Self {
        let list = |path: &str| numbers(&std::fs::read_to_string(root.join(path)).ok()?);
        let cpus = bounds.cpus.clone().or_else(|| list("cpu/online"));
        let cpus = cpus.unwrap_or_default();
        let cores = cores(root, &cpus);
        let threads = match cores {
            0 => bounds.threads,
            _ => bounds.threads.min(cores),
        };
        let mut topology = Self {
            nodes: Vec::new(),
            threads: threads.max(1),
        };
        // Without the mask there is no telling where the process may be bound to.
        if bounds.cpus.is_none() {
            return topology;
        }
        let online = list("node/online").unwrap_or_default();
        let with_memory = list("node/has_memory").unwrap_or_else(|| online.clone());
        for &id in &online {
            let own = list(&format!("node/node{id}/cpulist")).unwrap_or_default();
            let own: BTreeSet<usize> = own.intersection(&cpus).copied().collect();
            if own.is_empty() {
                continue;
            }
            let distances = root.join(format!("node/node{id}/distance"));
            let distances = std::fs::read_to_string(distances).unwrap_or_default();
            // A number for each node that is online, in their order.
            let near = online.iter().zip(distances.split_whitespace());
            let near = near.filter(|(_, d)| d.parse().is_ok_and(|d: u32| d < OTHER_SOCKET));
            topology.nodes.push(Node {
                id,
                cores: self::cores(root, &own),
                cpus: own,
                memory: with_memory.contains(&id)
                    && bounds.memory.as_ref().is_none_or(|m| m.contains(&id)),
                near: near.map(|(other, _)| *other).chain([id]).collect(),
            });
        }
        topology
    }

    /// Nodes with processors that this process may use, by number; none where the system does not tell.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Threads that pay: one for each core that this process may use, at least one. Two threads of one
    /// core share its vector units, which the kernels fill.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }
}

/// Cores of `cpus`: processors with the same siblings are one, those without known siblings each.
fn cores(root: &Path, cpus: &BTreeSet<usize>) -> usize {
    let siblings = |cpu: &usize| {
        let path = format!("cpu/cpu{cpu}/topology/thread_siblings_list");
        let text = std::fs::read_to_string(root.join(path)).ok();
        let known = text.and_then(|text| numbers(&text));
        known.unwrap_or_else(|| BTreeSet::from([*cpu]))
    };
    let cores: BTreeSet<BTreeSet<usize>> = cpus.iter().map(siblings).collect();
    cores.len()
}

/// A list as the system writes it, such as `0-3,8`; `None` where it is none, and none are in an empty one.
fn numbers(text: &str) -> Option<BTreeSet<usize>> {
    /// More than any system has; a range up to here is no mistake.
    const MOST: usize = 1 << 16;
    let mut all = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}
