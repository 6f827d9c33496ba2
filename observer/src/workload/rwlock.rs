//! A writer that readers keep waiting: `starved`.

use std::cell::UnsafeCell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::crew::{Crew, Run};
use super::options::Options;
use super::pthread::check;
use super::tally::Tally;

/// A `pthread_rwlock_t` for a `static`; glibc lets readers in while a writer waits.
struct RwLock(UnsafeCell<libc::pthread_rwlock_t>);

// SAFETY: it is made to be shared; only pthread calls touch its bytes.
unsafe impl Sync for RwLock {}

static TABLE: RwLock = RwLock(UnsafeCell::new(libc::PTHREAD_RWLOCK_INITIALIZER));
/// How often each reader has come in.
static TAKEN: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

impl RwLock {
    /// Calls `work` with the lock held for reading, or for writing.
    fn with(&'static self, write: bool, work: impl FnOnce()) -> io::Result<()> {
        // SAFETY: the lock is initialised and never moves; this thread unlocks what it locked.
        unsafe {
            let lock = self.0.get();
            if write {
                check(libc::pthread_rwlock_wrlock(lock), "pthread_rwlock_wrlock")?;
            } else {
                check(libc::pthread_rwlock_rdlock(lock), "pthread_rwlock_rdlock")?;
            }
            work();
            check(libc::pthread_rwlock_unlock(lock), "pthread_rwlock_unlock")
        }
    }
}

/// Two readers of whom one is always there, and a writer.
pub(crate) fn starved(options: &Options) -> io::Result<()> {
    let mut crew = Crew::new("starved", options)?;
    for (me, name) in ["reader-0", "reader-1"].into_iter().enumerate() {
        crew.spawn_helper(name, move |run| {
            while !run.stopped() {
                TABLE.with(false, || read(run, me))?;
            }
            Ok(())
        })?;
    }
    crew.spawn("writer", |run| {
        while TAKEN.iter().any(|count| count.load(Ordering::SeqCst) == 0) && !run.stopped() {
            thread::sleep(Duration::from_millis(1));
        }
        let mut tally = Tally::default();
        tally.time(|| TABLE.with(true, || ()))?;
        let mut truth = tally.to_json();
        truth["wrote"] = json!(1);
        Ok(truth)
    })?;
    crew.start([("lock", TABLE.0.get().addr())])?.run_to_end()
}

/// Stays until the other reader has come in after this one.
fn read(run: &Run, me: usize) {
    let other = &TAKEN[1 - me];
    let before = other.load(Ordering::SeqCst);
    TAKEN[me].fetch_add(1, Ordering::SeqCst);
    while other.load(Ordering::SeqCst) == before && !run.stopped() {
        thread::sleep(Duration::from_millis(5));
    }
}
