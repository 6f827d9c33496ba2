//! What tasks wait in, and how that ends.

use observer_common::kind;

super::named! {
    /// What a task waits in or for.
    Kind {
        /// A lock.
        Lock = "lock",
        /// A condition variable.
        Condvar = "condvar",
        /// A semaphore.
        Semaphore = "semaphore",
        /// A barrier.
        Barrier = "barrier",
        /// The end of another thread.
        Join = "join",
        /// A futex whose type is not known.
        Futex = "futex",
        /// A file or a block device.
        Io = "io",
        /// A socket.
        Socket = "socket",
        /// A pipe or a message queue.
        Pipe = "pipe",
        /// One of several events: `poll`, `select`, `epoll_wait`.
        Poll = "poll",
        /// Time to pass, or a signal.
        Sleep = "sleep",
        /// A child process.
        Child = "child",
        /// A page to be read or made.
        PageFault = "page_fault",
        /// A CPU.
        Runqueue = "runqueue",
        /// A lock inside the kernel.
        KernelLock = "kernel_lock",
        /// A channel, of a goroutine.
        GoroutineChannel = "goroutine_channel",
        /// A mutex, of a goroutine.
        GoroutineMutex = "goroutine_mutex",
        /// A monitor of a Java virtual machine.
        JvmMonitor = "jvm_monitor",
        /// A lock of PostgreSQL.
        PostgresLock = "postgres_lock",
        /// Whatever two USDT probes of a program say.
        Usdt = "usdt",
        /// None of the others.
        Other = "other",
    }
}

impl Kind {
    /// That of a number of the kernel programs', one of [`observer_common::kind`].
    pub fn of(kind: u8) -> Kind {
        match kind {
            kind::FUTEX => Kind::Futex,
            kind::LOCK => Kind::Lock,
            kind::CONDVAR => Kind::Condvar,
            kind::SEMAPHORE => Kind::Semaphore,
            kind::IO | kind::FILE => Kind::Io,
            kind::SOCKET => Kind::Socket,
            kind::PIPE => Kind::Pipe,
            kind::POLL => Kind::Poll,
            kind::SLEEP => Kind::Sleep,
            kind::CHILD => Kind::Child,
            kind::PAGE_FAULT => Kind::PageFault,
            kind::RUNQUEUE => Kind::Runqueue,
            kind::KERNEL_LOCK => Kind::KernelLock,
            _ => Kind::Other,
        }
    }

    /// Is a task that waits like this most often idle, and not held up? A view may fold these away;
    /// no rule may accuse them.
    pub fn is_idle(self) -> bool {
        matches!(self, Kind::Poll | Kind::Sleep | Kind::Child)
    }

    /// The same, with the condition variables that pools wait on for work: a view of what is held up now leaves
    /// them out too.
    pub fn is_mostly_idle(self) -> bool {
        self.is_idle() || self == Kind::Condvar
    }
}

super::named! {
    /// How a wait ended.
    Outcome {
        /// What the task waited for came about.
        Woken = "woken",
        /// The time limit passed.
        Timeout = "timeout",
        /// A signal ended the wait.
        Interrupted = "interrupted",
    }
}
