//! The flags that all live commands share: what to observe.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    capture::{FutexMode, LOCK_SLOTS, Options, RING_BYTES, usdt},
    inspect::container,
    rules::Thresholds,
    runtimes::packs,
    time::parse_duration,
};

/// What to observe.
#[derive(Clone, Debug, Args)]
pub(crate) struct Select {
    /// Observe only this process (repeatable)
    #[arg(short, long = "pid", value_name = "PID")]
    pub(crate) pids: Vec<u32>,
    /// Observe only tasks with this name, at most 15 bytes (repeatable)
    #[arg(long = "comm", value_name = "NAME", value_parser = comm)]
    pub(crate) comms: Vec<String>,
    /// Observe only tasks in this control group (version 2) or below it (repeatable)
    #[arg(long = "cgroup", value_name = "PATH")]
    pub(crate) cgroups: Vec<String>,
    /// Observe only tasks in this running container: its identifier or the beginning of it, its name, or its pod
    /// (repeatable)
    #[arg(long = "container", value_name = "ID|NAME")]
    pub(crate) containers: Vec<String>,
    /// Report single waits at least this long; shorter ones are counted in the totals
    #[arg(long, value_name = "DURATION", default_value = "1ms", value_parser = parse_duration)]
    pub(crate) min_wait: Duration,
    /// Report a wait in progress from this age on, and again at each doubling; never below --min-wait
    /// [default: 1s; the screen: 100ms]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) long_wait: Option<Duration>,
    /// Report totals this often
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub(crate) interval: Duration,
    /// End after this time
    #[arg(short, long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// How to know futex waits
    #[arg(long, value_enum, default_value_t = Futex::Auto)]
    pub(crate) futex: Futex,
    /// Size of the ring buffer in KiB
    #[arg(long, value_name = "KIB", default_value_t = RING_BYTES >> 10, value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    pub(crate) ring_kib: u32,
    /// Locks that can be told apart at the same time
    #[arg(long, value_name = "N", default_value_t = LOCK_SLOTS, value_parser = clap::value_parser!(u32).range(64..=4 << 20))]
    pub(crate) lock_slots: u32,
    /// Tasks that can be followed at the same time [default: by the host's limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=4 << 20))]
    pub(crate) task_slots: Option<u32>,
    /// Take no stacks of waits
    #[arg(long)]
    pub(crate) no_stacks: bool,
    /// Do less, in steps that are reported, when observing uses more than this share of the host's CPU
    /// time; `none` for no limit
    #[arg(long, value_name = "PERCENT", default_value = "2%", value_parser = share)]
    pub(crate) max_overhead: Share,
    /// Report the waits that programs tell of by USDT probes: a pack (hotspot, libc, libstdcxx, postgresql,
    /// python, ruby) or a file, see docs/usdt.md (repeatable)
    #[arg(long, value_name = "PACK|FILE")]
    pub(crate) usdt: Vec<String>,
    /// How to attach to USDT probes
    #[arg(long, value_enum, default_value_t = UsdtAttach::Auto, hide = true)]
    pub(crate) usdt_attach: UsdtAttach,
    /// Report the waits of goroutines of the processes named with --pid as they happen, by probes in their runtime: each
    /// wait costs the program some 1.5 µs, within --max-overhead
    #[arg(long, requires = "pids")]
    pub(crate) go_events: bool,
    /// Thresholds of the rules, in TOML: see docs/rules.md
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// Show what the kernel programs say of themselves, on standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// How to know futex waits.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Futex {
    /// The cheapest way that the kernel allows
    Auto,
    /// System call tracepoints
    Tracepoint,
    /// The registers of the sleeping task
    Sched,
}

/// How to attach to USDT probes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum UsdtAttach {
    /// To many places at a time where the kernel can
    Auto,
    /// One by one
    Single,
    /// To many places at a time
    Multi,
}

impl Select {
    /// What the rules go by.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub(crate) fn thresholds(&self) -> Result<Thresholds> {
        thresholds(self.rules.as_deref())
    }

    /// The options of the capture; `long_wait` is the command's default.
    ///
    /// # Errors
    /// A pack that cannot be read.
    pub(crate) fn options(&self, long_wait: Duration) -> Result<Options> {
        let (mut pids, mut cgroups) = (self.pids.clone(), self.cgroups.clone());
        if !self.containers.is_empty() {
            let selected = container::select(&self.containers)?;
            if !(pids.is_empty() && cgroups.is_empty()) {
                bail!(
                    "--container goes with neither --pid nor --cgroup: name the one or the others"
                );
            }
            if selected.groupless {
                super::note(
                    "the container has no control group of version 2: what it starts from now on is not observed",
                );
            }
            pids.extend(selected.pids);
            cgroups.extend(selected.cgroups);
        }
        Ok(Options {
            pids,
            comms: self.comms.clone(),
            cgroups,
            containers: self.containers.clone(),
            min_wait: self.min_wait,
            long_wait: self.long_wait.unwrap_or(long_wait),
            interval: self.interval,
            futex: match self.futex {
                Futex::Auto => FutexMode::Auto,
                Futex::Tracepoint => FutexMode::Tracepoint,
                Futex::Sched => FutexMode::Sched,
            },
            ring_bytes: self.ring_kib << 10,
            task_slots: self.task_slots,
            lock_slots: self.lock_slots,
            stacks: !self.no_stacks,
            max_overhead: self.max_overhead.0,
            usdt: packs::load(&self.usdt)?,
            usdt_attach: match self.usdt_attach {
                UsdtAttach::Auto => usdt::Attach::Auto,
                UsdtAttach::Single => usdt::Attach::Single,
                UsdtAttach::Multi => usdt::Attach::Multi,
            },
            go_events: self.go_events,
            log: self.verbose,
        })
    }
}

/// The longest file with thresholds that is read.
const MAX_RULES: u64 = 1 << 20;

/// The thresholds of a file; without one those by default.
///
/// # Errors
/// When it cannot be read or understood.
pub(crate) fn thresholds(path: Option<&Path>) -> Result<Thresholds> {
    let Some(path) = path else {
        return Ok(Thresholds::default());
    };
    let mut text = String::new();
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.take(MAX_RULES)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Thresholds::parse(&text)
        .with_context(|| format!("cannot use the thresholds in {}", path.display()))
}

/// A share of the host's CPU time; no limit when absent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share(Option<f64>);

fn share(text: &str) -> Result<Share, String> {
    if text == "none" {
        return Ok(Share(None));
    }
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.trim().parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Share(Some(percent / 100.0))),
        _ => Err(format!(
            "`{text}` is no share of the CPU time; write it like 2% or none"
        )),
    }
}

/// The kernel keeps 15 bytes of a name: a longer one would never match.
fn comm(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("an empty name matches no task".into()),
        1..=15 => Ok(text.to_owned()),
        length => Err(format!(
            "{length} bytes, and the kernel keeps 15 of a task's name; use `{}`",
            String::from_utf8_lossy(&text.as_bytes()[..15])
        )),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < Duration::from_millis(10) {
        return Err("the interval of the totals is 10ms or longer".into());
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read() {
        assert_eq!(share("2%"), Ok(Share(Some(0.02))));
        assert_eq!(share("0.5"), Ok(Share(Some(0.005))));
        assert_eq!(share("none"), Ok(Share(None)));
        for text in ["", "0", "-1%", "101%", "x", "NaN"] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_that_cannot_match_are_refused() {
        assert!(comm("worker").is_ok());
        assert!(comm("").is_err());
        assert!(
            comm("0123456789abcdef")
                .unwrap_err()
                .contains("0123456789abcde")
        );
    }
}
