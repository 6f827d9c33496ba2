//! A task iterator of the kernel's that is made for one process or one thread (Linux 6.1).
//!
//! aya attaches an iterator to all tasks only. With many threads on a host it is the walk over them that costs, not
//! what the program does.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::bpf::{self, LINK_CREATE};

/// `BPF_ITER_CREATE`, `BPF_TRACE_ITER` (include/uapi/linux/bpf.h).
const ITER_CREATE: libc::c_int = 33;
const TRACE_ITER: u32 = 28;

/// Of which tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Only {
    Process(u32),
    Thread(u32),
}

/// The part of `union bpf_iter_link_info` for tasks.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    tid: u32,
    pid: u32,
    pid_fd: u32,
}

/// The part of `union bpf_attr` for a link to an iterator.
#[repr(C)]
#[derive(Default)]
struct LinkAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    pad: u32,
}

/// The part of `union bpf_attr` for a reading of an iterator.
#[repr(C)]
struct ReadingAttr {
    link_fd: u32,
    flags: u32,
}

const _: () = {
    assert!(size_of::<LinkInfo>() == 12);
    assert!(size_of::<LinkAttr>() == 32);
    assert!(size_of::<ReadingAttr>() == 8);
};

/// A reading of these tasks only.
///
/// # Errors
/// The kernel's. One before 6.1 has `E2BIG` for a process, and makes an iterator of all tasks for a thread.
pub(super) fn open(program: BorrowedFd<'_>, only: Only) -> io::Result<File> {
    let info = match only {
        Only::Process(pid) => LinkInfo {
            pid,
            ..LinkInfo::default()
        },
        Only::Thread(tid) => LinkInfo {
            tid,
            ..LinkInfo::default()
        },
    };
    let attr = LinkAttr {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        attach_type: TRACE_ITER,
        iter_info: &raw const info as u64,
        iter_info_len: size_of::<LinkInfo>() as u32,
        ..LinkAttr::default()
    };
    // SAFETY: `info` has the size that is said, and outlives the call.
    let link = unsafe { bpf::call(LINK_CREATE, &attr) }?;
    let attr = ReadingAttr {
        link_fd: link.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    // SAFETY: it points to nothing; the reading keeps the link.
    let reading = unsafe { bpf::call(ITER_CREATE, &attr) }?;
    Ok(reading.into())
}
