//! The command line: `workload NAME [OPTION [VALUE]]…`.

use std::str::FromStr;
use std::time::Duration;

/// The options that every workload takes.
pub(crate) const COMMON: [&str; 2] = ["--for", "--wait-go"];

/// What was asked for; an absent value leaves the choice to the workload.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// How long to run.
    pub(crate) duration: Option<Duration>,
    /// Whether to start only after a line `go` on standard input.
    pub(crate) wait_go: bool,
    /// After how many rounds to end; what a round is, the workload says.
    pub(crate) rounds: Option<u64>,
    /// The period of whatever happens again and again, in milliseconds.
    pub(crate) ms: Option<u64>,
    /// How long a lock is held, in milliseconds.
    pub(crate) hold_ms: Option<u64>,
    /// How long a lock is left free, in microseconds.
    pub(crate) free_us: Option<u64>,
    /// The number of threads.
    pub(crate) threads: Option<u64>,
    /// The number of locks.
    pub(crate) locks: Option<u64>,
    /// The CPU to run on.
    pub(crate) cpu: Option<usize>,
    /// Whether to make processes in place of threads.
    pub(crate) processes: bool,
    /// Whether to use pthread mutexes in place of bare futex words.
    pub(crate) pthread: bool,
}

impl Options {
    /// Reads the arguments after the workload's name. `accepted` are the options that it takes
    /// beside the common ones.
    pub(crate) fn parse(
        mut args: impl Iterator<Item = String>,
        accepted: &[&str],
    ) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            let name = arg.as_str();
            if !COMMON.contains(&name) && !accepted.contains(&name) {
                let known = [&COMMON, accepted].concat().join(", ");
                return Err(format!(
                    "unknown option {name}; this workload takes {known}"
                ));
            }
            let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
            match name {
                "--wait-go" => options.wait_go = true,
                "--pthread" => options.pthread = true,
                "--processes" => options.processes = true,
                "--for" => options.duration = Some(seconds(&value()?)?),
                "--rounds" => options.rounds = Some(positive(name, &value()?)?),
                "--ms" => options.ms = Some(positive(name, &value()?)?),
                "--hold-ms" => options.hold_ms = Some(positive(name, &value()?)?),
                "--free-us" => options.free_us = Some(positive(name, &value()?)?),
                "--threads" => options.threads = Some(positive(name, &value()?)?),
                "--locks" => options.locks = Some(positive(name, &value()?)?),
                "--cpu" => options.cpu = Some(number(name, &value()?)?),
                _ => return Err(format!("{name} is listed for this workload but not read")),
            }
        }
        Ok(options)
    }

    /// The period, or the workload's own.
    pub(crate) fn period(&self, default_ms: u64) -> Duration {
        Duration::from_millis(self.ms.unwrap_or(default_ms))
    }
}

fn number<T: FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{name} needs a whole number, not \"{text}\""))
}

fn positive(name: &str, text: &str) -> Result<u64, String> {
    match number(name, text)? {
        0 => Err(format!("{name} must be at least 1")),
        value => Ok(value),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("--for needs a number of seconds, not \"{text}\""))
}
