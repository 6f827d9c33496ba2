//! Waits by raw futex calls within one process: `interrupted`, `waitv`, `futexwait2`, `bitset`,
//! `wouldblock`, `names`.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::crew::{Crew, Run};
use super::futex::{self, Outcome, Sharing};
use super::options::Options;
use super::sys::{deadline, interrupt, interrupt_on_usr1};
use super::tally::Waits;

static WORD: AtomicU32 = AtomicU32::new(0);
static VECTOR: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

/// Bits that waiter and waker share, among others that they do not.
const WAIT_BITS: u32 = 0b0110;
const WAKE_BITS: u32 = 0b1100;

/// A name that a terminal or a log must not be given as it is.
const EVIL: &str = "evil\x1b[31m\n";

fn address(word: &AtomicU32) -> usize {
    word.as_ptr().addr()
}

/// Waits on `word` by `wait` until the end. The word is read before the question whether to go
/// on, and the waker changes it after saying stop: so the last wake-up cannot be missed.
fn keep_waiting(
    run: &Run,
    word: &AtomicU32,
    wait: impl Fn(u32) -> io::Result<Outcome>,
) -> io::Result<Waits> {
    let mut waits = Waits::default();
    loop {
        let seen = word.load(Ordering::SeqCst);
        if !run.goes_on(waits.woken) {
            return Ok(waits);
        }
        waits.time(|| wait(seen))?;
    }
}

/// Changes `word` and wakes its waiter again and again, and once more after the end.
fn keep_waking(
    run: &Run,
    period: Duration,
    word: &AtomicU32,
    wake: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let last = run.stopped();
        word.fetch_add(1, Ordering::SeqCst);
        wake()?;
        if last {
            return Ok(());
        }
        thread::sleep(period);
    }
}

fn wake_one(word: &AtomicU32) -> io::Result<()> {
    futex::wake(word, 1, Sharing::Private).map(drop)
}

/// A wait without end that signals interrupt.
pub(crate) fn interrupted(options: &Options) -> io::Result<()> {
    interrupt_on_usr1()?;
    let mut crew = Crew::new("interrupted", options)?;
    let sleeper = crew.spawn("sleeper", |run| {
        let mut waits = Waits::default();
        while WORD.load(Ordering::SeqCst) == 0 && run.goes_on(waits.interrupted) {
            waits.time(|| futex::wait(&WORD, 0, Sharing::Private))?;
        }
        Ok(waits.to_json())
    })?;
    crew.spawn_helper("signaller", move |run| {
        while !run.stopped() {
            thread::sleep(run.options.period(10));
            interrupt(sleeper)?;
        }
        WORD.store(1, Ordering::SeqCst);
        wake_one(&WORD)
    })?;
    crew.start([("word", address(&WORD))])?.run_to_end()
}

/// A wait on three words at once, of which the second is woken.
pub(crate) fn waitv(options: &Options) -> io::Result<()> {
    if !futex::has_waitv() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "futex_waitv"));
    }
    let [first, second, third] = &VECTOR;
    let mut crew = Crew::new("waitv", options)?;
    crew.spawn("waiter", |run| {
        let mut by_index = [0_u64; 3];
        let mut waits = Waits::default();
        loop {
            let seen = second.load(Ordering::SeqCst);
            if !run.goes_on(waits.woken) {
                break;
            }
            let mut index = None;
            waits.time(|| {
                let vectored = futex::waitv(&[(first, 0), (second, seen), (third, 0)])?;
                index = vectored.index;
                Ok(vectored.outcome)
            })?;
            if let Some(count) = index.and_then(|index| by_index.get_mut(index)) {
                *count += 1;
            }
        }
        let mut truth = waits.to_json();
        truth["woken_by_index"] = json!(by_index);
        Ok(truth)
    })?;
    crew.spawn_helper("waker", |run| {
        keep_waking(run, run.options.period(10), second, || wake_one(second))
    })?;
    let locks = [("first", first), ("second", second), ("third", third)];
    crew.start(locks.map(|(name, word)| (name, address(word))))?
        .run_to_end()
}

/// A wait by the newer `futex_wait` system call.
pub(crate) fn futexwait2(options: &Options) -> io::Result<()> {
    if !futex::has_wait2() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "futex_wait"));
    }
    let mut crew = Crew::new("futexwait2", options)?;
    crew.spawn("waiter", |run| {
        Ok(keep_waiting(run, &WORD, |seen| futex::wait2(&WORD, seen))?.to_json())
    })?;
    crew.spawn_helper("waker", |run| {
        keep_waking(run, run.options.period(10), &WORD, || futex::wake2(&WORD))
    })?;
    crew.start([("word", address(&WORD))])?.run_to_end()
}

/// A wait by bit set with an absolute deadline that is never reached.
pub(crate) fn bitset(options: &Options) -> io::Result<()> {
    let mut crew = Crew::new("bitset", options)?;
    crew.spawn("waiter", |run| {
        let waits = keep_waiting(run, &WORD, |seen| {
            let far = deadline(Duration::from_mins(1));
            futex::wait_bitset(&WORD, seen, WAIT_BITS, &far)
        })?;
        Ok(waits.to_json())
    })?;
    crew.spawn_helper("waker", |run| {
        let period = run.options.period(10);
        keep_waking(run, period, &WORD, || futex::wake_bitset(&WORD, WAKE_BITS))
    })?;
    crew.start([("word", address(&WORD))])?.run_to_end()
}

/// Calls that would wait if the word held what they expect, which it never does.
pub(crate) fn wouldblock(options: &Options) -> io::Result<()> {
    let mut crew = Crew::new("wouldblock", options)?;
    crew.spawn("caller", |run| {
        let mut waits = Waits::default();
        while run.goes_on(waits.would_block) {
            waits.count(futex::wait(&WORD, 1, Sharing::Private)?);
        }
        let mut truth = waits.to_json();
        truth["futex_calls"] = json!(waits.would_block + waits.interrupted);
        Ok(truth)
    })?;
    crew.start([("word", address(&WORD))])?.run_to_end()
}

/// A thread with control characters in its name, which waits again and again.
pub(crate) fn names(options: &Options) -> io::Result<()> {
    let mut crew = Crew::new("names", options)?;
    let tid = crew.spawn("evil", |run| {
        let wait = |seen| futex::wait(&WORD, seen, Sharing::Private);
        Ok(keep_waiting(run, &WORD, wait)?.to_json())
    })?;
    crew.spawn_helper("waker", |run| {
        keep_waking(run, run.options.period(50), &WORD, || wake_one(&WORD))
    })?;
    // Before the ready line, so that nobody meets the thread under a better name. A write to
    // this file is what PR_SET_NAME does, for another thread.
    fs::write(format!("/proc/self/task/{tid}/comm"), EVIL)?;
    crew.note("comm", json!(EVIL));
    crew.start([("word", address(&WORD))])?.run_to_end()
}
