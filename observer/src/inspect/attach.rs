//! Asks a Java virtual machine for its thread dump, as `jstack` does. This is the one thing that is asked of a target,
//! and only for `--jvm-attach`: the machine stops its threads for the moment that the dump takes.
//!
//! A file in the target's `/tmp` and `SIGQUIT` make the machine open a socket there; the dump is read from that.
//! The signal ends a process that does not expect it, so it is sent only where a handler is installed.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{fs::FileTypeExt, fs::OpenOptionsExt, net::UnixStream},
    },
    path::Path,
    time::{Duration, Instant},
};

use super::{files, maps, proc};
use crate::runtimes::jvm::{self, JavaThread};

/// The machine has so long to open its socket, and then to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for the socket.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes of a dump that are read.
const MAX_DUMP: u64 = 64 << 20;
/// Version, command and three arguments, each with a NUL behind it.
const REQUEST: &[u8] = b"1\0threaddump\0-l\0\0\0";

/// The threads of the Java virtual machine that process `pid` is.
///
/// # Errors
/// Why there is no dump, in words.
pub fn threads(pid: u32) -> Result<Vec<JavaThread>, String> {
    // Held from here on, the number cannot come to mean another process.
    let process = pidfd(pid)?;
    let own = proc::own_number(pid, pid).ok_or("the process is gone")?;
    // Others, those in Go among them, have a handler that ends them.
    let is_java = |mapping: &maps::Mapping| mapping.name().ends_with("/libjvm.so");
    if !maps::read(pid).is_ok_and(|all| all.iter().any(is_java)) {
        return Err("it is no Java virtual machine: it does not map libjvm.so".into());
    }
    let socket = format!("/tmp/.java_pid{own}");
    if open_socket(pid, &socket).is_none() {
        call(pid, own, &process)?;
    }
    let began = Instant::now();
    let opened = loop {
        if let Some(opened) = open_socket(pid, &socket) {
            break opened;
        }
        if began.elapsed() > PATIENCE {
            return Err(format!(
                "the machine did not open {socket} within {} s; was it started with -XX:+DisableAttachMechanism?",
                PATIENCE.as_secs()
            ));
        }
        std::thread::sleep(PAUSE);
    };
    ask(pid, &opened).map(|text| jvm::parse(&text))
}

/// Makes the machine open its socket.
fn call(pid: u32, own: u32, process: &OwnedFd) -> Result<(), String> {
    if !catches_quit(pid) {
        return Err(
            "it has no handler for SIGQUIT (-Xrs, or it has only begun): the signal would end it"
                .into(),
        );
    }
    let name = format!(".attach_pid{own}");
    let path = format!("/tmp/{name}");
    let folder = files::folder_in_root(pid, Path::new("/tmp"))
        .map_err(|error| format!("cannot open its /tmp: {error}"))?;
    let there = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&there)
        .map_err(|error| format!("cannot make {path} in its file system: {error}"))?;
    let signalled = signal(process);
    // The machine looks for the file when the signal comes: until the socket is there it stays.
    let began = Instant::now();
    while signalled.is_ok()
        && open_socket(pid, &format!("/tmp/.java_pid{own}")).is_none()
        && began.elapsed() < PATIENCE
    {
        std::thread::sleep(PAUSE);
    }
    let _ = fs::remove_file(&there);
    signalled
}

/// Is there a handler for `SIGQUIT`?
fn catches_quit(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask >> (libc::SIGQUIT - 1) & 1 == 1)
}

fn pidfd(pid: u32) -> Result<OwnedFd, String> {
    // SAFETY: integers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd)
        .ok()
        .filter(|fd| *fd >= 0)
        .ok_or_else(|| {
            format!(
                "cannot hold on to the process: {}",
                std::io::Error::last_os_error()
            )
        })?;
    // SAFETY: the call returned a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn signal(process: &OwnedFd) -> Result<(), String> {
    // SAFETY: an open descriptor, and no information for the signal.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            libc::SIGQUIT,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if sent == 0 {
        Ok(())
    } else {
        let error = std::io::Error::last_os_error();
        Err(format!("cannot send it SIGQUIT: {error}"))
    }
}

/// The socket in the target's file system, without following links.
fn open_socket(pid: u32, path: &str) -> Option<File> {
    let opened = files::path_in_root(pid, Path::new(path)).ok()?;
    opened
        .metadata()
        .ok()?
        .file_type()
        .is_socket()
        .then_some(opened)
}

fn ask(pid: u32, socket: &File) -> Result<String, String> {
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let failed = |error: std::io::Error| format!("the machine does not answer: {error}");
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    if peer(&stream) != Some(pid) {
        return Err("the socket in its /tmp is another process's".into());
    }
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(REQUEST).map_err(failed)?;
    let mut bytes = Vec::new();
    stream
        .take(MAX_DUMP)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes);
    match text.split_once('\n') {
        Some(("0", dump)) => Ok(dump.to_owned()),
        Some((code, why)) => Err(format!(
            "the machine refuses (code {code}): {}",
            why.lines().next().unwrap_or("")
        )),
        None => Err("the machine's answer is empty".into()),
    }
}

/// The process that listens at the other end.
fn peer(stream: &UnixStream) -> Option<u32> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes, those of the structure.
    let got = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut size,
        )
    };
    (got == 0).then(|| credentials.pid.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_expect_the_signal_is_not_sent_it() {
        let error = threads(std::process::id()).unwrap_err();
        assert!(error.contains("libjvm.so"), "{error}");
        assert!(!catches_quit(std::process::id()));
        assert!(threads(u32::MAX / 2).is_err());
    }
}
