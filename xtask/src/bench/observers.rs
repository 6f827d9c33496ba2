//! The columns of the table: what observes the workloads.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::child::Background;
use super::events;
use super::room::Room;
use super::workloads::Workload;
use crate::cmd;
use crate::run;

/// The same job in bpftrace's language.
const FUTEX_BT: &str = include_str!("futex.bt");

/// Everything, always: with its overhead budget observer would do less after two seconds above it, and
/// what then is cheap is no longer the same answer.
pub(super) const TRACE: [&str; 5] = ["trace", "--format", "jsonl", "--max-overhead", "none"];

/// Runs a program with the tracing file systems mounted where only it sees them.
const MOUNT_AND_RUN: &str = "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
    mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
    exec \"$0\" \"$@\"";

/// Something that observes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Observer {
    Empty,
    Default,
    Tracepoint,
    Stream,
    Postgresql,
    Bpftrace,
    Offcputime,
    PerfTrace,
    PerfOffCpu,
    PerfSched,
}

impl Observer {
    /// The heading of its column.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Default => "default",
            Self::Tracepoint => "tracepoint",
            Self::Stream => "stream",
            Self::Postgresql => "postgresql",
            Self::Bpftrace => "bpftrace",
            Self::Offcputime => "offcputime",
            Self::PerfTrace => "perf trace",
            Self::PerfOffCpu => "perf off-cpu",
            Self::PerfSched => "perf sched",
        }
    }

    /// What stands in the page: the command, and what it tells of a wait.
    pub(super) fn about(self) -> (&'static str, &'static str) {
        match self {
            Self::Empty => (
                "observer attach-empty",
                "nothing: programs that return at once, on `sched_switch` and `sched_waking`. The floor for \
                 whatever is attached there",
            ),
            Self::Default => (
                "observer trace --format jsonl --max-overhead none",
                "every wait counted, by lock and by task, with histogram and waker; waits of 1 ms and more \
                 one by one",
            ),
            Self::Tracepoint => (
                "observer trace … --futex tracepoint",
                "the same, futex waits known by the system call's tracepoints",
            ),
            Self::Stream => (
                "observer trace … --min-wait 0 >/dev/null",
                "the same, and every wait one by one",
            ),
            Self::Postgresql => (
                "observer trace … --usdt postgresql",
                "the same as default, and PostgreSQL's locks by its probes: relation, tuple, transaction or \
                 tranche, and mode; on rows with PostgreSQL only",
            ),
            Self::Bpftrace => (
                "bpftrace xtask/src/bench/futex.bt",
                "futex waits only: number, sum, longest and histogram by address, and the waker",
            ),
            Self::Offcputime => (
                "offcputime",
                "time off the CPU by task and stack; no locks, no wakers, no single waits",
            ),
            Self::PerfTrace => (
                "perf trace -s -a",
                "number and times of all system calls by thread; no locks, no wakers",
            ),
            Self::PerfOffCpu => (
                "perf record --off-cpu -a",
                "time off the CPU by stack; no locks, no wakers",
            ),
            Self::PerfSched => (
                "perf sched record -o /dev/null",
                "every switch and wake-up, to be put together afterwards; no locks",
            ),
        }
    }

    /// Does it tell anything of this workload that others do not?
    pub(super) fn is_for(self, workload: Workload) -> bool {
        self != Self::Postgresql || workload.is_postgres()
    }

    /// Why it cannot be had here, if it cannot.
    pub(super) fn missing(self) -> Option<String> {
        match self {
            Self::Empty => fails(
                Command::new(run::released("observer")).args(["attach-empty", "--help"]),
                "this observer has no attach-empty",
            ),
            Self::Default | Self::Stream | Self::Postgresql => None,
            Self::Tracepoint => absent("unshare").or_else(|| {
                let probe = "/sys/kernel/tracing/events/syscalls/sys_enter_futex/id";
                let mut test = in_private_mounts("test", &["-e", probe]);
                fails(&mut test, "this kernel has no system call tracepoints")
            }),
            Self::Bpftrace => absent("bpftrace"),
            Self::Offcputime => absent("offcputime"),
            Self::PerfTrace | Self::PerfSched => absent("perf"),
            Self::PerfOffCpu => absent("perf").or_else(|| {
                // An older perf, or one built without it, says so and records nothing of it.
                let mut perf =
                    in_private_mounts("perf", &["record", "--off-cpu", "-o", "/dev/null", "true"]);
                let said = perf.stdin(Stdio::null()).output().ok()?.stderr;
                let said = String::from_utf8_lossy(&said);
                (said.contains("BUILD_BPF_SKEL") || said.contains("off-cpu"))
                    .then(|| "the perf here was built without it".to_owned())
            }),
        }
    }

    /// Starts it and waits until it observes.
    pub(super) fn start(self, room: &Room) -> Result<Running> {
        let mut command = self.command(room)?;
        let output = room.path("observer.jsonl");
        let kept = matches!(self, Self::Default | Self::Tracepoint | Self::Postgresql);
        command.stdin(Stdio::null());
        if kept {
            let file = File::create(&output)
                .with_context(|| format!("cannot write {}", output.display()))?;
            command.stdout(file);
        } else {
            command.stdout(Stdio::null());
        }
        let mut child = Background::start(&mut command, &room.path("observer.log"))?;
        child.wait_until_attached()?;
        if kept {
            child.wait_until_written(&output)?;
        }
        Ok(Running {
            child,
            output: kept.then_some(output),
        })
    }

    fn command(self, room: &Room) -> Result<Command> {
        let observer = run::released("observer");
        Ok(match self {
            Self::Empty => with(observer, &["attach-empty"]),
            Self::Default => with(observer, &TRACE),
            Self::Stream => with(observer, &[&TRACE[..], &["--min-wait", "0"]].concat()),
            Self::Postgresql => with(observer, &[&TRACE[..], &["--usdt", "postgresql"]].concat()),
            Self::Tracepoint => {
                let args = [&TRACE[..], &["--futex", "tracepoint"]].concat();
                in_private_mounts(observer, &args)
            }
            Self::Bpftrace => {
                let script = room.write("futex.bt", FUTEX_BT)?;
                let mut command = in_private_mounts("bpftrace", &[]);
                command.arg(script);
                command
            }
            Self::Offcputime => in_private_mounts("offcputime", &[]),
            Self::PerfTrace => in_private_mounts("perf", &["trace", "-s", "-a", "-o", "/dev/null"]),
            Self::PerfOffCpu => {
                in_private_mounts("perf", &["record", "--off-cpu", "-a", "-o", "/dev/null"])
            }
            Self::PerfSched => in_private_mounts("perf", &["sched", "record", "-o", "/dev/null"]),
        })
    }
}

