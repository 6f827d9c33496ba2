//! The C library's mutexes and condition variables, with the addresses the kernel sees.
//!
//! Rust's own locks hide their futex word; these are the very objects a C program uses, so an
//! observer finds their owner where glibc keeps it. Guards keep the POSIX rules: the thread that
//! locked is the one that unlocks, and a condition variable belongs to one mutex.

use std::cell::UnsafeCell;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Turns the return code of a pthread call, which is an errno value, into a result.
pub(crate) fn check(rc: libc::c_int, what: &str) -> io::Result<()> {
    if rc == 0 {
        return Ok(());
    }
    let cause = io::Error::from_raw_os_error(rc);
    Err(io::Error::new(cause.kind(), format!("{what}: {cause}")))
}

/// Starts a thread without an argument. One of the standard library takes more room: it maps a signal stack too.
pub(crate) fn spawn(
    run: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void,
) -> io::Result<libc::pthread_t> {
    let mut handle = 0;
    // SAFETY: the handle is written by the call; the function is given no argument.
    let rc = unsafe {
        libc::pthread_create(&raw mut handle, std::ptr::null(), run, std::ptr::null_mut())
    };
    check(rc, "pthread_create")?;
    Ok(handle)
}

/// A `pthread_mutex_t` that never moves: every use asks for a `'static` reference.
#[repr(transparent)]
pub(crate) struct Mutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a pthread mutex is made to be shared; its bytes are only ever touched by pthread calls.
unsafe impl Sync for Mutex {}

impl Mutex {
    /// An ordinary mutex, for a `static`.
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER))
    }

    /// A mutex with priority inheritance (`FUTEX_LOCK_PI` when contended), never freed.
    pub(crate) fn new_pi() -> io::Result<&'static Self> {
        let mutex: &'static Self = Box::leak(Box::new(Self::new()));
        let mut attr = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        // SAFETY: init fills the attribute that the next calls use and destroy takes down again;
        // the mutex is fresh, unlocked and known to nobody else, so it may be initialised anew.
        unsafe {
            check(
                libc::pthread_mutexattr_init(attr.as_mut_ptr()),
                "pthread_mutexattr_init",
            )?;
            let inherit = libc::PTHREAD_PRIO_INHERIT;
            let rc = libc::pthread_mutexattr_setprotocol(attr.as_mut_ptr(), inherit);
            check(rc, "pthread_mutexattr_setprotocol")?;
            let rc = libc::pthread_mutex_init(mutex.0.get(), attr.as_ptr());
            check(rc, "pthread_mutex_init")?;
            libc::pthread_mutexattr_destroy(attr.as_mut_ptr());
        }
        Ok(mutex)
    }

    /// Takes the mutex, waiting as long as it takes.
    pub(crate) fn lock(&'static self) -> io::Result<Guard> {
        // SAFETY: the mutex is initialised and, being 'static, stays where it is.
        let rc = unsafe { libc::pthread_mutex_lock(self.0.get()) };
        check(rc, "pthread_mutex_lock")?;
        Ok(Guard {
            mutex: self,
            not_send: PhantomData,
        })
    }

    /// Takes the mutex if it is free.
    pub(crate) fn try_lock(&'static self) -> io::Result<Option<Guard>> {
        // SAFETY: as in `lock`.
        let rc = unsafe { libc::pthread_mutex_trylock(self.0.get()) };
        if rc == libc::EBUSY {
            return Ok(None);
        }
        check(rc, "pthread_mutex_trylock")?;
        Ok(Some(Guard {
            mutex: self,
            not_send: PhantomData,
        }))
    }

    /// The address of the mutex, which in glibc is that of its futex word.
    pub(crate) fn address(&self) -> usize {
        self.0.get().addr()
    }
}

