//! observer, watching.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
    time::Instant,
};

use serde_json::Value;

use super::{
    LIMIT, Skip, Tested, Workload, event,
    host::{MOUNT_AND_RUN, OBSERVER, TRACEFS, Tracefs},
    poll, signal,
};

/// Events shown when something did not come about.
const SHOWN: usize = 12;

/// How futex waits are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Sched,
    Tracepoint,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Sched => "sched",
            Mode::Tracepoint => "tracepoint",
        }
    }
}

/// Runs the body of a test with either way to know futex waits: both have to give the same answers.
pub(crate) fn in_both_modes(mut body: impl FnMut(Mode) -> Tested) -> Tested {
    for mode in [Mode::Sched, Mode::Tracepoint] {
        println!("--futex {}", mode.name());
        if mode == Mode::Tracepoint && *TRACEFS == Tracefs::Absent {
            return Err(Skip(
                "--futex tracepoint: the tracing file system is not there".into(),
            ));
        }
        body(mode)?;
    }
    Ok(())
}

/// `observer` with arguments, where the tracing file system can be seen if need be.
pub(crate) fn command(mode: Mode, args: &[&str]) -> Command {
    let mut command = if mode == Mode::Tracepoint && *TRACEFS == Tracefs::Mountable {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", MOUNT_AND_RUN, OBSERVER]);
        command
    } else {
        Command::new(OBSERVER)
    };
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs `observer` to its end.
pub(crate) fn output(args: &[&str]) -> Output {
    command(Mode::Sched, args).output().unwrap()
}

/// What has been read so far.
#[derive(Default)]
struct Seen {
    events: Vec<Value>,
    /// The first line that is not as it should be.
    fault: Option<String>,
    /// Standard output was closed.
    over: bool,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    more: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn read(&self, stdout: ChildStdout) {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let parsed = event::parse(&line);
            let mut seen = self.lock();
            match parsed {
                Ok(event) => seen.events.push(event),
                Err(fault) => seen.fault = seen.fault.take().or(Some(fault)),
            }
            self.more.notify_all();
        }
        self.lock().over = true;
        self.more.notify_all();
    }
}

/// A running `observer trace`; killed when dropped.
pub(crate) struct Observer {
    child: Child,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    stderr: Option<JoinHandle<String>>,
}

impl Observer {
    /// Watches one workload.
    pub(crate) fn of(mode: Mode, workload: &Workload, args: &[&str]) -> Observer {
        let pid = workload.pid().to_string();
        Observer::trace(mode, &[&["-p", &pid], args].concat())
    }

    /// Starts `observer trace` and waits for its first event: by then everything is attached.
    pub(crate) fn trace(mode: Mode, args: &[&str]) -> Observer {
        let args = [
            &["trace", "--futex", mode.name(), "--format", "jsonl"],
            args,
        ]
        .concat();
        let mut child = command(mode, &args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let shared = Arc::<Shared>::default();
        let reader = Arc::clone(&shared);
        let observer = Observer {
            child,
            shared,
            reader: Some(std::thread::spawn(move || reader.read(stdout))),
            stderr: Some(std::thread::spawn(move || {
                let mut text = Vec::new();
                stderr.read_to_end(&mut text).unwrap();
                String::from_utf8_lossy(&text).into_owned()
            })),
        };
        let meta = observer.wait_for("the first event", |events| events.first().cloned());
        assert_eq!(meta["type"], "meta");
        assert_eq!(meta["capture"]["futex"], mode.name());
        observer
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the events hold what is looked for.
    #[track_caller]
    pub(crate) fn wait_for<T>(&self, what: &str, found: impl Fn(&[Value]) -> Option<T>) -> T {
        let start = Instant::now();
        let mut seen = self.shared.lock();
        loop {
            if let Some(fault) = &seen.fault {
                panic!("while waiting for {what}: a line is {fault}");
            }
            let (began, looked_at) = (Instant::now(), seen.events.len());
            if let Some(found) = found(&seen.events) {
                return found;
            }
            let look = began.elapsed();
            let left = LIMIT.saturating_sub(start.elapsed());
            if left.is_zero() || seen.over {
                let why = if seen.over {
                    "observer ended"
                } else {
                    "time is over"
                };
                let shown = last(&seen.events);
                drop(seen);
                panic!("while waiting for {what}: {why}; the last events:\n{shown}");
            }
            // With very many events a look is long: without this the reader would get one line in between two.
            drop(seen);
            std::thread::sleep(look);
            seen = self.shared.lock();
            if seen.events.len() == looked_at && !seen.over && seen.fault.is_none() {
                seen = self.shared.more.wait_timeout(seen, left).unwrap().0;
            }
        }
    }

    /// The same for a condition.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn(&[Value]) -> bool) {
        self.wait_for(what, |events| holds(events).then_some(()));
    }

    /// Ends observer as Ctrl-C does.
    #[track_caller]
    pub(crate) fn stop(self) -> Run {
        signal(self.child.id(), libc::SIGINT);
        let run = self.end();
        assert_eq!(run.end()["reason"], "stopped");
        run
    }

    /// Waits for the end that comes with that of the target.
    #[track_caller]
    pub(crate) fn target_ended(self) -> Run {
        let run = self.end();
        assert_eq!(run.end()["reason"], "target_ended");
        run
    }

    /// Waits for the end of a run, which has to be a clean one.
    #[track_caller]
    pub(crate) fn end(mut self) -> Run {
        self.wait_until("the last event", |events| {
            events.last().is_some_and(|event| event["type"] == "end")
        });
        let run = self.collect();
        assert!(run.status.success(), "{}: {}", run.status, run.stderr);
        assert_eq!(run.stderr, "");
        assert_eq!(run.events[0]["type"], "meta", "not the first line");
        for only_once in ["meta", "end"] {
            assert_eq!(event::of(&run.events, only_once).count(), 1, "{only_once}");
        }
        run.end();
        run
    }

    /// Waits for the end, whatever it is.
    pub(crate) fn collect(&mut self) -> Run {
        let status = poll("observer to end", || self.child.try_wait().unwrap());
        self.reader.take().map(JoinHandle::join);
        let stderr = self.stderr.take().unwrap().join().unwrap();
        let mut seen = self.shared.lock();
        if let Some(fault) = &seen.fault {
            panic!("a line is {fault}");
        }
        Run {
            events: std::mem::take(&mut seen.events),
            status,
            stderr,
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last(events: &[Value]) -> String {
    let skip = events.len().saturating_sub(SHOWN);
    let mut text = format!("({} events)\n", events.len());
    for event in &events[skip..] {
        writeln!(text, "{event}").unwrap();
    }
    text
}

/// A run of observer that is over.
pub(crate) struct Run {
    pub(crate) events: Vec<Value>,
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

impl Run {
    /// The last event, which is `end`.
    #[track_caller]
    pub(crate) fn end(&self) -> &Value {
        let last = self.events.last().expect("events");
        assert_eq!(last["type"], "end", "not the last line");
        last
    }

    /// What was lost: the last event but one.
    #[track_caller]
    pub(crate) fn loss(&self) -> &Value {
        let loss = &self.events[self.events.len() - 2];
        assert_eq!(loss["type"], "loss", "not the last line but one");
        loss
    }

    /// Asserts that observer lost nothing.
    #[track_caller]
    pub(crate) fn assert_complete(&self) {
        assert_eq!(self.loss()["total"], 0, "{}", self.loss());
    }
}
