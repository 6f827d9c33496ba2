//! Reading a configuration, and what no key says by itself: values that are out of bounds, or do not go together.

use std::{fmt, fs::File, io::Read, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use toml::de::{DeTable, DeValue};

use super::{Config, Incidents, MIB, Threshold};
use crate::{agent::metrics, client::Target};

/// A configuration file is not longer than this.
const MAX_BYTES: u64 = 1 << 20;
/// The quota of incidents is so many times what the flight recorder keeps, at least.
const QUOTA: u64 = 4;
const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600 * SECOND_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A value that cannot be followed.
#[derive(Debug)]
pub struct Wrong {
    /// The key, its tables before it.
    key: &'static str,
    /// Which of a list.
    item: Option<usize>,
    why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.why)
    }
}

impl std::error::Error for Wrong {}

/// What says that the value of a key is wrong.
fn wrong(key: &'static str, why: impl fmt::Display) -> Wrong {
    Wrong {
        key,
        item: None,
        why: why.to_string(),
    }
}

impl Config {
    /// Reads and checks a file. `listen` goes before what it says.
    ///
    /// # Errors
    /// It cannot be read, or is wrong: line and key are named.
    pub fn load(path: &Path, listen: Option<SocketAddr>) -> Result<Config> {
        let name = path.display();
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
            .with_context(|| format!("cannot read the configuration {name}"))?;
        if bytes.len() as u64 > MAX_BYTES {
            bail!("the configuration {name} has more than {MAX_BYTES} bytes: it is none");
        }
        let text = std::str::from_utf8(&bytes)
            .with_context(|| format!("the configuration {name} is no text"))?;
        Config::parse(text, listen).with_context(|| format!("the configuration {name} is wrong"))
    }

    /// Reads and checks the text of a file. `listen` goes before what it says.
    ///
    /// # Errors
    /// It is wrong: line and key are named.
    pub fn parse(text: &str, listen: Option<SocketAddr>) -> Result<Config> {
        let mut config: Config = toml::from_str(text)?;
        config.listen = listen.unwrap_or(config.listen);
        let Err(wrong) = config.check() else {
            return Ok(config);
        };
        // An address that stands elsewhere has no line here.
        let is_here = listen.is_none() || wrong.key != "listen";
        match line_of(text, &wrong).filter(|_| is_here) {
            Some(line) => bail!("line {line}: {wrong}"),
            None => Err(wrong.into()),
        }
    }

