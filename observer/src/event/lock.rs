//! Locks and their holders.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Addr, Kind};

super::named! {
    /// What sort of lock it is.
    LockClass {
        /// A futex whose user is not known.
        Futex = "futex",
        /// A futex with priority inheritance.
        FutexPi = "futex_pi",
        /// `pthread_mutex_t` of the C library.
        PthreadMutex = "pthread_mutex",
        /// `pthread_cond_t`.
        PthreadCond = "pthread_cond",
        /// `pthread_rwlock_t`.
        PthreadRwlock = "pthread_rwlock",
        /// `sem_t`.
        Sem = "sem",
        /// `pthread_barrier_t`.
        PthreadBarrier = "pthread_barrier",
        /// The end of a thread, in `pthread_join`.
        PthreadJoin = "pthread_join",
        /// `pthread_once_t`.
        PthreadOnce = "pthread_once",
        /// A lock inside the C library (of its allocator, its streams, its loader).
        LibcLock = "libc_lock",
        /// A C++ static variable that is being initialised.
        CxxGuard = "cxx_guard",
        /// `std::atomic::wait` of C++, and what is made of it.
        CxxAtomic = "cxx_atomic",
        /// `std::sync::Mutex` of Rust.
        RustMutex = "rust_mutex",
        /// `std::sync::RwLock` of Rust.
        RustRwlock = "rust_rwlock",
        /// `std::sync::Condvar` of Rust.
        RustCondvar = "rust_condvar",
        /// `std::sync::Once` and `OnceLock` of Rust.
        RustOnce = "rust_once",
        /// `std::thread::park` of Rust, on which channels and `scope` wait too.
        RustPark = "rust_park",
        /// A lock of the crate `parking_lot`.
        ParkingLot = "parking_lot",
        /// A condition variable of the crate `parking_lot`.
        ParkingLotCondvar = "parking_lot_condvar",
        /// The Go runtime's own use of futexes.
        GoRuntime = "go_runtime",
        /// `sync.Mutex` of Go.
        GoMutex = "go_mutex",
        /// `sync.RWMutex` of Go.
        GoRwmutex = "go_rwmutex",
        /// A channel of Go.
        GoChan = "go_chan",
        /// `sync.WaitGroup` of Go.
        GoWaitgroup = "go_waitgroup",
        /// The Java virtual machine's own use of condition variables, or that of its threads, where it does not tell.
        JvmRuntime = "jvm_runtime",
        /// A Java monitor.
        JvmMonitor = "jvm_monitor",
        /// `Unsafe.park` of a Java virtual machine.
        JvmPark = "jvm_park",
        /// A lock of `java.util.concurrent`.
        JvmLock = "jvm_lock",
        /// The interpreter lock of CPython.
        PythonGil = "python_gil",
        /// `threading.Lock` of CPython.
        PythonLock = "python_lock",
        /// `threading.Condition` of CPython, and what is made of it: events, queues, the end of a thread.
        PythonCondition = "python_condition",
        /// A lightweight lock of PostgreSQL.
        PostgresLwlock = "postgres_lwlock",
        /// A heavyweight lock of PostgreSQL.
        PostgresLock = "postgres_lock",
        /// The garbage collector of CPython.
        PythonGc = "python_gc",
        /// The way of an exception to its handler.
        Exception = "exception",
        /// A resource that two USDT probes declare.
        Usdt = "usdt",
        /// A lock on a file or a part of it, of `flock` or `fcntl`.
        FileLock = "file_lock",
        /// A mutex inside the kernel.
        KernelMutex = "kernel_mutex",
        /// A reader-writer semaphore inside the kernel.
        KernelRwsem = "kernel_rwsem",
        /// The same with a counter on each CPU.
        KernelPercpuRwsem = "kernel_percpu_rwsem",
        /// A spinlock inside the kernel.
        KernelSpinlock = "kernel_spinlock",
        /// A reader-writer spinlock inside the kernel.
        KernelRwlock = "kernel_rwlock",
        /// A mutex with priority inheritance inside the kernel.
        KernelRtmutex = "kernel_rtmutex",
        /// Another lock inside the kernel.
        KernelLock = "kernel_lock",
    }
}

impl LockClass {
    /// Is it a lock inside the kernel?
    pub fn is_kernel(self) -> bool {
        matches!(
            self,
            LockClass::KernelMutex
                | LockClass::KernelRwsem
                | LockClass::KernelPercpuRwsem
                | LockClass::KernelSpinlock
                | LockClass::KernelRwlock
                | LockClass::KernelRtmutex
                | LockClass::KernelLock
        )
    }

