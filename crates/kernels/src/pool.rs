//! Threads that wait for work by spinning.
//!
//! A decoded token is some hundred short parallel regions, each of a few microseconds, so a region
//! must not cost a system call. A region is opened by one store, whoever sees it takes task numbers
//! from a counter, and it is over when the counter is used up and those who came have left: a
//! thread that the system keeps from running is not waited for. Threads without work for
//! two milliseconds go to sleep.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{KernelError, Result};
use crate::numa::{Node, Placement, bind};

/// How long a thread looks for work before it sleeps.
const SPIN: Duration = Duration::from_millis(2);
/// Looks between two readings of the clock; from the second reading on the core is offered to
/// others in between.
const LOOKS: usize = 128;

/// State word: whether a region is open.
const OPEN: u64 = 1;
/// State word: one thread that came.
const CAME: u64 = 1 << 1;
/// State word: one more region; 15 bits below count the threads.
const REGION: u64 = 1 << 16;

/// Most threads of a pool: far fewer than the state word can count.
pub const MAX_THREADS: usize = 4096;

type Task = dyn Fn(usize) + Sync;

/// Where the numbers of a region's steps end: all threads have some of each.
pub(crate) type Steps = [usize; 2];

/// A cache line of its own, so that the counters do not slow each other.
#[repr(align(128))]
struct Line<T>(T);

struct Shared {
    state: Line<AtomicU64>,
    next: Line<AtomicUsize>,
    left: Line<AtomicUsize>,
    job: UnsafeCell<Option<(*const Task, Steps)>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    sleeping: AtomicUsize,
    threads: usize,
    sleep: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written only while no region is open and every thread that came to the last one
// has left, and read only by threads that have come to an open one; the task itself is `Sync`.
#[allow(unsafe_code)]
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is only used as said above, from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Shared {}

thread_local! {
    /// The node that a pool has asked for this thread, and whether the system bound it there.
    static BOUND: Cell<Option<(usize, bool)>> = const { Cell::new(None) };
}

/// Binds the calling thread to a node, unless it is; `false` where the system refuses, which is asked once.
fn go_home(home: &Node) -> bool {
    match BOUND.get() {
        Some((id, bound)) if id == home.id => bound,
        _ => {
            let bound = bind(&home.cpus);
            BOUND.set(Some((home.id, bound)));
            bound
        }
    }
}

/// Refuses more than [`MAX_THREADS`].
pub(crate) fn check_threads(threads: usize) -> Result<()> {
    if threads <= MAX_THREADS {
        return Ok(());
    }
    let message = format!("at most {MAX_THREADS} threads can compute together");
    let source = io::Error::new(io::ErrorKind::InvalidInput, message);
    Err(KernelError::Threads { threads, source })
}

/// Some threads, the calling one among them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Where callers run, if threads are bound.
    home: Option<Node>,
    /// Numbers of the nodes that threads are bound to.
    nodes: Vec<usize>,
    /// Held by the caller whose region is open.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.threads())
    }
}

impl Pool {
    /// Starts `threads − 1` threads, which together with a caller make `threads`. 0 counts as 1.
    ///
    /// # Errors
    /// [`KernelError::Threads`] where the system refuses, or for more than [`MAX_THREADS`].
    pub fn new(threads: usize) -> Result<Self> {
        Self::placed(&Placement::unbound(threads))
    }

    /// Starts threads where `placement` has them. Whoever calls [`Self::run`] is its first, and stays
    /// bound: this caller from now on, others from their first call on. Nothing is bound where the
    /// system refuses.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn placed(placement: &Placement<'_>) -> Result<Self> {
        let threads = placement.threads();
        check_threads(threads)?;
        let home = placement.home(0).filter(|home| go_home(home));
        let mut pool = Self {
            shared: Arc::new(Shared {
                state: Line(AtomicU64::new(0)),
                next: Line(AtomicUsize::new(0)),
                left: Line(AtomicUsize::new(0)),
                job: UnsafeCell::new(None),
                panic: Mutex::new(None),
                stop: AtomicBool::new(false),
                sleeping: AtomicUsize::new(0),
                threads: threads.max(1),
                sleep: Mutex::new(()),
                wake: Condvar::new(),
            }),
            workers: Vec::new(),
            nodes: home.map_or_else(Vec::new, |_| placement.nodes()),
            home: home.cloned(),
            turn: Mutex::new(()),
        };
        for i in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let home = home.and(placement.home(i)).cloned();
            let work = move || {
                home.iter().for_each(|home| _ = go_home(home));
                shared.work();
            };
            let worker = std::thread::Builder::new()
                .name(format!("tritburn-{i}"))
                .spawn(work)
                .map_err(|source| KernelError::Threads { threads, source })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads that compute, with the caller.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Numbers of the NUMA nodes that threads are bound to; empty where none is.
    #[must_use]
    pub fn nodes(&self) -> &[usize] {
        &self.nodes
    }

    /// Parallel regions so far. What is done on the caller's thread alone is none.
    #[must_use]
    pub fn regions(&self) -> u64 {
        self.shared.state.0.load(Ordering::Relaxed) / REGION
    }

