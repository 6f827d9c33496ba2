//! Calls of `bpf(2)` that make a descriptor, where aya has none for what is asked.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
};

/// `BPF_LINK_CREATE` (include/uapi/linux/bpf.h).
pub(super) const LINK_CREATE: libc::c_int = 28;

/// One call: `attr` is the part of the kernel's `union bpf_attr` that this command reads.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// `attr` is laid out as the command has it, and all that it points to is valid during the call.
pub(super) unsafe fn call<T>(command: libc::c_int, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the size is that of `attr`; the rest is what the caller promises.
    owned(unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<T>()) })
}

/// The descriptor that a call returned, or its error.
pub(super) fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: a descriptor that the kernel just made and that nothing else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
