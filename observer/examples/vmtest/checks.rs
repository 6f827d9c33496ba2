//! What observer has to say about each workload.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::scene::Scene;

/// Waits at least this long are compared: the workloads count theirs by the same limit.
const LONG_NS: u64 = 1_000_000;
/// How far sums and counts may be apart, in percent.
const TOLERANCE_PERCENT: u64 = 10;
/// What may be missing in a sum besides: a busy host stops an emulated machine now and then, also between
/// a workload's reading of the clock and its sleep.
const STALLED_NS: u64 = 50_000_000;
/// Bytes of a `pthread_cond_t`, within which its futex words lie.
const COND_BYTES: u64 = 48;

/// A workload and its check.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) args: &'static [&'static str],
    pub(crate) holds: fn(&Scene, &[Value]) -> Result<(), String>,
}

const CONTENDED: &[&str] = &["--rounds", "15", "--hold-ms", "20", "--free-us", "5000"];
const PERIODIC: &[&str] = &["--rounds", "15", "--ms", "30"];

/// Every workload that is played.
pub(crate) const ALL: [Check; 9] = [
    Check {
        name: "mutex",
        args: CONTENDED,
        holds: |scene, events| {
            Ground::of(scene, events, "waiter", "lock")?.holds(
                &["futex", "lock"],
                "woken",
                "holder",
            )
        },
    },
    Check {
        name: "pi",
        args: CONTENDED,
        holds: |scene, events| {
            Ground::of(scene, events, "waiter", "lock")?.holds(&["lock"], "woken", "holder")
        },
    },
    Check {
        name: "timedwait",
        args: PERIODIC,
        holds: timedwait,
    },
    Check {
        name: "interrupted",
        args: PERIODIC,
        holds: |scene, events| {
            let ground = Ground::of(scene, events, "sleeper", "word")?;
            ground.counts()?;
            ground.each("outcome", |wait| wait["outcome"] == "interrupted")
        },
    },
    Check {
        name: "bitset",
        args: PERIODIC,
        holds: |scene, events| {
            Ground::of(scene, events, "waiter", "word")?.holds(&["futex"], "woken", "waker")
        },
    },
    Check {
        name: "waitv",
        args: PERIODIC,
        holds: |scene, events| {
            Ground::of(scene, events, "waiter", "second")?.holds(&["futex"], "woken", "waker")
        },
    },
    Check {
        name: "futexwait2",
        args: PERIODIC,
        holds: |scene, events| {
            Ground::of(scene, events, "waiter", "word")?.holds(&["futex"], "woken", "waker")
        },
    },
    Check {
        name: "wouldblock",
        args: &["--rounds", "5000"],
        holds: wouldblock,
    },
    Check {
        name: "deadlock",
        args: &[],
        holds: deadlock,
    },
];

/// A check of all events, by its name.
type OfAll = (&'static str, fn(&[Value]) -> Result<(), String>);

/// Checks of the run as a whole.
pub(crate) const OF_ALL: [OfAll; 2] = [("losses", losses), ("totals", totals)];

/// What a workload measured, beside what observer saw of it.
struct Ground<'a> {
    seen: Vec<&'a Value>,
    tids: &'a Value,
    calls: u64,
    sum_ns: u64,
}

impl<'a> Ground<'a> {
    /// The long waits of `thread` on `lock`.
    fn of(scene: &'a Scene, events: &'a [Value], thread: &str, lock: &str) -> Result<Self, String> {
        let tids = &scene.ready["tids"];
        let from = address(&scene.ready["locks"][lock])?;
        let bytes = if lock == "cond" { COND_BYTES } else { 1 };
        let seen = waits(scene, events).filter(|wait| {
            wait["task"]["tid"] == tids[thread]
                && wait["dur_ns"].as_u64() >= Some(LONG_NS)
                && locks(wait).any(|lock| {
                    address(&lock["addr"]).is_ok_and(|at| (from..from + bytes).contains(&at))
                })
        });
        let truth = &scene.truth["threads"][thread];
        Ok(Self {
            seen: seen.collect(),
            tids,
            calls: number(&truth["long_calls"])?,
            sum_ns: number(&truth["long_sum_ns"])?,
        })
    }

    fn holds(&self, kinds: &[&str], outcome: &str, waker: &str) -> Result<(), String> {
        self.counts()?;
        self.each("kind", |wait| {
            kinds.iter().any(|kind| wait["kind"] == **kind)
        })?;
        self.each("outcome", |wait| wait["outcome"] == outcome)?;
        self.each("waker", |wait| wait["waker"]["tid"] == self.tids[waker])
    }

    /// Count and sum agree.
    fn counts(&self) -> Result<(), String> {
        let count = self.seen.len() as u64;
        let sum_ns: u64 = self
            .seen
            .iter()
            .filter_map(|wait| wait["dur_ns"].as_u64())
            .sum();
        if self.calls == 0 {
            return Err("the workload never waited: no ground truth".to_owned());
        }
        if count.abs_diff(self.calls) > (self.calls * TOLERANCE_PERCENT / 100).max(1) {
            return Err(format!("{count} waits seen, {} made", self.calls));
        }
        let tolerance_ns = self.sum_ns * TOLERANCE_PERCENT / 100;
        let expected =
            (self.sum_ns - tolerance_ns).saturating_sub(STALLED_NS)..=self.sum_ns + tolerance_ns;
        if !expected.contains(&sum_ns) {
            return Err(format!("{sum_ns} ns seen, {} ns measured", self.sum_ns));
        }
        Ok(())
    }

