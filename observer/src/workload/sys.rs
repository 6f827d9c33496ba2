//! Thin, safe forms of the system calls that the workloads need beside futexes.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

/// Turns a system call's -1 into an error that names what was tried.
pub(crate) fn check<T: PartialOrd + From<i8>>(rc: T, what: &str) -> io::Result<T> {
    if rc >= T::from(0) {
        return Ok(rc);
    }
    let cause = io::Error::last_os_error();
    Err(io::Error::new(cause.kind(), format!("{what}: {cause}")))
}

/// The time on `CLOCK_MONOTONIC`, the clock of the kernel's own time stamps, in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    let now = monotonic();
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The point `after` from now on `CLOCK_MONOTONIC`.
pub(crate) fn deadline(after: Duration) -> libc::timespec {
    let ns = u128::from(now_ns()) + after.as_nanos();
    libc::timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    }
}

fn monotonic() -> libc::timespec {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes into a live timespec. The call cannot fail: every Linux has this
    // clock and the pointer is good.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now
}

/// Switches of this process's threads away from a CPU, of their own will or not.
pub(crate) fn switches() -> io::Result<u64> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills a live struct; all-zero is a valid one.
    let usage = unsafe {
        let rc = libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        check(rc, "getrusage")?;
        usage.assume_init()
    };
    Ok((usage.ru_nvcsw + usage.ru_nivcsw) as u64)
}

/// This thread's id.
pub(crate) fn tid() -> libc::pid_t {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { libc::gettid() }
}

/// Gives this thread a name of any bytes; the kernel keeps the first 15.
pub(crate) fn set_name(name: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: the kernel reads up to the terminating zero, which a CStr has.
    let rc = unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    check(rc, "prctl(PR_SET_NAME)")?;
    Ok(())
}

/// Has the kernel kill this process when its parent dies, so that none is left behind.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: this prctl takes a signal number and touches no memory.
    let rc = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    check(rc, "prctl(PR_SET_PDEATHSIG)")?;
    Ok(())
}

/// The last CPU that this thread may run on.
pub(crate) fn last_cpu() -> io::Result<usize> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the kernel fills at most the given size of a live set; all-zero is a valid one.
    let set = unsafe {
        let rc = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr());
        check(rc, "sched_getaffinity")?;
        set.assume_init()
    };
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: the index is below CPU_SETSIZE, the number of bits in the set.
        .rfind(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .ok_or_else(|| io::Error::other("the affinity mask names no CPU"))
}

/// Pins this thread to one CPU, under the batch policy: there a wake-up never preempts the waker.
pub(crate) fn pin_as_batch(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::other(format!("--cpu {cpu}: no such CPU")));
    }
    // SAFETY: an all-zero set is the empty set; the index was just checked; the kernel reads the
    // set and the parameter during the calls only.
    unsafe {
        let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init();
        libc::CPU_SET(cpu, &mut set);
        let rc = libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
        check(rc, &format!("sched_setaffinity to CPU {cpu}"))?;
        let param = libc::sched_param { sched_priority: 0 };
        let rc = libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const param);
        check(rc, "sched_setscheduler(SCHED_BATCH)")?;
    }
    Ok(())
}

/// Gives the CPU to somebody else.
pub(crate) fn yield_cpu() {
    // SAFETY: sched_yield has no arguments and never fails on Linux.
    unsafe { libc::sched_yield() };
}

extern "C" fn ignore(_signal: libc::c_int) {}

/// Lets SIGUSR1 interrupt system calls: a handler that does nothing, without `SA_RESTART`.
pub(crate) fn interrupt_on_usr1() -> io::Result<()> {
    // SAFETY: an all-zero sigaction has an empty mask and no flags, so no SA_RESTART; the handler
    // has the signature of the flagless form and does nothing, which is async-signal-safe.
    let rc = unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut())
    };
    check(rc, "sigaction(SIGUSR1)")?;
    Ok(())
}

/// Sends SIGUSR1 to a thread of this process; one that has ended is no error.
pub(crate) fn interrupt(tid: libc::pid_t) -> io::Result<()> {
    // SAFETY: tgkill takes three integers; SIGUSR1 has a handler, so nobody dies of it.
    let rc = unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), tid, libc::SIGUSR1) };
    if rc < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) {
        return Ok(());
    }
    check(rc, "tgkill")?;
    Ok(())
}

/// On which side of a fork the caller finds itself.
pub(crate) enum Fork {
    Parent { child: libc::pid_t },
    Child,
}

/// Forks this process. It must have one thread only, so that no lock is held by a lost thread.
pub(crate) fn fork() -> io::Result<Fork> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other(
            "fork: this process has more than one thread",
        ));
    }
    // SAFETY: the only thread is this one, so the child's copy of memory is complete and no lock
    // in it is held by anybody else.
    match check(unsafe { libc::fork() }, "fork")? {
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent { child }),
    }
}

/// Ends a forked child at once: nothing buffered is written twice, no destructor runs.
pub(crate) fn exit_child(result: io::Result<()>) -> ! {
    let code = match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("workload: child: {error}");
            1
        }
    };
    // SAFETY: _exit ends the process and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Kills a child of this process and reaps it; true when it did die of that.
pub(crate) fn kill_child(child: libc::pid_t) -> io::Result<bool> {
    // SAFETY: kill takes integers; the child is not reaped yet, so the id still is its own.
    check(unsafe { libc::kill(child, libc::SIGKILL) }, "kill")?;
    let status = reap(child)?;
    Ok(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL)
}

/// Waits until a child has ended; gives its wait status.
pub(crate) fn reap(child: libc::pid_t) -> io::Result<libc::c_int> {
    let mut status = 0;
    // SAFETY: the kernel writes the status into a live integer.
    let rc = unsafe { libc::waitpid(child, &raw mut status, 0) };
    check(rc, "waitpid")?;
    Ok(status)
}

/// An anonymous file in memory of `size` bytes, all zero.
pub(crate) fn memory_file(name: &std::ffi::CStr, size: usize) -> io::Result<OwnedFd> {
    // SAFETY: the name ends in zero; the descriptor is fresh, so OwnedFd is its only owner.
    let file = unsafe {
        let fd = check(
            libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC),
            "memfd_create",
        )?;
        OwnedFd::from_raw_fd(fd)
    };
    fs::File::from(file.try_clone()?).set_len(size as u64)?;
    Ok(file)
}
