//! The threads of a workload: named, known before they start, started together, ended together.
//!
//! The threads wait for their start in a read from a pipe, and the main thread for the end in
//! `poll`: the only futexes that a workload waits on are those that it is about.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use serde_json::{Map, Value, json};

use super::ending::{Ending, hex, say};
use super::options::Options;
use super::sys::tid;

/// Enough for any of these threads, and little enough for ten thousand of them.
const STACK_BYTES: usize = 128 * 1024;

/// What a thread may ask while it works.
pub(crate) struct Run {
    pub(crate) options: Options,
    stop: AtomicBool,
    gate: PipeReader,
}

impl Run {
    /// Whether the workload is being ended.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Whether a thread that has done so many rounds shall do another.
    pub(crate) fn goes_on(&self, rounds: u64) -> bool {
        !self.stopped() && self.options.rounds.is_none_or(|limit| rounds < limit)
    }
}

struct Member {
    name: String,
    tid: libc::pid_t,
    thread: JoinHandle<Value>,
}

/// A workload's threads before their start.
pub(crate) struct Crew {
    workload: &'static str,
    run: Arc<Run>,
    gate: PipeWriter,
    /// Hangs up when the last measured thread has ended.
    finished: PipeReader,
    measured: Arc<PipeWriter>,
    members: Vec<Member>,
    notes: Map<String, Value>,
}

impl Crew {
    /// A crew without threads.
    pub(crate) fn new(workload: &'static str, options: &Options) -> io::Result<Self> {
        let (gate_reader, gate) = io::pipe()?;
        let (finished, measured) = io::pipe()?;
        let run = Run {
            options: options.clone(),
            stop: AtomicBool::new(false),
            gate: gate_reader,
        };
        Ok(Self {
            workload,
            run: Arc::new(run),
            gate,
            finished,
            measured: Arc::new(measured),
            members: Vec::new(),
            notes: Map::new(),
        })
    }

    /// Adds a thread that the workload is about: when all of them have ended, the workload ends.
    /// What it returns stands under its name in the truth line.
    pub(crate) fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce(&Run) -> io::Result<Value> + Send + 'static,
    ) -> io::Result<libc::pid_t> {
        let measured = Arc::clone(&self.measured);
        self.add(name, move |run| {
            let truth = work(run);
            drop(measured);
            truth
        })
    }

    /// Adds a thread that serves the others until the workload is stopped.
    pub(crate) fn spawn_helper(
        &mut self,
        name: &str,
        work: impl FnOnce(&Run) -> io::Result<()> + Send + 'static,
    ) -> io::Result<libc::pid_t> {
        self.add(name, |run| work(run).map(|()| Value::Null))
    }

    fn add(
        &mut self,
        name: &str,
        work: impl FnOnce(&Run) -> io::Result<Value> + Send + 'static,
    ) -> io::Result<libc::pid_t> {
        let run = Arc::clone(&self.run);
        let (send, receive) = mpsc::sync_channel(1);
        let body = move || {
            // The crew waits for this message, so somebody receives it.
            let _received = send.send(tid());
            // Nobody ever writes: the read ends when the gate is closed.
            let started = (&run.gate).read(&mut [0]).map(drop);
            started
                .and_then(|()| work(&run))
                .unwrap_or_else(|error| give_up(&error))
        };
        let builder = thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES);
        let thread = builder.spawn(body)?;
        let tid = receive.recv().map_err(io::Error::other)?;
        self.members.push(Member {
            name: name.to_owned(),
            tid,
            thread,
        });
        Ok(tid)
    }

    /// Puts a field of its own into the ready line.
    pub(crate) fn note(&mut self, name: &str, value: Value) {
        self.notes.insert(name.to_owned(), value);
    }

    /// Prints the ready line and, after `go` if that is asked for, lets the threads work.
    pub(crate) fn start<N: Into<String>>(
        self,
        locks: impl IntoIterator<Item = (N, usize)>,
    ) -> io::Result<Working> {
        say("ready", &self.ready(locks))?;
        self.open()
    }

    /// The fields of the ready line.
    pub(crate) fn ready<N: Into<String>>(
        &self,
        locks: impl IntoIterator<Item = (N, usize)>,
    ) -> Map<String, Value> {
        let tids = self
            .members
            .iter()
            .map(|member| (member.name.clone(), member.tid.into()));
        let mut ready = ready_fields(tids.collect(), locks);
        ready.extend(self.notes.clone());
        ready
    }

    /// Lets the threads work, after `go` if that is asked for.
    pub(crate) fn open(self) -> io::Result<Working> {
        let ending = Ending::start(self.workload, &self.run.options)?;
        drop(self.gate);
        drop(self.measured);
        Ok(Working {
            run: self.run,
            ending,
            finished: self.finished,
            members: self.members,
        })
    }
}

/// The fields that every ready line has.
pub(crate) fn ready_fields<N: Into<String>>(
    tids: Map<String, Value>,
    locks: impl IntoIterator<Item = (N, usize)>,
) -> Map<String, Value> {
    let locks: Map<_, _> = locks
        .into_iter()
        .map(|(name, address)| (name.into(), hex(address)))
        .collect();
    let mut ready = Map::new();
    ready.insert("pid".into(), json!(process::id()));
    ready.insert("tids".into(), tids.into());
    ready.insert("locks".into(), locks.into());
    ready
}

/// A thread that cannot go on takes the workload with it: half a workload has no truth to tell.
fn give_up(error: &io::Error) -> ! {
    let name = thread::current().name().unwrap_or("?").to_owned();
    eprintln!("workload: {name}: {error}");
    process::exit(1)
}

/// A workload's threads at work.
pub(crate) struct Working {
    run: Arc<Run>,
    ending: Ending,
    finished: PipeReader,
    members: Vec<Member>,
}

impl Working {
    /// Waits for the end and tells the threads to stop; those that wait for something must then
    /// be woken.
    pub(crate) fn wait_for_end(&self) -> io::Result<()> {
        self.ending.wait(None, Some(self.finished.as_fd()))?;
        self.run.stop.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Joins the threads: name to what each returned.
    pub(crate) fn join(self) -> io::Result<(Map<String, Value>, Ending)> {
        let mut threads = Map::new();
        for member in self.members {
            let truth = member.thread.join();
            let truth = truth.map_err(|_| io::Error::other(format!("{} panicked", member.name)))?;
            if !truth.is_null() {
                threads.insert(member.name, truth);
            }
        }
        Ok((threads, self.ending))
    }

    /// The ending of a workload whose threads never end: they go down with the process.
    pub(crate) fn abandon(self) -> Ending {
        self.ending
    }

    /// Waits for the end, joins the threads and prints the truth, each thread under its name.
    pub(crate) fn run_to_end(self) -> io::Result<()> {
        self.wait_for_end()?;
        let (threads, ending) = self.join()?;
        let mut truth = Map::new();
        truth.insert("threads".into(), threads.into());
        ending.tell(truth)
    }
}