    fn each(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<(), String> {
        let wrong: Vec<_> = self.seen.iter().filter(|wait| !holds(wait)).collect();
        match wrong.first() {
            None => Ok(()),
            Some(first) => Err(format!(
                "{what} of {} of {} waits, such as {first}",
                wrong.len(),
                self.seen.len()
            )),
        }
    }
}

fn timedwait(scene: &Scene, events: &[Value]) -> Result<(), String> {
    let ground = Ground::of(scene, events, "timed", "cond")?;
    ground.counts()?;
    ground.each("outcome", |wait| wait["outcome"] == "timeout")
}

/// Calls that never wait are no waits.
fn wouldblock(scene: &Scene, events: &[Value]) -> Result<(), String> {
    let calls = number(&scene.truth["threads"]["caller"]["futex_calls"])?;
    let word = &scene.ready["locks"]["word"];
    let seen = waits(scene, events).filter(|wait| wait["lock"]["addr"] == *word);
    match (seen.count(), calls) {
        (0, 1..) => Ok(()),
        (seen, calls) => Err(format!(
            "{seen} waits seen of {calls} calls that never waited"
        )),
    }
}

/// Both threads are told, with the lock that each wants, though they waited before observer began.
fn deadlock(scene: &Scene, events: &[Value]) -> Result<(), String> {
    for (thread, lock) in [("ab", "second"), ("ba", "first")] {
        let tid = &scene.ready["tids"][thread];
        let blocked = events
            .iter()
            .find(|event| event["type"] == "blocked" && event["task"]["tid"] == *tid)
            .ok_or_else(|| format!("thread {thread} is not told to be blocked"))?;
        if blocked["lock"]["addr"] != scene.ready["locks"][lock] {
            return Err(format!("not for the lock {lock}: {blocked}"));
        }
        if blocked["at_least"] != true {
            return Err(format!("older than observer, but not marked so: {blocked}"));
        }
    }
    Ok(())
}

/// Nothing was lost.
pub(crate) fn losses(events: &[Value]) -> Result<(), String> {
    let last = events
        .iter()
        .rfind(|event| event["type"] == "loss")
        .ok_or("no event says what was lost")?;
    if last["total"] == 0 {
        return Ok(());
    }
    Err(last.to_string())
}

/// The totals of each lock are those of its waits: every wait is reported, so they can be summed. Locks
/// inside the kernel are not waited for from the first to the last moment of a sleep, and left out.
fn totals(events: &[Value]) -> Result<(), String> {
    let totals_of: BTreeMap<&str, &Value> = events
        .iter()
        .filter(|event| event["type"] == "lock" && !is_kernel_lock(&event["lock"]))
        .filter_map(|event| Some((event["lock"]["id"].as_str()?, event)))
        .collect();
    if totals_of.is_empty() {
        return Err("no lock has totals".to_owned());
    }
    for (id, totals) in totals_of {
        let waits = events
            .iter()
            .filter(|event| event["type"] == "wait")
            // The first of several, where which of them ended the wait is not known.
            .filter(|wait| locks(wait).next().is_some_and(|lock| lock["id"] == id));
        let durations: Vec<u64> = waits.filter_map(|wait| wait["dur_ns"].as_u64()).collect();
        let (count, sum): (u64, u64) = (durations.len() as u64, durations.iter().sum());
        if totals["waits"] != count || totals["total_ns"] != sum {
            return Err(format!(
                "{count} waits of {sum} ns were told, and in all: {totals}"
            ));
        }
    }
    Ok(())
}

fn is_kernel_lock(lock: &Value) -> bool {
    let class = lock["class"].as_str();
    class.is_some_and(|class| class.starts_with("kernel_"))
}

/// The waits of a workload that ended.
fn waits<'a>(scene: &Scene, events: &'a [Value]) -> impl Iterator<Item = &'a Value> {
    let pid = scene.pid();
    events
        .iter()
        .filter(move |event| event["type"] == "wait" && event["task"]["pid"] == pid)
}

/// The lock that a wait was for; all of them when it is not known which one ended it.
fn locks(wait: &Value) -> impl Iterator<Item = &Value> {
    let several = wait["locks"].as_array().map_or(&[][..], Vec::as_slice);
    match &wait["lock"] {
        Value::Null => several.iter(),
        one => std::slice::from_ref(one).iter(),
    }
}

fn number(value: &Value) -> Result<u64, String> {
    value
        .as_u64()
        .ok_or_else(|| format!("no number in the workload's truth: {value}"))
}

fn address(value: &Value) -> Result<u64, String> {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    digits
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| format!("no address: {value}"))
}
