//! What this host is and what it allows: kernel, types, tracing file system, privileges, sizes.

use std::{
    ffi::CStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use observer_common::{ABSENT, Settings};

use super::btf::{self, Btf};

/// Places where the tracing file system is usually mounted.
pub const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// Capabilities that matter here: bit, name, what for.
pub const CAPABILITIES: [(u32, &str, &str); 6] = [
    (39, "CAP_BPF", "load kernel programs and their tables"),
    (
        38,
        "CAP_PERFMON",
        "attach them to tracepoints, read kernel memory",
    ),
    (
        19,
        "CAP_SYS_PTRACE",
        "read names, maps and memory of other users' processes",
    ),
    (
        2,
        "CAP_DAC_READ_SEARCH",
        "read tracepoint identifiers in the tracing file system",
    ),
    (
        34,
        "CAP_SYSLOG",
        "read the addresses of the kernel's symbols, to name its locks",
    ),
    (
        CAP_SYS_RESOURCE,
        "CAP_SYS_RESOURCE",
        "lock memory for tables on kernels before 5.11",
    ),
];
/// Bit of `CAP_SYS_ADMIN`.
pub const CAP_SYS_ADMIN: u32 = 21;
/// Bit of `CAP_SYS_RESOURCE`.
pub const CAP_SYS_RESOURCE: u32 = 24;
/// Bytes of a kernel stack on x86-64 (`THREAD_SIZE`, arch/x86/include/asm/page_64_types.h; KASAN
/// kernels have larger ones and are newer than those that need it).
const THREAD_SIZE: u32 = 16_384;

/// What the kernel is.
#[derive(Debug)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// Kernel release, as `uname -r`.
    pub kernel: String,
    /// CPUs that can be online.
    pub cpus: u32,
    /// Effective capabilities of this process.
    pub capabilities: u64,
    /// Where the tracing file system is, if it can be read.
    pub tracefs: Option<PathBuf>,
}

impl Host {
    /// Looks at the host this process runs on.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn look() -> Result<Host> {
        let (name, kernel) = uname();
        Ok(Host {
            name,
            kernel,
            cpus: possible_cpus(),
            capabilities: effective_capabilities()?,
            tracefs: tracefs(),
        })
    }

    /// Has this process a capability? `CAP_SYS_ADMIN` stands for those split from it.
    pub fn has_capability(&self, bit: u32) -> bool {
        let admin = self.capabilities >> CAP_SYS_ADMIN & 1 == 1;
        self.capabilities >> bit & 1 == 1 || (admin && matches!(bit, 38 | 39))
    }

    /// Names of the capabilities without which nothing can be loaded.
    pub fn missing_to_load(&self) -> Vec<&'static str> {
        CAPABILITIES
            .iter()
            .filter(|(bit, ..)| matches!(bit, 38 | 39) && !self.has_capability(*bit))
            .map(|(_, name, _)| *name)
            .collect()
    }

    /// Has the tracing file system this event?
    pub fn has_tracepoint(&self, category: &str, name: &str) -> bool {
        self.tracefs.as_ref().is_some_and(|root| {
            root.join("events")
                .join(category)
                .join(name)
                .join("id")
                .exists()
        })
    }
}

fn uname() -> (String, String) {
    // SAFETY: an all-zero utsname is a valid value, and the call fills it.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `names` is valid for writes.
    unsafe { libc::uname(&raw mut names) };
    let text = |field: &[libc::c_char]| {
        // SAFETY: the kernel ends each field with a NUL within its array.
        unsafe { CStr::from_ptr(field.as_ptr()) }
            .to_string_lossy()
            .into_owned()
    };
    (text(&names.nodename), text(&names.release))
}

/// The greatest number in `/sys/devices/system/cpu/possible` ("0-3,8"), plus one.
fn possible_cpus() -> u32 {
    fs::read_to_string("/sys/devices/system/cpu/possible")
        .ok()
        .and_then(|text| last_cpu(&text))
        .map_or(1, |last| last + 1)
}

fn last_cpu(text: &str) -> Option<u32> {
    text.trim().rsplit([',', '-']).next()?.parse().ok()
}

fn effective_capabilities() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")
        .context("cannot read /proc/self/status: is /proc mounted?")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .context("/proc/self/status has no CapEff line")
}

fn tracefs() -> Option<PathBuf> {
    TRACEFS
        .iter()
        .map(Path::new)
        .find(|root| root.join("events").is_dir())
        .map(Path::to_path_buf)
}

/// Highest thread identifier plus one, and threads there are now.
pub fn thread_limits() -> (u32, u32) {
    let pid_max = read_number("/proc/sys/kernel/pid_max").unwrap_or(4_194_304);
    let threads = fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| {
            let running = text.split_whitespace().nth(3)?;
            running.split('/').nth(1)?.parse().ok()
        })
        .unwrap_or(0);
    (pid_max, threads)
}

