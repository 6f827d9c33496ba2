//! A program in trouble, to see what observer shows: `demo [--for SECONDS]`.
//!
//! It has a contended mutex with a slow holder, two threads in a deadlock, a pool of workers that
//! is merely idle, and a thread in a slow read. It runs until it is stopped.

#[path = "../src/workload/pthread.rs"]
#[expect(
    dead_code,
    reason = "the demo needs no timed waits and no priority inheritance"
)]
mod pthread;

use std::io::{self, Read, Write};
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use pthread::{Cond, Mutex};

/// Contended: `slow-holder` keeps it most of the time, the clients wait for it.
static ACCOUNTS: Mutex = Mutex::new();
/// Taken first by `transfer-a`, wanted by `transfer-b`.
static LEFT: Mutex = Mutex::new();
/// Taken first by `transfer-b`, wanted by `transfer-a`.
static RIGHT: Mutex = Mutex::new();
/// Protects the number of jobs.
static QUEUE: Mutex = Mutex::new();
/// Signalled when there is a job, which is never.
static QUEUE_READY: Cond = Cond::new(&QUEUE);
static JOBS: AtomicUsize = AtomicUsize::new(0);

const HOLD: Duration = Duration::from_millis(200);
const RELEASE: Duration = Duration::from_millis(20);
const CLIENT_WORK: Duration = Duration::from_millis(1);
const CLIENT_PAUSE: Duration = Duration::from_millis(5);
/// From the start line to the deadlock: time to attach and watch it form.
const UNTIL_DEADLOCK: Duration = Duration::from_millis(300);
const BYTE_EACH: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let limit = match limit(std::env::args().skip(1)) {
        Ok(limit) => limit,
        Err(error) => {
            eprintln!("demo: {error}\nusage: demo [--for SECONDS]");
            return ExitCode::from(2);
        }
    };
    match run(limit) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How long to run, if not for ever.
fn limit(mut args: impl Iterator<Item = String>) -> Result<Option<Duration>, String> {
    let Some(arg) = args.next() else {
        return Ok(None);
    };
    if arg != "--for" {
        return Err(format!("unknown argument \"{arg}\""));
    }
    let text = args.next().ok_or("--for needs a number of seconds")?;
    if let Some(extra) = args.next() {
        return Err(format!("unknown argument \"{extra}\""));
    }
    let seconds = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .map(Some)
        .ok_or_else(|| format!("--for needs a number of seconds, not \"{text}\""))
}

fn run(limit: Option<Duration>) -> io::Result<()> {
    let end = limit.map(|limit| Instant::now() + limit);
    let deadlock_at = Instant::now() + UNTIL_DEADLOCK;

    let holder = spawn("slow-holder", slow_holder)?;
    let clients = spawn_numbered("client", 3, client)?;
    let pool = spawn_numbered("pool", 4, pool_worker)?;
    let (bytes_out, bytes_in) = io::pipe()?;
    let reader = spawn("slow-reader", move || slow_reader(bytes_out))?;
    let both_hold = Arc::new(Barrier::new(2));
    let barrier = Arc::clone(&both_hold);
    let a = spawn("transfer-a", move || {
        transfer(&LEFT, &RIGHT, deadlock_at, &barrier)
    })?;
    let b = spawn("transfer-b", move || {
        transfer(&RIGHT, &LEFT, deadlock_at, &both_hold)
    })?;

    let (accounts, left, right) = (ACCOUNTS.address(), LEFT.address(), RIGHT.address());
    let (queue, queue_ready) = (QUEUE.address(), QUEUE_READY.address());
    say(&format!(
        "contention: ACCOUNTS at {accounts:#x}: {holder} holds it 200 ms at a time; {clients} \
         wait for it\n\
         deadlock, {UNTIL_DEADLOCK:?} from the start:\n  \
         LEFT at {left:#x}: held by {a}, wanted by {b}\n  \
         RIGHT at {right:#x}: held by {b}, wanted by {a}\n\
         idle, and no trouble: QUEUE at {queue:#x}, QUEUE_READY at {queue_ready:#x}: {pool} wait \
         for work\n\
         slow read: {reader} reads a pipe that gets one byte every {BYTE_EACH:?}\n\
         ready pid={}\n",
        process::id()
    ))?;
    feed(bytes_in, end)
}

/// Prints lines. A reader who has gone, as `head -1` does, does not stop the demo.
fn say(lines: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Starts a thread; gives its name and thread id in words.
fn spawn(name: &str, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<String> {
    let (send, receive) = mpsc::sync_channel(1);
    let name = name.to_owned();
    let builder = thread::Builder::new().name(name.clone());
    let own_name = name.clone();
    builder.spawn(move || {
        // SAFETY: gettid has no arguments and cannot fail.
        let tid = unsafe { libc::gettid() };
        // The spawner waits for this message, so somebody receives it.
        let _received = send.send(tid);
        if let Err(error) = work() {
            eprintln!("demo: {own_name}: {error}");
            process::exit(1);
        }
    })?;
    let tid = receive.recv().map_err(io::Error::other)?;
    Ok(format!("{name} (tid {tid})"))
}

/// Starts `name-1`, `name-2`, …
fn spawn_numbered(name: &str, count: usize, work: fn() -> io::Result<()>) -> io::Result<String> {
    let threads: io::Result<Vec<_>> = (1..=count)
        .map(|number| spawn(&format!("{name}-{number}"), work))
        .collect();
    Ok(threads?.join(", "))
}

/// Keeps ACCOUNTS while it does something slow that needs no CPU, as a synchronous write does.
fn slow_holder() -> io::Result<()> {
    loop {
        let accounts = ACCOUNTS.lock()?;
        thread::sleep(HOLD);
        drop(accounts);
        thread::sleep(RELEASE);
    }
}

fn client() -> io::Result<()> {
    loop {
        let accounts = ACCOUNTS.lock()?;
        thread::sleep(CLIENT_WORK);
        drop(accounts);
        thread::sleep(CLIENT_PAUSE);
    }
}

/// Moves money between two accounts, and takes their locks in the order in which it was told.
fn transfer(
    from: &'static Mutex,
    to: &'static Mutex,
    at: Instant,
    both_hold: &Barrier,
) -> io::Result<()> {
    thread::sleep(at.saturating_duration_since(Instant::now()));
    let _from = from.lock()?;
    both_hold.wait();
    let _to = to.lock()?;
    Err(io::Error::other("the deadlock did not hold"))
}

fn pool_worker() -> io::Result<()> {
    loop {
        let mut queue = QUEUE.lock()?;
        while JOBS.load(Ordering::Relaxed) == 0 {
            QUEUE_READY.wait(&mut queue)?;
        }
        JOBS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn slow_reader(mut bytes: io::PipeReader) -> io::Result<()> {
    let mut byte = [0];
    loop {
        bytes.read_exact(&mut byte)?;
    }
}

/// Writes a byte now and then until the end, if there is one.
fn feed(mut bytes: io::PipeWriter, end: Option<Instant>) -> io::Result<()> {
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        thread::sleep(left.map_or(BYTE_EACH, |left| left.min(BYTE_EACH)));
        bytes.write_all(b".")?;
    }
}