    /// The kind of a wait for it.
    pub fn kind(self) -> Kind {
        match self {
            LockClass::Futex | LockClass::GoRuntime | LockClass::JvmPark => Kind::Futex,
            LockClass::JvmMonitor => Kind::JvmMonitor,
            LockClass::PostgresLwlock | LockClass::PostgresLock => Kind::PostgresLock,
            LockClass::PythonGc | LockClass::Exception | LockClass::Usdt => Kind::Usdt,
            LockClass::PthreadCond
            | LockClass::RustCondvar
            | LockClass::ParkingLotCondvar
            | LockClass::RustPark
            | LockClass::PythonCondition
            | LockClass::JvmRuntime
            | LockClass::CxxAtomic => Kind::Condvar,
            LockClass::Sem => Kind::Semaphore,
            LockClass::PthreadBarrier => Kind::Barrier,
            LockClass::PthreadJoin => Kind::Join,
            class if class.is_kernel() => Kind::KernelLock,
            _ => Kind::Lock,
        }
    }

    /// Does a task hold it, so that a wait for it is one for that task? Not so a condition variable, a
    /// semaphore or a barrier, which nobody owns: waiting there may be mere idleness.
    pub fn is_held(self) -> bool {
        self == LockClass::FutexPi
            || self == LockClass::PthreadJoin
            || matches!(
                self.kind(),
                Kind::Lock | Kind::KernelLock | Kind::JvmMonitor | Kind::PostgresLock
            )
    }
}

/// A lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockRef {
    /// Identity, stable within a run: `PID:0xADDRESS` for a private futex, `DEVICE:INODE+0xOFFSET` for
    /// a shared one, `kernel:0xADDRESS` for a lock inside the kernel, `file:DEVICE:INODE:flock` or
    /// `file:DEVICE:INODE:fcntl:START-END` for a lock on a file, `SCOPE:usdt:PROVIDER:PROBE:VALUES` for one that
    /// USDT probes declare.
    #[serde(deserialize_with = "crate::de::text")]
    pub id: Arc<str>,
    /// What sort of lock it is.
    pub class: LockClass,
    /// Name, where one is known.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub name: Option<Arc<str>>,
    /// Address in the waiting process, or in the kernel; absent for what has none.
    #[serde(skip_serializing_if = "Addr::is_none", default)]
    pub addr: Addr,
    /// Can several processes share it?
    pub shared: bool,
}

super::named! {
    /// What a task wants to do with a lock that tells readers from writers.
    Access {
        /// Read, together with others.
        Read = "read",
        /// Write, alone.
        Write = "write",
    }
}

impl LockRef {
    /// Takes what it was found to be. One that is known so already stays shared.
    pub fn learn(lock: &mut Arc<LockRef>, class: LockClass, name: Option<&Arc<str>>) {
        if (lock.class, lock.name.as_ref()) != (class, name) {
            let lock = Arc::make_mut(lock);
            lock.class = class;
            lock.name = name.cloned();
        }
    }
}

/// Its name; without one its class and address.
impl fmt::Display for LockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "{} {}", self.class.name(), self.addr),
        }
    }
}

super::named! {
    /// How sure it is that a task is the holder.
    Confidence {
        /// Nothing tells who it is.
        Unknown = "unknown",
        /// Inferred, with the evidence named.
        Likely = "likely",
        /// The lock's own memory, or the kernel, names the owner, and it was checked.
        Exact = "exact",
    }
}

super::named! {
    /// Is a holder able to go on?
    HolderState {
        /// On a CPU.
        Running = "running",
        /// Able to run, but without a CPU.
        Runnable = "runnable",
        /// The same, because its control group has used up its quota.
        Throttled = "throttled",
        /// Waiting for something itself.
        Waiting = "waiting",
        /// Stopped by a signal or a debugger.
        Stopped = "stopped",
        /// It has ended, and will never give the lock back.
        Ended = "ended",
    }
}

super::named! {
    /// What a part of a wait was spent on.
    Cause {
        /// The holder ran.
        HolderRunning = "holder_running",
        /// The holder could run and had no CPU.
        HolderRunnable = "holder_runnable",
        /// The same, because its control group had used up its quota.
        HolderThrottled = "holder_throttled",
        /// The holder waited for a file, a socket, a device.
        HolderInIo = "holder_in_io",
        /// The holder waited for another lock.
        HolderWaitingForLock = "holder_waiting_for_lock",
        /// The holder slept of its own accord.
        HolderAsleep = "holder_asleep",
        /// The holder was stopped.
        HolderStopped = "holder_stopped",
        /// Not looked at, or the holder is not known.
        Unknown = "unknown",
    }
}

/// The task that must act before a wait can end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// Process.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// Thread.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tid: Option<u32>,
    /// Name of the thread.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub comm: Option<Arc<str>>,
    /// How sure that is.
    pub confidence: Confidence,
    /// What says so, in words.
    #[serde(deserialize_with = "crate::de::text")]
    pub evidence: Arc<str>,
    /// Is it able to go on?
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<HolderState>,
    /// What the holder is doing: the state, or what it waits in, in words.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub doing: Option<Arc<str>>,
}
