//! Machines as trees of files, and where threads run on them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::topology::Bounds;
use super::*;

/// A machine whose core `c` has the processors `c` and `c + cores`, with its nodes' cores in runs.
struct Machine {
    root: tempfile::TempDir,
    cores: usize,
}

impl Machine {
    /// `nodes` cores each; `sockets` have the same number of nodes.
    fn new(nodes: &[usize], sockets: usize) -> Self {
        let root = tempfile::tempdir().unwrap();
        let cores: usize = nodes.iter().sum();
        let machine = Self { root, cores };
        machine.write("cpu/online", &format!("0-{}\n", 2 * cores - 1));
        for c in 0..cores {
            for cpu in [c, c + cores] {
                machine.write(
                    &format!("cpu/cpu{cpu}/topology/thread_siblings_list"),
                    &format!("{c},{}\n", c + cores),
                );
            }
        }
        machine.write("node/online", &format!("0-{}\n", nodes.len() - 1));
        machine.write("node/has_memory", &format!("0-{}\n", nodes.len() - 1));
        let mut first = 0;
        for (id, n) in nodes.iter().enumerate() {
            let last = first + n - 1;
            machine.write(
                &format!("node/node{id}/cpulist"),
                &format!("{first}-{last},{}-{}\n", first + cores, last + cores),
            );
            first += n;
            let of = |node: usize| node * sockets / nodes.len();
            let distance = |other| match () {
                () if other == id => "10",
                () if of(other) == of(id) => "12",
                () => "32",
            };
            let all: Vec<&str> = (0..nodes.len()).map(distance).collect();
            machine.write(&format!("node/node{id}/distance"), &(all.join(" ") + "\n"));
        }
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.root.path().join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    /// As a process sees it that may use every processor.
    fn topology(&self) -> Topology {
        self.topology_of(0..2 * self.cores)
    }

    /// As one sees it that may use some.
    fn topology_of(&self, cpus: impl IntoIterator<Item = usize>) -> Topology {
        let cpus: BTreeSet<usize> = cpus.into_iter().collect();
        Topology::read(
            self.root.path(),
            &Bounds {
                threads: cpus.len(),
                cpus: Some(cpus),
                memory: None,
            },
        )
    }
}

/// Threads on each node, by the node's number.
fn spread(topology: &Topology, threads: Option<usize>, numa: Numa) -> Vec<(usize, usize)> {
    let placement = topology.place(threads, numa);
    let homes = (0..placement.threads()).map(|i| placement.home(i).unwrap().id);
    let homes: Vec<usize> = homes.collect();
    let of = |id: usize| (id, homes.iter().filter(|home| **home == id).count());
    placement.nodes().into_iter().map(of).collect()
}

fn is_unbound(topology: &Topology, threads: usize) {
    for numa in Numa::ALL {
        let own = topology.place(None, numa);
        assert_eq!(own, Placement::unbound(threads), "{numa:?}");
        assert!(own.nodes().is_empty());
        let asked = topology.place(Some(7), numa);
        assert_eq!(asked, Placement::unbound(7), "{numa:?}");
    }
}

#[test]
fn nodes_have_their_processors_and_cores() {
    let topology = Machine::new(&[4, 4], 2).topology();
    let cpus = |ranges: [std::ops::Range<usize>; 2]| ranges.into_iter().flatten().collect();
    let node = |id, cpus| Node {
        id,
        cpus,
        cores: 4,
        memory: true,
        near: [id].into(),
    };
    let want = [node(0, cpus([0..4, 8..12])), node(1, cpus([4..8, 12..16]))];
    assert_eq!(topology.nodes(), want);
    assert_eq!(topology.threads(), 8);
}

#[test]
fn one_node_binds_nothing() {
    is_unbound(&Machine::new(&[4], 1).topology(), 4);
    // Nor does one of two that a mask leaves.
    is_unbound(&Machine::new(&[4, 4], 2).topology_of(4..8), 4);
}

#[test]
fn threads_are_near_each_other_unless_there_are_too_many() {
    let two = Machine::new(&[4, 4], 2).topology();
    for numa in [Numa::Auto, Numa::Isolate] {
        assert_eq!(spread(&two, None, numa), [(0, 4)]);
        assert_eq!(spread(&two, Some(3), numa), [(0, 3)]);
    }
    assert_eq!(spread(&two, Some(5), Numa::Auto), [(0, 3), (1, 2)]);
    assert_eq!(spread(&two, Some(5), Numa::Isolate), [(0, 5)]);
    assert_eq!(spread(&two, None, Numa::Distribute), [(0, 4), (1, 4)]);
    assert_eq!(spread(&two, Some(3), Numa::Distribute), [(0, 2), (1, 1)]);
    assert_eq!(two.place(None, Numa::Off), Placement::unbound(8));
}

#[test]
fn a_divided_socket_is_used_as_a_whole() {
    let four = Machine::new(&[2, 2, 2, 2], 2).topology();
    assert_eq!(spread(&four, None, Numa::Auto), [(0, 2), (1, 2)]);
    assert_eq!(spread(&four, Some(5), Numa::Auto).len(), 4);
    assert_eq!(spread(&four, None, Numa::Isolate), [(0, 2)]);
    let one_socket = Machine::new(&[2, 2], 1).topology();
    assert_eq!(spread(&one_socket, None, Numa::Auto), [(0, 2), (1, 2)]);
}

#[test]
fn nodes_get_threads_as_they_have_cores() {
    let uneven = Machine::new(&[1, 5, 2], 3).topology();
    assert_eq!(spread(&uneven, None, Numa::Auto), [(1, 5)]);
    let all = [(0, 1), (1, 5), (2, 2)];
    assert_eq!(spread(&uneven, None, Numa::Distribute), all);
    // More threads than cores are spread on.
    let more = spread(&uneven, Some(11), Numa::Distribute);
    assert_eq!(more, [(0, 2), (1, 6), (2, 3)]);
}

#[test]
fn a_mask_cuts_nodes() {
    let machine = Machine::new(&[4, 4], 2);
    // One core of node 0, by both its processors; three of node 1.
    let cut = machine.topology_of([0, 8, 4, 5, 6]);
    let sizes: Vec<_> = cut
        .nodes()
        .iter()
        .map(|n| (n.cpus.len(), n.cores))
        .collect();
    assert_eq!((sizes, cut.threads()), (vec![(2, 1), (3, 3)], 4));
    assert_eq!(spread(&cut, None, Numa::Auto), [(1, 3)]);
    assert_eq!(spread(&cut, Some(4), Numa::Auto), [(0, 1), (1, 3)]);
    let bound: BTreeSet<usize> = [4, 5, 6].into();
    assert_eq!(cut.place(None, Numa::Auto).home(0).unwrap().cpus, bound);
}

#[test]
fn a_quota_of_time_counts() {
    let machine = Machine::new(&[4, 4], 2);
    let bounds = Bounds {
        cpus: Some((0..16).collect()),
        memory: None,
        threads: 3,
    };
    let topology = Topology::read(machine.root.path(), &bounds);
    assert_eq!(topology.threads(), 3);
    assert_eq!(spread(&topology, None, Numa::Auto), [(0, 3)]);
    assert_eq!(spread(&topology, None, Numa::Distribute), [(0, 2), (1, 1)]);
}

#[test]
fn memory_decides_between_nodes() {
    let machine = Machine::new(&[4, 2], 2);
    let bounds = Bounds {
        cpus: Some((0..12).collect()),
        memory: Some([1].into()),
        threads: 12,
    };
    let given = Topology::read(machine.root.path(), &bounds);
    assert_eq!(spread(&given, None, Numa::Auto), [(1, 2)]);
    // A node that has none.
    machine.write("node/has_memory", "1\n");
    assert_eq!(spread(&machine.topology(), None, Numa::Isolate), [(1, 2)]);
    // No node's is known: the size decides.
    machine.remove("node/has_memory");
    assert_eq!(spread(&machine.topology(), None, Numa::Isolate), [(0, 4)]);
}

#[test]
fn nodes_without_processors_are_none() {
    let machine = Machine::new(&[2, 2], 2);
    machine.write("node/online", "0-1,3\n");
    machine.write("node/has_memory", "0-1,3\n");
    machine.write("node/node3/cpulist", "\n");
    let ids = |topology: Topology| topology.nodes().iter().map(|n| n.id).collect::<Vec<_>>();
    assert_eq!(ids(machine.topology()), [0, 1]);
    // Nor is one that is off.
    machine.write("node/online", "1,3\n");
    assert_eq!(ids(machine.topology()), [1]);
    is_unbound(&machine.topology(), 4);
}

#[test]
fn distances_are_those_of_nodes_that_are_on() {
    let machine = Machine::new(&[2, 2, 2], 3);
    machine.write("node/online", "0,2\n");
    for (id, distances) in [(0, "10 12"), (2, "12 10")] {
        machine.write(&format!("node/node{id}/distance"), distances);
    }
    let topology = machine.topology_of([0, 1, 4, 5]);
    assert_eq!(spread(&topology, None, Numa::Auto), [(0, 2), (2, 2)]);
}

#[test]
fn what_is_missing_or_odd_is_not_known() {
    let none = tempfile::tempdir().unwrap();
    let of = |root: &Path, cpus: Option<BTreeSet<usize>>| {
        Topology::read(
            root,
            &Bounds {
                cpus,
                memory: None,
                threads: 6,
            },
        )
    };
    // As on systems without such files.
    is_unbound(&of(none.path(), None), 6);
    is_unbound(&of(none.path(), Some((0..6).collect())), 6);
    is_unbound(&of(none.path(), Some(BTreeSet::new())), 6);
    let machine = Machine::new(&[2, 2], 2);
    // Cores without a mask; nowhere to bind to.
    is_unbound(&of(machine.root.path(), None), 4);
    for list in ["", "x", "3-1", "0-18446744073709551615", "0,,1-"] {
        machine.write("node/node1/cpulist", list);
        is_unbound(&machine.topology(), 4);
    }
    machine.write("node/node1/cpulist", "2-3,6-7");
    machine.remove("node/node0/distance");
    machine.write("node/node1/distance", "far x");
    assert_eq!(spread(&machine.topology(), None, Numa::Auto), [(0, 2)]);
    // Without siblings each processor is a core.
    machine.remove("cpu");
    assert_eq!(spread(&machine.topology(), None, Numa::Auto), [(0, 4)]);
    machine.remove("node/online");
    is_unbound(&machine.topology(), 8);
}

#[cfg(target_os = "linux")]
#[test]
fn threads_of_a_pool_run_at_home() {
    use std::sync::{Barrier, Mutex};
    let before = affinity::allowed().unwrap();
    let (first, last) = (*before.first().unwrap(), *before.last().unwrap());
    if first == last {
        eprintln!("skipped: one processor");
        return;
    }
    // This machine as if its first and its last processor were nodes.
    let machine = Machine::new(&[1, 1], 2);
    machine.write("node/node0/cpulist", &first.to_string());
    machine.write("node/node1/cpulist", &last.to_string());
    let topology = machine.topology_of([first, last]);
    // Where two tasks were computed that wait for each other, beside where they were asked for.
    let masks = |pool: &crate::Pool| {
        let (seen, both) = (Mutex::new(BTreeSet::new()), Barrier::new(2));
        pool.run(2, &|_| {
            seen.lock().unwrap().insert(affinity::allowed().unwrap());
            both.wait();
        });
        (seen.into_inner().unwrap(), affinity::allowed().unwrap())
    };
    let own = |cpu: usize| BTreeSet::from([cpu]);
    // On threads of their own: callers stay bound.
    let here = std::thread::scope(|scope| {
        let pool = scope.spawn(|| {
            let near = crate::Pool::placed(&topology.place(Some(2), Numa::Isolate)).unwrap();
            assert_eq!(near.nodes(), [0]);
            assert_eq!(masks(&near), ([own(first)].into(), own(first)));
            let far = crate::Pool::placed(&topology.place(Some(2), Numa::Distribute)).unwrap();
            assert_eq!(far.nodes(), [0, 1]);
            assert_eq!(masks(&far), ([own(first), own(last)].into(), own(first)));
            far
        });
        let pool = pool.join().unwrap();
        let other = scope.spawn(move || masks(&pool).1).join().unwrap();
        assert_eq!(other, own(first));
        affinity::allowed().unwrap()
    });
    assert_eq!(here, before);
    let unbound = crate::Pool::placed(&topology.place(Some(2), Numa::Off)).unwrap();
    assert!(unbound.nodes().is_empty());
    assert_eq!(masks(&unbound), ([before.clone()].into(), before));
}

#[test]
fn this_machine_has_threads() {
    let topology = Topology::of_system();
    let cpus = std::thread::available_parallelism().unwrap().get();
    assert!((1..=cpus).contains(&topology.threads()));
    for numa in Numa::ALL {
        let placement = topology.place(None, numa);
        assert!((1..=cpus).contains(&placement.threads()));
    }
}
