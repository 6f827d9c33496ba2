//! What probes in programs tell: waits by USDT probes and of goroutines, and files that are attached to later.

use observer_common::{goroutine::Record as GoRecord, usdt::Record as UsdtRecord};

use super::Capture;
use crate::event::{Attached, Event};

impl Capture {
    /// A record that is none of the scheduler's.
    pub(super) fn take_other(
        &mut self,
        probed: Option<UsdtRecord>,
        goroutine: Option<GoRecord>,
        out: &mut Vec<Event>,
    ) {
        let loaded = &mut self.loaded;
        let wait = match (probed, &mut loaded.usdt, goroutine, &loaded.goroutines) {
            (Some(record), Some(usdt), ..) => usdt.wait(&record, &mut self.converter),
            (.., Some(record), Some(goroutines)) => goroutines.wait(&record, &mut self.converter),
            _ => {
                self.malformed += 1;
                None
            }
        };
        out.extend(wait.map(Event::from));
    }

    /// Waits between USDT probes that the latest scan found; `more`: there are records that were not read.
    pub(super) fn report_usdt(&mut self, more: bool, now: u64, out: &mut Vec<Event>) {
        if let Some(usdt) = &mut self.loaded.usdt
            && !more
        {
            let ends = usdt.unseen_ends(now, &mut self.converter);
            out.extend(ends.into_iter().map(Event::from));
            let blocked = usdt.blocked(now, &mut self.converter);
            out.extend(blocked.into_iter().map(Event::from));
        }
    }

    /// Attaches to files with probes that are mapped since the start.
    pub(super) fn attach_later(&mut self, now: u64, out: &mut Vec<Event>) {
        let loaded = &mut self.loaded;
        let usdt = loaded.usdt.as_mut();
        let told = usdt.and_then(|usdt| usdt.attach_later(&mut loaded.ebpf, &self.targets, now));
        out.extend(told.map(|told| {
            Event::from(Attached {
                time: self.converter.clock.wall(now),
                mono_ns: now,
                attached: told.attached,
                missing: told.missing,
            })
        }));
    }
}
