//! What is behind a file descriptor: `read` and its like wait for a disk, a socket or a pipe, and only
//! the open file tells which.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use observer_common::{ABSENT, kind};

use crate::{settings, task::Task};

/// File types of an inode's mode (include/uapi/linux/stat.h).
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
const S_IFIFO: u16 = 0o010_000;
/// Inodes without a type are those of event, timer and signal descriptors and the like.
const NO_TYPE: u16 = 0;

/// Kind of a wait on descriptor `fd` of `task`; [`kind::FILE`] where it cannot be told. Looked up each
/// time: the kernel gives the memory of a closed file to the next one that is opened.
#[inline(always)]
pub(crate) fn kind(task: Task, fd: u64) -> u8 {
    match open_file(task, fd) {
        Some(file) => look(file),
        None => kind::FILE,
    }
}

/// Address of the open file.
#[inline(always)]
fn open_file(task: Task, fd: u64) -> Option<u64> {
    if settings::off_files() == ABSENT {
        return None;
    }
    let files = task.follow(settings::off_files());
    let table = files.follow(settings::off_fdt());
    if fd >= u64::from(table.word(settings::off_max_fds())) {
        return None;
    }
    let array = table.address(settings::off_fd());
    // SAFETY: the helper checks the address and fails where nothing is mapped.
    unsafe { bpf_probe_read_kernel((array + fd * 8) as *const u64) }
        .ok()
        .filter(|file| *file != 0)
}

#[inline(always)]
fn look(file: u64) -> u8 {
    let inode = file + u64::from(settings::off_inode());
    // SAFETY: the helper checks the address and fails where nothing is mapped.
    let Ok(inode) = (unsafe { bpf_probe_read_kernel(inode as *const u64) }) else {
        return kind::FILE;
    };
    let mode = inode + u64::from(settings::off_mode());
    // SAFETY: as above.
    let Ok(mode) = (unsafe { bpf_probe_read_kernel(mode as *const u16) }) else {
        return kind::FILE;
    };
    match mode & S_IFMT {
        S_IFSOCK => kind::SOCKET,
        S_IFIFO => kind::PIPE,
        NO_TYPE => kind::POLL,
        _ => kind::IO,
    }
}
