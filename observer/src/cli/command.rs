//! A command that is started and observed: it waits until the observing has begun.

use std::{
    ffi::{OsStr, OsString},
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::CommandExt,
    },
    process::{self, Child},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};

/// A child that has been made and does not run its program yet, or does.
pub(super) struct Command {
    name: String,
    pid: u32,
    /// One byte here lets it go; if it is closed before, the child ends.
    gate: Option<PipeWriter>,
    /// The thread that waits until the child has become the program.
    starting: Option<JoinHandle<io::Result<Child>>>,
    child: Option<Child>,
}

impl Command {
    /// Makes the child, which waits.
    pub(super) fn prepare(program: &OsStr, args: &[OsString]) -> Result<Command> {
        let name = program.to_string_lossy().into_owned();
        Command::make(program, args, name.clone()).with_context(|| format!("cannot start `{name}`"))
    }

    fn make(program: &OsStr, args: &[OsString], name: String) -> Result<Command> {
        let (mut pids, pid_out) = io::pipe()?;
        let (gate_in, gate) = io::pipe()?;
        let mut command = process::Command::new(program);
        command.args(args);
        let ends = (pid_out.as_raw_fd(), gate_in.as_raw_fd(), gate.as_raw_fd());
        // SAFETY: between fork and exec the closure makes only calls that are async-signal-safe, on
        // descriptors that are open until the thread below has started the child, and allocates nothing.
        unsafe { command.pre_exec(move || wait_at_gate(ends)) };
        let starting = thread::spawn(move || start(command, pid_out, gate_in));
        let mut pid = [0; 4];
        if pids.read_exact(&mut pid).is_err() {
            let started = starting.join().map_err(|_| anyhow!("its starter failed"))?;
            return Err(match started {
                Ok(_) => anyhow!("it ran too early"),
                Err(error) => error.into(),
            });
        }
        Ok(Command {
            name,
            pid: u32::from_ne_bytes(pid),
            gate: Some(gate),
            starting: Some(starting),
            child: None,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it run its program.
    pub(super) fn go(&mut self) -> Result<()> {
        let started = (|| {
            if let Some(mut gate) = self.gate.take() {
                gate.write_all(&[1])?;
            }
            match self.starting.take().map(JoinHandle::join) {
                Some(Ok(child)) => child.map(Some),
                _ => Ok(None),
            }
        })();
        self.child = started.with_context(|| {
            format!(
                "cannot start `{}`: is it in the PATH, and executable?",
                self.name
            )
        })?;
        Ok(())
    }

    pub(super) fn has_ended(&mut self) -> Result<bool> {
        let Some(child) = &mut self.child else {
            return Ok(true);
        };
        let status = child.try_wait();
        Ok(status
            .with_context(|| format!("cannot wait for `{}`", self.name))?
            .is_some())
    }

    /// Waits for its end, which is asked for with `stop`, and tells how it was unless it was a good one.
    pub(super) fn finish(mut self, stop: bool) -> Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        let mut status = child.try_wait()?;
        if status.is_none() {
            if stop {
                // SAFETY: the call takes two integers; the child has not been waited for, so the number is
                // its own.
                unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
            } else {
                let _ = writeln!(io::stderr(), "waiting for `{}` to end", self.name);
            }
            status = Some(child.wait()?);
        }
        if let Some(status) = status.filter(|status| !status.success()) {
            let _ = writeln!(io::stderr(), "`{}` ended with {status}", self.name);
        }
        Ok(())
    }
}

impl Drop for Command {
    /// A child that was not let go ends by itself when the gate is closed.
    fn drop(&mut self) {
        drop(self.gate.take());
        if let Some(starting) = self.starting.take() {
            let _ = starting.join();
        }
    }
}

/// Starts the child. The ends of the pipes that it uses stay open until it has.
fn start(
    mut command: process::Command,
    pid_out: PipeWriter,
    gate_in: PipeReader,
) -> io::Result<Child> {
    let child = command.spawn();
    drop((pid_out, gate_in));
    child
}

/// In the child: tells its number, and waits to be let go.
fn wait_at_gate((pid_out, gate_in, gate): (RawFd, RawFd, RawFd)) -> io::Result<()> {
    let pid = process::id().to_ne_bytes();
    let mut go = [0u8; 1];
    // SAFETY: async-signal-safe calls on descriptors of this process, with buffers of the length named. The
    // child's copy of the gate is closed: else it would never see that the parent has closed its own.
    let let_go = unsafe {
        libc::close(gate);
        libc::write(pid_out, pid.as_ptr().cast(), pid.len()) == pid.len() as isize
            && libc::read(gate_in, go.as_mut_ptr().cast(), 1) == 1
    };
    if let_go {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ECANCELED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepare(program: &str, args: &[&str]) -> Result<Command> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        Command::prepare(OsStr::new(program), &args)
    }

    #[test]
    fn it_waits_until_it_is_let_go() {
        let folder = std::env::temp_dir().join(format!("observer-gate-{}", process::id()));
        let path = folder.to_str().unwrap();
        let mut command = prepare("touch", &[path]).unwrap();
        assert_ne!(command.pid(), process::id());
        thread::sleep(std::time::Duration::from_millis(50));
        assert!(!folder.exists());
        command.go().unwrap();
        command.finish(false).unwrap();
        assert!(folder.exists());
        std::fs::remove_file(folder).unwrap();
    }

    #[test]
    fn it_never_runs_if_it_is_not_let_go() {
        let folder = std::env::temp_dir().join(format!("observer-no-gate-{}", process::id()));
        drop(prepare("touch", &[folder.to_str().unwrap()]).unwrap());
        assert!(!folder.exists());
    }

    #[test]
    fn a_program_that_is_not_there() {
        let mut command = prepare("/no/such/program", &[]).unwrap();
        let error = command.go().unwrap_err();
        assert!(
            format!("{error:#}").contains("/no/such/program"),
            "{error:#}"
        );
    }
}
