//! What `/proc` says of threads: state, files, time on CPUs, numbers in their own namespace.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::DirEntryExt,
};

use observer_common::COMM_LEN;

/// Threads of a process that are looked at: more than any limit of the kernel's by default.
pub const MAX_THREADS: usize = 1 << 17;
/// Bytes read of one file of a thread.
const MAX_BYTES: u64 = 16 << 10;
/// Bytes kept of a process's title.
const MAX_TITLE: usize = 1 << 10;

/// What a thread is doing, as the kernel's letter for it (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// `R`: on a CPU, or waiting for one.
    Runnable,
    /// `S`: asleep, and a signal would wake it.
    Sleeping,
    /// `D`: asleep, and nothing but what it waits for wakes it.
    Uninterruptible,
    /// `T` or `t`: stopped by a signal or a debugger.
    Stopped,
    /// `Z` or `X`: ended.
    Ended,
    /// Another one.
    Other,
}

/// What `/proc/PID/task/TID/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Name of the thread.
    pub comm: String,
    /// What it is doing.
    pub state: State,
    /// When it was started, in clock ticks since the boot: with the number it identifies the thread.
    pub started: u64,
}

pub(super) fn read(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// State of a thread; `None`: there is none.
pub fn stat(pid: u32, tid: u32) -> Option<Stat> {
    parse_stat(&read(&format!("/proc/{pid}/task/{tid}/stat"))?)
}

/// Is there this thread? One that cannot be looked at may be there.
pub fn lives(pid: u32, tid: u32) -> bool {
    fs::exists(format!("/proc/{pid}/task/{tid}")).unwrap_or(true)
}

/// `123 (name) S …`: the name may hold anything, so the last parenthesis counts.
fn parse_stat(text: &str) -> Option<Stat> {
    let (before, after) = text.rsplit_once(')')?;
    let comm = before.split_once('(')?.1.to_owned();
    let mut fields = after.split_ascii_whitespace();
    let state = match fields.next()? {
        "R" => State::Runnable,
        "S" => State::Sleeping,
        "D" => State::Uninterruptible,
        "T" | "t" => State::Stopped,
        "Z" | "X" => State::Ended,
        _ => State::Other,
    };
    // The state is field 3, the time of the start field 22.
    let started = fields.nth(18)?.parse().ok()?;
    Some(Stat {
        comm,
        state,
        started,
    })
}

/// The process that started a process, or has adopted it.
pub fn parent(pid: u32) -> Option<u32> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')')?.1;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The process that a thread belongs to.
pub fn process_of(tid: u32) -> Option<u32> {
    let status = read(&format!("/proc/{tid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

/// Threads of a process, in no order; none if it is gone.
pub fn threads(pid: u32) -> Vec<u32> {
    numbers(&format!("/proc/{pid}/task"))
}

/// Processes of the host, as far as they can be seen.
pub fn processes() -> Vec<u32> {
    numbers("/proc")
}

/// The same, each with the inode of its folder: a process that gets the number of another one has another.
pub fn processes_and_inodes() -> Vec<(u32, u64)> {
    entries("/proc").collect()
}

/// The name of a thread.
pub fn name(pid: u32, tid: u32) -> Option<String> {
    let mut name = read(&format!("/proc/{pid}/task/{tid}/comm"))?;
    name.truncate(name.trim_end_matches('\n').len());
    Some(name)
}

/// A name as long as the kernel keeps it.
pub fn cut(name: &str) -> &[u8] {
    &name.as_bytes()[..name.len().min(COMM_LEN - 1)]
}

fn numbers(directory: &str) -> Vec<u32> {
    entries(directory).map(|(number, _)| number).collect()
}

fn entries(directory: &str) -> impl Iterator<Item = (u32, u64)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.ino())))
        .take(MAX_THREADS)
}

/// Does the process know its threads by other numbers than this one does (a container)?
pub fn is_in_other_namespace(pid: u32) -> bool {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    match (namespace("self"), namespace(&pid.to_string())) {
        (Some(own), Some(other)) => own != other,
        // Without the permission to look, the status tells.
        _ => own_number(pid, pid).is_some_and(|own| own != pid),
    }
}

