//! Reads of a mapped file behind its end.
//!
//! Where a file is shortened while it is mapped, the system answers a read of what is gone with the
//! signal SIGBUS, which ends the process. The handler here puts zeros there instead and makes a note,
//! which whoever mapped the file has to look at when done reading.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libc::{c_int, c_void, siginfo_t};

/// Files that can be watched, and so mapped, at the same time.
const SLOTS: usize = 1024;

/// A watched range of addresses. A signal handler may not lock or allocate, so all of them have
/// their place from the start.
struct Slot {
    taken: AtomicBool,
    /// First address, 0 while there is none.
    start: AtomicUsize,
    end: AtomicUsize,
    gone: AtomicBool,
}

static ALL: [Slot; SLOTS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        gone: AtomicBool::new(false),
    }
}; SLOTS];

/// Bytes of a page; read by the handler.
static PAGE: AtomicUsize = AtomicUsize::new(4096);

/// What was done about SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Watches a range of addresses for as long as it lives.
#[derive(Debug)]
pub(super) struct Guard(Option<usize>);

impl Guard {
    /// Watches `map`, a whole mapping that outlives the guard; `None` where too many are watched.
    pub(super) fn new(map: &[u8]) -> Option<Self> {
        if !is_installed() {
            return Some(Self(None));
        }
        let free = |slot: &Slot| !slot.taken.swap(true, Ordering::AcqRel);
        let found = ALL.iter().position(free);
        if let Some(slot) = found.map(|i| &ALL[i]) {
            let start = map.as_ptr() as usize;
            slot.gone.store(false, Ordering::Relaxed);
            slot.end.store(start + map.len(), Ordering::Relaxed);
            slot.start.store(start, Ordering::Release);
        }
        found.map(|slot| Self(Some(slot)))
    }

    /// Whether something was read that is no longer there.
    pub(super) fn found_it_gone(&self) -> bool {
        self.0.is_some_and(|i| ALL[i].gone.load(Ordering::Acquire))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(slot) = self.0.map(|i| &ALL[i]) {
            slot.start.store(0, Ordering::Release);
            slot.taken.store(false, Ordering::Release);
        }
    }
}

/// Installs the handler with the first call; tells whether the system let us.
fn is_installed() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        // SAFETY: the call takes a number and returns one.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let Ok(page) = usize::try_from(page) else {
            return false;
        };
        PAGE.store(page, Ordering::Relaxed);
        // SAFETY: all bytes zero is a `sigaction` without handler and flags; the calls read and write
        // nothing but these two; the handler does only what a handler may.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut before) != 0
                || BEFORE.set(before).is_err()
            {
                return false;
            }
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_missing_page;
            let mut ours: libc::sigaction = std::mem::zeroed();
            ours.sa_sigaction = handler as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut ours.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const ours, std::ptr::null_mut()) == 0
        }
    })
}

/// Only loads and stores of atomics and system calls: what a signal handler may do.
extern "C" fn on_missing_page(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the system passes a handler with SA_SIGINFO the description of its signal.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Memory that is broken is not ours to replace.
    let slots: &[Slot] = if code == libc::BUS_ADRERR { &ALL } else { &[] };
    for slot in slots {
        let start = slot.start.load(Ordering::Acquire);
        let end = slot.end.load(Ordering::Relaxed);
        if start != 0 && (start..end).contains(&address) {
            slot.gone.store(true, Ordering::Release);
            let page = PAGE.load(Ordering::Relaxed);
            let first = address / page * page;
            // SAFETY: a thread is reading this page of a mapping that is watched, so the mapping is
            // still there and the page is part of it; nothing could ever be read from the page
            // before, so nothing that was borrowed changes.
            let zeros = unsafe {
                libc::mmap(
                    first as *mut c_void,
                    page,
                    libc::PROT_READ,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                    -1,
                    0,
                )
            };
            if zeros != libc::MAP_FAILED {
                return;
            }
        }
    }
    // Not ours: the instruction is tried again, and whoever was asked before is asked again.
    if let Some(before) = BEFORE.get() {
        // SAFETY: what the system gave us.
        unsafe { libc::sigaction(libc::SIGBUS, before, std::ptr::null_mut()) };
    }
}
