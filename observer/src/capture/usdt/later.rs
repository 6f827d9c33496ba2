//! Files that are mapped after the start: by processes that start later, or that load a library later.
//!
//! Nobody tells of them, so processes are looked at again: a new one at once, and each again and again, at twice the
//! distance each time. All looks together take a hundredth of a core, and a few milliseconds at a time.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::Arc,
};

use aya::Ebpf;

use super::{Usdt, places::Told, scope::Process};
use crate::{
    capture::{cost::cpu_ns, target::Targets},
    inspect::proc,
    time::mono_ns,
};

/// Looks take one part in so many of a core's time.
const SHARE: u64 = 100;
/// The ring buffer has to be read again after so long.
const STEP_NS: u64 = 10_000_000;
/// Looks for new processes are not closer together than the first of these, and not further apart than the second,
/// whatever the looks before have cost: what they owe then is made good by several.
const PAUSE_NS: (u64, u64) = (100_000_000, 2_000_000_000);
/// A process is looked at again after the first of these, then after twice as long each time, up to the second.
const AGAIN_NS: (u64, u64) = (100_000_000, 10_000_000_000);
/// A process is new for so long.
const NEW_NS: u64 = 1_000_000_000;
/// Files without probes are read anew after this.
const FORGET_NS: u64 = 300_000_000_000;

/// Whose turn it is to be looked at.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    turns: HashMap<u32, Turn>,
    next_ns: u64,
    /// Pauses that are still to be made for looks that were made.
    owed_ns: u64,
    forget_ns: u64,
    /// The process whose files were not all looked at, and the next one of them.
    rest: Option<(u32, usize)>,
    /// Was it told that there is no room for more?
    is_over: bool,
}

/// The next look at a process.
#[derive(Debug)]
struct Turn {
    /// Which process it is, and the program that it executes, by its name.
    process: u64,
    name: Option<String>,
    /// When it was looked at first.
    since_ns: u64,
    at_ns: u64,
    /// How long after the look before.
    after_ns: u64,
}

impl Rounds {
    /// Of these processes, which are all there are, those whose turn it is: new ones first, then those that were new
    /// last.
    fn due(&mut self, processes: &[Process], now_ns: u64) -> Vec<u32> {
        let there: HashSet<Process> = processes.iter().copied().collect();
        self.turns
            .retain(|pid, turn| there.contains(&(*pid, turn.process)));
        let mut due: Vec<(u64, u64, u32)> = processes
            .iter()
            .map(|(pid, _)| match self.turns.get(pid) {
                Some(turn) if now_ns.saturating_sub(turn.since_ns) >= NEW_NS => {
                    (turn.after_ns, turn.at_ns, *pid)
                }
                turn => (0, turn.map_or(0, |turn| turn.at_ns), *pid),
            })
            .filter(|(_, at_ns, _)| *at_ns <= now_ns)
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(.., pid)| pid).collect()
    }

    /// A process was looked at.
    fn looked(&mut self, (pid, process): Process, name: Option<String>, now_ns: u64) {
        let before = self.turns.get(&pid);
        let before = before.filter(|turn| turn.process == process && turn.name == name);
        let (since_ns, after_ns) = match before {
            Some(turn) => (turn.since_ns, (turn.after_ns * 2).min(AGAIN_NS.1)),
            None => (now_ns, AGAIN_NS.0),
        };
        let turn = Turn {
            process,
            name,
            since_ns,
            at_ns: now_ns + after_ns,
            after_ns,
        };
        self.turns.insert(pid, turn);
    }

    /// Looks that began at this time have cost so much CPU time.
    fn pause(&mut self, now_ns: u64, cost_ns: u64) {
        self.owed_ns = self.owed_ns.saturating_add(cost_ns.saturating_mul(SHARE));
        let pause_ns = self.owed_ns.clamp(PAUSE_NS.0, PAUSE_NS.1);
        self.owed_ns = self.owed_ns.saturating_sub(pause_ns);
        self.next_ns = now_ns + pause_ns;
    }
}