/// The parent of a process.
pub fn parent_of(pid: u32) -> Option<u32> {
    let text = read(&format!("/proc/{pid}/stat"))?;
    let fields = text.rsplit_once(')')?.1;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The control groups of a process, a line each (cgroups(7)).
pub fn groups(pid: u32) -> Option<String> {
    read(&format!("/proc/{pid}/cgroup"))
}

/// Is it a thread of the kernel's own? Those have no program.
pub fn is_kernel_thread(pid: u32) -> bool {
    // `PF_KTHREAD` (include/linux/sched.h) in field 9 of the line, the seventh behind the name.
    const PF_KTHREAD: u64 = 0x0020_0000;
    let flags = || {
        let text = read(&format!("/proc/{pid}/stat"))?;
        let fields = text.rsplit_once(')')?.1;
        fields.split_ascii_whitespace().nth(6)?.parse::<u64>().ok()
    };
    flags().is_none_or(|flags| flags & PF_KTHREAD != 0)
}

/// The number that a thread has in the innermost namespace that it is in.
pub fn own_number(pid: u32, tid: u32) -> Option<u32> {
    let status = read(&format!("/proc/{pid}/task/{tid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

/// Nanoseconds that a thread has been on CPUs and on run queues.
pub fn cpu_time(pid: u32, tid: u32) -> Option<(u64, u64)> {
    let text = read(&format!("/proc/{pid}/task/{tid}/schedstat"))?;
    let mut fields = text.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// What a process uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// CPU time so far, user and system.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: u64,
}

/// What a process uses; `None`: it is not there.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    // Behind the name, which may be anything, the third field is the first.
    let fields = stat.get(stat.rfind(')')? + 1..)?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let mut time = || times.next()?.parse::<u64>().ok();
    let ticks = time()?.saturating_add(time()?);
    let pages = read(&format!("/proc/{pid}/statm"))?;
    let pages: u64 = pages.split_ascii_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: no precondition.
    let (tick, page) = unsafe {
        (
            libc::sysconf(libc::_SC_CLK_TCK),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    Some(Usage {
        cpu_seconds: ticks as f64 / tick.max(1) as f64,
        resident_bytes: pages.saturating_mul(u64::try_from(page).ok()?),
    })
}

/// How often a thread that sleeps has left a CPU. None: it does not sleep, or it is not there.
pub fn switches_of_sleeper(pid: u32, tid: u32) -> Option<u64> {
    parse_switches(&read(&format!("/proc/{pid}/task/{tid}/status"))?)
}

fn parse_switches(status: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()
    };
    if !matches!(field("State:")?, "S" | "D" | "T" | "t") {
        return None;
    }
    let own: u64 = field("voluntary_ctxt_switches:")?.parse().ok()?;
    let others: u64 = field("nonvoluntary_ctxt_switches:")?.parse().ok()?;
    own.checked_add(others)
}

/// What a process says it is: its first argument, or the title that it put there. The first KiB of it.
pub fn title(pid: u32) -> Option<String> {
    let mut text = read(&format!("/proc/{pid}/cmdline"))?;
    text.truncate(text.floor_char_boundary(MAX_TITLE));
    text.truncate(text.find('\0').unwrap_or(text.len()));
    Some(text)
}

/// What a descriptor of a process refers to: a path, `socket:[123]`, `pipe:[123]`.
pub fn file(pid: u32, fd: u64) -> Option<String> {
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    let target = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    Some(target.to_string_lossy().into_owned())
}

/// Microseconds for which a process's control group was kept off the CPUs by its quota; `None`: it has no
/// quota, or it cannot be told. Both versions of control groups, where they are usually mounted.
pub fn throttled_us(pid: u32) -> Option<u64> {
    let groups = read(&format!("/proc/{pid}/cgroup"))?;
    let of_version_2 = || {
        let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        let stat = read(&format!("/sys/fs/cgroup{path}/cpu.stat"))?;
        number_after(&stat, "throttled_usec ")
    };
    of_version_2().or_else(|| {
        let path = groups.lines().find_map(cpu_group)?;
        ["cpu", "cpu,cpuacct"].iter().find_map(|root| {
            let stat = read(&format!("/sys/fs/cgroup/{root}{path}/cpu.stat"))?;
            number_after(&stat, "throttled_time ").map(|ns| ns / 1_000)
        })
    })
}

/// The path in a line like `3:cpu,cpuacct:/group` of version 1.
fn cpu_group(line: &str) -> Option<&str> {
    let mut parts = line.splitn(3, ':');
    let controllers = parts.nth(1)?;
    controllers
        .split(',')
        .any(|name| name == "cpu")
        .then(|| parts.next())?
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_are_parsed_whatever_the_name() {
        let tail = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        for (name, letter, state) in [
            ("a", "S", State::Sleeping),
            ("x) R (y", "D", State::Uninterruptible),
            ("", "Z", State::Ended),
            ("new\nline", "t", State::Stopped),
        ] {
            let stat = parse_stat(&format!("12 ({name}) {letter} {tail}")).unwrap();
            assert_eq!(stat.comm, name);
            assert_eq!((stat.state, stat.started), (state, 777));
        }
        for text in ["", "1", "1 (", "1 (a)", "1 (a) S 1 2"] {
            assert_eq!(parse_stat(text), None);
        }
    }

    #[test]
    fn switches_of_sleepers_are_counted() {
        let status = |state: &str| {
            format!(
                "Name:\tx\nState:\t{state}\nvoluntary_ctxt_switches:\t3\n\
                 nonvoluntary_ctxt_switches:\t4\n"
            )
        };
        assert_eq!(parse_switches(&status("S (sleeping)")), Some(7));
        assert_eq!(parse_switches(&status("R (running)")), None);
        assert_eq!(parse_switches("State:\tS\n"), None);
        assert_eq!(parse_switches(""), None);
    }

    #[test]
    fn groups_of_version_1_are_found() {
        assert_eq!(cpu_group("3:cpu,cpuacct:/a/b:c"), Some("/a/b:c"));
        assert_eq!(cpu_group("1:cpu:/"), Some("/"));
        for line in ["2:cpuacct:/x", "0::/y", "", "cpu"] {
            assert_eq!(cpu_group(line), None);
        }
        assert_eq!(
            number_after("a 1\nthrottled_time 77\n", "throttled_time "),
            Some(77)
        );
    }

    #[test]
    fn own_threads_are_seen() {
        let pid = std::process::id();
        assert!(threads(pid).contains(&pid));
        assert!(stat(pid, pid).is_some());
        assert!(!is_in_other_namespace(pid));
        assert!(cpu_time(pid, pid).is_some());
        assert_eq!(stat(u32::MAX, u32::MAX), None);
        assert!(threads(u32::MAX).is_empty());
    }
}
