//! Which threads run near which memory.

use std::cmp::Reverse;

use super::topology::{Node, Topology};
use crate::pool::MAX_THREADS;

/// How threads are spread over the nodes of a machine. Where there is one node, or the system does not
/// tell, nothing is bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Numa {
    /// Near each other, on the nodes of one socket; on all nodes where more threads are asked for than
    /// that has cores.
    Auto,
    /// All on the node with the most cores.
    Isolate,
    /// Over all nodes in turn, and with them the weights.
    Distribute,
    /// Nothing is bound.
    #[default]
    Off,
}

impl Numa {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Isolate, Self::Distribute, Self::Off];

    /// Name in options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Isolate => "isolate",
            Self::Distribute => "distribute",
            Self::Off => "off",
        }
    }
}

/// How many threads there are, and near which node each runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement<'a> {
    threads: usize,
    /// Of each thread; empty where nothing is bound.
    homes: Vec<&'a Node>,
}

impl<'a> Placement<'a> {
    /// Threads that run where the system lets them.
    #[must_use]
    pub fn unbound(threads: usize) -> Self {
        Self {
            threads,
            homes: Vec::new(),
        }
    }

    /// Number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The node that thread `i` is bound to, if any.
    #[must_use]
    pub fn home(&self, i: usize) -> Option<&'a Node> {
        self.homes.get(i).copied()
    }

    /// Numbers of the nodes that threads are bound to, in order; empty where nothing is bound.
    #[must_use]
    pub fn nodes(&self) -> Vec<usize> {
        let mut ids: Vec<usize> = self.homes.iter().map(|node| node.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

impl Topology {
    /// Places `threads`, by default one for each core that is used.
    #[must_use]
    pub fn place(&self, threads: Option<usize>, numa: Numa) -> Placement<'_> {
        let nodes = self.nodes();
        if nodes.len() < 2 || numa == Numa::Off {
            return Placement::unbound(threads.unwrap_or(self.threads().min(MAX_THREADS)));
        }
        let cores = |nodes: &[&Node]| nodes.iter().map(|node| node.cores).sum::<usize>();
        let socket = |node: &Node| -> Vec<&Node> {
            let near = nodes.iter().filter(|other| node.near.contains(&other.id));
            near.collect()
        };
        // Those in which the weights could not lie come last; of equals, the first.
        let best = |size: &dyn Fn(&Node) -> usize| {
            nodes
                .iter()
                .max_by_key(|node| (node.memory, size(node), Reverse(node.id)))
        };
        let mut used: Vec<&Node> = match numa {
            Numa::Isolate => best(&|node| node.cores).into_iter().collect(),
            Numa::Auto => best(&|node| cores(&socket(node))).map_or_else(Vec::new, socket),
            Numa::Distribute | Numa::Off => nodes.iter().collect(),
        };
        if numa == Numa::Auto && threads.is_some_and(|threads| threads > cores(&used)) {
            used = nodes.iter().collect();
        }
        let threads = threads.unwrap_or(self.threads().min(cores(&used)).min(MAX_THREADS));
        let mut taken = vec![0; used.len()];
        let homes = (0..threads).filter_map(|_| {
            let free = |i: &usize| (used[*i].cores as isize - taken[*i], Reverse(*i));
            let i = (0..used.len()).max_by_key(free)?;
            taken[i] += 1;
            Some(used[i])
        });
        let homes = homes.collect();
        Placement { threads, homes }
    }
}
