//! How a thread is scheduled, what its control group may use, and what its process has open: read when somebody
//! looks at the thread.

use std::fs;

use super::{
    proc::{self, read},
    registers::{self, Snapshot},
};
use observer_common::syscall;

/// Descriptors that are counted.
const MAX_FILES: usize = 100_000;
/// Control groups above one another that are asked for their quota.
const MAX_DEPTH: usize = 32;

/// The path of a process's control group: that of version 2, or the one that systemd made, or any.
pub fn cgroup(pid: u32) -> Option<String> {
    let text = read(&format!("/proc/{pid}/cgroup"))?;
    let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    let unified = text.lines().find(|line| line.starts_with("0::"));
    let named = |name: &str| {
        text.lines()
            .find(|line| line.split(':').nth(1) == Some(name))
    };
    let found = unified
        .filter(|line| *line != "0::/")
        .or_else(|| named("name=systemd"))
        .or_else(|| named("pids"))
        .or(unified)
        .or_else(|| text.lines().next())?;
    path(found)
}

/// What is known, a label and a text each. Empty when the thread has ended.
pub fn facts(pid: u32, tid: u32) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let stat = read(&format!("/proc/{pid}/task/{tid}/stat"));
    facts.extend(
        stat.as_deref()
            .and_then(scheduling)
            .map(|text| ("scheduled as", text)),
    );
    if let Some(path) = cgroup(pid) {
        facts.extend(quota(&path, pid).map(|text| ("CPU quota", text)));
        facts.push(("control group", path));
    }
    facts.extend(files(pid).map(|text| ("open files", text)));
    facts.extend(descriptor(pid, tid).map(|text| ("waits on", text)));
    facts
}

/// `other, nice 5` or `fifo, priority 10`, from a line of `stat`.
fn scheduling(stat: &str) -> Option<String> {
    let (_, after) = stat.rsplit_once(')')?;
    // The state is field 3, nice field 19, the priority for real time field 40, the policy field 41.
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let nice: i32 = fields.get(16)?.parse().ok()?;
    let priority: u32 = fields.get(37)?.parse().ok()?;
    let policy = match fields.get(38)?.parse().ok()? {
        libc::SCHED_OTHER => "other",
        libc::SCHED_FIFO => "fifo",
        libc::SCHED_RR => "round robin",
        libc::SCHED_BATCH => "batch",
        libc::SCHED_IDLE => "idle",
        libc::SCHED_DEADLINE => "deadline",
        _ => "another policy",
    };
    Some(if priority > 0 {
        format!("{policy}, priority {priority}")
    } else {
        format!("{policy}, nice {nice}")
    })
}

/// The smallest quota of a control group and those above it, and for how long it kept the group off the CPUs.
fn quota(path: &str, pid: u32) -> Option<String> {
    let mut least: Option<(f64, String)> = None;
    let mut at = path;
    for _ in 0..MAX_DEPTH {
        if let Some(cpus) = cpus_of(at)
            && least.as_ref().is_none_or(|(old, _)| cpus < *old)
        {
            least = Some((cpus, at.to_owned()));
        }
        match at.rsplit_once('/') {
            Some((above, _)) if !above.is_empty() => at = above,
            _ => break,
        }
    }
    let (cpus, of) = least?;
    let throttled = proc::throttled_us(pid).unwrap_or(0);
    let throttled = crate::time::human(throttled.saturating_mul(1_000));
    Some(format!(
        "{cpus:.2} CPUs by {of}; kept off them for {throttled} so far"
    ))
}

/// The CPUs that a control group's own quota gives it.
fn cpus_of(path: &str) -> Option<f64> {
    let limit = |quota: &str, period: &str| {
        let (quota, period): (i64, i64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
        (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
    };
    if let Some(text) = read(&format!("/sys/fs/cgroup{path}/cpu.max")) {
        let (quota, period) = text.trim().split_once(' ')?;
        return limit(quota, period);
    }
    ["cpu", "cpu,cpuacct"].iter().find_map(|root| {
        let file = |name: &str| read(&format!("/sys/fs/cgroup/{root}{path}/{name}"));
        limit(&file("cpu.cfs_quota_us")?, &file("cpu.cfs_period_us")?)
    })
}

fn files(pid: u32) -> Option<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let open = open.take(MAX_FILES).count();
    let more = if open == MAX_FILES { " or more" } else { "" };
    let limits = read(&format!("/proc/{pid}/limits"))?;
    let limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_ascii_whitespace().next())?;
    Some(format!("{open}{more}, of {limit} allowed"))
}

/// The descriptor that the thread's system call waits for, and what it refers to.
fn descriptor(pid: u32, tid: u32) -> Option<String> {
    let Ok(Snapshot::Blocked(registers)) = registers::from_proc(pid, tid) else {
        return None;
    };
    let call = registers.call?;
    let name = syscall::name(call.nr as i32)?;
    if !takes_descriptor(name) {
        return None;
    }
    let fd = call.args[0];
    let file = proc::file(pid, fd)?;
    Some(format!("descriptor {fd}, {file}, in {name}"))
}

/// Is the first argument of the system call a descriptor?
fn takes_descriptor(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "read",
        "write",
        "pread64",
        "pwrite64",
        "readv",
        "writev",
        "preadv",
        "pwritev",
        "preadv2",
        "pwritev2",
        "recvfrom",
        "recvmsg",
        "recvmmsg",
        "sendto",
        "sendmsg",
        "sendmmsg",
        "accept",
        "accept4",
        "connect",
        "fsync",
        "fdatasync",
        "flock",
        "fcntl",
        "ioctl",
        "epoll_wait",
        "epoll_pwait",
        "epoll_pwait2",
        "ftruncate",
        "fallocate",
        "sync_file_range",
        "syncfs",
        "getdents64",
        "io_uring_enter",
    ];
    NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read as _, os::fd::AsRawFd as _};

    #[test]
    fn scheduling_is_read() {
        let line = |nice: i32, priority: u32, policy: u32| {
            let zeros = "0 ".repeat(20);
            format!(
                "7 (a) b) S {}20 {nice} {zeros}{priority} {policy} 0",
                "1 ".repeat(14)
            )
        };
        assert_eq!(scheduling(&line(5, 0, 0)).unwrap(), "other, nice 5");
        assert_eq!(scheduling(&line(0, 10, 1)).unwrap(), "fifo, priority 10");
        assert_eq!(scheduling("7 (a) S 1 2 3"), None);
    }

    #[test]
    fn facts_of_a_thread_that_reads_a_pipe() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let fd = reader.as_raw_fd();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: gettid takes nothing and always succeeds.
            tell.send(unsafe { libc::gettid() } as u32).unwrap();
            let _ = reader.read(&mut [0]);
        });
        let (pid, tid) = (std::process::id(), told.recv().unwrap());
        let began = std::time::Instant::now();
        loop {
            let facts = facts(pid, tid);
            let text = |label| {
                let found = facts.iter().find(|(one, _)| *one == label);
                found.map(|(_, text)| text.as_str())
            };
            assert!(text("scheduled as").unwrap().contains("nice"));
            assert!(text("open files").unwrap().contains("allowed"));
            if text("waits on").is_some_and(|text| {
                text.starts_with(&format!("descriptor {fd}, pipe:[")) && text.ends_with("in read")
            }) {
                break;
            }
            assert!(began.elapsed().as_secs() < 60, "{facts:?}");
            std::thread::yield_now();
        }
        drop(writer);
        thread.join().unwrap();
        assert!(facts(u32::MAX, 1).is_empty());
    }
}
