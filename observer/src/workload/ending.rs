//! When a workload begins and ends, and the two lines that it speaks with: `ready` and `truth`.

use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::options::Options;
use super::sys::{check, now_ns};

/// Prints one line, a word and a JSON object, and flushes it.
pub(crate) fn say(word: &str, object: &Map<String, Value>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{word} {}", Value::from(object.clone()))?;
    out.flush()
}

/// An address as it stands in the lines.
pub(crate) fn hex(address: usize) -> Value {
    json!(format!("{address:#x}"))
}

/// Standard input as a file that is not closed at the end and that buffers nothing, so that
/// `poll` sees all there is to see.
fn stdin() -> ManuallyDrop<std::fs::File> {
    // SAFETY: descriptor 0 is this program's standard input and nothing here closes it.
    ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(libc::STDIN_FILENO) })
}

/// Waits for the line `go` on standard input.
fn wait_for_go() -> io::Result<()> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        if stdin().read(&mut byte)? == 0 {
            return Err(io::Error::other(
                "standard input ended before the line `go`",
            ));
        }
        line.push(byte[0]);
    }
    if line.trim_ascii() == b"go" {
        return Ok(());
    }
    Err(io::Error::other("expected the line `go` on standard input"))
}

/// The run of a workload from its start on.
pub(crate) struct Ending {
    workload: &'static str,
    start_ns: u64,
    deadline: Option<Instant>,
    watch_stdin: bool,
}

impl Ending {
    /// Waits for `go` if the options say so, and starts the clock.
    pub(crate) fn start(workload: &'static str, options: &Options) -> io::Result<Self> {
        if options.wait_go {
            wait_for_go()?;
        }
        // Started in the background, a program often has no real standard input. That must not
        // end a run that has another end.
        let kind = stdin().metadata()?.file_type();
        let unattended = kind.is_file() || (kind.is_char_device() && !is_terminal());
        let bounded = options.duration.is_some() || options.rounds.is_some();
        Ok(Self {
            workload,
            start_ns: now_ns(),
            deadline: options.duration.map(|duration| Instant::now() + duration),
            watch_stdin: !(unattended && bounded),
        })
    }

    /// Waits at most `limit` for the end: standard input closed, the time over, or `finished`
    /// hung up. True when one of them happened.
    pub(crate) fn wait(
        &self,
        limit: Option<Duration>,
        finished: Option<BorrowedFd>,
    ) -> io::Result<bool> {
        let limit = limit.map(|limit| Instant::now() + limit);
        loop {
            let until = [limit, self.deadline].into_iter().flatten().min();
            let input = if self.watch_stdin {
                libc::STDIN_FILENO
            } else {
                -1
            };
            let [input, finished] = poll([input, finished.map_or(-1, |fd| fd.as_raw_fd())], until)?;
            if finished || (input && stdin().read(&mut [0; 64])? == 0) {
                return Ok(true);
            }
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(true);
            }
            if limit.is_some_and(|limit| now >= limit) {
                return Ok(false);
            }
        }
    }

    /// Prints the closing line.
    pub(crate) fn tell(self, mut truth: Map<String, Value>) -> io::Result<()> {
        truth.insert("workload".into(), json!(self.workload));
        truth.insert("start_ns".into(), json!(self.start_ns));
        truth.insert("end_ns".into(), json!(now_ns()));
        say("truth", &truth)
    }
}

fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stdin())
}

/// Which of the descriptors (-1: none) became readable or hung up before `until`.
fn poll(descriptors: [RawFd; 2], until: Option<Instant>) -> io::Result<[bool; 2]> {
    let mut entries = descriptors.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // Rounded up, so that the loop around does not spin through the last millisecond.
    let timeout = until.map_or(-1, |until| {
        let left = until.saturating_duration_since(Instant::now());
        i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX)
    });
    // SAFETY: the pointer and the length are those of one live array.
    let rc = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, timeout) };
    match check(rc, "poll") {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok([false; 2]),
        Err(error) => Err(error),
        Ok(_) => Ok(entries.map(|entry| entry.revents != 0)),
    }
}
