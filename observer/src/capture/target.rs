//! The processes that were asked for: are they there, and have they ended?

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Result, bail};

use crate::inspect::proc;

/// Watched processes.
#[derive(Debug)]
pub struct Targets {
    processes: Vec<(u32, OwnedFd)>,
    asked: bool,
}

impl Targets {
    /// Takes hold of each process, so that its identifier cannot come to mean another one.
    ///
    /// # Errors
    /// There is no such process, or the number is that of a thread.
    pub fn open(pids: &[u32]) -> Result<Targets> {
        let mut processes = Vec::new();
        for &pid in pids {
            processes.push((pid, open(pid)?));
        }
        Ok(Targets {
            processes,
            asked: !pids.is_empty(),
        })
    }

    /// Have all of them ended? False when none was asked for.
    pub fn ended(&self) -> bool {
        self.asked && self.processes.iter().all(|(_, one)| has_ended(one))
    }

    /// Those that have not ended: their numbers mean them.
    pub fn alive(&self) -> Vec<u32> {
        let alive = self.processes.iter().filter(|(_, one)| !has_ended(one));
        alive.map(|(pid, _)| *pid).collect()
    }
}

fn open(pid: u32) -> Result<OwnedFd> {
    if let Some(process) = proc::process_of(pid)
        && process != pid
    {
        bail!(
            "--pid {pid}: {pid} is a thread of process {process}; name the process: --pid {process}"
        );
    }
    // SAFETY: the call takes two integers and returns a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ESRCH) {
            bail!("--pid {pid}: there is no process {pid}; `ps -e` lists those there are");
        }
        bail!("--pid {pid}: cannot watch the process: {error}");
    }
    // SAFETY: a descriptor that was just made and that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A descriptor of a process becomes readable when it ends.
fn has_ended(process: &OwnedFd) -> bool {
    let mut poll = libc::pollfd {
        fd: process.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid pollfd, and a time limit of zero.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 && poll.revents & libc::POLLIN != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_from_threads_and_from_nothing() {
        let own = Targets::open(&[std::process::id()]).unwrap();
        assert!(!own.ended());
        assert!(!Targets::open(&[]).unwrap().ended());
        let error = Targets::open(&[u32::MAX / 2]).unwrap_err().to_string();
        assert!(error.contains("no process"), "{error}");
        let error = std::thread::spawn(|| {
            // SAFETY: no precondition.
            let tid = unsafe { libc::gettid() };
            Targets::open(&[tid as u32]).unwrap_err().to_string()
        })
        .join()
        .unwrap();
        assert!(error.contains("is a thread of process"), "{error}");
    }

    #[test]
    fn an_end_is_seen() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let targets = Targets::open(&[child.id()]).unwrap();
        child.wait().unwrap();
        assert!(targets.ended() && targets.alive().is_empty());
        let own = std::process::id();
        assert_eq!(Targets::open(&[own]).unwrap().alive(), [own]);
    }
}
