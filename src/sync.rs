//! The synchronisation primitives of multi-threaded code. With `--cfg sessioncap_loom` they are those of the
//! model checker loom, which runs every interleaving.

#[cfg(not(sessioncap_loom))]
pub(crate) use core::hint::spin_loop;
#[cfg(not(sessioncap_loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, Ordering, fence};
#[cfg(not(sessioncap_loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(sessioncap_loom))]
pub(crate) use std::thread::yield_now;

#[cfg(sessioncap_loom)]
pub(crate) use loom::hint::spin_loop;
#[cfg(sessioncap_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, Ordering, fence};
#[cfg(sessioncap_loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(sessioncap_loom)]
pub(crate) use loom::thread::yield_now;
