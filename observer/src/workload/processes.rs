//! Waits of more than one process: `shared`, `exit-in-wait`.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::crew::{Crew, Run, ready_fields};
use super::ending::{Ending, hex, say};
use super::futex::{self, Sharing};
use super::options::Options;
use super::proc::wait_until_blocked;
use super::sys::{self, Fork, fork, tid};
use super::tally::Waits;

/// Whose turn it is.
const PARENT: u32 = 0;
const CHILD: u32 = 1;
/// The game is over.
const OVER: u32 = 2;

/// How long each of the two keeps the turn, unless told otherwise.
const SHARED_MS: u64 = 50;

/// The memory that parent and child share. All zero is the state at the start.
#[repr(C)]
struct Page {
    /// Keeps the word away from the start of the file, so that its offset matters.
    before: [u8; 64],
    turn: AtomicU32,
}

/// A futex word in a file that two processes see at different addresses.
pub(crate) fn shared(options: &Options) -> io::Result<()> {
    let memory = sys::memory_file(c"workload-shared", size_of::<Page>())?;
    let inode = File::from(memory.try_clone()?).metadata()?.ino();
    let page = map(&memory)?;
    let period = options.period(SHARED_MS);
    let (go, gate) = io::pipe()?;
    let (hello, to_parent) = io::pipe()?;
    let child = match fork()? {
        Fork::Child => {
            drop((gate, hello));
            sys::exit_child(shared_child(&memory, go, to_parent, period))
        }
        Fork::Parent { child } => child,
    };
    drop((go, to_parent));
    let mut hello = Lines(hello);
    let child_address = hello.next()?;

    let mut crew = Crew::new("shared", options)?;
    let parent = crew.spawn("parent", move |run| shared_parent(run, page))?;
    crew.note("tids", json!({ "parent": parent, "child": child }));
    let parent_address = hex(page.turn.as_ptr().addr());
    crew.note(
        "locks",
        json!({ "parent": parent_address, "child": child_address }),
    );
    crew.note(
        "pids",
        json!({ "parent": std::process::id(), "child": child }),
    );
    crew.note("inode", json!(inode));
    crew.note("offset", json!(offset_of!(Page, turn)));
    let working = crew.start::<String>([])?;
    drop(gate);
    working.wait_for_end()?;
    let (mut threads, ending) = working.join()?;
    threads.insert("child".into(), hello.next()?);
    sys::reap(child)?;
    let mut truth = Map::new();
    truth.insert("threads".into(), threads.into());
    truth.insert(
        "pids".into(),
        json!({ "parent": std::process::id(), "child": child }),
    );
    truth.insert(
        "locks".into(),
        json!({ "parent": parent_address, "child": child_address }),
    );
    ending.tell(truth)
}

fn shared_parent(run: &Run, page: &Page) -> io::Result<Value> {
    let mut waits = Waits::default();
    let mut rounds = 0;
    while run.goes_on(rounds) {
        thread::sleep(run.options.period(SHARED_MS));
        take_turn(page, CHILD)?;
        wait_while(page, CHILD, &mut waits)?;
        rounds += 1;
    }
    take_turn(page, OVER)?;
    let mut truth = waits.to_json();
    truth["rounds"] = json!(rounds);
    Ok(truth)
}

/// The child maps the file once more, beside the mapping that it inherited: at another address.
fn shared_child(
    memory: &OwnedFd,
    mut go: PipeReader,
    mut to_parent: PipeWriter,
    period: Duration,
) -> io::Result<()> {
    sys::die_with_parent()?;
    sys::set_name(c"child")?;
    let page = map(memory)?;
    writeln!(to_parent, "{}", hex(page.turn.as_ptr().addr()))?;
    // Nobody writes: the read ends when the parent opens the gate.
    let _ended = go.read(&mut [0])?;
    let mut waits = Waits::default();
    loop {
        wait_while(page, PARENT, &mut waits)?;
        if page.turn.load(Ordering::SeqCst) == OVER {
            break;
        }
        thread::sleep(period);
        take_turn(page, PARENT)?;
    }
    writeln!(to_parent, "{}", waits.to_json())
}

