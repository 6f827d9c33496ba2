//! The loop of a live run: polls the capture, and ends on a signal, at a time, with its targets.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};

use crate::event::Reason;

/// A runtime for one thread: the work is one loop.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}

/// Why a run stops, and the beat of its polling.
pub(crate) struct Pulse {
    period: Duration,
    next: Instant,
    deadline: Option<Instant>,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Pulse {
    /// Beats each `period`; ends after `duration`, if one is given. `screen`: the terminal is taken.
    pub(crate) fn new(period: Duration, duration: Option<Duration>, screen: bool) -> Result<Pulse> {
        // With a screen the first one always gets through, and the terminal must be given back.
        if !screen {
            end_at_second_interrupt()?;
        }
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Pulse {
            period,
            next: Instant::now(),
            deadline: duration.and_then(|duration| Instant::now().checked_add(duration)),
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Beats each `period` from the latest beat on.
    pub(crate) fn set_period(&mut self, period: Duration) {
        self.next = (self.next + period)
            .checked_sub(self.period)
            .unwrap_or(self.next);
        self.period = period;
    }

    /// Waits for the next beat; a reason when the run is to stop.
    pub(crate) async fn beat(&mut self) -> Option<Reason> {
        let deadline = self.deadline;
        let over = async {
            match deadline {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        Some(tokio::select! {
            biased;
            _ = self.interrupt.recv() => Reason::Stopped,
            _ = self.terminate.recv() => Reason::Stopped,
            _ = self.hangup.recv() => Reason::Stopped,
            () = over => Reason::Duration,
            () = sleep_until(self.next) => {
                // Never two at once to catch up with what was missed.
                self.next = Instant::now() + self.period;
                return None;
            }
        })
    }
}

/// The first Ctrl-C asks for the end, which the event loop sees; a second one ends at once, even while
/// the loop is stuck in a write to a reader that does not read.
fn end_at_second_interrupt() -> Result<()> {
    static INTERRUPTS: AtomicU32 = AtomicU32::new(0);
    let count = || {
        if INTERRUPTS.fetch_add(1, Ordering::Relaxed) > 0 {
            // SAFETY: both calls are async-signal-safe, and the default action is a valid disposition.
            unsafe {
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                libc::raise(libc::SIGINT);
            }
        }
    };
    // SAFETY: the action only counts in an atomic and makes async-signal-safe calls.
    unsafe { signal_hook_registry::register(libc::SIGINT, count) }
        .map(drop)
        .context("cannot listen for signals")
}
