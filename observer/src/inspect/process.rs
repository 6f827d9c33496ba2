//! What is known of each process that is looked at: the runtimes that it has.

use std::{collections::HashMap, sync::Arc};

use super::{
    exports::Exports,
    memory::ProcessMemory,
    proc::{self, Stat},
};
use crate::{
    event::RuntimeOf,
    runtimes::{self, EXPORTS, FILES, Process, Recognised, jvm},
};

/// Processes that are kept; beyond it all are forgotten.
const MAX_PROCESSES: usize = 4_096;
/// What a process maps later than this after it was looked at first is not seen, unless it executes another program.
const LOOKS: u32 = 3;
/// The runtime that nearly every process has: it is not told of by itself.
const C_LIBRARY: &str = "pthread";

/// Processes by number.
#[derive(Debug, Default)]
pub(super) struct Processes {
    exports: Exports,
    known: HashMap<u32, Known>,
    /// Runtimes that were recognised since they were asked for last, with the name of the process.
    news: Vec<(Arc<str>, RuntimeOf)>,
}

#[derive(Debug)]
struct Known {
    started: u64,
    comm: String,
    looks: u32,
    process: Arc<Process>,
    /// Runtimes that have been told.
    told: Vec<&'static str>,
}

impl Processes {
    /// What the files of a process tell of it.
    pub(super) fn of(&mut self, pid: u32) -> Arc<Process> {
        let Some(Stat { comm, started, .. }) = proc::stat(pid, pid) else {
            return Arc::default();
        };
        let same = |known: &&mut Known| known.started == started && known.comm == comm;
        let (mut looks, mut told) = (0, Vec::new());
        if let Some(known) = self.known.get_mut(&pid).filter(same) {
            // A process that has just begun maps its libraries, and starts its runtime, a little later.
            let found = &known.process;
            let recognised = found.postgres.is_some()
                || found.python.is_some()
                || matches!(found.java, Some(Ok(_)));
            if recognised || known.looks >= LOOKS {
                return Arc::clone(&known.process);
            }
            looks = known.looks + 1;
            told = std::mem::take(&mut known.told);
        }
        let names = [&EXPORTS[..], &jvm::EXPORTS].concat();
        let (symbols, files) = self.exports.of(pid, &FILES, &names);
        let process = Arc::new(Process::new(pid, files, symbols, &ProcessMemory::of(pid)));
        for found in runtimes::recognise(&process) {
            if found.runtime != C_LIBRARY
                && !told.contains(&found.runtime)
                && self.news.len() < MAX_PROCESSES
            {
                told.push(found.runtime);
                self.news.push((comm.as_str().into(), of(pid, found)));
            }
        }
        if self.known.len() >= MAX_PROCESSES {
            self.known.clear();
        }
        self.known.insert(
            pid,
            Known {
                started,
                comm,
                looks,
                process: Arc::clone(&process),
                told,
            },
        );
        process
    }

    /// The runtimes that were recognised since the last call, with the name of the process.
    pub(super) fn news(&mut self) -> Vec<(Arc<str>, RuntimeOf)> {
        std::mem::take(&mut self.news)
    }
}

fn of(pid: u32, found: Recognised) -> RuntimeOf {
    RuntimeOf {
        pid,
        runtime: found.runtime.to_owned(),
        detail: found.detail,
    }
}

/// What the files of a process tell of it now.
pub fn process(pid: u32) -> Arc<Process> {
    Processes::default().of(pid)
}

/// The runtimes of processes.
pub fn runtimes(pids: &[u32]) -> Vec<RuntimeOf> {
    let mut processes = Processes::default();
    let mut all = Vec::new();
    for &pid in pids {
        let found = runtimes::recognise(&processes.of(pid));
        all.extend(found.into_iter().map(|found| of(pid, found)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_the_c_librarys() {
        let own = std::process::id();
        let all = runtimes(&[own, u32::MAX / 2]);
        let names: Vec<&str> = all.iter().map(|one| one.runtime.as_str()).collect();
        assert_eq!(names, ["pthread"], "{all:?}");
        assert_eq!(all[0].pid, own);
    }
}
