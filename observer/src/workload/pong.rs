//! The worst case for an observer, for benchmarks: two threads on one core that do nothing but
//! wake each other and wait: `pingpong`, `condpong`.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::crew::Crew;
use super::futex::{self, Sharing};
use super::options::Options;
use super::pthread::{Cond, Mutex};
use super::sys::{check, last_cpu, now_ns, pin_as_batch, switches};
use super::tally::Waits;

/// Whose turn it is.
const PING: u32 = 0;
const PONG: u32 = 1;
/// The game is over.
const OVER: u32 = 2;

/// Rounds between two rests, where there are any.
const ROUNDS: u64 = 1_000;

static TURN: AtomicU32 = AtomicU32::new(PING);

static TABLE: Mutex = Mutex::new();
static PASSED: Cond = Cond::new(&TABLE);

/// Bare futex ping-pong: each round is one wait of either thread. After the last, `pong` may wait
/// once more, for the end: `waits` is twice the rounds, or one more.
///
/// A thread passes the turn, wakes the other and waits. On one core and under the batch policy a
/// wake-up does not preempt, so the other cannot answer before the wait has begun; should the time
/// slice end just there, the call that did not wait is counted in `would_block`, not in `waits`. With `--ms` the game
/// rests for so long now and then, while `pong` waits.
pub(crate) fn pingpong(options: &Options) -> io::Result<()> {
    let (mut crew, cpu) = pinned_crew("pingpong", options)?;
    crew.spawn("ping", move |run| {
        pin_as_batch(cpu)?;
        let mut waits = Waits::default();
        let mut rally = Rally::start()?;
        while run.goes_on(rally.rounds) {
            pass(PONG)?;
            wait_while(PONG, &mut waits)?;
            rally.rounds += 1;
            if let Some(ms) = run.options.ms
                && rally.rounds.is_multiple_of(ROUNDS)
            {
                thread::sleep(Duration::from_millis(ms));
            }
        }
        let truth = rally.stop()?;
        pass(OVER)?;
        Ok(with_waits(truth, waits.woken, waits.would_block))
    })?;
    crew.spawn("pong", move |_| {
        pin_as_batch(cpu)?;
        let mut waits = Waits::default();
        wait_while(PING, &mut waits)?;
        while TURN.load(Ordering::Acquire) != OVER {
            pass(PING)?;
            wait_while(PING, &mut waits)?;
        }
        Ok(with_waits(json!({}), waits.woken, waits.would_block))
    })?;
    play(crew, [("turn", TURN.as_ptr().addr())])
}

fn pass(turn: u32) -> io::Result<()> {
    TURN.store(turn, Ordering::Release);
    futex::wake(&TURN, 1, Sharing::Private).map(drop)
}

/// Waits for the turn to be another.
fn wait_while(turn: u32, waits: &mut Waits) -> io::Result<()> {
    while TURN.load(Ordering::Acquire) == turn {
        waits.count(futex::wait(&TURN, turn, Sharing::Private)?);
    }
    Ok(())
}

/// The same as programs usually do it: one mutex, one condition variable, signalled while the mutex is
/// held, under the default policy. A wake-up may then preempt the waker: the one that was woken finds
/// the mutex taken and sleeps again. So a round is two switches or four, and the kernel decides which;
/// `waits` counts the returns from the condition variable.
pub(crate) fn condpong(options: &Options) -> io::Result<()> {
    let (mut crew, cpu) = pinned_crew("condpong", options)?;
    crew.spawn("ping", move |run| {
        pin_as_usual(cpu)?;
        let mut guard = TABLE.lock()?;
        let mut waits = 0;
        let mut rally = Rally::start()?;
        while run.goes_on(rally.rounds) {
            hand_over(PONG)?;
            while TURN.load(Ordering::Relaxed) == PONG {
                PASSED.wait(&mut guard)?;
                waits += 1;
            }
            rally.rounds += 1;
        }
        let truth = rally.stop()?;
        hand_over(OVER)?;
        Ok(with_waits(truth, waits, 0))
    })?;
    crew.spawn("pong", move |_| {
        pin_as_usual(cpu)?;
        let mut guard = TABLE.lock()?;
        let mut waits = 0;
        loop {
            while TURN.load(Ordering::Relaxed) == PING {
                PASSED.wait(&mut guard)?;
                waits += 1;
            }
            if TURN.load(Ordering::Relaxed) == OVER {
                return Ok(with_waits(json!({}), waits, 0));
            }
            hand_over(PING)?;
        }
    })?;
    let locks = [("mutex", TABLE.address()), ("passed", PASSED.address())];
    play(crew, locks)
}

/// Pins this thread to one CPU, under the default policy.
fn pin_as_usual(cpu: usize) -> io::Result<()> {
    pin_as_batch(cpu)?;
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the parameter during the call only.
    let rc = unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const param) };
    check(rc, "sched_setscheduler(SCHED_OTHER)")?;
    Ok(())
}

/// Passes the turn. The caller holds the mutex.
fn hand_over(turn: u32) -> io::Result<()> {
    TURN.store(turn, Ordering::Relaxed);
    PASSED.signal()
}

/// The rounds played, and the time and the process's switches since the first.
struct Rally {
    rounds: u64,
    start_ns: u64,
    switches: u64,
}

impl Rally {
    fn start() -> io::Result<Self> {
        Ok(Self {
            rounds: 0,
            switches: switches()?,
            start_ns: now_ns(),
        })
    }

    fn stop(&self) -> io::Result<Value> {
        let ns = now_ns() - self.start_ns;
        let switches = switches()? - self.switches;
        let per_round = |sum: u64| sum as f64 / self.rounds.max(1) as f64;
        Ok(json!({
            "rounds": self.rounds,
            "ns": ns,
            "ns_per_round": per_round(ns),
            "switches_per_round": per_round(switches),
        }))
    }
}

fn with_waits(mut truth: Value, waits: u64, would_block: u64) -> Value {
    truth["waits"] = json!(waits);
    truth["would_block"] = json!(would_block);
    truth
}

fn pinned_crew(workload: &'static str, options: &Options) -> io::Result<(Crew, usize)> {
    let cpu = options.cpu.map_or_else(last_cpu, Ok)?;
    let mut crew = Crew::new(workload, options)?;
    crew.note("cpu", json!(cpu));
    Ok((crew, cpu))
}

/// Runs the game; the truth is that of `ping`, with the waits of both.
fn play<const N: usize>(crew: Crew, locks: [(&str, usize); N]) -> io::Result<()> {
    let working = crew.start(locks)?;
    working.wait_for_end()?;
    let (mut threads, ending) = working.join()?;
    let sum = |field: &str| -> u64 {
        threads
            .values()
            .filter_map(|truth| truth[field].as_u64())
            .sum()
    };
    let (waits, would_block) = (sum("waits"), sum("would_block"));
    let mut truth = match threads.remove("ping") {
        Some(Value::Object(truth)) => truth,
        _ => Map::new(),
    };
    truth.insert("waits".into(), json!(waits));
    truth.insert("would_block".into(), json!(would_block));
    ending.tell(truth)
}
