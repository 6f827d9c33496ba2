//! Lines of the timeline: processes, their threads, and what does not fit on a thread's own line.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
    sync::Arc,
};

use super::{
    proto::{CounterDescriptor, ProcessDescriptor, ThreadDescriptor, TrackDescriptor},
    writer::{Packets, shown},
};

/// Threads and processes that have lines; what comes later has none, and is counted.
const MAX_TRACKS: usize = 1 << 20;
/// Waits of a thread that overlap lie on lines of their own, up to this many.
const LANES: usize = 4;
/// Clocks of two CPUs may differ: a wait that begins this long before the end of the one before begins there.
const DRIFT_NS: u64 = 1_000_000;

/// The line of all findings.
pub(super) const FINDINGS: u64 = 1;
/// Numbers that are computed begin with a digit for what they are of, so that none is given twice.
const PROCESS: u64 = 1 << 56;
const THREAD: u64 = 2 << 56;
const COUNTER: u64 = 3 << 56;
const OTHERS: u64 = 4 << 56;

/// Waits of one sort of one thread: those that the system sees, or those of one probe.
type Row = (u32, Option<Arc<str>>);

/// A place for a wait.
pub(super) struct Place {
    pub(super) track: u64,
    pub(super) start_ns: u64,
}

/// The lines that there are.
#[derive(Default)]
pub(super) struct Tracks {
    known: HashSet<u64>,
    /// Processes whose names were not known when their lines were made.
    nameless: HashSet<u64>,
    /// When the last wait of each lane ended.
    lanes: HashMap<Row, Vec<(u64, u64)>>,
    others: u64,
    /// Events without a line.
    pub(super) left_out: u64,
}

impl Tracks {
    pub(super) fn findings<W: Write>(packets: &mut Packets<W>) -> io::Result<()> {
        packets.track(TrackDescriptor {
            uuid: FINDINGS,
            name: Some("Findings".to_owned()),
            ..TrackDescriptor::default()
        })
    }

    /// Is it new, and is there room for it?
    fn add(&mut self, uuid: u64) -> bool {
        self.known.len() < MAX_TRACKS && self.known.insert(uuid)
    }

    fn process<W: Write>(
        &mut self,
        packets: &mut Packets<W>,
        pid: u32,
        name: Option<&str>,
    ) -> io::Result<u64> {
        let uuid = PROCESS | u64::from(pid);
        let is_new = self.add(uuid);
        if is_new && name.is_none() {
            self.nameless.insert(uuid);
        }
        // A waker's process gets its name when it waits itself.
        if is_new || (name.is_some() && self.nameless.remove(&uuid)) {
            packets.track(TrackDescriptor {
                uuid,
                process: Some(ProcessDescriptor {
                    pid: pid as i32,
                    process_name: name.map(shown),
                }),
                ..TrackDescriptor::default()
            })?;
        }
        Ok(uuid)
    }

    /// The line of a thread. None: there is no room for it.
    pub(super) fn thread<W: Write>(
        &mut self,
        packets: &mut Packets<W>,
        (pid, process): (u32, Option<&str>),
        (tid, comm): (u32, Option<&str>),
    ) -> io::Result<Option<u64>> {
        let uuid = THREAD | u64::from(tid);
        let parent = self.process(packets, pid, process)?;
        if !self.known.contains(&uuid) {
            if !self.add(uuid) {
                self.left_out += 1;
                return Ok(None);
            }
            packets.track(TrackDescriptor {
                uuid,
                parent_uuid: Some(parent),
                thread: Some(ThreadDescriptor {
                    pid: pid as i32,
                    tid: i64::from(tid),
                    thread_name: comm.map(shown),
                }),
                ..TrackDescriptor::default()
            })?;
        }
        Ok(Some(uuid))
    }

    /// A line of numbers of a process.
    pub(super) fn counter<W: Write>(
        &mut self,
        packets: &mut Packets<W>,
        (pid, process): (u32, Option<&str>),
        name: &str,
    ) -> io::Result<Option<u64>> {
        let parent = self.process(packets, pid, process)?;
        let uuid = COUNTER | u64::from(pid);
        if self.add(uuid) {
            packets.track(TrackDescriptor {
                uuid,
                parent_uuid: Some(parent),
                name: Some(name.to_owned()),
                counter: Some(CounterDescriptor {}),
                ..TrackDescriptor::default()
            })?;
        }
        Ok(self.known.contains(&uuid).then_some(uuid))
    }

    /// Where a wait of a thread goes: on a line on which nothing lies at that time.
    pub(super) fn place<W: Write>(
        &mut self,
        packets: &mut Packets<W>,
        thread: u64,
        (tid, probe): (u32, Option<&Arc<str>>),
        (start_ns, end_ns): (u64, u64),
    ) -> io::Result<Option<Place>> {
        let row = (tid, probe.cloned());
        let lanes = self.lanes.entry(row).or_default();
        for (track, busy_ns) in lanes.iter_mut() {
            let drifted = start_ns.saturating_add(DRIFT_NS) >= *busy_ns && end_ns >= *busy_ns;
            if start_ns >= *busy_ns || drifted {
                let start_ns = start_ns.max(*busy_ns);
                *busy_ns = end_ns;
                let track = *track;
                return Ok(Some(Place { track, start_ns }));
            }
        }
        if lanes.len() >= LANES || self.known.len() >= MAX_TRACKS {
            self.left_out += 1;
            return Ok(None);
        }
        // What the system sees lies on the thread's own line, as long as it fits.
        let own = (probe.is_none() && lanes.is_empty()).then_some(thread);
        let track = if let Some(track) = own {
            track
        } else {
            self.others += 1;
            let uuid = OTHERS | self.others;
            self.known.insert(uuid);
            let name = probe.map_or("overlapping waits", |probe| probe);
            packets.track(TrackDescriptor {
                uuid,
                parent_uuid: Some(thread),
                name: Some(shown(name)),
                ..TrackDescriptor::default()
            })?;
            uuid
        };
        self.lanes
            .entry((tid, probe.cloned()))
            .or_default()
            .push((track, end_ns));
        Ok(Some(Place { track, start_ns }))
    }
}
