//! Holders: whether a thread that is said to be one exists, and what it is doing.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use observer_common::{kind, syscall};

use super::{
    maps::{self, Mapping},
    memory::{Memory, ProcessMemory},
    proc::{self, State},
    registers::{self, Snapshot},
    stacks::BlockedStack,
};
use crate::event::{Confidence, Holder, HolderState};

/// Threads whose stacks are searched for the address of one lock.
pub(super) const MAX_STACKS: usize = 256;
/// Bytes of one stack that are searched.
const MAX_BYTES: u64 = 64 << 10;
/// Bytes beyond the outermost known frame that are still searched.
const BEYOND: u64 = 256;

/// What a search for the holder found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pid: Option<u32>,
    tid: Option<u32>,
    confidence: Confidence,
    evidence: Arc<str>,
    ended: bool,
}

impl Found {
    pub(super) fn exact(pid: u32, tid: u32, evidence: impl Into<Arc<str>>) -> Found {
        Found {
            pid: Some(pid),
            tid: Some(tid),
            confidence: Confidence::Exact,
            evidence: evidence.into(),
            ended: false,
        }
    }

    pub(super) fn likely(pid: u32, tid: u32, evidence: &str) -> Found {
        Found {
            confidence: Confidence::Likely,
            ..Found::exact(pid, tid, evidence)
        }
    }

    /// A thread that is gone.
    pub(super) fn ended(tid: u32) -> Found {
        Found {
            pid: None,
            ended: true,
            ..Found::exact(0, tid, "owner in the lock's memory, which has ended")
        }
    }

    pub(super) fn unknown(why: impl Into<Arc<str>>) -> Found {
        Found {
            pid: None,
            tid: None,
            confidence: Confidence::Unknown,
            evidence: why.into(),
            ended: false,
        }
    }

    /// As an event has it, with what the holder does.
    pub(super) fn holder(self, activity: &mut Activity) -> Holder {
        let mut holder = Holder {
            pid: self.pid,
            tid: self.tid,
            comm: None,
            confidence: self.confidence,
            evidence: self.evidence,
            state: self.ended.then_some(HolderState::Ended),
            doing: self.ended.then(|| "ended".into()),
        };
        if let (Some(pid), Some(tid)) = (self.pid, self.tid) {
            let doing = doing(pid, tid, activity);
            holder.comm = doing.comm;
            holder.state = doing.state;
            holder.doing = doing.words;
        }
        holder
    }
}

/// What a thread does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doing {
    /// Its name.
    pub comm: Option<Arc<str>>,
    /// Is it able to go on?
    pub state: Option<HolderState>,
    /// In words.
    pub words: Option<Arc<str>>,
}

/// A process that holds something as a whole: its thread, if it has one only.
pub(super) fn of_process(pid: u32, evidence: &str) -> Found {
    match proc::threads(pid)[..] {
        [tid] => Found::exact(pid, tid, evidence),
        ref threads => Found {
            pid: Some(pid),
            ..Found::unknown(format!(
                "process {pid} has it, by {evidence}; which of its {} threads took it is not recorded",
                threads.len()
            ))
        },
    }
}

/// The thread of process `pid` that the process itself knows as `own`.
pub(super) fn in_process(pid: u32, own: u32) -> Option<u32> {
    if !proc::is_in_other_namespace(pid) {
        return proc::stat(pid, own)
            .filter(|stat| stat.state != State::Ended)
            .map(|_| own);
    }
    proc::threads(pid)
        .into_iter()
        .find(|tid| proc::own_number(pid, *tid) == Some(own))
}

/// A thread of another process that maps the same memory.
pub(super) fn in_sharing_process(pid: u32, own: u32, mapping: &Mapping) -> Option<(u32, u32)> {
    // Numbers of other namespaces would have to be looked for in every process there is.
    if !mapping.shared || proc::is_in_other_namespace(pid) {
        return None;
    }
    let other = proc::process_of(own)?;
    let shares = maps::read(other).ok()?;
    let shares = shares
        .iter()
        .any(|one| one.shared && one.inode == mapping.inode && one.device == mapping.device);
    shares.then_some((other, own))
}

/// Is one of the addresses on the stack, as an aligned word?
pub(super) fn has_address(stack: &BlockedStack, addresses: &[u64]) -> bool {
    let (Some(first), Some(last)) = (stack.frames.first(), stack.frames.last()) else {
        return false;
    };
    let from = first.sp & !7;
    let end = last.sp.saturating_add(BEYOND).min(from + MAX_BYTES);
    let mut bytes = vec![0; end.saturating_sub(from) as usize];
    let memory = ProcessMemory::of(stack.pid);
    // Less is mapped where the stack begins.
    let got = if memory.read(from, &mut bytes) {
        bytes.len()
    } else {
        memory.read_part(from, &mut bytes).unwrap_or(0)
    };
    bytes[..got].chunks_exact(8).any(|word| {
        let word = u64::from_le_bytes([
            word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7],
        ]);
        addresses.contains(&word)
    })
}

