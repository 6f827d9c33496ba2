//! What observing costs: CPU and memory of this process, run time of the kernel programs.

use std::{fs, os::fd::OwnedFd};

use aya::{
    Ebpf,
    programs::ProgramInfo,
    sys::{Stats, enable_stats},
};

use crate::event::Cost;

/// The kernel's statistics read the clock twice a program run, so they are switched on for a part of
/// the time only, and the run time is estimated from that.
const WINDOW_NS: u64 = 50_000_000;
const PERIOD_NS: u64 = 1_000_000_000;

/// Measures from time to time.
#[derive(Debug)]
pub(super) struct CostMeter {
    programs: Vec<u32>,
    window: Option<(OwnedFd, u64, u64)>,
    next_ns: u64,
    last_ns: u64,
    /// Run time and time that the windows covered.
    measured: (u64, u64),
    /// CPU time of this process when the latest window closed, and when that was.
    own: (u64, u64),
    start_ns: u64,
    usable: bool,
}

impl CostMeter {
    pub(super) fn new(ebpf: &Ebpf, now_ns: u64) -> Self {
        let programs = ebpf
            .programs()
            .filter_map(|(_, program)| program.info().ok())
            .map(|info| info.id())
            .collect();
        CostMeter {
            programs,
            window: None,
            next_ns: now_ns,
            last_ns: now_ns,
            measured: (0, 0),
            own: (cpu_ns(), now_ns),
            start_ns: now_ns,
            usable: true,
        }
    }

    /// Opens or closes a window when it is time. When one closes: CPU time that observing uses at
    /// present, in seconds a second; without the right to open one, that of this process alone. `other` is the run time of programs that aya does not know.
    pub(super) fn poll(
        &mut self,
        ebpf: &Ebpf,
        other: impl Fn() -> u64,
        now_ns: u64,
    ) -> Option<f64> {
        self.last_ns = now_ns;
        if !self.usable {
            return self.own_alone(now_ns);
        }
        match &self.window {
            None if now_ns >= self.next_ns => {
                // Needs CAP_SYS_ADMIN; without it there is no figure, and none is shown.
                match enable_stats(Stats::RunTime) {
                    Ok(fd) => self.window = Some((fd, now_ns, run_time(ebpf) + other())),
                    Err(_) => self.usable = false,
                }
            }
            Some((_, since, before)) if now_ns.saturating_sub(*since) >= WINDOW_NS => {
                let (run_ns, window_ns) = (
                    (run_time(ebpf) + other()).saturating_sub(*before),
                    now_ns - since,
                );
                self.measured.0 += run_ns;
                self.measured.1 += window_ns;
                self.window = None;
                self.next_ns = now_ns + PERIOD_NS;
                let own = std::mem::replace(&mut self.own, (cpu_ns(), now_ns));
                let own_ns = self.own.0.saturating_sub(own.0) as f64;
                let elapsed_ns = now_ns.saturating_sub(own.1).max(1) as f64;
                return Some(run_ns as f64 / window_ns as f64 + own_ns / elapsed_ns);
            }
            _ => {}
        }
        None
    }

    /// The process's own share, where the run time of the kernel programs is not to be had.
    fn own_alone(&mut self, now_ns: u64) -> Option<f64> {
        let elapsed_ns = now_ns.saturating_sub(self.own.1);
        if elapsed_ns < PERIOD_NS {
            return None;
        }
        let own = std::mem::replace(&mut self.own, (cpu_ns(), now_ns));
        Some(self.own.0.saturating_sub(own.0) as f64 / elapsed_ns as f64)
    }

    /// The cost so far.
    pub(super) fn read(&self) -> Cost {
        let (run_ns, covered_ns) = self.measured;
        let elapsed = self.last_ns.saturating_sub(self.start_ns);
        let bpf_run_ns = (covered_ns > 0)
            .then(|| (run_ns as f64 * elapsed as f64 / covered_ns as f64) as u64)
            .filter(|_| !self.programs.is_empty());
        Cost {
            cpu_ns: cpu_ns(),
            rss_bytes: rss_bytes(),
            bpf_run_ns,
        }
    }
}

fn run_time(ebpf: &Ebpf) -> u64 {
    ebpf.programs()
        .filter_map(|(_, program)| program.info().ok())
        .map(|info: ProgramInfo| u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX))
        .sum()
}

/// CPU time of this process, user and system.
pub(super) fn cpu_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writes; the clock exists for every process.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Resident memory of this process.
fn rss_bytes() -> u64 {
    let pages: u64 = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0);
    // SAFETY: no precondition.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages * u64::try_from(page).unwrap_or(4096)
}
