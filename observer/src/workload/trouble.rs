//! What goes wrong on hosts besides locks: `faulting`, `busy`, `leak`.

use std::ffi::c_void;
use std::hint;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::crew::{Crew, ready_fields};
use super::ending::{Ending, say};
use super::futex::{self, Sharing};
use super::options::Options;
use super::pthread::{check, spawn};
use super::sys;

/// `struct uffdio_api` and `struct uffdio_register` (include/uapi/linux/userfaultfd.h).
#[repr(C)]
struct Api {
    version: u64,
    features: u64,
    ioctls: u64,
}
#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}
const UFFD_API: u64 = 0xaa;
const MODE_MISSING: u64 = 1;
/// `_IOWR(0xaa, 0x3f, struct uffdio_api)` and `_IOWR(0xaa, 0x00, struct uffdio_register)`.
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;

/// A page that is never there: who touches it waits, as for a disk or a file server that does not answer.
struct MissingPage {
    address: usize,
    /// As long as it is open, they wait.
    _handler: OwnedFd,
}

impl MissingPage {
    fn new() -> io::Result<Self> {
        // SAFETY: the system call takes flags only; its descriptor is fresh, so OwnedFd is its only owner.
        let handler = unsafe {
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
            OwnedFd::from_raw_fd(sys::check(fd, "userfaultfd")? as i32)
        };
        let mut api = Api {
            version: UFFD_API,
            features: 0,
            ioctls: 0,
        };
        // SAFETY: the kernel reads and writes a live struct of the size that the request names.
        let rc = unsafe { libc::ioctl(handler.as_raw_fd(), UFFDIO_API, &raw mut api) };
        sys::check(rc, "ioctl(UFFDIO_API)")?;
        // SAFETY: sysconf takes a number and touches no memory.
        let length = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        // SAFETY: an anonymous mapping at a place that the kernel chooses touches no memory that is in use.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut register = Register {
            start: page.addr() as u64,
            length: length as u64,
            mode: MODE_MISSING,
            ioctls: 0,
        };
        // SAFETY: as above; the range is the mapping that was just made, which is never unmapped.
        let rc = unsafe { libc::ioctl(handler.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) };
        sys::check(rc, "ioctl(UFFDIO_REGISTER)")?;
        Ok(Self {
            address: page.addr(),
            _handler: handler,
        })
    }
}

/// Threads in a page fault that never ends.
pub(crate) fn faulting(options: &Options) -> io::Result<()> {
    let page = MissingPage::new()?;
    let mut crew = Crew::new("faulting", options)?;
    for index in 0..options.threads.unwrap_or(8) {
        let address = page.address;
        crew.spawn(&format!("fault-{index}"), move |_| {
            // SAFETY: the page is mapped, readable and never unmapped.
            let byte = unsafe { ptr::with_exposed_provenance::<u8>(address).read_volatile() };
            Ok(byte.into())
        })?;
    }
    let working = crew.start([] as [(String, usize); 0])?;
    working.wait_for_end()?;
    // They go down with the process.
    working.abandon().tell(Map::<String, Value>::new())
}

/// Threads that never wait.
pub(crate) fn busy(options: &Options) -> io::Result<()> {
    let mut crew = Crew::new("busy", options)?;
    for index in 0..options.threads.unwrap_or(8) {
        crew.spawn(&format!("busy-{index}"), |run| {
            while !run.stopped() {
                hint::spin_loop();
            }
            Ok(Value::Null)
        })?;
    }
    crew.start([] as [(String, usize); 0])?.run_to_end()
}

static NEVER: AtomicU32 = AtomicU32::new(0);

/// A thread each --ms (20), up to --threads (2000), that waits for ever.
pub(crate) fn leak(options: &Options) -> io::Result<()> {
    say(
        "ready",
        &ready_fields(Map::new(), [] as [(String, usize); 0]),
    )?;
    let ending = Ending::start("leak", options)?;
    let most = options.threads.unwrap_or(2_000);
    let begun = Instant::now();
    let mut made = 0u64;
    loop {
        let next = u32::try_from(made + 1).unwrap_or(u32::MAX);
        let due = begun + options.period(20) * next;
        if ending.wait(Some(due.saturating_duration_since(Instant::now())), None)? {
            break;
        }
        if made < most {
            leaked_thread()?;
            made += 1;
        }
    }
    let mut truth = Map::new();
    truth.insert("made".into(), json!(made));
    ending.tell(truth)
}

extern "C" fn never_told(_: *mut c_void) -> *mut c_void {
    loop {
        if let Err(error) = futex::wait(&NEVER, 0, Sharing::Private) {
            eprintln!("workload: {error}");
            thread::yield_now();
        }
    }
}

fn leaked_thread() -> io::Result<()> {
    let handle = spawn(never_told)?;
    // SAFETY: the handle is of a joinable thread and is used once.
    check(unsafe { libc::pthread_detach(handle) }, "pthread_detach")
}

const _: () = assert!(size_of::<Api>() == 24 && size_of::<Register>() == 32);
