//! Very many blocked threads: `threads`.

use std::ffi::{CString, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::crew::ready_fields;
use super::ending::{Ending, say};
use super::futex::{self, Sharing};
use super::options::Options;
use super::proc::wait_until_blocked;
use super::pthread::check;
use super::sys::{set_name, tid};

/// Small stacks: 20 000 threads shall fit in 2 GiB of addresses.
const STACK_BYTES: usize = 64 * 1024;

/// What a thread sleeps on.
struct Slot {
    index: usize,
    /// 0 until the thread shall end.
    over: AtomicU32,
    /// 0 until the thread has started.
    tid: AtomicI32,
}

/// Threads that are each blocked on a futex of its own.
pub(crate) fn threads(options: &Options) -> io::Result<()> {
    let count = options.threads.unwrap_or(1000) as usize;
    let slots: &'static [Slot] = (0..count)
        .map(|index| Slot {
            index,
            over: AtomicU32::new(0),
            tid: AtomicI32::new(0),
        })
        .collect::<Vec<_>>()
        .leak();
    let handles = spawn_all(slots)?;
    let mut tids = Map::new();
    for slot in slots {
        let tid = started(slot);
        wait_until_blocked(tid, slot.over.as_ptr().addr())?;
        tids.insert(name(slot), tid.into());
    }
    let words = slots
        .iter()
        .map(|slot| (name(slot), slot.over.as_ptr().addr()));
    say("ready", &ready_fields(tids, words))?;

    let ending = Ending::start("threads", options)?;
    ending.wait(None, None)?;
    let mut woken = 0;
    for slot in slots {
        slot.over.store(1, Ordering::SeqCst);
        woken += futex::wake(&slot.over, 1, Sharing::Private)?;
    }
    for handle in handles {
        // SAFETY: the handle is of a joinable thread and is used once.
        let rc = unsafe { libc::pthread_join(handle, ptr::null_mut()) };
        check(rc, "pthread_join")?;
    }
    let mut truth = Map::new();
    truth.insert("count".into(), json!(count));
    truth.insert("woken".into(), Value::from(woken));
    ending.tell(truth)
}

fn name(slot: &Slot) -> String {
    format!("t-{}", slot.index)
}

/// Starts the threads by pthread_create: a thread of the standard library also maps a signal
/// stack, and with that 20 000 of them exceed the kernel's default of 65 530 mappings.
fn spawn_all(slots: &'static [Slot]) -> io::Result<Vec<libc::pthread_t>> {
    let mut attr = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: init fills the attribute, which the second call changes and later ones read.
    unsafe {
        check(
            libc::pthread_attr_init(attr.as_mut_ptr()),
            "pthread_attr_init",
        )?;
        let rc = libc::pthread_attr_setstacksize(attr.as_mut_ptr(), STACK_BYTES);
        check(rc, "pthread_attr_setstacksize")?;
    }
    let mut handles = Vec::with_capacity(slots.len());
    for slot in slots {
        let mut handle = MaybeUninit::<libc::pthread_t>::uninit();
        let argument = ptr::from_ref(slot).cast_mut().cast::<c_void>();
        // SAFETY: the attribute is initialised; the slot lives for ever and `sleep` only reads
        // it; the handle is read only when the call has succeeded and so has written it.
        let rc =
            unsafe { libc::pthread_create(handle.as_mut_ptr(), attr.as_ptr(), sleep, argument) };
        check(
            rc,
            &format!("pthread_create of thread {} of {}", slot.index, slots.len()),
        )?;
        // SAFETY: see above.
        handles.push(unsafe { handle.assume_init() });
    }
    // SAFETY: the attribute was initialised above and is not used again.
    unsafe { libc::pthread_attr_destroy(attr.as_mut_ptr()) };
    Ok(handles)
}

extern "C" fn sleep(argument: *mut c_void) -> *mut c_void {
    // SAFETY: the argument is the address of a slot that lives for ever and is only read.
    let slot = unsafe { &*argument.cast::<Slot>() };
    if let Err(error) = sleep_on(slot) {
        eprintln!("workload: {}: {error}", name(slot));
        std::process::exit(1);
    }
    ptr::null_mut()
}

fn sleep_on(slot: &Slot) -> io::Result<()> {
    set_name(&CString::new(name(slot))?)?;
    slot.tid.store(tid(), Ordering::SeqCst);
    while slot.over.load(Ordering::SeqCst) == 0 {
        futex::wait(&slot.over, 0, Sharing::Private)?;
    }
    Ok(())
}

/// The thread's id, once it has one.
fn started(slot: &Slot) -> libc::pid_t {
    loop {
        match slot.tid.load(Ordering::SeqCst) {
            0 => thread::sleep(Duration::from_millis(1)),
            tid => return tid,
        }
    }
}