fn read_number(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The part of [`Settings`] that comes from the kernel's types.
///
/// # Errors
/// Something without which nothing works is not there; the message names it.
pub fn settings_from(btf: &Btf) -> Result<Settings> {
    let need = |path: &str| {
        btf.offset("task_struct", path)
            .with_context(|| format!("the kernel's types have no task_struct.{path}"))
    };
    let has_pt_regs = btf.has_enum_value("BPF_FUNC_task_pt_regs");
    let args = btf
        .tracepoint_args("sched_switch")
        .context("the kernel's types have no tracepoint sched_switch")?;
    let signals = [
        btf.offset("task_struct", "pending.signal"),
        btf.offset("task_struct", "blocked"),
        btf.offset("task_struct", "signal"),
        btf.offset("signal_struct", "shared_pending.signal"),
    ];
    let [pending, blocked, signal, shared_pending] = all_or_none(signals);
    let switches = [
        btf.offset("task_struct", "nvcsw"),
        btf.offset("task_struct", "nivcsw"),
    ];
    let [nvcsw, nivcsw] = all_or_none(switches);
    Ok(Settings {
        off_pid: need("pid")?,
        off_tgid: need("tgid")?,
        off_state: need("__state").or_else(|_| need("state"))?,
        off_flags: need("flags")?,
        off_comm: need("comm")?,
        off_stack: need("stack")?,
        off_pending: pending,
        off_blocked: blocked,
        off_signal: signal,
        off_shared_pending: shared_pending,
        off_nvcsw: nvcsw,
        off_nivcsw: nivcsw,
        has_state_arg: u32::from(args >= 4),
        has_pt_regs: u32::from(has_pt_regs),
        // Before 5.15 the registers are at the top of the stack; later kernels may leave a gap there
        // (FRED), and have the helper.
        regs_on_stack: u32::from(!has_pt_regs && cfg!(target_arch = "x86_64")),
        stack_size: THREAD_SIZE,
        ..clock_settings(btf, file_settings(btf))
    })
}

/// The scheduler's clock and its account of each task's time, added to `others`.
fn clock_settings(btf: &Btf, others: Settings) -> Settings {
    // The way to the run queue's clock exists with CONFIG_FAIR_GROUP_SCHED only.
    let clock = [
        btf.offset("task_struct", "se.cfs_rq"),
        btf.offset("cfs_rq", "rq"),
        btf.offset("rq", "clock"),
    ];
    let [cfs_rq, cfs_rq_rq, rq_clock] = all_or_none(clock);
    // The account of the time on run queues, with CONFIG_SCHED_INFO.
    let account = [
        btf.offset("task_struct", "sched_info.run_delay"),
        btf.offset("task_struct", "sched_info.last_queued"),
        btf.offset("task_struct", "sched_info.last_arrival"),
    ];
    let left = [
        btf.offset("task_struct", "se.exec_start"),
        btf.offset("rq", "clock_task"),
    ];
    let [exec_start, rq_clock_task] = all_or_none(left.map(|at| at.filter(|_| rq_clock != ABSENT)));
    let [run_delay, last_queued, last_arrival] =
        all_or_none(account.map(|at| at.filter(|_| rq_clock != ABSENT)));
    Settings {
        off_cfs_rq: cfs_rq,
        off_cfs_rq_rq: cfs_rq_rq,
        off_rq_clock: rq_clock,
        off_run_delay: run_delay,
        off_last_queued: last_queued,
        off_last_arrival: last_arrival,
        off_exec_start: exec_start,
        off_rq_clock_task: rq_clock_task,
        ..others
    }
}

/// The way from a task to its open files, without which they are not told apart.
fn file_settings(btf: &Btf) -> Settings {
    let files = [
        btf.offset("task_struct", "files"),
        btf.offset("files_struct", "fdt"),
        btf.offset("fdtable", "max_fds"),
        btf.offset("fdtable", "fd"),
        btf.offset("file", "f_inode"),
        btf.offset("inode", "i_mode"),
    ];
    let [files, fdt, max_fds, fd, inode, mode] = all_or_none(files);
    Settings {
        off_files: files,
        off_fdt: fdt,
        off_max_fds: max_fds,
        off_fd: fd,
        off_inode: inode,
        off_mode: mode,
        ..Settings::default()
    }
}

/// Offsets that are of use together only.
fn all_or_none<const N: usize>(offsets: [Option<u32>; N]) -> [u32; N] {
    if offsets.contains(&None) {
        return [ABSENT; N];
    }
    offsets.map(|offset| offset.unwrap_or(ABSENT))
}

/// The kernel's types.
///
/// # Errors
/// The kernel was built without them (`CONFIG_DEBUG_INFO_BTF`).
pub fn kernel_btf() -> Result<Btf> {
    Btf::read(Path::new(btf::PATH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read() {
        for (text, last) in [
            ("0\n", Some(0)),
            ("0-3\n", Some(3)),
            ("0-3,8-15", Some(15)),
            ("", None),
        ] {
            assert_eq!(last_cpu(text), last);
        }
    }

    #[test]
    fn this_kernel_has_what_is_needed() {
        // Reads the running kernel's types; needs no privileges.
        let Ok(btf) = kernel_btf() else { return };
        let settings = settings_from(&btf).unwrap();
        assert!(settings.off_tgid == settings.off_pid + 4);
        assert!(settings.has_pt_regs == 1 || settings.regs_on_stack == 1);
    }
}
