//! What is there, what is missing, and how to get it.

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    btf::Btf,
    host::{self, CAP_SYS_RESOURCE, CAPABILITIES, Host, TRACEFS},
    usdt::attach::Pmu,
};
use crate::event::RuntimeOf;

/// Result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There.
    Ok,
    /// Not there; something is missing or costs more.
    Degraded,
    /// Not there; nothing works without it.
    Missing,
}

/// One check.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// What was found.
    pub status: Status,
    /// In words.
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// All checks.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Version of observer.
    pub observer: String,
    /// Kernel release.
    pub kernel: String,
    /// Can observer run here?
    pub usable: bool,
    /// The same in a sentence.
    pub verdict: String,
    /// The checks.
    pub checks: Vec<Check>,
    /// Runtimes of the processes that were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<RuntimeOf>,
}

/// Looks at everything.
///
/// # Errors
/// `/proc` cannot be read.
pub fn examine() -> Result<Report> {
    let host = Host::look()?;
    let mut checks = vec![kernel(&host), architecture()];
    checks.extend(privileges(&host));
    match host::kernel_btf() {
        Ok(btf) => {
            checks.push(ok("BTF", "the kernel describes its types"));
            checks.extend(types(&btf));
        }
        Err(error) => checks.push(missing(
            "BTF",
            format!("{error:#}"),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y: every large distribution's since 2021",
        )),
    }
    checks.extend(tracing(&host));
    checks.push(probes(&host));
    checks.push(lockdown());
    let usable = checks.iter().all(|check| check.status != Status::Missing);
    let degraded = checks
        .iter()
        .filter(|check| check.status == Status::Degraded)
        .count();
    let verdict = match (usable, degraded) {
        (true, 0) => "observer can run here, with everything".to_owned(),
        (true, n) => format!("observer can run here; {n} degraded"),
        (false, _) => "observer cannot run here".to_owned(),
    };
    Ok(Report {
        observer: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: host.kernel,
        usable,
        verdict,
        checks,
        runtimes: Vec::new(),
    })
}

fn check(name: &str, status: Status, detail: impl Into<String>, advice: Option<&str>) -> Check {
    Check {
        name: name.to_owned(),
        status,
        detail: detail.into(),
        advice: advice.map(str::to_owned),
    }
}

fn ok(name: &str, detail: impl Into<String>) -> Check {
    check(name, Status::Ok, detail, None)
}

fn degraded(name: &str, detail: impl Into<String>, advice: &str) -> Check {
    check(name, Status::Degraded, detail, Some(advice))
}

fn missing(name: &str, detail: impl Into<String>, advice: &str) -> Check {
    check(name, Status::Missing, detail, Some(advice))
}

/// `6.18.3-foo` → (6, 18).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(host: &Host) -> Check {
    match version(&host.kernel) {
        Some(version) if version >= (5, 10) => {
            ok("kernel", format!("{}, 5.10 or later", host.kernel))
        }
        _ => missing(
            "kernel",
            format!("{}: older than 5.10", host.kernel),
            "use a kernel from 5.10 on",
        ),
    }
}

fn architecture() -> Check {
    if cfg!(target_arch = "x86_64") {
        ok("architecture", "x86-64")
    } else {
        degraded(
            "architecture",
            "not x86-64: system call numbers and registers are known for x86-64 only",
            "use --futex tracepoint; kinds of other waits are not told apart",
        )
    }
}

fn privileges(host: &Host) -> Vec<Check> {
    CAPABILITIES
        .iter()
        .filter(|(bit, ..)| *bit != CAP_SYS_RESOURCE || version(&host.kernel) < Some((5, 11)))
        .map(|(bit, name, use_for)| {
            if host.has_capability(*bit) {
                return ok(name, *use_for);
            }
            let advice = format!("run with sudo, or `setcap {}+ep`", name.to_lowercase());
            let status = if matches!(bit, 38 | 39) {
                Status::Missing
            } else {
                Status::Degraded
            };
            check(
                name,
                status,
                format!("not held: cannot {use_for}"),
                Some(&advice),
            )
        })
        .collect()
}

