//! The goroutines of Go processes, from time to time: of those that were asked for, or of some of the host's.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use crate::{
    dump::goroutines::missing,
    event::{Event, Missing},
    inspect::proc,
    runtimes::go::{Follower, Limits, Refused},
    time::WallTime,
};

/// Looks may take one part in so many of a core, all processes together: 1 %.
const SHARE: u32 = 100;
/// Processes that nobody named are looked for this often, and for so long at a time.
const FIND_EVERY: Duration = Duration::from_secs(5);
const FINDING: Duration = Duration::from_millis(25);
/// A search of the heap, of which much less is to be learned, one part in so many.
const SEARCH_SHARE: u32 = 1_000;
/// Searches are not closer together than this.
const SEARCH_EVERY: Duration = Duration::from_secs(10);
/// Bytes searched for channels that nobody else can reach.
const SEARCH: u64 = 256 << 20;
/// What is in doubt is looked at again after this, if the budget allows it.
const CONFIRM: Duration = Duration::from_millis(50);
/// A process that could not be looked at is tried again after this long: it may have become another program.
const CLOSED_FOR: Duration = Duration::from_secs(10);
/// The ring buffer has to be read again after this.
const LONGEST: Duration = Duration::from_millis(500);

/// One process.
#[derive(Debug)]
struct Process {
    pid: u32,
    follower: Option<Follower>,
    next: Instant,
    next_search: Instant,
    /// Was it found and not asked for? Then it is forgotten when it ends.
    adopted: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct GoProcesses {
    all: Vec<Process>,
    interval: Duration,
    missing: Vec<Missing>,
    /// So many are looked at at most, those that were found included; 0: none is looked for.
    most: usize,
    /// Processes that were looked at for Go: number and start.
    looked_at: HashSet<(u32, u64)>,
    /// Before this the budget allows no look, and no search for processes.
    rest_until: Option<Instant>,
    next_find: Option<Instant>,
}

impl GoProcesses {
    /// Makes these processes ready, as far as they are Go's.
    pub(super) fn open(pids: &[u32], interval: Duration) -> GoProcesses {
        let mut processes = GoProcesses {
            interval,
            ..GoProcesses::default()
        };
        let now = Instant::now();
        for &pid in pids {
            let mut process = Process {
                pid,
                follower: None,
                next: now,
                next_search: now,
                adopted: false,
            };
            if let Err(why) = process.open() {
                processes.missing.extend(missing(pid, &why));
            }
            processes.all.push(process);
        }
        processes
    }

    /// Which goroutines cannot be seen, and why.
    pub(super) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Looks at one process whose turn it is. `wall`: the wall clock at a time of `CLOCK_MONOTONIC`.
    pub(super) fn poll(&mut self, wall: impl Fn(u64) -> WallTime) -> Option<Event> {
        let now = Instant::now();
        if self.rest_until.is_some_and(|until| now < until) {
            return None;
        }
        self.find(now);
        // The one that has waited longest.
        let due = self.all.iter_mut().filter(|process| process.next <= now);
        let process = due.min_by_key(|process| process.next)?;
        if process.follower.is_none() && process.open().is_err() {
            return None;
        }
        let began = Instant::now();
        let looked = process.look(self.interval, wall);
        let end = Instant::now();
        self.rest_until = Some(end + (end - began) * SHARE);
        if looked.is_err() {
            // It has ended, or is another program by now.
            process.follower = None;
            process.next = Instant::now() + self.interval;
            if process.adopted {
                let pid = process.pid;
                self.all.retain(|process| process.pid != pid);
            }
        }
        looked.ok()
    }

    /// From now on processes of the host that are Go's are looked for, up to so many.
    pub(super) fn look_for(&mut self, most: usize) {
        self.most = most;
    }

    /// Looks at processes that are new, whether they are Go's.
    fn find(&mut self, now: Instant) {
        if self.all.len() >= self.most || self.next_find.is_some_and(|next| now < next) {
            return;
        }
        self.next_find = Some(now + FIND_EVERY);
        let mut there = HashSet::new();
        for pid in proc::processes() {
            let Some(stat) = proc::stat(pid, pid) else {
                continue;
            };
            let key = (pid, stat.started);
            there.insert(key);
            let is_time = now.elapsed() < FINDING && self.all.len() < self.most;
            if is_time && pid != std::process::id() && self.looked_at.insert(key) {
                self.adopt(pid);
            }
        }
        self.looked_at.retain(|key| there.contains(key));
    }

    /// Adds a process that nobody asked for, if it can be read.
    fn adopt(&mut self, pid: u32) {
        if self.all.iter().any(|process| process.pid == pid) {
            return;
        }
        let now = Instant::now();
        let mut process = Process {
            pid,
            follower: None,
            next: now,
            next_search: now,
            adopted: true,
        };
        if process.open().is_ok() {
            self.all.push(process);
        }
    }
}

impl Process {
    fn open(&mut self) -> Result<(), Refused> {
        match Follower::open(self.pid) {
            Ok(follower) => {
                self.follower = Some(follower);
                Ok(())
            }
            Err(why) => {
                self.next = Instant::now() + CLOSED_FOR;
                Err(why)
            }
        }
    }

    fn look(
        &mut self,
        interval: Duration,
        wall: impl Fn(u64) -> WallTime,
    ) -> Result<Event, Refused> {
        let follower = self.follower.as_mut().ok_or(Refused::Gone)?;
        let began = Instant::now();
        let search = began >= self.next_search;
        let limits = Limits {
            time: LONGEST,
            search: if search { SEARCH } else { 0 },
            ..Limits::default()
        };
        let found = follower.look(&limits, wall)?;
        let (end, took) = (Instant::now(), began.elapsed());
        // A process that was busy is searched again at the next look.
        if search && !follower.searched_in_vain() {
            self.next_search = end + (took * SEARCH_SHARE).max(SEARCH_EVERY);
        }
        let wanted = if follower.is_in_doubt() {
            CONFIRM
        } else {
            interval
        };
        self.next = end + wanted;
        Ok(Event::from(found))
    }
}
