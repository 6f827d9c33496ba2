//! Whose files are attached to.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    capture::{Options, cgroup},
    inspect::proc,
};

/// Control groups that are looked through.
const MAX_GROUPS: usize = 4_096;
/// Threads of a process whose names are read.
const MAX_NAMES: usize = 1_024;

/// A process: its number, and what tells it from another one that has the same number later.
pub(super) type Process = (u32, u64);

/// The processes whose files are attached to.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// These, and each for itself.
    pub(super) pids: Vec<u32>,
    /// If there are none: those in these control groups, and these beside them; all if there are none either.
    groups: Vec<PathBuf>,
    beside: Vec<u32>,
    /// Of the latter those with a thread of such a name, if there are names.
    names: Vec<String>,
}

impl Scope {
    pub(super) fn of(options: &Options) -> Scope {
        let pids = options.whole_processes().to_vec();
        let beside = if pids.is_empty() {
            options.pids.clone()
        } else {
            Vec::new()
        };
        let groups = options.cgroups.iter();
        Scope {
            pids,
            groups: groups.filter_map(|one| cgroup::folder(one).ok()).collect(),
            beside,
            names: options.comms.clone(),
        }
    }

    /// Is a file attached to for each process by itself?
    pub(super) fn alone(&self) -> bool {
        !self.pids.is_empty()
    }

    /// The processes there are, of those that were asked for these, but for this one.
    pub(super) fn processes(&self, alive: Vec<u32>) -> Vec<Process> {
        let mut wanted: HashSet<u32> = if self.alone() {
            alive.into_iter().collect()
        } else if self.groups.is_empty() {
            let mut all = proc::processes_and_inodes();
            all.retain(|(pid, _)| *pid != std::process::id());
            return all;
        } else {
            self.beside.iter().copied().collect()
        };
        if !self.alone() {
            let mut left = MAX_GROUPS;
            for group in &self.groups {
                members(group, &mut wanted, &mut left);
            }
            wanted.remove(&std::process::id());
        }
        let there = wanted.into_iter().filter_map(|pid| {
            let metadata = fs::metadata(format!("/proc/{pid}")).ok()?;
            Some((pid, metadata.ino()))
        });
        there.collect()
    }

    /// Has a process a thread of a name that was asked for?
    pub(super) fn names(&self, pid: u32) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let mut threads = proc::threads(pid).into_iter().take(MAX_NAMES);
        threads.any(|tid| {
            let name = proc::name(pid, tid).unwrap_or_default();
            self.names
                .iter()
                .any(|one| proc::cut(one) == name.as_bytes())
        })
    }
}

/// The processes in a control group and below.
fn members(group: &Path, to: &mut HashSet<u32>, left: &mut usize) {
    let Some(fewer) = left.checked_sub(1) else {
        return;
    };
    *left = fewer;
    let numbers = |name: &str| {
        let text = fs::read_to_string(group.join(name)).ok()?;
        Some(text.lines().filter_map(|line| line.parse().ok()).collect())
    };
    // A group of threads does not tell processes.
    let processes: Vec<u32> = numbers("cgroup.procs").unwrap_or_else(|| {
        let threads: Vec<u32> = numbers("cgroup.threads").unwrap_or_default();
        threads.into_iter().filter_map(proc::process_of).collect()
    });
    // 0: of another namespace.
    to.extend(processes.into_iter().filter(|pid| *pid != 0));
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members(&entry.path(), to, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_processes_are_taken_or_those_that_were_asked_for() {
        let mut sleep = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let (own, other) = (std::process::id(), sleep.id());
        let has = |scope: &Scope, pid| {
            let mut processes = scope.processes(scope.pids.clone()).into_iter();
            processes.any(|one| one.0 == pid)
        };
        let all = Scope::default();
        assert!(has(&all, other) && !has(&all, own) && all.names(own));
        let one = Scope {
            pids: vec![other, u32::MAX / 2],
            ..Scope::default()
        };
        assert!(one.alone() && has(&one, other) && !has(&one, u32::MAX / 2));
        let inodes = |scope: &Scope| {
            let mut processes = scope.processes(scope.pids.clone()).into_iter();
            processes.find(|one| one.0 == other)
        };
        assert_eq!(inodes(&one), inodes(&all));
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert!(!has(&one, other));
    }

    #[test]
    fn names_are_those_of_threads_as_the_kernel_cuts_them() {
        let scope = |name: &str| Scope {
            names: vec![name.to_owned()],
            ..Scope::default()
        };
        let own = std::process::id();
        let named = std::thread::Builder::new().name("a-thread-of-a-long-name".into());
        let found = named.spawn(move || scope("a-thread-of-a-long-name").names(own));
        assert!(found.unwrap().join().unwrap());
        assert!(!scope("a-thread-of-another").names(own));
    }

    #[test]
    fn groups_are_looked_through_with_what_is_below() {
        let folder = std::env::temp_dir().join(format!("observer-groups-{}", std::process::id()));
        let below = folder.join("below");
        fs::create_dir_all(&below).unwrap();
        fs::write(folder.join("cgroup.procs"), "7\n0\n").unwrap();
        fs::write(below.join("cgroup.procs"), "8\n").unwrap();
        let found = |mut left| {
            let mut found = HashSet::new();
            members(&folder, &mut found, &mut left);
            found
        };
        assert_eq!(found(9), HashSet::from([7, 8]));
        assert_eq!(found(1), HashSet::from([7]));
        fs::remove_dir_all(&folder).unwrap();
    }
}
