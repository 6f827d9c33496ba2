//! The machine that was measured on: without it no number means anything.

use std::fs;
use std::thread;

use crate::cmd;

/// What is said of it.
pub(super) struct Machine {
    cpu: String,
    cpus: usize,
    hypervisor: bool,
    memory_mib: u64,
    kernel: String,
    load: String,
    tools: Vec<String>,
}

impl Machine {
    pub(super) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let version = |program: &str| {
            let mut command = std::process::Command::new(program);
            let said = cmd::output(command.arg("--version")).ok()?;
            Some(said.lines().next()?.trim().to_owned())
        };
        Self {
            cpu: cpu_model(&cpuinfo)
                .unwrap_or("a CPU without a name")
                .to_owned(),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            hypervisor: has_hypervisor(&cpuinfo),
            memory_mib: memory_mib(&read("/proc/meminfo")).unwrap_or(0),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: first_word(&read("/proc/loadavg")).to_owned(),
            tools: ["bpftrace", "perf"]
                .into_iter()
                .filter_map(version)
                .collect(),
        }
    }

    /// How many threads wanted a CPU in the minute before.
    pub(super) fn load(&self) -> f64 {
        self.load.parse().unwrap_or(0.0)
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        format!(
            "{} × {}{}, {} MiB, Linux {}, load {} at the start",
            self.cpus,
            self.cpu,
            self.virtual_(),
            self.memory_mib,
            self.kernel,
            self.load
        )
    }

    /// As a list for the page.
    pub(super) fn list(&self) -> String {
        let mut text = format!(
            "- CPU: {} × {}{}\n- memory: {} MiB\n- kernel: Linux {}\n- load average at the start: {}",
            self.cpus,
            self.cpu,
            self.virtual_(),
            self.memory_mib,
            self.kernel,
            self.load
        );
        if !self.tools.is_empty() {
            text.push_str("\n- others: ");
            text.push_str(&self.tools.join(", "));
        }
        text
    }

    fn virtual_(&self) -> &'static str {
        if self.hypervisor {
            " (a virtual machine)"
        } else {
            ""
        }
    }

    #[cfg(test)]
    pub(super) fn example() -> Self {
        Self {
            cpu: "Example CPU".into(),
            cpus: 2,
            hypervisor: true,
            memory_mib: 4096,
            kernel: "6.18.0".into(),
            load: "0.10".into(),
            tools: vec!["perf version 6.1".into()],
        }
    }
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

fn has_hypervisor(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| line.split_whitespace().any(|flag| flag == "hypervisor"))
}

fn memory_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = first_word(line).parse().ok()?;
    Some(kib / 1024)
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_files_are_understood() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: Example CPU @ 3.0GHz\nflags\t\t: fpu hypervisor\n";
        assert_eq!(cpu_model(cpuinfo), Some("Example CPU @ 3.0GHz"));
        assert!(has_hypervisor(cpuinfo) && !has_hypervisor("flags\t: fpu\n"));
        assert_eq!(
            memory_mib("MemTotal:       2048 kB\nMemFree: 1 kB\n"),
            Some(2)
        );
        assert_eq!(memory_mib(""), None);
    }

    #[test]
    fn a_machine_fits_a_line() {
        let line =
            "2 × Example CPU (a virtual machine), 4096 MiB, Linux 6.18.0, load 0.10 at the start";
        assert_eq!(Machine::example().line(), line);
    }
}
