//! Files as another process sees them, opened with care: what lies at a path is that process's choice.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::Path,
};

use super::maps::Mapping;

/// Opens the file behind a mapping: by the mapping itself, which leads to the very file even when it was
/// deleted or replaced and needs privileges; or else by its path in the process's root.
///
/// # Errors
/// The kernel's, or the file is not a regular one.
pub fn open_mapped(pid: u32, mapping: &Mapping) -> io::Result<File> {
    let link = format!(
        "/proc/{pid}/map_files/{:x}-{:x}",
        mapping.start, mapping.end
    );
    // Looked at before it is opened: opening a device may do something.
    if fs::metadata(&link).is_ok_and(|found| found.is_file()) {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(&link);
        if let Ok(file) = opened.and_then(regular) {
            return Ok(file);
        }
    }
    open_in_root(pid, Path::new(mapping.name()))
}

/// Opens `path` in the root of process `pid`. Links are followed there and cannot lead out of it, and a named
/// pipe does not make the caller wait.
///
/// # Errors
/// The kernel's, or what is there is no regular file.
pub fn open_in_root(pid: u32, path: &Path) -> io::Result<File> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    regular(in_root(pid, path, flags, 0)?)
}

/// A folder in the root of process `pid`, to make a file in.
///
/// # Errors
/// The kernel's.
pub(super) fn folder_in_root(pid: u32, path: &Path) -> io::Result<File> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    in_root(pid, path, flags, 0)
}

/// What is at `path` in the root of process `pid`, without opening it; links are not followed.
///
/// # Errors
/// The kernel's.
pub(super) fn path_in_root(pid: u32, path: &Path) -> io::Result<File> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    in_root(pid, path, flags, libc::RESOLVE_NO_SYMLINKS)
}

fn in_root(pid: u32, path: &Path, flags: libc::c_int, more: u64) -> io::Result<File> {
    let root = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(format!("/proc/{pid}/root"))?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the structure is integers, for which zeros are valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = flags as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS | more;
    // SAFETY: an open descriptor, a string that ends, and a structure with its size; all outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0);
    let fd = fd.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the call returned a new descriptor, which nobody else has.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::maps;

    #[test]
    fn own_program_is_opened_and_what_is_no_file_is_not() {
        let own = std::process::id();
        let all = maps::read(own).unwrap();
        let code = all.iter().find(|m| m.executable && m.inode != 0).unwrap();
        assert!(open_mapped(own, code).is_ok());
        assert!(open_in_root(own, Path::new(code.name())).is_ok());
        assert!(open_in_root(own, Path::new("/proc")).is_err());
        assert!(open_in_root(own, Path::new("/dev/null")).is_err());
        assert!(open_in_root(own, Path::new("/no/such")).is_err());
        assert!(open_in_root(u32::MAX / 2, Path::new("/")).is_err());
    }
}
