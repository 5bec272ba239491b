//! An allocator that counts when asked to.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering::Relaxed};

static ON: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicIsize = AtomicIsize::new(0);
static USABLE: AtomicIsize = AtomicIsize::new(0);

/// What is held more after than before.
#[derive(Debug, Clone, Copy)]
pub struct Net {
    /// As asked for.
    pub requested: isize,
    /// As glibc rounds it: eight bytes of its own, multiples of sixteen, at least thirty-two.
    pub usable: isize,
}

/// Counts what `operation` leaves behind on the heap, over all threads.
pub fn net<T>(operation: impl FnOnce() -> T) -> Net {
    REQUESTED.store(0, Relaxed);
    USABLE.store(0, Relaxed);
    ON.store(true, Relaxed);
    let result = operation();
    ON.store(false, Relaxed);
    let net = Net { requested: REQUESTED.load(Relaxed), usable: USABLE.load(Relaxed) };
    drop(result);
    net
}

fn count(size: usize, sign: isize) {
    if ON.load(Relaxed) {
        let chunk = (size + 8).next_multiple_of(16).max(32);
        REQUESTED.fetch_add(sign * size as isize, Relaxed);
        USABLE.fetch_add(sign * chunk as isize, Relaxed);
    }
}

/// The system's allocator. While nothing is counted it costs one load of a flag.
pub struct Counting;

// SAFETY: every call goes to `System` unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