    /// Calls `task` once with each number below `tasks`, on any thread and in any order, and
    /// returns when all calls have. Callers on several threads take turns.
    ///
    /// # Panics
    /// Where a task panics, after all threads have left; and never returns where a task calls
    /// `run` of the same pool.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.run_steps([tasks; 2], task);
    }

    /// [`Self::run`] with tasks in two steps.
    pub(crate) fn run_steps(&self, steps: Steps, task: &(dyn Fn(usize) + Sync)) {
        let tasks = steps[1];
        if let Some(home) = &self.home {
            go_home(home);
        }
        if self.workers.is_empty() || tasks <= 1 {
            return (0..tasks).for_each(task);
        }
        let turn = lock(&self.turn);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. No thread uses the task after this function: `close`
        // waits for all that came, on every way out.
        #[allow(unsafe_code)]
        let task: &'static Task = unsafe { std::mem::transmute(task) };
        // SAFETY: the turn is ours, so no region is open and all threads have left the last.
        #[allow(unsafe_code)]
        unsafe {
            *shared.job.get() = Some((task, steps));
        }
        shared.next.0.store(0, Ordering::Relaxed);
        shared.left.0.store(0, Ordering::Relaxed);
        let region = shared.state.0.load(Ordering::Relaxed) / REGION + 1;
        shared
            .state
            .0
            .store(region.wrapping_mul(REGION) | OPEN, Ordering::SeqCst);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            let _guard = lock(&shared.sleep);
            shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(task, steps)));
        shared.close();
        let others = lock(&shared.panic).take();
        drop(turn);
        if let Some(panic) = own.err().or(others) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _guard = lock(&self.shared.sleep);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches what tasks throw, so there is nothing to learn from it.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// What a thread of the pool does.
    fn work(&self) {
        let mut last = 0;
        while let Some(region) = self.wait_for_region(last) {
            last = region;
            // Comes only where the region is still open.
            let come = |state: u64| {
                (state & OPEN != 0 && state / REGION == region).then_some(state + CAME)
            };
            let order = (Ordering::AcqRel, Ordering::Acquire);
            if self.state.0.try_update(order.0, order.1, come).is_err() {
                continue;
            }
            // SAFETY: the region is open and we are counted, so the job stays until we leave.
            #[allow(unsafe_code)]
            let job = unsafe { *self.job.get() };
            if let Some((task, steps)) = job {
                // SAFETY: as above; `run` keeps the task alive until all have left.
                #[allow(unsafe_code)]
                let task = unsafe { &*task };
                let result = catch_unwind(AssertUnwindSafe(|| self.take_tasks(task, steps)));
                if let Err(panic) = result {
                    *lock(&self.panic) = Some(panic);
                }
            }
            self.left.0.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes tasks until none is left, some in a row at a time, so that what is asked for past the end
    /// of one is the thread's own next. The fewer are left, the fewer at a time, so that all threads
    /// end together.
    fn take_tasks(&self, task: &Task, steps: Steps) {
        let share = 2 * self.threads;
        let some = |i: usize| {
            let end = steps.into_iter().find(|end| i < *end)?;
            Some(i + ((end - i) / share).max(1))
        };
        let order = Ordering::Relaxed;
        while let Ok(first) = self.next.0.try_update(order, order, some) {
            (first..some(first).unwrap_or(first)).for_each(task);
        }
    }

    /// Lets nobody else come and waits until all have left.
    fn close(&self) {
        let came = self.state.0.fetch_and(!OPEN, Ordering::AcqRel) % REGION / CAME;
        let mut looks = 0usize;
        while self.left.0.load(Ordering::Acquire) as u64 != came {
            looks += 1;
            if looks.is_multiple_of(LOOKS * 8) {
                // The other thread may need this very core.
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// The number of an open region after `last`; `None` where the pool ends.
    fn wait_for_region(&self, last: u64) -> Option<u64> {
        let ready = |order| {
            let state = self.state.0.load(order);
            (state & OPEN != 0 && state / REGION != last).then_some(state / REGION)
        };
        let mut start = None;
        loop {
            for _ in 0..LOOKS {
                if let Some(region) = ready(Ordering::Acquire) {
                    return Some(region);
                }
                std::hint::spin_loop();
            }
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let start = *start.get_or_insert_with(Instant::now);
            if start.elapsed() < SPIN {
                std::thread::yield_now();
                continue;
            }
            let mut guard = lock(&self.sleep);
            self.sleeping.fetch_add(1, Ordering::SeqCst);
            // The caller looks for sleepers after it has opened: one of us sees the other.
            while ready(Ordering::SeqCst).is_none() && !self.stop.load(Ordering::SeqCst) {
                guard = self
                    .wake
                    .wait(guard)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            self.sleeping.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes guard is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [0, 1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads.max(1));
            for tasks in [0, 1, 2, 7, 100] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                for round in 1..20 {
                    pool.run(tasks, &|i| _ = counts[i].fetch_add(1, Ordering::Relaxed));
                    assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == round));
                }
            }
        }
    }

    #[test]
    fn regions_count_and_threads_are_bounded() {
        let pool = Pool::new(2).unwrap();
        let before = pool.regions();
        for tasks in [0, 1, 2, 9] {
            pool.run(tasks, &|_| {});
        }
        assert_eq!(pool.regions() - before, 2);
        for threads in [MAX_THREADS + 1, usize::MAX] {
            let error = Pool::new(threads).unwrap_err().to_string();
            assert!(error.contains("at most 4096"), "{error}");
        }
    }

    #[test]
    fn sleepers_are_woken_and_callers_take_turns() {
        let pool = Pool::new(3).unwrap();
        std::thread::sleep(SPIN * 4);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.run(10, &|i| _ = sum.fetch_add(i, Ordering::Relaxed));
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * 50 * 45);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3).unwrap();
        let run = || pool.run(50, &|i| assert_ne!(i, 33));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        let sum = AtomicUsize::new(0);
        pool.run(50, &|i| _ = sum.fetch_add(i, Ordering::Relaxed));
        assert_eq!(sum.into_inner(), 1225);
    }
}