/// Proof that this thread holds the mutex; unlocks it when dropped.
pub(crate) struct Guard {
    mutex: &'static Mutex,
    /// A mutex is unlocked by the thread that locked it: the guard stays on its thread.
    not_send: PhantomData<*const ()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: the guard exists because this thread locked the mutex, and it unlocks once.
        let rc = unsafe { libc::pthread_mutex_unlock(self.mutex.0.get()) };
        debug_assert_eq!(rc, 0, "a held mutex can be unlocked");
    }
}

/// A `pthread_cond_t` together with the one mutex it is used with.
#[repr(C)]
pub(crate) struct Cond {
    cond: UnsafeCell<libc::pthread_cond_t>,
    mutex: &'static Mutex,
}

// SAFETY: a condition variable is made to be shared; only pthread calls touch its bytes.
unsafe impl Sync for Cond {}

impl Cond {
    /// A condition variable for a `static`, used with `mutex` only.
    pub(crate) const fn new(mutex: &'static Mutex) -> Self {
        Self {
            cond: UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER),
            mutex,
        }
    }

    /// One whose deadlines are read on `CLOCK_MONOTONIC`, never freed.
    pub(crate) fn new_monotonic(mutex: &'static Mutex) -> io::Result<&'static Self> {
        let this: &'static Self = Box::leak(Box::new(Self::new(mutex)));
        let mut attr = MaybeUninit::<libc::pthread_condattr_t>::uninit();
        // SAFETY: init fills the attribute that the next calls use and destroy takes down again;
        // nobody else knows the fresh condition variable, so it may be initialised anew.
        unsafe {
            check(
                libc::pthread_condattr_init(attr.as_mut_ptr()),
                "pthread_condattr_init",
            )?;
            let rc = libc::pthread_condattr_setclock(attr.as_mut_ptr(), libc::CLOCK_MONOTONIC);
            check(rc, "pthread_condattr_setclock")?;
            let rc = libc::pthread_cond_init(this.cond.get(), attr.as_ptr());
            check(rc, "pthread_cond_init")?;
            libc::pthread_condattr_destroy(attr.as_mut_ptr());
        }
        Ok(this)
    }

    /// Gives the mutex up, waits to be signalled and takes the mutex again.
    pub(crate) fn wait(&'static self, guard: &mut Guard) -> io::Result<()> {
        let mutex = self.own(guard)?;
        // SAFETY: both are initialised and never move; `guard` proves this thread holds the mutex,
        // which is the only one ever used with this condition variable.
        let rc = unsafe { libc::pthread_cond_wait(self.cond.get(), mutex.0.get()) };
        check(rc, "pthread_cond_wait")
    }

    /// As `wait`, until `deadline` on the clock of the condition variable; false when it passed.
    pub(crate) fn wait_until(
        &'static self,
        guard: &mut Guard,
        deadline: &libc::timespec,
    ) -> io::Result<bool> {
        let mutex = self.own(guard)?;
        // SAFETY: as in `wait`; the deadline is only read during the call.
        let rc = unsafe { libc::pthread_cond_timedwait(self.cond.get(), mutex.0.get(), deadline) };
        if rc == libc::ETIMEDOUT {
            return Ok(false);
        }
        check(rc, "pthread_cond_timedwait")?;
        Ok(true)
    }

    /// Wakes one waiter, if there is one.
    pub(crate) fn signal(&'static self) -> io::Result<()> {
        // SAFETY: the condition variable is initialised and never moves.
        let rc = unsafe { libc::pthread_cond_signal(self.cond.get()) };
        check(rc, "pthread_cond_signal")
    }

    /// The address of the condition variable; glibc's futex words lie within its 48 bytes.
    pub(crate) fn address(&self) -> usize {
        self.cond.get().addr()
    }

    /// The mutex of this condition variable, if that is what `guard` holds.
    fn own(&self, guard: &Guard) -> io::Result<&'static Mutex> {
        if std::ptr::eq(self.mutex, guard.mutex) {
            return Ok(self.mutex);
        }
        Err(io::Error::other(
            "a condition variable was used with a mutex that is not its own",
        ))
    }
}
