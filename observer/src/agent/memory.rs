//! How much memory the agent may use, and what it gives up when it uses more: less while the node is short of memory.

use std::{fmt, fs};

/// A node is short of memory when less than this share of it is available, and less than this.
const SHARE: u64 = 20;
const LITTLE: u64 = 1 << 30;
/// Or when all that runs there waited for memory in this share of the last ten seconds, in percent.
const STALLED: f64 = 10.0;
/// The flight recorder keeps this much at least.
const LEAST: u64 = 1 << 20;

/// What the kernel says of the node's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Node {
    /// Bytes that may be had without swapping.
    available: u64,
    total: u64,
    stalled: f64,
}

impl Node {
    /// As it is now.
    pub(super) fn read() -> Node {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Node::parse(&text("/proc/meminfo"), &text("/proc/pressure/memory"))
    }

    /// `meminfo`, and what the kernel tells of pressure where it does (5.2 and later, unless it was built without).
    fn parse(meminfo: &str, pressure: &str) -> Node {
        let bytes = |name: &str| {
            let rest = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
            Some(kib.saturating_mul(1 << 10))
        };
        let stalled = || {
            let full = pressure
                .lines()
                .find_map(|line| line.strip_prefix("full "))?;
            let (_, rest) = full.split_once("avg10=")?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let total = bytes("MemTotal:").unwrap_or_default();
        Node {
            available: bytes("MemAvailable:").unwrap_or(total),
            total,
            stalled: stalled().unwrap_or_default(),
        }
    }

    /// Is it short of memory? One that was is so until there is twice as much, and half as long is waited.
    pub(super) fn is_short(&self, was: bool) -> bool {
        let little = (self.total / SHARE).min(LITTLE);
        if was {
            self.available < little * 2 || self.stalled >= STALLED / 2.0
        } else {
            self.available < little || self.stalled >= STALLED
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes are available, and all waited for memory in {} % of the last 10 s",
            self.available, self.stalled
        )
    }
}

/// What may be in use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Budget {
    /// Of the configuration.
    pub(super) max: u64,
    /// Is the node short of memory?
    pub(super) short: bool,
}

impl Budget {
    /// Resident memory above which less is kept.
    pub(super) fn limit(self) -> u64 {
        if self.short { self.max / 2 } else { self.max }
    }

    /// Sizes of the files that are read for names. They are mapped, and what is made of them takes about as much again.
    pub(super) fn symbols(self) -> u64 {
        self.limit() / 2
    }

    /// Is it more than may be?
    pub(super) fn is_over(self, used: u64) -> bool {
        used > self.limit()
    }

    /// What the flight recorder may keep from now on. `limit`: until now; `full`: where there is room.
    pub(super) fn recorder(self, used: u64, limit: u64, full: u64) -> u64 {
        if self.short || self.is_over(used) {
            (limit / 2).max(LEAST)
        } else if used < self.limit() / 2 {
            (limit * 2).min(full)
        } else {
            limit
        }
    }
}

/// Hands memory that is free back to the system.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call has no precondition.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const EASY: &str = "some avg10=90.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";

    #[test]
    fn the_flight_recorder_gives_way_and_comes_back() {
        let after = |used: &[u64], short| {
            used.iter().fold(16 * MIB, |limit, used| {
                let budget = Budget {
                    max: 128 * MIB,
                    short,
                };
                budget.recorder(*used * MIB, limit, 16 * MIB)
            }) / MIB
        };
        assert_eq!(after(&[100], false), 16);
        assert_eq!(after(&[129], false), 8);
        assert_eq!(after(&[200; 10], false), 1);
        // It comes back when there is room again, and not on the edge.
        assert_eq!(after(&[200, 200, 100, 100], false), 4);
        assert_eq!(after(&[200, 200, 60, 60, 60], false), 16);
        // However little it is, where the node has none.
        assert_eq!(after(&[20, 20], true), 4);
    }

    #[test]
    fn a_node_that_is_short_of_memory() {
        let node = |total: u64, available: u64, pressure: &str| {
            let text =
                format!("MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n");
            Node::parse(&text, pressure)
        };
        let short = |total, available, text| node(total, available, text).is_short(false);
        let stays = |total, available, text| node(total, available, text).is_short(true);
        let gib = 1 << 20;
        assert!(!short(8 * gib, gib, EASY) && short(8 * gib, gib / 4, EASY));
        // Of a large one a twentieth is much.
        assert!(!short(512 * gib, 2 * gib, EASY) && short(512 * gib, gib / 2, EASY));
        assert!(short(
            8 * gib,
            4 * gib,
            "full avg10=12.50 avg60=0.00 total=1\n"
        ));
        // What is not told is no reason.
        for (meminfo, pressure) in [
            ("", ""),
            ("MemTotal: 5 kB\n", "full avg10=x\n"),
            ("MemTotal: x kB\nMemAvailable: 1 kB\n", "full\n"),
            ("MemTotal: 99999999999999999999 kB\n", ""),
        ] {
            for was in [false, true] {
                assert!(!Node::parse(meminfo, pressure).is_short(was), "{meminfo}");
            }
        }
        // It is over when it is over clearly.
        let edge = 8 * gib / 15;
        assert!(!short(8 * gib, edge, EASY) && stays(8 * gib, edge, EASY));
        assert!(!stays(8 * gib, gib, EASY) && !stays(512 * gib, 2 * gib, EASY));
        let waits = |percent: &str| format!("full avg10={percent} avg60=0.00 total=1\n");
        for (percent, goes_on) in [("9.99", true), ("5.00", true), ("4.99", false)] {
            let node = node(8 * gib, gib, &waits(percent));
            assert_eq!(
                (node.is_short(false), node.is_short(true)),
                (false, goes_on)
            );
        }
        let budget = Budget {
            max: 128 * MIB,
            short: true,
        };
        assert_eq!((budget.limit(), budget.symbols()), (64 * MIB, 32 * MIB));
    }
}
