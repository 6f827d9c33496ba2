//! What the agent may still do after the start, beside its capabilities: seccomp and Landlock.
//!
//! The thread that observes reads other processes, and writes incidents; it starts no program, reaches no network,
//! takes no connection, signals nobody and writes into nobody's memory, so these calls are taken from it. Landlock cannot
//! be: whoever is restricted by it may not read processes that are not. The process that serves HTTP is allowed only what
//! serving takes, and to read only the files that it serves or needs to find a host by its name. The thread that starts
//! that process is restricted likewise, but that it may start this program, and no other.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};

use super::calls;
use crate::inspect::maps;

/// What of Landlock is asked for; older kernels give less.
const LANDLOCK: ABI = ABI::V6;

/// Takes from this thread, and from those that it starts, what observing never needs.
///
/// # Errors
/// The kernel does not take the filter.
pub(super) fn observing() -> Result<()> {
    calls::observing()
}

/// Leaves this thread, and what it starts, what serving and starting this program need.
///
/// # Errors
/// The kernel does not take the filter, or the rules.
pub(super) fn keeping(readable: &[PathBuf]) -> Result<()> {
    restrict_files(readable, &own_files()).context("Landlock")?;
    calls::keeping()
}

/// The files that this program is mapped from: itself, and where it is not static its loader and libraries.
fn own_files() -> Vec<PathBuf> {
    let mapped = maps::read(std::process::id()).unwrap_or_default();
    let mut files: Vec<PathBuf> = mapped
        .into_iter()
        .filter(|mapping| mapping.executable && mapping.path.starts_with('/'))
        .map(|mapping| mapping.path.into_string().into())
        .collect();
    files.dedup();
    // It is found like this, whatever its name is by now.
    files.push("/proc/self/exe".into());
    files
}

/// Leaves this thread, and those that it starts, what serving needs. Says what is less than it should be.
///
/// # Errors
/// The kernel does not take the filter, or the rules.
pub(super) fn serving(readable: &[PathBuf]) -> Result<Option<&'static str>> {
    let note = restrict_files(readable, &[]).context("Landlock")?;
    calls::serving()?;
    Ok(note)
}

fn restrict_files(readable: &[PathBuf], programs: &[PathBuf]) -> Result<Option<&'static str>> {
    let names = name_files();
    let readable = readable.iter().chain(&names).filter(|path| path.exists());
    let programs = programs.iter().filter(|path| path.exists());
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        // It serves on a socket that was bound before.
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rules(path_beneath_rules(
            readable,
            AccessFs::ReadFile | AccessFs::ReadDir,
        ))?
        .add_rules(path_beneath_rules(
            programs,
            AccessFs::ReadFile | AccessFs::Execute,
        ))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => Some(
            "this kernel has no Landlock: which files the process that serves HTTP may read is not restricted",
        ),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => None,
    })
}

/// What finding a host by its name reads. Where a file is a link, as those of systemd's resolver are, the folder that
/// it leads to: it is replaced there.
fn name_files() -> Vec<PathBuf> {
    let of_etc = |name: &&str| {
        let file = Path::new("/etc").join(name);
        let real = fs::canonicalize(&file).ok()?;
        let is_there = real.starts_with("/etc");
        Some(if is_there {
            real
        } else {
            real.parent()?.to_owned()
        })
    };
    let names = [
        "resolv.conf",
        "hosts",
        "host.conf",
        "nsswitch.conf",
        "gai.conf",
        "ld.so.cache",
    ];
    let libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"].map(PathBuf::from);
    names.iter().filter_map(of_etc).chain(libraries).collect()
}

