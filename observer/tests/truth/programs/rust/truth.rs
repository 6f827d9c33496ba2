//! What the scenes share.

use std::{
    fs,
    io::{Read, Write},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// A point that a thread comes to, with its number.
#[derive(Default)]
pub(crate) struct Point(AtomicU32);

impl Point {
    pub(crate) const fn new() -> Point {
        Point(AtomicU32::new(0))
    }

    pub(crate) fn reach(&self) {
        // SAFETY: the call has no precondition.
        let tid = unsafe { libc::gettid() };
        self.0.store(tid as u32, Ordering::SeqCst);
    }

    /// Waits until a thread has come here; returns its number.
    pub(crate) fn wait(&self) -> u32 {
        loop {
            match self.0.load(Ordering::SeqCst) {
                0 => std::thread::sleep(Duration::from_millis(1)),
                tid => return tid,
            }
        }
    }
}

/// Starts a thread; returns its number.
pub(crate) fn start(name: &str, body: impl FnOnce() + Send + 'static) -> u32 {
    static BEGUN: Point = Point::new();
    BEGUN.0.store(0, Ordering::SeqCst);
    let builder = std::thread::Builder::new().name(name.to_owned());
    let started = builder.spawn(move || {
        BEGUN.reach();
        body();
    });
    if let Err(error) = started {
        eprintln!("cannot start a thread: {error}");
        std::process::exit(1);
    }
    BEGUN.wait()
}

/// Does nothing, for ever.
pub(crate) fn rest() -> ! {
    loop {
        // SAFETY: the call has no precondition.
        unsafe { libc::pause() };
    }
}

/// Waits until a thread sleeps in a futex call.
pub(crate) fn asleep(tid: u32) {
    let wanted = format!("{} ", libc::SYS_futex);
    loop {
        let call = fs::read_to_string(format!("/proc/self/task/{tid}/syscall"));
        if call.is_ok_and(|call| call.starts_with(&wanted)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn end_with_parent() {
    // SAFETY: the option takes a signal's number.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// What is true.
#[derive(Default)]
pub(crate) struct Truth {
    waits: Vec<String>,
    idle: Vec<String>,
    circles: Vec<String>,
}

impl Truth {
    /// A thread waits for a lock, whose name is given where it has one.
    pub(crate) fn waits(&mut self, tid: u32, class: &str, name: Option<&str>, holder: Option<u32>) {
        let name = name.map_or_else(String::new, |name| format!(",\"name\":\"{name}\""));
        let holder = holder.map_or_else(String::new, |tid| format!(",\"holder\":{tid}"));
        let text = format!("\"tid\":{tid},\"class\":\"{class}\"{name}{holder}");
        self.waits.push(format!("{{{text}}}"));
    }

    /// A thread is idle.
    pub(crate) fn idle(&mut self, tid: u32, class: &str) {
        let text = format!("{{\"tid\":{tid},\"class\":\"{class}\"}}");
        self.idle.push(text);
    }

    /// Threads wait for each other.
    pub(crate) fn circle(&mut self, threads: &[u32]) {
        self.circles.push(format!("{threads:?}"));
    }

    /// Says so, and ends when standard input is closed.
    pub(crate) fn stand(&self) -> ! {
        let line = format!(
            "{{\"waits\":[{}],\"idle\":[{}],\"circles\":[{}],\"processes\":[]}}\n",
            self.waits.join(","),
            self.idle.join(","),
            self.circles.join(",")
        );
        // Who listens may be gone.
        let _ = std::io::stdout().write_all(line.as_bytes());
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    }
}
