//! When what was read of files for their symbols is given back: it takes tens of megabytes with debug information,
//! and more with every file.

use std::{
    fs,
    time::{Duration, Instant},
};

/// Nobody has asked for a new name for this long, and for so many times as long as the names took.
const QUIET: Duration = Duration::from_secs(1);
const PATIENCE: u32 = 100;
/// Or this process has grown by so much meanwhile; but reading it again takes a tenth of the time at most.
const GROWTH: u64 = 24 << 20;
const SHARE: u32 = 10;
/// The size is looked at this often.
const LOOK: Duration = Duration::from_millis(100);
/// Of a page, on x86-64.
const PAGE: u64 = 4096;

/// The use that is made of a reader of symbols.
#[derive(Debug)]
pub(super) struct Rest {
    /// When a new name was last asked for; `None`: nothing was read of any file.
    pub(super) asked: Option<Instant>,
    /// The time that the names took.
    pub(super) spent: Duration,
    /// When the reader was new, and this process's size then.
    since: Instant,
    size: u64,
    looked: Instant,
}

impl Default for Rest {
    fn default() -> Self {
        let now = Instant::now();
        Rest {
            asked: None,
            spent: Duration::ZERO,
            since: now,
            size: 0,
            looked: now,
        }
    }
}

impl Rest {
    /// A new name is about to be asked for.
    pub(super) fn begin(&mut self) -> Instant {
        let now = Instant::now();
        if self.asked.is_none() {
            *self = Rest {
                asked: Some(now),
                size: resident(),
                ..Rest::default()
            };
        }
        now
    }

    /// It was found, or not.
    pub(super) fn end(&mut self, begun: Instant) {
        self.spent += begun.elapsed();
        self.asked = Some(Instant::now());
    }

    /// Is the reader to be made anew now?
    pub(super) fn is_due(&mut self) -> bool {
        let Some(asked) = self.asked else {
            return false;
        };
        let due = asked.elapsed() > QUIET.max(self.spent * PATIENCE) || self.has_grown();
        if due {
            *self = Rest::default();
        }
        due
    }

    fn has_grown(&mut self) -> bool {
        if self.looked.elapsed() < LOOK || self.since.elapsed() < self.spent * SHARE {
            return false;
        }
        self.looked = Instant::now();
        resident() > self.size.saturating_add(GROWTH)
    }
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_ascii_whitespace().nth(1);
    pages
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0)
        * PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_or_too_large() {
        let mut rest = Rest::default();
        assert!(!rest.is_due(), "nothing was read");
        let begun = rest.begin();
        rest.end(begun);
        rest.spent = Duration::ZERO;
        assert!(!rest.is_due(), "it was just now");
        let Some(earlier) = Instant::now().checked_sub(QUIET * 2) else {
            return;
        };
        rest.asked = Some(earlier);
        rest.spent = QUIET;
        assert!(!rest.is_due(), "reading it again would take long");
        rest.spent = Duration::ZERO;
        assert!(rest.is_due());
        assert!(!rest.is_due());
        // In use, and grown.
        let begun = rest.begin();
        rest.end(begun);
        rest.spent = Duration::ZERO;
        (rest.looked, rest.since, rest.size) = (earlier, earlier, 0);
        assert_eq!(rest.is_due(), resident() > GROWTH);
    }
}