/// What a thread does now, from `/proc`.
pub fn doing(pid: u32, tid: u32, activity: &mut Activity) -> Doing {
    let Some(stat) = proc::stat(pid, tid) else {
        return Doing {
            state: Some(HolderState::Ended),
            words: Some("ended".into()),
            ..Doing::default()
        };
    };
    let (state, words) = match stat.state {
        State::Ended => (HolderState::Ended, "ended".into()),
        State::Stopped => (HolderState::Stopped, "stopped".into()),
        State::Runnable | State::Other => {
            let state = activity.on_cpu(pid, tid);
            let words = state.map_or("running, or about to", HolderState::name);
            return Doing {
                comm: Some(stat.comm.into()),
                state,
                words: Some(words.into()),
            };
        }
        State::Sleeping | State::Uninterruptible => match registers::from_proc(pid, tid) {
            Ok(Snapshot::Blocked(registers)) => match registers.call {
                Some(call) => (HolderState::Waiting, in_call(pid, call.nr, call.args[0])),
                None => (HolderState::Waiting, "in a page fault".into()),
            },
            Ok(Snapshot::Running) => (HolderState::Running, "running".into()),
            Err(_) => (HolderState::Waiting, "asleep".into()),
        },
    };
    Doing {
        comm: Some(stat.comm.into()),
        state: Some(state),
        words: Some(words),
    }
}

/// What is remembered of threads that could run: whether they have a CPU is told by two readings of the time
/// that they used.
#[derive(Debug, Default)]
pub struct Activity {
    before: HashMap<u32, Reading>,
    /// Wait for a second reading, rather than leave it open at the first look.
    pub patient: bool,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    run_ns: u64,
    queued_ns: u64,
    throttled_us: Option<u64>,
    /// When the time kept off the CPUs was last seen to grow.
    throttled_at: Option<Instant>,
}

/// The kernel adds to the time that a quota kept a group off the CPUs when that ends. A thread may use more than
/// its quota until the next tick of the clock, and then waits for as many periods as it takes to make up for it.
const THROTTLED: Duration = Duration::from_millis(1_500);
/// The kernel accounts for a running thread at each tick of the clock: 1 to 10 ms.
const TICK: Duration = Duration::from_millis(12);
/// A reading that is older says nothing of now.
const RECENT: Duration = Duration::from_secs(1);
/// Threads that are remembered.
const MAX_READINGS: usize = 4_096;

impl Activity {
    /// Does a thread that could run have a CPU? `None`: this is the first look.
    fn on_cpu(&mut self, pid: u32, tid: u32) -> Option<HolderState> {
        let read = || {
            let (run_ns, queued_ns) = proc::cpu_time(pid, tid)?;
            Some(Reading {
                at: Instant::now(),
                run_ns,
                queued_ns,
                throttled_us: proc::throttled_us(pid),
                throttled_at: None,
            })
        };
        let mut before = self.before.get(&tid).copied();
        before = before.filter(|before| (TICK..RECENT).contains(&before.at.elapsed()));
        if before.is_none() && self.patient {
            before = read();
            std::thread::sleep(TICK);
        }
        let mut now = read()?;
        now.throttled_at = before.and_then(|before| {
            let grew = now.throttled_us > before.throttled_us;
            if grew {
                Some(now.at)
            } else {
                before.throttled_at
            }
        });
        // One that is too young to be compared with stays until it is old enough.
        let young = self
            .before
            .get(&tid)
            .is_some_and(|old| old.at.elapsed() < TICK);
        if !young {
            if self.before.len() >= MAX_READINGS {
                self.before.clear();
            }
            self.before.insert(tid, now);
        }
        let before = before?;
        let ran_ns = now.run_ns.saturating_sub(before.run_ns);
        let queued_ns = now.queued_ns.saturating_sub(before.queued_ns);
        let throttled = now.throttled_us.zip(before.throttled_us);
        let throttled_ns = throttled.map_or(0, |(now, before)| now.saturating_sub(before) * 1_000);
        let recently = now.throttled_at.is_some_and(|at| at.elapsed() < THROTTLED);
        // What it mostly did: a quota, or a crowd, leaves it a little of its time.
        Some(if throttled_ns > ran_ns || (recently && ran_ns == 0) {
            HolderState::Throttled
        } else if ran_ns == 0 || queued_ns > ran_ns {
            HolderState::Runnable
        } else {
            HolderState::Running
        })
    }
}

/// `in fsync(/data/wal)`.
fn in_call(pid: u32, nr: u32, first: u64) -> Arc<str> {
    let nr = nr.cast_signed();
    let Some(name) = syscall::name(nr) else {
        return format!("in system call {nr}").into();
    };
    let is_file = usize::try_from(nr)
        .ok()
        .and_then(|nr| syscall::KINDS.get(nr))
        .is_some_and(|kind| {
            matches!(
                *kind,
                kind::FILE | kind::IO | kind::SOCKET | kind::PIPE | kind::LOCK
            )
        });
    match is_file.then(|| proc::file(pid, first)).flatten() {
        Some(file) => format!("in {name}({file})").into(),
        None => format!("in {name}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_own_threads_do() {
        let pid = std::process::id();
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let sleeper = std::thread::spawn(move || {
            // SAFETY: no precondition.
            tell.send(unsafe { libc::gettid() } as u32).unwrap();
            let _ = receive.recv();
        });
        let tid = told.recv().unwrap();
        while proc::stat(pid, tid).unwrap().state != State::Sleeping {
            std::thread::yield_now();
        }
        let mut activity = Activity::default();
        let doing = doing(pid, tid, &mut activity);
        assert_eq!(doing.state, Some(HolderState::Waiting));
        assert_eq!(doing.words.as_deref(), Some("in futex"));
        assert_eq!(in_process(pid, tid), Some(tid));
        drop(send);
        sleeper.join().unwrap();
        assert_eq!(
            super::doing(pid, u32::MAX, &mut activity).state,
            Some(HolderState::Ended)
        );
        assert_eq!(in_process(pid, 1), None);
    }
}