/// An observer at work.
pub(super) struct Running {
    child: Background,
    output: Option<PathBuf>,
}

impl Running {
    /// Ends it, and hands back what it lost by cause, if it is one that tells.
    pub(super) fn stop(mut self) -> Result<Option<Losses>> {
        // One that went away in between has not observed.
        self.child.must_run()?;
        self.child.stop()?;
        self.output.as_deref().map(losses).transpose()
    }
}

/// Records lost, by cause.
pub(super) type Losses = BTreeMap<String, u64>;

/// Those of the last `loss` event.
fn losses(path: &Path) -> Result<Losses> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let last = text
        .lines()
        .rev()
        .find(|line| events::kind(line) == Some("loss"));
    let causes = last.and_then(events::causes);
    let causes = causes.context("observer ended without a loss event")?;
    Ok(causes
        .into_iter()
        .map(|(cause, count)| (cause.to_owned(), count))
        .collect())
}

fn with(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// A program in a mount namespace of its own: nothing stays mounted, and perf, which mounts the tracing
/// file system where it is missing, leaves none behind.
fn in_private_mounts(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
    let mut command = with("unshare", &["--mount", "sh", "-c", MOUNT_AND_RUN]);
    command.arg(program).args(args);
    command
}

fn absent(program: &str) -> Option<String> {
    (!cmd::exists(program)).then(|| format!("{program} is not installed"))
}

fn fails(command: &mut Command, reason: &str) -> Option<String> {
    cmd::output(command.stdin(Stdio::null()))
        .is_err()
        .then(|| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_missing() {
        assert_eq!(absent("sh"), None);
        let reason = absent("no-such-program").unwrap();
        assert_eq!(reason, "no-such-program is not installed");
    }

    #[test]
    fn the_last_loss_counts() {
        let path = std::env::temp_dir().join(format!("xtask-loss-{}", std::process::id()));
        let text = r#"{"type":"loss","total":3,"counters":{"ring_full":3}}
{"type":"loss","total":5,"counters":{"ring_full":5,"regs_read":0}}
{"type":"end"}
"#;
        fs::write(&path, text).unwrap();
        let five = Losses::from([("ring_full".to_owned(), 5)]);
        assert_eq!(losses(&path).unwrap(), five);
        fs::write(&path, "").unwrap();
        assert!(losses(&path).is_err());
        fs::remove_file(path).unwrap();
    }
}
