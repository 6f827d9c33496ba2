//! One thread holds a lock, another one waits for it.

use std::{
    ptr,
    sync::{
        Arc, LazyLock, Mutex, Once, RwLock,
        atomic::{AtomicPtr, Ordering},
    },
};

use crate::truth::{Point, Truth, asleep, rest, start};

static TAKEN: Point = Point::new();
static LEDGER: Mutex<u64> = Mutex::new(0);
static TABLE: RwLock<u64> = RwLock::new(0);
static OPENED: Once = Once::new();
static PARKING: parking_lot::Mutex<u64> = parking_lot::Mutex::new(0);

/// Starts the holder, then the waiter.
fn held(
    truth: &mut Truth,
    (class, name): (&str, Option<&str>),
    hold: impl FnOnce() + Send + 'static,
    want: impl FnOnce() + Send + 'static,
) {
    start("holder", hold);
    let holder = TAKEN.wait();
    let waiter = start("waiter", want);
    asleep(waiter);
    truth.waits(waiter, class, name, Some(holder));
}

/// Keeps whatever it is given.
fn keep<T>(guard: T) -> ! {
    TAKEN.reach();
    let _guard = guard;
    rest()
}

pub(crate) fn mutex(truth: &mut Truth) {
    let lock = ("rust_mutex", Some("truth::held::LEDGER"));
    held(truth, lock, || keep(LEDGER.lock()), || drop(LEDGER.lock()));
}

fn want_shared(lock: &Mutex<u64>) {
    drop(lock.lock());
}

pub(crate) fn arc(truth: &mut Truth) {
    let one = Arc::new(Mutex::new(0));
    let other = Arc::clone(&one);
    let lock = ("rust_mutex", Some("lock in truth::held::want_shared"));
    held(
        truth,
        lock,
        move || keep(one.lock()),
        move || want_shared(&other),
    );
}

static LOCAL: AtomicPtr<Mutex<u64>> = AtomicPtr::new(ptr::null_mut());

/// Has a lock among its variables.
#[inline(never)]
fn own() {
    let mut lock = Mutex::new(0);
    LOCAL.store(&raw mut lock, Ordering::SeqCst);
    // SAFETY: the variable is there for as long as this function, which never returns.
    keep(unsafe { &*LOCAL.load(Ordering::SeqCst) }.lock())
}

pub(crate) fn local(truth: &mut Truth) {
    let lock = ("rust_mutex", Some("lock on the stack of truth::held::own"));
    // SAFETY: the holder comes first, and never returns.
    let want = || want_shared(unsafe { &*LOCAL.load(Ordering::SeqCst) });
    held(truth, lock, own, want);
}

pub(crate) fn write(truth: &mut Truth) {
    let lock = ("rust_rwlock", Some("truth::held::TABLE"));
    held(truth, lock, || keep(TABLE.write()), || drop(TABLE.read()));
}

pub(crate) fn read(truth: &mut Truth) {
    let lock = ("rust_rwlock", Some("truth::held::TABLE"));
    held(truth, lock, || keep(TABLE.read()), || drop(TABLE.write()));
}

pub(crate) fn once(truth: &mut Truth) {
    let lock = ("rust_once", Some("truth::held::OPENED"));
    held(
        truth,
        lock,
        || OPENED.call_once(|| keep(())),
        || OPENED.call_once(|| ()),
    );
}

pub(crate) fn lazy(truth: &mut Truth) {
    static CONFIG: LazyLock<u64> = LazyLock::new(|| keep(()));
    let force = || {
        LazyLock::force(&CONFIG);
    };
    held(truth, ("rust_once", None), force, force);
}

pub(crate) fn join(truth: &mut Truth) {
    let joiner = start("joiner", || {
        let worker = std::thread::spawn(|| keep(()));
        // It never comes to this.
        let _ = worker.join();
    });
    let worker = TAKEN.wait();
    asleep(joiner);
    truth.waits(joiner, "pthread_join", None, Some(worker));
}

fn want_parking() {
    drop(PARKING.lock());
}

pub(crate) fn parking(truth: &mut Truth) {
    // Its threads sleep on a word of their own, which has no name.
    let lock = ("parking_lot", Some("lock in truth::held::want_parking"));
    held(truth, lock, || keep(PARKING.lock()), want_parking);
}

/// A wait of the program's own below a function that waits itself at other times.
pub(crate) fn raw_in_once(truth: &mut Truth) {
    let waiter = start("raw", || OPENED.call_once(wait_raw));
    asleep(waiter);
    truth.waits(waiter, "futex", None, None);
}

fn wait_raw() {
    static WORD: u32 = 2;
    // SAFETY: the word outlives the call, which has no time limit.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            &raw const WORD,
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            2,
            std::ptr::null::<libc::timespec>(),
        )
    };
}
