//! Processors that a thread may run on.

use std::collections::BTreeSet;

/// Those of the calling thread; `None` where the system does not tell.
#[cfg(all(target_os = "linux", not(miri)))]
pub(super) fn allowed() -> Option<BTreeSet<usize>> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let set = sched_getaffinity(None).ok()?;
    let allowed = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
    Some(allowed.collect())
}

/// Lets the calling thread run on `cpus` alone; `false` where the system refuses.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn bind(cpus: &BTreeSet<usize>) -> bool {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return false;
        }
        set.set(cpu);
    }
    sched_setaffinity(None, &set).is_ok()
}

#[cfg(not(all(target_os = "linux", not(miri))))]
pub(super) fn allowed() -> Option<BTreeSet<usize>> {
    None
}

#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn bind(_: &BTreeSet<usize>) -> bool {
    false
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_thread_is_bound_and_no_other() {
        let before = allowed().unwrap();
        let last = BTreeSet::from([*before.last().unwrap()]);
        std::thread::scope(|scope| {
            let bound = scope.spawn(|| bind(&last) && allowed().unwrap() == last);
            assert!(bound.join().unwrap());
            // Neither is there.
            let refused = scope.spawn(|| {
                !bind(&BTreeSet::new())
                    && !bind(&BTreeSet::from([usize::MAX]))
                    && allowed().unwrap() == before
            });
            assert!(refused.join().unwrap());
        });
        assert_eq!(allowed().unwrap(), before);
    }
}
