//! Threads and processes that live for a moment: `brood`; and a number that two of them have: `heir`.

use std::ffi::c_void;
use std::io;
use std::mem::size_of;
use std::process;
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::crew::ready_fields;
use super::ending::{Ending, say};
use super::futex::{self, Sharing};
use super::options::Options;
use super::proc::wait_until_blocked;
use super::pthread::{check, spawn};
use super::sys::{self, Fork, fork, now_ns};

/// So many are made between two looks at the clock.
const BATCH: u64 = 10;
/// A batch is made each so often: a thousand a second.
const PERIOD: Duration = Duration::from_millis(10);
/// How long one of them sleeps before it ends.
const LIFE: Duration = Duration::from_micros(100);

/// A thousand threads a second, or processes, that sleep for a moment and end.
pub(crate) fn brood(options: &Options) -> io::Result<()> {
    // Whoever is made here has this name too.
    sys::set_name(c"brood")?;
    say(
        "ready",
        &ready_fields(Map::new(), [] as [(String, usize); 0]),
    )?;
    let ending = Ending::start("brood", options)?;
    let mut made = 0;
    let begun = Instant::now();
    while options.rounds.is_none_or(|rounds| made < rounds) {
        for _ in 0..BATCH {
            if options.processes {
                short_process()?;
            } else {
                short_thread()?;
            }
        }
        made += BATCH;
        let due = begun + PERIOD * u32::try_from(made / BATCH).unwrap_or(u32::MAX);
        // Behind the plan, it goes on at once.
        if ending.wait(Some(due.saturating_duration_since(Instant::now())), None)? {
            break;
        }
    }
    let mut truth = Map::new();
    truth.insert("made".into(), json!(made));
    ending.tell(truth)
}

fn short_thread() -> io::Result<()> {
    extern "C" fn live(_: *mut c_void) -> *mut c_void {
        thread::sleep(LIFE);
        ptr::null_mut()
    }
    let handle = spawn(live)?;
    // SAFETY: the handle is of a joinable thread and is used once.
    check(
        unsafe { libc::pthread_join(handle, ptr::null_mut()) },
        "pthread_join",
    )
}

fn short_process() -> io::Result<()> {
    match fork()? {
        Fork::Child => {
            thread::sleep(LIFE);
            sys::exit_child(Ok(()))
        }
        Fork::Parent { child } => sys::reap(child).map(drop),
    }
}

/// Two words, one for each that has the number.
static WORDS: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

/// A child that is killed while it waits, and another one that gets its number and waits on another word; each
/// for --ms (300).
pub(crate) fn heir(options: &Options) -> io::Result<()> {
    sys::set_name(c"heir")?;
    let words = WORDS
        .iter()
        .enumerate()
        .map(|(number, word)| (format!("word-{number}"), word.as_ptr().addr()));
    say("ready", &ready_fields(Map::new(), words))?;
    let ending = Ending::start("heir", options)?;
    let mut truth = Map::new();
    let mut number = 0;
    for (place, word) in WORDS.iter().enumerate() {
        let child = blocked_child(number, word)?;
        number = child;
        let from_ns = now_ns();
        ending.wait(Some(options.period(300)), None)?;
        sys::kill_child(child)?;
        truth.insert(
            format!("child-{place}"),
            json!({ "pid": child, "from_ns": from_ns, "to_ns": now_ns() }),
        );
    }
    truth.insert("parent".into(), Value::from(process::id()));
    ending.tell(truth)
}

/// Forks a child that waits on a word; with this number, if it is not 0.
fn blocked_child(number: libc::pid_t, word: &'static AtomicU32) -> io::Result<libc::pid_t> {
    // SAFETY: the structure is integers, for which zeros are valid.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.exit_signal = libc::SIGCHLD as u64;
    if number != 0 {
        how.set_tid = (&raw const number).addr() as u64;
        how.set_tid_size = 1;
    }
    // SAFETY: a fork: no flags, so the child has copies of all memory; the structure and the number outlive the
    // call, and this program has one thread here.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const how,
            size_of::<libc::clone_args>(),
        )
    };
    match sys::check(child, "clone3")? {
        0 => {
            let wait = || {
                sys::die_with_parent()?;
                futex::wait(word, 0, Sharing::Private)
            };
            sys::exit_child(wait().map(drop))
        }
        child => {
            let child = libc::pid_t::try_from(child).map_err(io::Error::other)?;
            wait_until_blocked(child, word.as_ptr().addr())?;
            Ok(child)
        }
    }
}
