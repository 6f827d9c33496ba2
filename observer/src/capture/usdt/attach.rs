//! Attaching the kernel program to a place in a file.
//!
//! The way of the kernel's own: a perf event of the type `uprobe` names the place and the semaphore, and a
//! BPF link joins the program to it with a cookie. The kernel raises the semaphore in each process that the
//! event is for, later ones included, and lowers it when the link's descriptor is closed, however this
//! process ends. aya knows no semaphores, so both calls are made here.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use super::super::bpf::{self, LINK_CREATE, owned};

/// `BPF_PERF_EVENT` (include/uapi/linux/bpf.h).
const PERF_EVENT: u32 = 41;
/// `PERF_FLAG_FD_CLOEXEC` (include/uapi/linux/perf_event.h).
const CLOEXEC: libc::c_ulong = 8;

/// Where the kernel tells of its perf events for uprobes.
const PMU: &str = "/sys/bus/event_source/devices/uprobe";

/// `struct perf_event_attr` up to `config2`, `PERF_ATTR_SIZE_VER1`.
#[repr(C)]
#[derive(Default)]
struct EventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    /// For a uprobe: pointer to the path.
    config1: u64,
    /// For a uprobe: offset in the file.
    config2: u64,
}

/// The part of `union bpf_attr` for a link to a perf event.
#[repr(C)]
#[derive(Default)]
struct LinkAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    cookie: u64,
}

const _: () = {
    assert!(size_of::<EventAttr>() == 72);
    assert!(size_of::<LinkAttr>() == 24);
};

/// How this kernel takes uprobes.
#[derive(Clone, Copy, Debug)]
pub(in crate::capture) struct Pmu {
    kind: u32,
    semaphores: bool,
}

/// A place to attach to.
#[derive(Clone, Copy, Debug)]
pub(in crate::capture) struct Place {
    /// The open file.
    pub(in crate::capture) file: RawFd,
    /// Offset of the probe.
    pub(in crate::capture) offset: u64,
    /// Offset of its semaphore.
    pub(in crate::capture) semaphore: Option<u64>,
    /// One process; all that map the file when `None`.
    pub(in crate::capture) pid: Option<u32>,
    /// What the program is told.
    pub(in crate::capture) cookie: u64,
}

impl Pmu {
    /// Asks the kernel.
    pub(in crate::capture) fn find() -> Result<Pmu, String> {
        let path = format!("{PMU}/type");
        let text = fs::read_to_string(&path).map_err(|error| {
            format!("this kernel has no uprobes (CONFIG_UPROBE_EVENTS): {path}: {error}")
        })?;
        let kind = text
            .trim()
            .parse()
            .map_err(|_| format!("{path} holds no number"))?;
        let format = fs::read_to_string(format!("{PMU}/format/ref_ctr_offset"));
        Ok(Pmu {
            kind,
            semaphores: format.is_ok_and(|format| format.trim() == "config:32-63"),
        })
    }

    /// Attaches; closing the descriptor detaches.
    pub(in crate::capture) fn attach(
        self,
        program: BorrowedFd<'_>,
        place: &Place,
    ) -> Result<OwnedFd, String> {
        let semaphore = match place.semaphore {
            None => 0,
            Some(_) if !self.semaphores => {
                return Err(
                    "the probe has a semaphore, which this kernel cannot raise (Linux 4.20)".into(),
                );
            }
            Some(offset) => u32::try_from(offset)
                .map_err(|_| "its semaphore lies behind the first 4 GiB of the file")?,
        };
        let event = self
            .event(place, semaphore)
            .map_err(|error| format!("perf_event_open: {error}"))?;
        link(program, &event, place.cookie).map_err(|error| format!("bpf_link_create: {error}"))
    }

    fn event(self, place: &Place, semaphore: u32) -> io::Result<OwnedFd> {
        // The descriptor, not the name: what was read is what is attached to.
        let path = CString::new(format!("/proc/self/fd/{}", place.file))?;
        let attr = EventAttr {
            kind: self.kind,
            size: size_of::<EventAttr>() as u32,
            config: u64::from(semaphore) << 32,
            config1: path.as_ptr() as u64,
            config2: place.offset,
            ..EventAttr::default()
        };
        // An event for all processes is opened on one CPU; the program runs on each all the same.
        let (pid, cpu) = match place.pid {
            Some(pid) => (pid.cast_signed(), -1),
            None => (-1, 0),
        };
        // SAFETY: `attr` has the size it says and outlives the call, and so does the path it points to.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attr,
                pid,
                cpu,
                -1,
                CLOEXEC,
            )
        };
        owned(fd)
    }
}

/// Joins the program to the event, which the link then keeps.
fn link(program: BorrowedFd<'_>, event: &OwnedFd, cookie: u64) -> io::Result<OwnedFd> {
    let attr = LinkAttr {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_fd: event.as_raw_fd().cast_unsigned(),
        attach_type: PERF_EVENT,
        flags: 0,
        cookie,
    };
    // SAFETY: it points to nothing; the descriptors are open.
    unsafe { bpf::call(LINK_CREATE, &attr) }
}

/// How many descriptors this process may have: from now on as many as it is allowed to allow itself, since each place
/// may take one.
pub(super) fn descriptors() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for writes during the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return 0;
    }
    let raised = libc::rlimit {
        rlim_cur: limit.rlim_max,
        ..limit
    };
    // SAFETY: `raised` is valid for reads during the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } {
        0 => raised.rlim_cur,
        _ => limit.rlim_cur,
    }
}
