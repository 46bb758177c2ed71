//! Large pages for what is large, and small ones for the rest.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes from which an allocation is to lie in large pages.
const LARGE: usize = 1 << 20;

/// Whether the system has been told by [`only_where_asked`].
static TOLD: AtomicBool = AtomicBool::new(false);

/// An allocator whose large allocations lie in pages of two megabytes, where the system gives them to
/// who asks (`/sys/kernel/mm/transparent_hugepage/enabled`): tensors are written and read faster, while small
/// allocations, which would keep a large page for each thread and size, take what they need. The allocator
/// inside should not ask for large pages itself.
///
/// A system that gives large pages to all (`always`) is told by the first allocation to give this process none
/// unasked, which Linux does since 6.18.
#[derive(Debug)]
pub struct LargePages<A>(pub A);

// SAFETY: all memory comes from the allocator inside and goes back to it, with the same layouts; advice
// changes no content.
#[allow(unsafe_code)]
unsafe impl<A: GlobalAlloc> GlobalAlloc for LargePages<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        only_where_asked();
        // SAFETY: the caller's promise.
        advised(unsafe { self.0.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        only_where_asked();
        // SAFETY: the caller's promise.
        advised(unsafe { self.0.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        advised(unsafe { self.0.realloc(old, layout, size) }, size)
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(start, layout) }
    }
}

/// Lets the system give this process large pages only where they are asked for. Memory that has been
/// touched keeps its pages, so this comes first. A process that has been denied large pages stays so, and an
/// older system as it is.
#[inline]
fn only_where_asked() {
    if !TOLD.load(Ordering::Relaxed) && !TOLD.swap(true, Ordering::Relaxed) {
        tell();
    }
}

#[cfg(target_os = "linux")]
#[cold]
fn tell() {
    const EXCEPT_ADVISED: libc::c_ulong = 1 << 1;
    const NONE: libc::c_ulong = 0;
    const YES: libc::c_ulong = 1;
    // SAFETY: reads and sets what the process asks of the system about the size of pages, which changes
    // no content.
    #[allow(unsafe_code)]
    unsafe {
        if libc::prctl(libc::PR_GET_THP_DISABLE, NONE, NONE, NONE, NONE) == 0 {
            libc::prctl(libc::PR_SET_THP_DISABLE, YES, EXCEPT_ADVISED, NONE, NONE);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn tell() {}

/// Asks for large pages where `size` bytes from `start` on are many; returns `start`.
#[inline]
fn advised(start: *mut u8, size: usize) -> *mut u8 {
    if size >= LARGE && !start.is_null() {
        advise(start, size);
    }
    start
}

#[cfg(target_os = "linux")]
#[cold]
fn advise(start: *mut u8, size: usize) {
    let page = rustix::param::page_size();
    let skip = start.align_offset(page);
    let whole = size.saturating_sub(skip) / page * page;
    // SAFETY: whole pages inside one allocation, of which only the size of the pages changes. Whether
    // the system does so is of no account.
    #[allow(unsafe_code)]
    unsafe {
        libc::madvise(start.add(skip).cast(), whole, libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_: *mut u8, _: usize) {}

// Miri knows no such advice.
#[cfg(all(test, not(miri)))]
mod tests {
    use std::alloc::System;

    use super::*;

    #[test]
    fn memory_is_the_allocators_whatever_its_size() {
        let allocator = LargePages(System);
        for size in [1, LARGE - 1, LARGE, LARGE + 5000, 3 * LARGE] {
            for align in [1, 64, 8192] {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: every size is above zero, what is read was written or zeroed, and layouts
                // are those of the allocations.
                #[allow(unsafe_code)]
                unsafe {
                    let zeros = allocator.alloc_zeroed(layout);
                    assert!(!zeros.is_null() && zeros.addr().is_multiple_of(align));
                    assert_eq!((*zeros, *zeros.add(size - 1)), (0, 0));
                    *zeros.add(size - 1) = 7;
                    let longer = allocator.realloc(zeros, layout, 2 * size);
                    assert_eq!(*longer.add(size - 1), 7);
                    let layout = Layout::from_size_align(2 * size, align).expect("a layout");
                    allocator.dealloc(longer, layout);
                    let other = allocator.alloc(layout);
                    other.write_bytes(1, 2 * size);
                    allocator.dealloc(other, layout);
                }
            }
        }
    }

    #[test]
    fn no_memory_is_no_memory() {
        let layout = Layout::from_size_align(isize::MAX as usize - 63, 64).expect("a layout");
        // SAFETY: a size above zero.
        #[allow(unsafe_code)]
        let start = unsafe { LargePages(System).alloc(layout) };
        assert!(start.is_null());
    }
}