/// Probes in programs: what `--usdt` and `--go-events` attach to.
fn probes(host: &Host) -> Check {
    let name = "probes in programs";
    let version = version(&host.kernel);
    match Pmu::find() {
        Err(why) => degraded(
            name,
            format!("{why}: no --usdt, no --go-events"),
            "use a kernel with CONFIG_UPROBES=y and CONFIG_UPROBE_EVENTS=y",
        ),
        Ok(_) if version < Some((5, 15)) => degraded(
            name,
            "this kernel does not tell probes apart: no --usdt, no --go-events",
            "attach cookies are there from Linux 5.15 on",
        ),
        Ok(_) if version < Some((6, 6)) => ok(name, "attached to one by one"),
        Ok(_) if version < Some((6, 10)) => ok(
            name,
            "many places of a file are attached to at a time; with --pid one by one (before Linux 6.10)",
        ),
        Ok(_) => ok(name, "many places of a file are attached to at a time"),
    }
}

fn types(btf: &Btf) -> Vec<Check> {
    let mut checks = Vec::new();
    for name in ["sched_switch", "sched_waking"] {
        checks.push(match btf.tracepoint_args(name) {
            Some(args) => ok(&format!("tracepoint {name}"), format!("passes {args}")),
            None => missing(
                &format!("tracepoint {name}"),
                "not in the kernel's types",
                "use a kernel with CONFIG_TRACEPOINTS and BTF",
            ),
        });
    }
    checks.push(match btf.tracepoint_args("contention_begin") {
        Some(_) => ok(
            "tracepoints contention_begin and contention_end",
            "locks inside the kernel are seen",
        ),
        None => degraded(
            "tracepoints contention_begin and contention_end",
            "not in this kernel: locks inside the kernel are not seen",
            "the tracepoint is there from Linux 5.19 on",
        ),
    });
    match host::settings_from(btf) {
        Ok(settings) if settings.has_pt_regs == 1 => checks.push(ok(
            "registers of sleeping tasks",
            "by the helper bpf_task_pt_regs: futex waits need no system call tracepoint",
        )),
        Ok(settings) if settings.regs_on_stack == 1 => checks.push(ok(
            "registers of sleeping tasks",
            "from the top of the kernel stack (the helper is there from 5.15 on): futex waits need no \
             system call tracepoint",
        )),
        Ok(_) => checks.push(degraded(
            "registers of sleeping tasks",
            "not to be had on this kernel",
            "use --futex tracepoint",
        )),
        Err(error) => checks.push(missing("task_struct", format!("{error:#}"), "report this kernel")),
    }
    checks
}

fn tracing(host: &Host) -> Vec<Check> {
    let Some(root) = &host.tracefs else {
        return vec![degraded(
            "tracing file system",
            format!("not mounted or not readable at {}", TRACEFS.join(" or ")),
            "only --futex tracepoint needs it: mount -t tracefs tracefs /sys/kernel/tracing",
        )];
    };
    let mut checks = vec![ok("tracing file system", root.display().to_string())];
    for call in ["futex", "futex_wait", "futex_waitv"] {
        let both = ["sys_enter_", "sys_exit_"].map(|side| format!("{side}{call}"));
        let name = format!("tracepoints syscalls/{}", both.join(" and "));
        checks.push(
            if both
                .iter()
                .all(|name| host.has_tracepoint("syscalls", name))
            {
                ok(&name, "for --futex tracepoint")
            } else {
                degraded(
                    &name,
                    "not there",
                    "the call is newer than this kernel, or CONFIG_FTRACE_SYSCALLS is off; \
                 --futex sched does not need it",
                )
            },
        );
    }
    checks
}

fn lockdown() -> Check {
    let text = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if text.contains("[confidentiality]") {
        missing(
            "lockdown",
            "confidentiality: kernel memory may not be read",
            "boot with lockdown=integrity or none",
        )
    } else {
        ok("lockdown", "does not stand in the way")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(version("5.10.0-21-amd64"), Some((5, 10)));
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("x"), None);
        assert!(version("5.4.0") < Some((5, 10)));
    }

    #[test]
    fn the_report_names_each_capability() {
        let report = examine().unwrap();
        for name in ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"] {
            assert!(report.checks.iter().any(|check| check.name == name));
        }
        assert_eq!(
            report.usable,
            report
                .checks
                .iter()
                .all(|check| check.status != Status::Missing)
        );
    }
}
