//! Starts the process that serves HTTP, and ends it.
//!
//! The thread that observes may start no program. This one may: it has no capability, and where the kernel has Landlock
//! no other program than this one. What it starts is restricted by that from its first instruction on.

use std::{
    io,
    net::TcpListener,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use crate::agent::{privileges, sandbox};

/// The hidden command.
pub(crate) const COMMAND: &str = "serve-agent";
/// Environment that it keeps: where the libraries of a program are that is not static, and what a panic says.
const KEPT: [&str; 2] = ["LD_LIBRARY_PATH", "RUST_BACKTRACE"];
/// A process that is to end has so many times this long.
const LOOKS: u32 = 25;
const LOOK: Duration = Duration::from_millis(20);

/// Connections that wait to be taken: as many as `TcpListener` has.
const BACKLOG: libc::c_int = 128;

enum Order {
    Start(OwnedFd, oneshot::Sender<io::Result<u32>>),
    End(oneshot::Sender<Option<ExitStatus>>),
}

/// The thread. It ends when this is dropped, and with it what it started.
pub(in crate::agent) struct Keeper(mpsc::Sender<Order>);

impl Keeper {
    /// Starts it. `readable`: what the process may read, if that is restricted.
    ///
    /// # Errors
    /// The thread cannot be started, or not be restricted.
    pub(in crate::agent) fn start(
        listener: TcpListener,
        readable: Option<Vec<PathBuf>>,
    ) -> Result<Keeper> {
        let (orders, received) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        thread::Builder::new()
            .name("observer-keeper".into())
            .spawn(move || {
                let restricted = restrict(readable.as_deref());
                let good = restricted.is_ok();
                // The agent waits for it.
                let _ = tell.send(restricted);
                if good {
                    keep(&listener, &received);
                }
            })
            .context("cannot start the thread that starts the process that serves HTTP")?;
        told.recv()??;
        Ok(Keeper(orders))
    }

    /// Starts the process with this end of the socket; its number.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) async fn begin(&self, socket: OwnedFd) -> Result<u32> {
        let (tell, told) = oneshot::channel();
        self.0.send(Order::Start(socket, tell))?;
        told.await?.context("cannot start it")
    }

    /// Waits for its end for a moment, and then makes it end.
    pub(super) async fn end(&self) -> Option<ExitStatus> {
        let (tell, told) = oneshot::channel();
        self.0.send(Order::End(tell)).ok()?;
        told.await.ok()?
    }
}

fn restrict(readable: Option<&[PathBuf]>) -> Result<()> {
    privileges::drop_for_good().context("cannot drop capabilities")?;
    if let Some(readable) = readable {
        sandbox::keeping(readable).context("cannot restrict the thread that starts processes")?;
    }
    Ok(())
}

fn keep(listener: &TcpListener, orders: &mpsc::Receiver<Order>) {
    let mut child: Option<Child> = None;
    while let Ok(order) = orders.recv() {
        match order {
            Order::Start(socket, tell) => {
                if let Some(before) = child.take() {
                    end(before);
                }
                let started = start(listener, socket).map(|started| {
                    let pid = started.id();
                    child = Some(started);
                    pid
                });
                let _ = tell.send(started);
            }
            Order::End(tell) => {
                let _ = tell.send(child.take().and_then(end));
            }
        }
    }
}

/// The very program that runs, though another one may have its name by now. It finds the socket and the listener where
/// programs have their input and output: so nothing else has to be handed down.
fn start(listener: &TcpListener, socket: OwnedFd) -> io::Result<Child> {
    listen(listener)?;
    Command::new("/proc/self/exe")
        .arg0("observer")
        .arg(COMMAND)
        .env_clear()
        .envs(
            KEPT.into_iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .stdin(Stdio::from(socket))
        .stdout(Stdio::from(OwnedFd::from(listener.try_clone()?)))
        .spawn()
}

/// The one before may have shut it down: it has its address still, and listens again. Nothing happens to one that did not
/// stop.
fn listen(listener: &TcpListener) -> io::Result<()> {
    if listener.local_addr()?.port() == 0 {
        // Not on another port than that which was told.
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    // SAFETY: the call takes integers.
    match unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn end(mut child: Child) -> Option<ExitStatus> {
    for _ in 0..LOOKS {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => thread::sleep(LOOK),
            Err(_) => return None,
        }
    }
    child.kill().ok()?;
    child.wait().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_listener_that_was_shut_down_listens_again() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        // An address that was asked for is kept; one that the kernel chose is not.
        let listener = TcpListener::bind(address).unwrap();
        // SAFETY: the call takes integers.
        let done = unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
        assert_eq!(done, 0);
        assert!(TcpStream::connect(address).is_err());
        for _ in 0..2 {
            // As the thread that does it is restricted.
            let again = listener.try_clone().unwrap();
            let restricted = thread::spawn(move || {
                restrict(Some(&[])).unwrap();
                listen(&again).unwrap();
            });
            restricted.join().unwrap();
            assert_eq!(listener.local_addr().unwrap(), address);
            TcpStream::connect(address).unwrap();
            listener.accept().unwrap();
        }
    }
}
