//! Facts of the host and of the processes asked for, as the kernel tells them: no command lines and no
//! environments, which may hold secrets.

use std::{collections::BTreeMap, fs::File, io::Read};

/// Bytes of one file.
const MAX_BYTES: u64 = 64 << 10;
/// Processes whose facts are kept.
const MAX_PROCESSES: usize = 64;

const OF_HOST: [&str; 16] = [
    "/proc/version",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/diskstats",
    "/proc/swaps",
    "/proc/sys/kernel/pid_max",
    "/proc/sys/kernel/threads-max",
    "/proc/sys/kernel/hung_task_timeout_secs",
    "/proc/sys/kernel/perf_event_paranoid",
    "/proc/sys/kernel/yama/ptrace_scope",
    "/sys/fs/cgroup/cgroup.controllers",
];

const OF_PROCESS: [&str; 6] = ["status", "limits", "cgroup", "schedstat", "io", "stat"];

/// Files by their names, with what is in them. What is not there is left out.
pub(super) fn facts(pids: &[u32]) -> BTreeMap<String, String> {
    let of_processes = pids.iter().take(MAX_PROCESSES).flat_map(|pid| {
        OF_PROCESS
            .iter()
            .map(move |file| format!("/proc/{pid}/{file}"))
    });
    OF_HOST
        .iter()
        .map(|path| (*path).to_owned())
        .chain(of_processes)
        .filter_map(|path| read(&path).map(|text| (path, text)))
        .collect()
}

fn read(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_this_host_and_this_process() {
        let own = std::process::id();
        let facts = facts(&[own, u32::MAX]);
        assert!(facts["/proc/version"].starts_with("Linux"), "{facts:?}");
        assert!(facts[&format!("/proc/{own}/status")].contains("Threads:"));
        assert!(
            !facts
                .keys()
                .any(|path| path.contains(&u32::MAX.to_string()))
        );
    }
}
