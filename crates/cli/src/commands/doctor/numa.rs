//! NUMA nodes, and where the engine's threads run on them.

use serde::Serialize;
use tritburn_engine::Numa;
use tritburn_kernels::numa::{Node, Topology};

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Placement {
    /// Nodes with processors that this process may use; none where the system does not tell.
    nodes: Vec<Memory>,
    /// Threads of the engine without `--threads` and `--numa`.
    threads: usize,
    /// Numbers of the nodes that they are bound to; empty where nothing is bound.
    bound_to: Vec<usize>,
}

/// One node.
#[derive(Debug, Serialize)]
struct Memory {
    id: usize,
    cores: usize,
    cpus: Vec<usize>,
    /// Whether this process gets memory there.
    memory: bool,
}

impl Placement {
    pub(super) fn look() -> Self {
        let topology = Topology::of_system();
        let placement = topology.place(None, Numa::Auto);
        let memory = |node: &Node| Memory {
            id: node.id,
            cores: node.cores,
            cpus: node.cpus.iter().copied().collect(),
            memory: node.memory,
        };
        Self {
            nodes: topology.nodes().iter().map(memory).collect(),
            threads: placement.threads(),
            bound_to: placement.nodes(),
        }
    }

    /// A line for each node, and one for the threads.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let node = |node: &Memory| {
            let memory = if node.memory { "" } else { ", no memory" };
            let (id, cores, cpus) = (node.id, node.cores, ranges(&node.cpus));
            let text = format!("{id}: {cores} cores, processors {cpus}{memory}");
            ("NUMA node", text)
        };
        let bound = match self.bound_to.as_slice() {
            [] => "not bound".to_owned(),
            nodes => format!("bound to nodes {}", ranges(nodes)),
        };
        let threads = format!("{}, {bound}", self.threads);
        let nodes = self.nodes.iter().map(node);
        nodes.chain([("engine threads", threads)]).collect()
    }
}

/// Numbers in order as `0-3,8`.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let text = runs.map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        _ => run.iter().map(usize::to_string).collect(),
    });
    text.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_nodes_and_threads() {
        let node = |id, cpus, memory| Memory {
            id,
            cores: 4,
            cpus,
            memory,
        };
        let mut placement = Placement {
            nodes: vec![
                node(0, vec![0, 1, 2, 3, 8, 10, 11], true),
                node(2, vec![4, 5, 6, 7], false),
            ],
            threads: 4,
            bound_to: vec![0],
        };
        let want = [
            ("NUMA node", "0: 4 cores, processors 0-3,8,10-11"),
            ("NUMA node", "2: 4 cores, processors 4-7, no memory"),
            ("engine threads", "4, bound to nodes 0"),
        ];
        assert_eq!(
            placement.lines(),
            want.map(|(name, text)| (name, text.to_owned()))
        );
        placement.bound_to.clear();
        assert_eq!(
            placement.lines()[2],
            ("engine threads", "4, not bound".to_owned())
        );
    }
}
