//! Threads that wait for work and never get any: `pool`. Nobody may accuse them.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicU32;

use serde_json::{Map, Value};

use super::crew::Crew;
use super::futex::{self, Sharing};
use super::options::Options;
use super::pthread::{Cond, Mutex, check};

static QUEUE: Mutex = Mutex::new();
static WORK: Cond = Cond::new(&QUEUE);
static WORD: AtomicU32 = AtomicU32::new(0);

/// Idle threads, of each sort in turn.
pub(crate) fn pool(options: &Options) -> io::Result<()> {
    let count = options.threads.unwrap_or(8);
    let mut crew = Crew::new("pool", options)?;
    for index in 0..count {
        let rest = match index % 5 {
            0 => on_condition,
            1 => in_poll,
            2 => asleep,
            3 => on_semaphore,
            _ => on_futex,
        };
        crew.spawn(&format!("idle-{index}"), move |_| {
            loop {
                rest()?;
            }
        })?;
    }
    let working = crew.start([("cond", WORK.address()), ("mutex", QUEUE.address())])?;
    working.wait_for_end()?;
    // They go down with the process.
    working.abandon().tell(Map::<String, Value>::new())
}

fn on_condition() -> io::Result<()> {
    let mut guard = QUEUE.lock()?;
    WORK.wait(&mut guard)
}

fn in_poll() -> io::Result<()> {
    // SAFETY: no descriptors are named, so nothing is read or written.
    let rc = unsafe { libc::poll(std::ptr::null_mut(), 0, -1) };
    super::sys::check(rc, "poll").map(drop)
}

fn asleep() -> io::Result<()> {
    let hour = libc::timespec {
        tv_sec: 3_600,
        tv_nsec: 0,
    };
    // SAFETY: the time is only read during the call, and nothing is written.
    let rc = unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            0,
            &raw const hour,
            std::ptr::null_mut(),
        )
    };
    check(rc, "clock_nanosleep")
}

fn on_semaphore() -> io::Result<()> {
    let semaphore = Box::leak(Box::new(MaybeUninit::<libc::sem_t>::uninit()));
    // SAFETY: the semaphore is fresh, known to nobody else, and never freed or moved.
    let (made, waited) = unsafe {
        let made = libc::sem_init(semaphore.as_mut_ptr(), 0, 0);
        (made, libc::sem_wait(semaphore.as_mut_ptr()))
    };
    check(made, "sem_init")?;
    check(waited, "sem_wait")
}

fn on_futex() -> io::Result<()> {
    futex::wait(&WORD, 0, Sharing::Private).map(drop)
}