    /// What no key says by itself.
    ///
    /// # Errors
    /// Names the keys that do not go together, or whose value is out of bounds.
    pub fn check(&self) -> Result<(), Wrong> {
        if !self.listen.ip().is_loopback() && !self.tls.is_on() {
            let why = "is more than this host, and that needs encryption: set tls.cert_file and tls.key_file, or tls.self_signed";
            return Err(wrong("listen", format!("{} {why}", self.listen)));
        }
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            return Err(wrong("tls", "cert_file and key_file go together"));
        }
        if self.tls.self_signed && self.tls.cert_file.is_some() {
            return Err(wrong("tls.self_signed", "goes without cert_file"));
        }
        for (key, url) in [
            ("webhook.url", &self.webhook.url),
            ("otlp.endpoint", &self.otlp.endpoint),
            ("kubernetes.api", &self.kubernetes.api),
        ] {
            if let Some(url) = url {
                Target::parse(url).map_err(|error| wrong(key, format!("{error:#}")))?;
            }
        }
        for (item, threshold) in self.triggers.metric.iter().enumerate() {
            check_threshold(threshold).map_err(|why| Wrong {
                item: Some(item),
                ..wrong("triggers.metric", why)
            })?;
        }
        let percent = self.capture.max_overhead_percent;
        if !(percent > 0.0 && percent <= 100.0) {
            let why = format!("{percent} is no share of the CPU time");
            return Err(wrong("capture.max_overhead_percent", why));
        }
        self.check_durations()?;
        self.check_numbers()
    }

    fn check_durations(&self) -> Result<(), Wrong> {
        let (capture, incidents, triggers) = (&self.capture, &self.incidents, &self.triggers);
        for (key, value, from, to) in [
            ("capture.min_wait", capture.min_wait, 0, HOUR_MS),
            ("capture.long_wait", capture.long_wait, 1, DAY_MS),
            ("capture.interval", capture.interval, 100, HOUR_MS),
            (
                "metrics.forget_after",
                self.metrics.forget_after,
                SECOND_MS,
                30 * DAY_MS,
            ),
            ("recorder.before", self.recorder.before, SECOND_MS, HOUR_MS),
            ("incidents.after", incidents.after, 0, HOUR_MS / 6),
            ("incidents.keep", incidents.keep, SECOND_MS, 3_650 * DAY_MS),
            ("incidents.min_gap", incidents.min_gap, 0, DAY_MS),
            ("triggers.blocked_for", triggers.blocked_for, 0, HOUR_MS),
            (
                "triggers.goroutines_for",
                triggers.goroutines_for,
                0,
                HOUR_MS,
            ),
            ("otlp.interval", self.otlp.interval, 100, HOUR_MS),
            ("otlp.long_wait", self.otlp.long_wait, 1, DAY_MS),
        ] {
            bounded(value, from, to).map_err(|why| wrong(key, why))?;
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), Wrong> {
        let (capture, incidents) = (&self.capture, &self.incidents);
        for (key, value, from, to) in [
            (
                "capture.lock_slots",
                u64::from(capture.lock_slots),
                64,
                4 << 20,
            ),
            ("capture.ring_kib", u64::from(capture.ring_kib), 4, 1 << 20),
            (
                "goroutines.max_processes",
                self.goroutines.max_processes as u64,
                0,
                1_000,
            ),
            (
                "metrics.max_series",
                self.metrics.max_series as u64,
                1,
                100_000,
            ),
            ("otlp.queue", self.otlp.queue as u64, 1, 1 << 20),
            ("recorder.memory", self.recorder.memory, MIB, 4_096 * MIB),
            ("max_memory", self.max_memory, 32 * MIB, 1 << 40),
            (
                "incidents.max_count",
                incidents.max_count as u64,
                1,
                100_000,
            ),
            ("incidents.max_bytes", incidents.max_bytes, MIB, 1 << 50),
            (
                "incidents.max_per_hour",
                incidents.max_per_hour as u64,
                1,
                3_600,
            ),
        ] {
            if !(from..=to).contains(&value) {
                return Err(wrong(
                    key,
                    format!("{value} is not between {from} and {to}"),
                ));
            }
        }
        self.check_quota()
    }

    /// An incident ends at half of the quota, and begins with what is in memory and what was known before that.
    fn check_quota(&self) -> Result<(), Wrong> {
        let (memory, quota) = (self.recorder.memory, self.incidents.max_bytes);
        let least = memory.saturating_mul(QUOTA);
        if quota >= least {
            return Ok(());
        }
        // The one that is more likely to stand in the file.
        let key = if quota == Incidents::default().max_bytes {
            "recorder.memory"
        } else {
            "incidents.max_bytes"
        };
        let why = format!(
            "incidents.max_bytes is {quota}, and has to be {QUOTA} times recorder.memory, {least}, at least"
        );
        Err(wrong(key, why))
    }
}

/// Why a threshold cannot be held against a metric.
fn check_threshold(threshold: &Threshold) -> Result<(), String> {
    let name = &threshold.metric;
    if !metrics::is_one(threshold.family()) {
        return Err(format!(
            "`{name}` is no metric of the agent's: /metrics has their names"
        ));
    }
    if threshold.above.is_none() == threshold.below.is_none() {
        return Err(format!("{name}: it takes one of `above` and `below`"));
    }
    bounded(threshold.for_time, 0, HOUR_MS).map_err(|why| format!("for: {why}"))
}

fn bounded(value: Duration, from_ms: u64, to_ms: u64) -> Result<(), String> {
    let (from, to) = (Duration::from_millis(from_ms), Duration::from_millis(to_ms));
    if value < from || value > to {
        return Err(format!("{value:?} is not between {from:?} and {to:?}"));
    }
    Ok(())
}

