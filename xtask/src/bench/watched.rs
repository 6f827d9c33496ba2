//! An observer whose events are read while it runs.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::child::Background;
use super::events;
use super::observers::TRACE;
use super::room::Room;
use crate::run;

/// What is remembered of the events.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// From the start of the program to its first line.
    pub(super) meta: Option<Duration>,
    /// To the first wait in progress of the process asked for.
    pub(super) blocked: Option<Duration>,
    /// The locks that had totals.
    pub(super) locks: HashSet<Box<str>>,
    costs: Option<[String; 2]>,
    loss: Option<String>,
    end: Option<String>,
}

impl Seen {
    fn read(output: impl Read, started: Instant, pid: Option<u32>) -> Self {
        let mut seen = Self::default();
        let wanted = pid.map(|pid| format!("\"pid\":{pid},"));
        let mut output = BufReader::with_capacity(1 << 16, output);
        let mut line = Vec::new();
        while output
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            if let Ok(line) = str::from_utf8(&line) {
                seen.line(line, started, wanted.as_deref());
            }
            line.clear();
        }
        seen
    }

    fn line(&mut self, line: &str, started: Instant, wanted: Option<&str>) {
        match events::kind(line) {
            Some("meta") => self.meta = Some(started.elapsed()),
            Some("blocked")
                if self.blocked.is_none() && wanted.is_some_and(|pid| line.contains(pid)) =>
            {
                self.blocked = Some(started.elapsed());
            }
            Some("lock") => {
                if let Some(id) = events::lock_id(line)
                    && !self.locks.contains(id)
                {
                    self.locks.insert(id.into());
                }
            }
            Some("cost") => match &mut self.costs {
                Some([_, last]) => line.clone_into(last),
                None => self.costs = Some([line.to_owned(), line.to_owned()]),
            },
            Some("loss") => self.loss = Some(line.to_owned()),
            Some("end") => self.end = Some(line.to_owned()),
            _ => {}
        }
    }

    /// A field of the `end` event.
    pub(super) fn end(&self, field: &str) -> Option<f64> {
        events::number(self.end.as_deref()?, field)
    }

    /// A field of the `end` event, for each second of the run.
    pub(super) fn per_second(&self, field: &str) -> Option<f64> {
        Some(self.end(field)? * 1e9 / self.end("dur_ns")?)
    }

    /// What was lost in all.
    pub(super) fn lost(&self) -> Option<f64> {
        events::number(self.loss.as_deref()?, "total")
    }

    /// Share of a core that observer itself used, between its first and its last account of it: the
    /// start, when it reads the kernel's types, is not in it.
    pub(super) fn cpu_share(&self) -> Option<f64> {
        let [first, last] = self.costs.as_ref()?;
        let between = |field| Some(events::number(last, field)? - events::number(first, field)?);
        let elapsed: f64 = between("mono_ns")?;
        (elapsed > 0.0).then(|| between("cpu_ns").map(|cpu| cpu / elapsed))?
    }
}

/// An observer at work.
pub(super) struct Watched {
    child: Background,
    reader: JoinHandle<Seen>,
}

impl Watched {
    /// Starts `observer trace` with these arguments beside the usual ones; `pid` is whose wait in progress is looked for.
    pub(super) fn start(room: &Room, args: &[&str], pid: Option<u32>) -> Result<Self> {
        let mut command = Command::new(run::released("observer"));
        command.args(TRACE).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let started = Instant::now();
        let mut child = Background::start(&mut command, &room.path("observer.log"))?;
        let output = child
            .child
            .stdout
            .take()
            .context("observer has no output")?;
        let reader = thread::spawn(move || Seen::read(output, started, pid));
        Ok(Self { child, reader })
    }

    /// Waits until it observes.
    pub(super) fn wait_until_attached(&mut self) -> Result<()> {
        self.child.wait_until_attached()
    }

    /// Lets it observe for so long, ends it, and hands back what it said.
    pub(super) fn finish(mut self, after: Duration) -> Result<Seen> {
        let until = Instant::now() + after;
        while Instant::now() < until {
            self.child.must_run()?;
            thread::sleep(Duration::from_millis(20));
        }
        self.child.stop()?;
        let seen = self.reader.join();
        let seen = seen.map_err(|_| anyhow::anyhow!("reading observer's events failed"))?;
        seen.end("dur_ns")
            .context("observer ended without an end event")?;
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_remembered() {
        let text = r#"{"type":"meta","schema":1}
{"type":"blocked","task":{"pid":70,"tid":71},"age_ns":1}
{"type":"cost","mono_ns":1000,"cpu_ns":500,"rss_bytes":1}
{"type":"lock","lock":{"id":"7:0x1"},"pid":7}
{"type":"lock","lock":{"id":"7:0x2"},"pid":7}
{"type":"lock","lock":{"id":"7:0x1"},"pid":7}
{"type":"cost","mono_ns":2000,"cpu_ns":510,"rss_bytes":1}
{"type":"cost","mono_ns":3000,"cpu_ns":520,"rss_bytes":1}
{"type":"loss","total":4}
{"type":"end","dur_ns":2000000000,"events":10,"rss_bytes":7}
"#;
        let seen = Seen::read(text.as_bytes(), Instant::now(), Some(7));
        assert!(seen.meta.is_some());
        assert_eq!(seen.blocked, None);
        assert_eq!(seen.locks.len(), 2);
        assert_eq!(seen.cpu_share(), Some(0.01));
        assert_eq!(seen.per_second("events"), Some(5.0));
        assert_eq!(seen.lost(), Some(4.0));
        assert_eq!(seen.end("rss_bytes"), Some(7.0));
        let seen = Seen::read(text.as_bytes(), Instant::now(), Some(70));
        assert!(seen.blocked.is_some());
        assert_eq!(Seen::default().cpu_share(), None);
    }
}
