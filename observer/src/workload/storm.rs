//! Waits by the flood: `storm`. Threads contend as fast as they can, and whoever holds a lock
//! gives its CPU away, so that the others run into it.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::crew::{Crew, Run};
use super::futex::{self, Sharing};
use super::options::Options;
use super::pthread::Mutex;
use super::sys::yield_cpu;
use super::tally::Waits;

/// The states of a lock made of a bare futex word.
const FREE: u32 = 0;
const HELD: u32 = 1;
const HELD_AND_WANTED: u32 = 2;

/// Many threads, few locks.
pub(crate) fn storm(options: &Options) -> io::Result<()> {
    let threads = options.threads.unwrap_or(4);
    let locks = options.locks.unwrap_or(1);
    let mut crew = Crew::new("storm", options)?;
    let addresses: Vec<usize> = if options.pthread {
        let locks: &[Mutex] = leak(locks, Mutex::new);
        enlist(&mut crew, threads, move |run, seed| {
            mutexes(run, locks, seed)
        })?;
        locks.iter().map(Mutex::address).collect()
    } else {
        let locks: &[AtomicU32] = leak(locks, || AtomicU32::new(FREE));
        enlist(&mut crew, threads, move |run, seed| words(run, locks, seed))?;
        locks.iter().map(|word| word.as_ptr().addr()).collect()
    };
    let named = addresses.into_iter().enumerate();
    crew.start(named.map(|(index, address)| (format!("lock-{index}"), address)))?
        .run_to_end()
}

/// Locks that live as long as the program, as those of a `static` do.
fn leak<T>(count: u64, make: impl Fn() -> T) -> &'static [T] {
    (0..count).map(|_| make()).collect::<Vec<T>>().leak()
}

fn enlist(
    crew: &mut Crew,
    threads: u64,
    work: impl Fn(&Run, usize) -> io::Result<Value> + Copy + Send + 'static,
) -> io::Result<()> {
    for index in 0..threads {
        let seed = index as usize;
        crew.spawn(&format!("storm-{index}"), move |run| work(run, seed))?;
    }
    Ok(())
}

/// Takes one bare futex lock after the other. `blocked` are the acquisitions that had to wait at
/// least once, `woken` the waits.
fn words(run: &Run, locks: &[AtomicU32], seed: usize) -> io::Result<Value> {
    let mut waits = Waits::default();
    let (mut rounds, mut blocked) = (0_u64, 0_u64);
    for word in locks.iter().cycle().skip(seed % locks.len()) {
        if !run.goes_on(rounds) {
            break;
        }
        let woken_before = waits.woken;
        acquire(word, &mut waits)?;
        yield_cpu();
        release(word)?;
        rounds += 1;
        blocked += u64::from(waits.woken > woken_before);
    }
    let (woken, would_block) = (waits.woken, waits.would_block);
    Ok(json!({
        "acquisitions": rounds, "blocked": blocked, "woken": woken, "would_block": would_block,
    }))
}

fn acquire(word: &AtomicU32, waits: &mut Waits) -> io::Result<()> {
    if word
        .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
        .is_ok()
    {
        return Ok(());
    }
    while word.swap(HELD_AND_WANTED, Ordering::Acquire) != FREE {
        waits.count(futex::wait(word, HELD_AND_WANTED, Sharing::Private)?);
    }
    Ok(())
}

fn release(word: &AtomicU32) -> io::Result<()> {
    if word.swap(FREE, Ordering::Release) == HELD_AND_WANTED {
        futex::wake(word, 1, Sharing::Private)?;
    }
    Ok(())
}

/// Takes one pthread mutex after the other. How often glibc waits is its own affair; `contended`
/// are the acquisitions that found the mutex taken.
fn mutexes(run: &Run, locks: &'static [Mutex], seed: usize) -> io::Result<Value> {
    let (mut rounds, mut contended) = (0_u64, 0_u64);
    for mutex in locks.iter().cycle().skip(seed % locks.len()) {
        if !run.goes_on(rounds) {
            break;
        }
        let guard = if let Some(guard) = mutex.try_lock()? {
            guard
        } else {
            contended += 1;
            mutex.lock()?
        };
        yield_cpu();
        drop(guard);
        rounds += 1;
    }
    Ok(json!({ "acquisitions": rounds, "contended": contended }))
}
