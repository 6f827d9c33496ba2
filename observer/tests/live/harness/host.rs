//! What this host allows.

use std::{fs, path::Path, process::Command, sync::LazyLock};

use super::Skip;

/// The program under test.
pub(crate) const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");

/// Can the kernel programs be loaded here?
pub(super) fn check() -> Result<(), Skip> {
    let skip = |reason: &str| Err(Skip(reason.to_owned()));
    // SAFETY: the call has no precondition.
    if unsafe { libc::geteuid() } != 0 {
        return skip("not root: kernel programs cannot be loaded");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return skip("no BTF: this kernel was built without CONFIG_DEBUG_INFO_BTF");
    }
    if !kernel_at_least(5, 10) {
        return skip("the kernel is older than 5.10");
    }
    Ok(())
}

/// Is the running kernel of this version or a later one?
pub(crate) fn kernel_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|text| text.parse().ok());
    (next(), next()) >= (Some(major), Some(minor))
}

/// How system call tracepoints can be had.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracefs {
    /// The tracing file system is mounted.
    Mounted,
    /// It can be mounted in a name space of one process.
    Mountable,
    Absent,
}

/// Mounts the tracing file system for the program that `$0` and the other arguments say.
pub(super) const MOUNT_AND_RUN: &str =
    "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; exec \"$0\" \"$@\"";

pub(super) static TRACEFS: LazyLock<Tracefs> = LazyLock::new(|| {
    let event = "events/syscalls/sys_enter_futex/id";
    let roots = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    if roots
        .iter()
        .any(|root| Path::new(root).join(event).exists())
    {
        return Tracefs::Mounted;
    }
    let there = Command::new("unshare")
        .args(["--mount", "sh", "-c", MOUNT_AND_RUN, "test", "-e"])
        .arg(Path::new(roots[0]).join(event))
        .status();
    match there {
        Ok(status) if status.success() => Tracefs::Mountable,
        _ => Tracefs::Absent,
    }
});