/// The line of what is wrong: that of the key, or of the table that the key would be in.
fn line_of(text: &str, wrong: &Wrong) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut at = None;
    for part in wrong.key.split('.') {
        let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref() == part) else {
            break;
        };
        at = Some(name.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            DeValue::Array(items) => {
                let item = wrong.item.and_then(|item| items.get(item));
                at = item.map_or(at, |item| Some(item.span().start));
            }
            _ => {}
        }
    }
    let before = text.as_bytes().get(..at?)?;
    Some(memchr::memchr_iter(b'\n', before).count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", Config::parse(text, None).unwrap_err())
    }

    #[test]
    fn keys_that_are_not_known_are_named_with_their_line() {
        for (text, line, word) in [
            (
                "listen = \"127.0.0.1:1\"\n\n[recorder]\nbefor = \"1m\"\n",
                4,
                "befor",
            ),
            ("[capture]\ninterval = \"soon\"\n", 2, "soon"),
            ("[capture\n", 1, "[capture"),
            (
                "[privileges]\nkeep = [\"sys_everything\"]\n",
                2,
                "sys_everything",
            ),
            ("[otlp]\nqueue = 99999999999999999999\n", 2, "queue"),
            (
                "\nmax_memory = \"32MiB\"\nmax_memory = \"32MiB\"",
                3,
                "max_memory",
            ),
        ] {
            let told = error(text);
            let line = format!("line {line}");
            assert!(told.contains(&line) && told.contains(word), "{told}");
        }
    }

    #[test]
    fn values_that_are_wrong_are_named_with_their_line() {
        let metric =
            "[[triggers.metric]]\nmetric = \"observer_deadlocks\"\nfor = \"1s\"\nabove = 1.0\n";
        for (text, told) in [
            (
                "\nlisten = \"0.0.0.0:9464\"",
                "line 2: listen: 0.0.0.0:9464",
            ),
            ("[tls]\ncert_file = \"/a\"", "line 1: tls: "),
            (
                "\n[recorder]\nmemory = \"1KiB\"",
                "line 3: recorder.memory: 1024",
            ),
            ("recorder.memory = \"1KiB\"", "line 1: recorder.memory: "),
            (
                "\nrecorder = { memory = \"1KiB\" }",
                "line 2: recorder.memory: ",
            ),
            (
                "[capture]\n\nlong_wait = \"0\"",
                "line 3: capture.long_wait: 0ns",
            ),
            ("[incidents]\nkeep = \"0\"", "line 2: incidents.keep: "),
            (
                "[recorder]\nmemory = \"129MiB\"",
                "line 2: recorder.memory: incidents.max_bytes is 536870912,",
            ),
            (
                "[incidents]\nmax_bytes = \"63MiB\"",
                "line 2: incidents.max_bytes: ",
            ),
            ("[webhook]\nurl = \"ftp://x\"", "line 2: webhook.url: "),
            (
                &format!("{metric}\n{metric}below = 1.0"),
                "line 6: triggers.metric: ",
            ),
        ] {
            let error = error(text);
            assert!(error.starts_with(told), "{text}: {error}");
        }
        // What the command line says has no line in the file.
        let listen = Some("0.0.0.0:1".parse().unwrap());
        let error = Config::parse("listen = \"127.0.0.1:1\"", listen).unwrap_err();
        assert!(
            error.to_string().starts_with("listen: 0.0.0.0:1"),
            "{error}"
        );
        let good = Config::parse(
            "listen = \"0.0.0.0:1\"",
            Some("127.0.0.1:2".parse().unwrap()),
        );
        assert_eq!(good.unwrap().listen.port(), 2);
    }

    #[test]
    fn what_does_not_go_together() {
        assert!(error("listen = \"0.0.0.0:9464\"").contains("needs encryption"));
        assert!(error("listen = \"[::]:1\"").contains("needs encryption"));
        let encrypted = "listen = \"0.0.0.0:1\"\n[tls]\nself_signed = true";
        assert!(Config::parse(encrypted, None).is_ok());
        assert!(error("[tls]\ncert_file = \"/a\"").contains("go together"));
        assert!(error("[recorder]\nmemory = \"9EiB\"").contains("9EiB"));
        assert!(error("[capture]\nmax_overhead_percent = 0.0").contains("max_overhead_percent"));
        assert!(error("[capture]\nmax_overhead_percent = nan").contains("max_overhead_percent"));
        assert!(error("[otlp]\nendpoint = \"localhost:4318\"").contains("otlp.endpoint"));
        assert!(error("[otlp]\nqueue = 0").contains("otlp.queue"));
        let threshold = |text: &str| error(&format!("[[triggers.metric]]\nfor = \"1s\"\n{text}"));
        assert!(threshold("metric = \"observer_x\"\nabove = 1.0").contains("observer_x"));
        for name in [
            "observer_lost_total",
            "observer_wait_duration_seconds_count",
        ] {
            let text = format!("[[triggers.metric]]\nfor = \"1s\"\nabove = 1\nmetric = \"{name}\"");
            Config::parse(&text, None).unwrap();
        }
        let both = "metric = \"observer_deadlocks\"\nabove = 1.0\nbelow = 1.0";
        assert!(threshold(both).contains("one of"));
        assert!(threshold("metric = \"observer_deadlocks\"").contains("one of"));
    }

    #[test]
    fn a_file_without_end_is_none() {
        let error = Config::load(Path::new("/dev/zero"), None).unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
        let error = Config::load(Path::new("/proc/none"), None).unwrap_err();
        assert!(error.to_string().contains("/proc/none"), "{error}");
    }
}