impl Usdt {
    /// Attaches to the files that are there at the start.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf) -> Told {
        for process in self.scope.processes(self.scope.pids.clone()) {
            self.look_at(ebpf, process, u64::MAX);
        }
        if !self.scope.alone() {
            let pairs = Arc::clone(&self.pairs);
            for path in pairs.iter().filter_map(|pair| pair.path.as_deref()) {
                self.attacher.path(ebpf, path);
            }
        }
        let now_ns = mono_ns();
        self.rounds.next_ns = now_ns + PAUSE_NS.0;
        self.rounds.forget_ns = now_ns + FORGET_NS;
        self.attacher.later = true;
        self.attacher.told()
    }

    /// Attaches to files that are mapped since, if it is time to look for them; what there is to tell of it.
    pub(in crate::capture) fn attach_later(
        &mut self,
        ebpf: &mut Ebpf,
        targets: &Targets,
        now_ns: u64,
    ) -> Option<Told> {
        if now_ns < self.rounds.next_ns {
            return None;
        }
        // Processes that were asked for may still map a file that is attached to for others.
        if !self.scope.alone()
            && let Some(why) = self.attacher.full()
        {
            let was_over = mem::replace(&mut self.rounds.is_over, true);
            return (!was_over).then(|| Told::full(why));
        }
        let before_ns = cpu_ns();
        if now_ns >= self.rounds.forget_ns {
            self.rounds.forget_ns = now_ns + FORGET_NS;
            self.attacher.forget();
        }
        let processes = self.scope.processes(targets.alive());
        let which: HashMap<u32, u64> = processes.iter().copied().collect();
        let until_ns = mono_ns() + STEP_NS;
        for pid in self.rounds.due(&processes, now_ns) {
            let process = (pid, which.get(&pid).copied().unwrap_or_default());
            self.look_at(ebpf, process, until_ns);
            if mono_ns() >= until_ns {
                break;
            }
        }
        let cost_ns = cpu_ns().saturating_sub(before_ns);
        self.rounds.pause(now_ns, cost_ns);
        let told = self.attacher.told();
        (!told.is_empty()).then_some(told)
    }

    /// Looks at a process, and at the rest of its files in the next step if it is time to stop.
    fn look_at(&mut self, ebpf: &mut Ebpf, process: Process, until_ns: u64) {
        let pid = process.0;
        if self.scope.alone() || self.scope.names(pid) {
            let rest = self.rounds.rest.take_if(|(rest, _)| *rest == pid);
            let from = rest.map_or(0, |(_, from)| from);
            let alone = self.scope.alone();
            let next = self.attacher.process(ebpf, pid, alone, from, until_ns);
            if let Some(next) = next {
                self.rounds.rest = Some((pid, next));
                return;
            }
        }
        self.rounds.looked(process, proc::name(pid, pid), mono_ns());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(rounds: &mut Rounds, pid: u32, now_ns: u64) {
        rounds.looked((pid, 1), None, now_ns);
    }

    #[test]
    fn new_processes_come_first_and_old_ones_less_and_less_often() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.due(&[(7, 1), (8, 1)], 0), [7, 8]);
        looked(&mut rounds, 7, 0);
        assert_eq!(rounds.due(&[(7, 1), (8, 1)], 1), [8]);
        looked(&mut rounds, 8, 1);
        assert!(rounds.due(&[(7, 1), (8, 1)], 2).is_empty());
        let three = [(7, 1), (8, 1), (9, 1)];
        assert_eq!(rounds.due(&three, AGAIN_NS.0), [9, 7]);
        looked(&mut rounds, 7, AGAIN_NS.0);
        let turn = &rounds.turns[&7];
        assert_eq!(turn.at_ns, AGAIN_NS.0 * 3);
        assert_eq!(turn.after_ns, AGAIN_NS.0 * 2);
        for _ in 0..20 {
            looked(&mut rounds, 7, AGAIN_NS.0);
        }
        assert_eq!(rounds.turns[&7].at_ns, AGAIN_NS.0 + AGAIN_NS.1);
        // Long overdue, and still behind one that is new.
        looked(&mut rounds, 9, NEW_NS * 100);
        let late = NEW_NS * 100 + AGAIN_NS.0;
        assert_eq!(rounds.due(&three, late), [9, 8, 7]);
        // One that has ended is forgotten: its number is that of a new process.
        assert_eq!(rounds.due(&[(8, 1)], u64::MAX), [8]);
        assert_eq!(rounds.due(&[(7, 1), (8, 1)], 2), [7]);
    }

    #[test]
    fn another_process_or_program_is_new() {
        let mut rounds = Rounds::default();
        for _ in 0..9 {
            rounds.looked((7, 1), Some("sh".into()), 0);
        }
        assert!(rounds.due(&[(7, 1)], AGAIN_NS.0).is_empty());
        assert_eq!(rounds.due(&[(7, 2)], AGAIN_NS.0), [7]);
        for _ in 0..9 {
            rounds.looked((7, 2), Some("sh".into()), 0);
        }
        rounds.looked((7, 2), Some("shop".into()), 0);
        assert_eq!(rounds.due(&[(7, 2)], AGAIN_NS.0), [7]);
    }

    #[test]
    fn what_looks_cost_is_made_good_by_pauses_that_are_not_too_long() {
        let mut rounds = Rounds::default();
        rounds.pause(0, 1);
        assert_eq!((rounds.next_ns, rounds.owed_ns), (PAUSE_NS.0, 0));
        // A tenth of a second: ten seconds.
        rounds.pause(0, 100_000_000);
        for _ in 0..4 {
            assert_eq!(rounds.next_ns, PAUSE_NS.1);
            rounds.pause(0, 0);
        }
        assert_eq!((rounds.next_ns, rounds.owed_ns), (PAUSE_NS.1, 0));
        rounds.pause(0, 0);
        assert_eq!(rounds.next_ns, PAUSE_NS.0);
        rounds.pause(0, u64::MAX);
        assert_eq!(rounds.next_ns, PAUSE_NS.1);
    }
}
