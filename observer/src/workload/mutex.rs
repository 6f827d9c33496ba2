//! Waits on pthread mutexes and condition variables: `mutex`, `pi`, `timedwait`, `deadlock`.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use serde_json::{Map, json};

use super::crew::{Crew, Run};
use super::ending::say;
use super::options::Options;
use super::proc::wait_until_blocked;
use super::pthread::{Cond, Mutex};
use super::sys::{deadline, now_ns};
use super::tally::Tally;

static LOCK: Mutex = Mutex::new();
/// Whether the holder has the contended mutex.
static HELD: AtomicBool = AtomicBool::new(false);
/// How often waiters asked for it, and how often they got it.
static WANTED: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);
static FIRST: Mutex = Mutex::new();
static SECOND: Mutex = Mutex::new();

/// Threads on one contended mutex.
pub(crate) fn mutex(options: &Options) -> io::Result<()> {
    contended("mutex", &LOCK, options)
}

/// The same with priority inheritance.
pub(crate) fn pi(options: &Options) -> io::Result<()> {
    contended("pi", Mutex::new_pi()?, options)
}

fn contended(workload: &'static str, lock: &'static Mutex, options: &Options) -> io::Result<()> {
    let threads = options.threads.unwrap_or(2).max(2);
    let mut crew = Crew::new(workload, options)?;
    crew.spawn_helper("holder", move |run| {
        while !run.stopped() {
            let guard = lock.lock()?;
            // However busy the machine is, a call finds the mutex taken and waits once: it is not given
            // up before somebody asks for it, and not taken again before somebody had it.
            HELD.store(true, Ordering::SeqCst);
            until(run, || {
                WANTED.load(Ordering::SeqCst) > TAKEN.load(Ordering::SeqCst)
            });
            thread::sleep(Duration::from_millis(run.options.hold_ms.unwrap_or(5)));
            HELD.store(false, Ordering::SeqCst);
            let taken = TAKEN.load(Ordering::SeqCst);
            drop(guard);
            until(run, || TAKEN.load(Ordering::SeqCst) > taken);
            thread::sleep(free(run));
        }
        Ok(())
    })?;
    for index in 1..threads {
        let name = if threads == 2 {
            "waiter".to_owned()
        } else {
            format!("waiter-{index}")
        };
        crew.spawn(&name, move |run| {
            let mut tally = Tally::default();
            while run.goes_on(tally.calls()) {
                // Twice the free time: by then the holder most often has the lock again.
                thread::sleep(free(run) * 2);
                until(run, || HELD.load(Ordering::SeqCst));
                if run.stopped() {
                    break;
                }
                WANTED.fetch_add(1, Ordering::SeqCst);
                let guard = tally.time(|| lock.lock())?;
                TAKEN.fetch_add(1, Ordering::SeqCst);
                drop(guard);
            }
            Ok(tally.to_json())
        })?;
    }
    crew.start([("lock", lock.address())])?.run_to_end()
}

/// Waits, without a futex, until something holds or the end has come.
fn until(run: &Run, holds: impl Fn() -> bool) {
    while !holds() && !run.stopped() {
        thread::sleep(Duration::from_micros(200));
    }
}

fn free(run: &Run) -> Duration {
    Duration::from_micros(run.options.free_us.unwrap_or(500))
}

/// A timed wait that nobody ever ends but the clock.
pub(crate) fn timedwait(options: &Options) -> io::Result<()> {
    let cond = Cond::new_monotonic(&LOCK)?;
    let mut crew = Crew::new("timedwait", options)?;
    crew.spawn("timed", move |run| {
        let mut tally = Tally::default();
        let mut timed_out: u64 = 0;
        while run.goes_on(tally.calls()) {
            let mut guard = LOCK.lock()?;
            let until = deadline(run.options.period(20));
            if !tally.time(|| cond.wait_until(&mut guard, &until))? {
                timed_out += 1;
            }
        }
        let mut truth = tally.to_json();
        truth["timed_out"] = json!(timed_out);
        Ok(truth)
    })?;
    crew.start([("cond", cond.address()), ("mutex", LOCK.address())])?
        .run_to_end()
}

/// Two threads that each hold what the other waits for.
pub(crate) fn deadlock(options: &Options) -> io::Result<()> {
    let both_hold = Arc::new(Barrier::new(2));
    let mut crew = Crew::new("deadlock", options)?;
    let mut member = |name, mine: &'static Mutex, other: &'static Mutex| {
        let both_hold = Arc::clone(&both_hold);
        crew.spawn(name, move |_| {
            let _mine = mine.lock()?;
            both_hold.wait();
            let _other = other.lock()?;
            Err(io::Error::other("this lock can never be had"))
        })
    };
    let ab = member("ab", &FIRST, &SECOND)?;
    let ba = member("ba", &SECOND, &FIRST)?;
    let locks = [("first", FIRST.address()), ("second", SECOND.address())];

    let mut ready = crew.ready(locks);
    // Whoever wants to see the deadlock form needs the ready line before it has.
    if options.wait_go {
        say("ready", &ready)?;
    }
    let working = crew.open()?;
    wait_until_blocked(ab, SECOND.address())?;
    wait_until_blocked(ba, FIRST.address())?;
    let mut formed = Map::new();
    formed.insert("formed_ns".into(), json!(now_ns()));
    if options.wait_go {
        say("formed", &formed)?;
    } else {
        ready.extend(formed.clone());
        say("ready", &ready)?;
    }
    working.wait_for_end()?;
    working.abandon().tell(formed)
}
