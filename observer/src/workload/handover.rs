//! Locks that go from hand to hand while others wait: `handover`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::crew::{Crew, Run};
use super::options::Options;
use super::proc::wait_until_blocked;
use super::pthread::Mutex;
use super::sys::{now_ns, tid};

/// What the threads at one mutex tell each other.
#[derive(Default)]
struct State {
    /// The first one has it.
    held: AtomicBool,
    /// The last one.
    last: AtomicI32,
}

fn until(holds: impl Fn() -> bool) {
    while !holds() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Threads in a row at each of some mutexes. Each holds it for a while and gives it to the next one, who alone
/// is woken: the others sleep on.
pub(crate) fn handover(options: &Options) -> io::Result<()> {
    let count = options.locks.unwrap_or(1) as usize;
    let threads = options.threads.unwrap_or(6).max(2) as usize;
    let locks: &'static [Mutex] = (0..count).map(|_| Mutex::new()).collect::<Vec<_>>().leak();
    let mut crew = Crew::new("handover", options)?;
    for (number, lock) in locks.iter().enumerate() {
        let state = Arc::new(State::default());
        let mut before = None;
        for place in 0..threads {
            let (state, ahead) = (Arc::clone(&state), before);
            let is_last = place + 1 == threads;
            let work = move |run: &Run| {
                match ahead {
                    None => {}
                    // The first of those that wait, behind the one that holds it.
                    Some(_) if place == 1 => until(|| state.held.load(Ordering::SeqCst)),
                    // Not before the one ahead waits: so the order is known.
                    Some(ahead) => wait_until_blocked(ahead, lock.address())?,
                }
                if is_last {
                    state.last.store(tid(), Ordering::SeqCst);
                }
                let guard = lock.lock()?;
                let from_ns = now_ns();
                if ahead.is_none() {
                    state.held.store(true, Ordering::SeqCst);
                    until(|| state.last.load(Ordering::SeqCst) != 0);
                    wait_until_blocked(state.last.load(Ordering::SeqCst), lock.address())?;
                }
                thread::sleep(run.options.period(60));
                let to_ns = now_ns();
                drop(guard);
                Ok(json!({ "lock": number, "from_ns": from_ns, "to_ns": to_ns }))
            };
            before = Some(crew.spawn(&format!("{number}-{place}"), work)?);
        }
    }
    let named = locks.iter().enumerate();
    crew.start(named.map(|(number, lock)| (format!("lock-{number}"), lock.address())))?
        .run_to_end()
}