fn map(memory: &OwnedFd) -> io::Result<&'static Page> {
    let (size, both) = (size_of::<Page>(), libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: the kernel chooses a free range. It is page aligned, as long as the file, never
    // unmapped, and only reached through the atomics of a Page, for which all zero is valid.
    unsafe {
        let fd = memory.as_raw_fd();
        let address = libc::mmap(ptr::null_mut(), size, both, libc::MAP_SHARED, fd, 0);
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(&*address.cast::<Page>())
    }
}

/// Gives the turn away and wakes whoever waits for it.
fn take_turn(page: &Page, turn: u32) -> io::Result<()> {
    page.turn.store(turn, Ordering::SeqCst);
    futex::wake(&page.turn, 1, Sharing::Shared).map(drop)
}

fn wait_while(page: &Page, turn: u32, waits: &mut Waits) -> io::Result<()> {
    while page.turn.load(Ordering::SeqCst) == turn {
        waits.time(|| futex::wait(&page.turn, turn, Sharing::Shared))?;
    }
    Ok(())
}

/// The JSON lines that a child writes into a pipe.
struct Lines(PipeReader);

impl Lines {
    fn next(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.0.read(&mut byte)? == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        serde_json::from_slice(&line).map_err(io::Error::other)
    }
}

/// The threads of each child that is killed.
const BLOCKED_THREADS: u64 = 8;

static NEVER: AtomicU32 = AtomicU32::new(0);

/// Processes that are killed while their threads wait.
pub(crate) fn exit_in_wait(options: &Options) -> io::Result<()> {
    let address = NEVER.as_ptr().addr();
    let mut ready = ready_fields(Map::new(), [("word", address)]);
    ready.insert("threads_per_child".into(), json!(BLOCKED_THREADS));
    say("ready", &ready)?;
    let ending = Ending::start("exit-in-wait", options)?;
    let mut killed = 0_u64;
    let mut over = false;
    while !over && options.rounds.is_none_or(|limit| killed < limit) {
        let (child, alive) = spawn_blocked_child(address)?;
        over = ending.wait(Some(options.period(100)), Some(alive.as_fd()))?;
        if !sys::kill_child(child)? {
            return Err(io::Error::other("a child ended before it was killed"));
        }
        killed += 1;
    }
    let mut truth = Map::new();
    truth.insert("killed".into(), json!(killed));
    truth.insert(
        "threads_killed_in_wait".into(),
        json!(killed * BLOCKED_THREADS),
    );
    ending.tell(truth)
}

/// Starts a child and waits until its threads are blocked. The pipe hangs up when it ends.
fn spawn_blocked_child(address: usize) -> io::Result<(libc::pid_t, PipeReader)> {
    let (mut blocked, mut to_parent) = io::pipe()?;
    match fork()? {
        Fork::Child => {
            drop(blocked);
            sys::exit_child(block_threads(address, &mut to_parent))
        }
        Fork::Parent { child } => {
            drop(to_parent);
            blocked.read_exact(&mut [0])?;
            Ok((child, blocked))
        }
    }
}

fn block_threads(address: usize, to_parent: &mut PipeWriter) -> io::Result<()> {
    sys::die_with_parent()?;
    let (send, receive) = mpsc::channel();
    let send = Arc::new(send);
    for index in 0..BLOCKED_THREADS {
        let send = Arc::clone(&send);
        thread::Builder::new()
            .name(format!("doomed-{index}"))
            .spawn(move || {
                // The receiver waits for one message from each thread.
                let _received = send.send(tid());
                loop {
                    // An error leaves a thread that spins, which the parent's check then misses.
                    let _outcome = futex::wait(&NEVER, 0, Sharing::Private);
                }
            })?;
    }
    for tid in receive.iter().take(BLOCKED_THREADS as usize) {
        wait_until_blocked(tid, address)?;
    }
    to_parent.write_all(&[1])?;
    loop {
        thread::sleep(Duration::from_hours(1));
    }
}
