//! The kernel's futex operations by raw system call, each as a safe function on a live word.

use std::io;
use std::ptr;
use std::sync::atomic::AtomicU32;

use libc::{c_int, c_long};

/// `futex_wake` and `futex_wait`, since Linux 6.7; the numbers are the same on every architecture.
const SYS_FUTEX_WAKE: c_long = 454;
const SYS_FUTEX_WAIT: c_long = 455;

/// `FUTEX2_SIZE_U32 | FUTEX2_PRIVATE` (include/uapi/linux/futex.h).
const FUTEX2_PRIVATE_U32: u32 = 0x02 | 0x80;

/// `FUTEX_BITSET_MATCH_ANY`: a waiter with this set matches every wake-up.
pub(crate) const ANY: u32 = u32::MAX;

/// Who may share a futex word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Threads of one process: the word is known by its address.
    Private,
    /// Several processes: the word is known by its file and offset.
    Shared,
}

impl Sharing {
    fn flag(self) -> c_int {
        match self {
            Self::Private => libc::FUTEX_PRIVATE_FLAG,
            Self::Shared => 0,
        }
    }
}

/// How a waiting call came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It slept and somebody woke it.
    Woken,
    /// The word did not hold the expected value: it never slept.
    WouldBlock,
    /// A signal came.
    Interrupted,
    /// The deadline passed.
    TimedOut,
}

fn outcome(rc: c_long, what: &str) -> io::Result<Outcome> {
    if rc >= 0 {
        return Ok(Outcome::Woken);
    }
    let cause = io::Error::last_os_error();
    match cause.raw_os_error() {
        Some(libc::EAGAIN) => Ok(Outcome::WouldBlock),
        Some(libc::EINTR) => Ok(Outcome::Interrupted),
        Some(libc::ETIMEDOUT) => Ok(Outcome::TimedOut),
        _ => Err(io::Error::new(cause.kind(), format!("{what}: {cause}"))),
    }
}

/// `FUTEX_WAIT` without a time-out.
pub(crate) fn wait(word: &AtomicU32, expected: u32, sharing: Sharing) -> io::Result<Outcome> {
    let op = libc::FUTEX_WAIT | sharing.flag();
    let forever = ptr::null::<libc::timespec>();
    // SAFETY: `word` is a live, aligned word for the whole call, which the kernel only reads.
    let rc = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, expected, forever) };
    outcome(rc, "futex(FUTEX_WAIT)")
}

/// `FUTEX_WAKE` of at most `count` waiters; gives how many were woken.
pub(crate) fn wake(word: &AtomicU32, count: u32, sharing: Sharing) -> io::Result<u64> {
    let op = libc::FUTEX_WAKE | sharing.flag();
    // SAFETY: waking uses the word's address as a key and does not touch its value.
    let rc = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, count) };
    Ok(super::sys::check(rc, "futex(FUTEX_WAKE)")? as u64)
}

/// `FUTEX_WAIT_BITSET_PRIVATE` until an absolute point on `CLOCK_MONOTONIC`.
pub(crate) fn wait_bitset(
    word: &AtomicU32,
    expected: u32,
    bits: u32,
    deadline: &libc::timespec,
) -> io::Result<Outcome> {
    let op = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
    let unused = ptr::null::<u32>();
    let deadline = ptr::from_ref(deadline);
    // SAFETY: word and deadline live for the whole call, which only reads them; the fifth
    // argument is unused by this operation.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            op,
            expected,
            deadline,
            unused,
            bits,
        )
    };
    outcome(rc, "futex(FUTEX_WAIT_BITSET)")
}

/// `FUTEX_WAKE_BITSET_PRIVATE` of one waiter that shares a bit.
pub(crate) fn wake_bitset(word: &AtomicU32, bits: u32) -> io::Result<()> {
    let op = libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG;
    let unused = ptr::null::<u32>();
    // SAFETY: as in `wake`; the two pointers are unused by this operation.
    let rc = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, 1, unused, unused, bits) };
    super::sys::check(rc, "futex(FUTEX_WAKE_BITSET)")?;
    Ok(())
}

/// The newer `futex_wait` system call, without a time-out.
pub(crate) fn wait2(word: &AtomicU32, expected: u32) -> io::Result<Outcome> {
    let (value, mask) = (c_long::from(expected), u64::from(ANY));
    let forever = ptr::null::<libc::timespec>();
    // SAFETY: `word` is a live, aligned word for the whole call, which the kernel only reads.
    let rc = unsafe {
        libc::syscall(
            SYS_FUTEX_WAIT,
            word.as_ptr(),
            value,
            mask,
            FUTEX2_PRIVATE_U32,
            forever,
            libc::CLOCK_MONOTONIC,
        )
    };
    outcome(rc, "futex_wait")
}

/// The newer `futex_wake` system call, of one waiter.
pub(crate) fn wake2(word: &AtomicU32) -> io::Result<()> {
    let mask = u64::from(ANY);
    // SAFETY: waking uses the word's address as a key and does not touch its value.
    let rc = unsafe { libc::syscall(SYS_FUTEX_WAKE, word.as_ptr(), mask, 1, FUTEX2_PRIVATE_U32) };
    super::sys::check(rc, "futex_wake")?;
    Ok(())
}

/// Whether the kernel has the newer `futex_wait` call.
pub(crate) fn has_wait2() -> bool {
    !matches!(wake2(&AtomicU32::new(0)), Err(error) if error.kind() == io::ErrorKind::Unsupported)
}

/// One entry of the vector of `futex_waitv` (include/uapi/linux/futex.h).
#[repr(C)]
struct Waiter {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// What `futex_waitv` said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vectored {
    pub(crate) outcome: Outcome,
    /// Which entry was woken, when one was.
    pub(crate) index: Option<usize>,
}

/// `futex_waitv` on private words, each with its expected value, without a time-out.
pub(crate) fn waitv(words: &[(&AtomicU32, u32)]) -> io::Result<Vectored> {
    let waiters: Vec<Waiter> = words
        .iter()
        .map(|&(word, value)| Waiter {
            value: u64::from(value),
            address: word.as_ptr().addr() as u64,
            flags: FUTEX2_PRIVATE_U32,
            reserved: 0,
        })
        .collect();
    let forever = ptr::null::<libc::timespec>();
    // SAFETY: the vector and every word it names live for the whole call, which only reads them.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            waiters.as_ptr(),
            waiters.len(),
            0,
            forever,
            libc::CLOCK_MONOTONIC,
        )
    };
    let outcome = outcome(rc, "futex_waitv")?;
    Ok(Vectored {
        outcome,
        index: usize::try_from(rc).ok(),
    })
}

/// Whether the kernel has `futex_waitv` (Linux 5.16).
pub(crate) fn has_waitv() -> bool {
    // An empty vector is invalid where the call exists.
    !matches!(waitv(&[]), Err(error) if error.kind() == io::ErrorKind::Unsupported)
}