/// Makes a folder for its owner only, so that it can be allowed before something is in it.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::CString,
        net::{TcpListener, TcpStream},
        process::{Command, Stdio},
        thread,
    };

    use super::*;

    /// Runs something in a thread that is thrown away.
    fn apart<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        thread::spawn(body).join().unwrap()
    }

    fn refused(result: libc::c_long) -> bool {
        result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
    }

    #[test]
    fn who_observes_starts_nothing_and_reaches_nobody() {
        apart(|| {
            observing().unwrap();
            let error = Command::new("/bin/true").spawn().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            let own = std::process::id();
            // SAFETY: none of the calls is given memory; each is refused before it does anything.
            unsafe {
                assert!(refused(libc::syscall(libc::SYS_kill, own, 0)));
                assert!(refused(libc::syscall(libc::SYS_ptrace, 0, 0, 0, 0)));
                assert!(refused(libc::syscall(
                    libc::SYS_process_vm_writev,
                    own,
                    0,
                    0,
                    0,
                    0,
                    0
                )));
                assert!(refused(libc::syscall(libc::SYS_io_uring_setup, 1, 0)));
                assert!(refused(libc::syscall(libc::SYS_setns, -1, 0)));
                assert!(refused(libc::syscall(libc::SYS_accept4, -1, 0, 0, 0)));
                assert!(refused(libc::syscall(libc::SYS_tgkill, 1, 1, 0)));
                assert_eq!(libc::syscall(libc::SYS_tgkill, own, libc::gettid(), 0), 0);
            }
            assert!(
                TcpStream::connect("127.0.0.1:1")
                    .unwrap_err()
                    .raw_os_error()
                    == Some(libc::EPERM)
            );
            // What it needs is left: memory of others, files, a socket for the service manager.
            assert!(std::os::unix::net::UnixDatagram::unbound().is_ok());
            assert!(fs::read("/proc/self/status").is_ok());
            thread::spawn(|| ()).join().unwrap();
        });
    }

    #[test]
    fn who_starts_the_other_process_starts_nothing_else() {
        apart(|| {
            keeping(&[]).unwrap();
            // This program is a test here: it lists what it has.
            let own = |name: &str| {
                Command::new("/proc/self/exe")
                    .args(["--list", "--exact", name])
                    .stdin(Stdio::inherit())
                    .output()
            };
            assert!(own("none").unwrap().status.success());
            if fs::File::open("/etc/shadow").is_err() {
                let error = Command::new("/bin/true").spawn().unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EACCES));
            }
            // SAFETY: none of the calls is given memory; each is refused before it does anything.
            unsafe {
                for call in [libc::SYS_bpf, libc::SYS_ptrace, libc::SYS_setns] {
                    assert!(refused(libc::syscall(call, 0, 0, 0, 0, 0)), "{call}");
                }
            }
        });
    }

    #[test]
    fn who_serves_reads_what_is_served_and_no_more() {
        let folder = std::env::temp_dir().join(format!("observer-sandbox-{}", std::process::id()));
        make_folder(&folder).unwrap();
        fs::write(folder.join("a"), "a").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inside = folder.clone();
        apart(move || {
            let note = serving(std::slice::from_ref(&inside)).unwrap();
            // SAFETY: none of the calls is given memory but a string that ends.
            unsafe {
                for call in [
                    libc::SYS_bpf,
                    libc::SYS_perf_event_open,
                    libc::SYS_process_vm_readv,
                    libc::SYS_ptrace,
                    libc::SYS_execve,
                    libc::SYS_memfd_create,
                    libc::SYS_unlinkat,
                    libc::SYS_kill,
                    libc::SYS_tgkill,
                ] {
                    assert!(refused(libc::syscall(call, 0, 0, 0, 0, 0)), "{call}");
                }
                let path = CString::new("/tmp").unwrap();
                assert!(refused(libc::syscall(
                    libc::SYS_openat2,
                    -1,
                    path.as_ptr(),
                    0,
                    0
                )));
            }
            // It answers, and connects to whom it tells of incidents.
            assert!(TcpStream::connect(address).is_ok());
            assert!(listener.accept().is_ok());
            assert_eq!(fs::read_to_string(inside.join("a")).unwrap(), "a");
            thread::spawn(|| ()).join().unwrap();
            if note.is_none() {
                for path in ["/etc/shadow", "/proc/1/environ", "/proc/self/maps", "/root"] {
                    let error = fs::File::open(path).unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{path}");
                }
                assert!(fs::write(inside.join("b"), "b").is_err());
            }
        });
        // Others are not affected.
        assert!(fs::read("/proc/self/maps").is_ok());
        fs::remove_dir_all(folder).unwrap();
    }
}
