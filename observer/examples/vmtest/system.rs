//! What the first process of a machine does for the others: file systems, and the end.

use std::ffi::CString;
use std::path::Path;
use std::{fs, io, ptr};

/// The tracing file system: type and place.
const TRACING: (&str, &str) = ("tracefs", "/sys/kernel/tracing");

/// File systems to mount: type and place.
const MOUNTS: [(&str, &str); 5] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    TRACING,
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Mounts what a system has mounted. What this kernel does not have is told, and missed by those who
/// need it.
pub(crate) fn mount_all() {
    for (kind, place) in MOUNTS {
        if let Err(error) = mount(kind, place) {
            println!("vmtest: cannot mount {kind} at {place}: {error}");
        }
    }
}

/// Mounts the tracing file system where it is not, for this process and its children only.
pub(crate) fn mount_tracing() {
    let (kind, place) = TRACING;
    if Path::new(place).join("events").is_dir() {
        return;
    }
    if let Err(error) = leave_mounts().and_then(|()| mount(kind, place)) {
        println!("vmtest: cannot mount {kind} at {place}: {error}");
    }
}

/// From here on what this process mounts is its own affair.
fn leave_mounts() -> io::Result<()> {
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the first call takes no pointer; of the second's only the place is used, a string that
    // ends with a NUL.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                ptr::null(),
                c"/".as_ptr(),
                ptr::null(),
                private,
                ptr::null(),
            ) == 0
    };
    if !done {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn mount(kind: &str, place: &str) -> io::Result<()> {
    fs::create_dir_all(place)?;
    let kind = CString::new(kind)?;
    let place = CString::new(place)?;
    // SAFETY: three strings that end with a NUL and live through the call; no data.
    let rc = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, ptr::null()) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Ends the machine.
pub(crate) fn power_off() -> ! {
    // SAFETY: the calls take no pointers; as process 1 nobody else's work is cut off.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    // Not reached unless the kernel refuses: then the end of process 1 makes it panic, which is told.
    std::process::exit(1)
}
