//! Two steps in one parallel region.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pool::Pool;

/// Looks at the counter before the core is offered to others.
const LOOKS: usize = 1024;

/// Counts a call, also one that panics: who waits for it must go on.
struct Count<'a>(&'a AtomicUsize);

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl Pool {
    /// [`Self::run`] of `tasks` calls of `task`, and when all have returned `more` calls of `then`, without a second
    /// region: whoever takes one of those waits for what others still compute. Of a `task` that panicked `then` sees
    /// what it left.
    ///
    /// # Panics
    /// As [`Self::run`].
    pub(crate) fn run_then(
        &self,
        (tasks, task): (usize, &(dyn Fn(usize) + Sync)),
        (more, then): (usize, &(dyn Fn(usize) + Sync)),
    ) {
        let done = AtomicUsize::new(0);
        // Numbers are taken in rising order, so all calls of `task` are under way or over when `then` is waited
        // for, none of them on the thread that waits.
        self.run_steps([tasks, tasks + more], &|i| {
            if i < tasks {
                let _count = Count(&done);
                return task(i);
            }
            let mut looks = 0usize;
            while done.load(Ordering::Acquire) < tasks {
                looks += 1;
                if looks.is_multiple_of(LOOKS) {
                    std::thread::yield_now();
                } else {
                    std::hint::spin_loop();
                }
            }
            then(i - tasks);
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn the_second_step_sees_all_of_the_first() {
        let rounds = if cfg!(miri) { 1 } else { 50 };
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for (tasks, more) in [(0, 0), (0, 3), (1, 0), (1, 1), (7, 1), (40, 9)] {
                for _ in 0..rounds {
                    let cells: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    let seen: Vec<_> = (0..more).map(|_| AtomicUsize::new(0)).collect();
                    let first = |i: usize| cells[i].store(i + 1, Ordering::Relaxed);
                    let then = |i: usize| {
                        let sum = cells.iter().map(|c| c.load(Ordering::Relaxed)).sum();
                        seen[i].store(sum, Ordering::Relaxed);
                    };
                    pool.run_then((tasks, &first), (more, &then));
                    let all = tasks * (tasks + 1) / 2;
                    assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == all));
                }
            }
        }
    }

    #[test]
    fn it_is_one_region() {
        let pool = Pool::new(2).unwrap();
        pool.run_then((3, &|_| {}), (2, &|_| {}));
        assert_eq!(pool.regions(), 1);
    }

    #[test]
    fn a_panic_leaves_nobody_waiting() {
        let pool = Pool::new(3).unwrap();
        let run = || pool.run_then((9, &|i| assert_ne!(i, 4)), (3, &|_| {}));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }
}
