//! Waits as a trace for Perfetto: a line for each thread, waits as slices on it, arrows from who woke to who was
//! woken, findings as marks.
//!
//! Packets need no order by time, the reader sorts them, so events are written as they come. Of events at the
//! same time those that were written first come first: the slice on the run queue lies within its wait.

mod proto;
#[cfg(test)]
mod tests;
mod tracks;
mod writer;

use std::{
    borrow::Cow,
    io::{self, Write},
};

use self::{
    proto::{DebugAnnotation, TrackEvent, Type},
    tracks::{FINDINGS, Tracks},
    writer::Packets,
};
use crate::{
    event::{
        Blocked, Event, Finding, Frame, Goroutines, Holder, Kind, LockRef, Stack, Subject, TaskRef,
        Wait, Waker,
    },
    model::Model,
};

/// Frames of a stack that are written.
const MAX_FRAMES: usize = 64;
/// Threads whose lines bear the mark of one finding.
const MAX_SUBJECTS: usize = 64;

/// Writes a trace.
pub struct Perfetto<W> {
    packets: Packets<W>,
    tracks: Tracks,
    /// With idle waits: poll, sleep, child.
    idle: bool,
    begun: bool,
    flows: u64,
}

/// What a wait that ended and one in progress have in common.
struct Slice<'a> {
    task: &'a TaskRef,
    kind: Kind,
    lock: Option<&'a LockRef>,
    probe: Option<&'a std::sync::Arc<str>>,
    syscall: Option<&'a str>,
    start_ns: u64,
    /// None: it goes on.
    end_ns: Option<u64>,
    /// The last part of it that the task was able to run.
    runqueue_ns: Option<u64>,
}

impl<W: Write> Perfetto<W> {
    /// Nothing yet. `idle`: with idle waits (poll, sleep, child).
    pub fn new(out: W, idle: bool) -> Perfetto<W> {
        Perfetto {
            packets: Packets::new(out),
            tracks: Tracks::default(),
            idle,
            begun: false,
            flows: 0,
        }
    }

    /// Writes an event, if it has a place on the timeline.
    ///
    /// # Errors
    /// The writer's.
    pub fn see(&mut self, event: &Event) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            let (time, mono_ns) = event.when();
            self.packets.clocks(mono_ns, time)?;
            Tracks::findings(&mut self.packets)?;
        }
        self.packets.limit();
        match event {
            Event::Wait(wait) => self.ended(wait),
            Event::Finding(finding) => self.finding(finding),
            Event::Goroutines(all) => self.goroutines(all),
            _ => Ok(()),
        }
    }

    /// Writes the waits that are in progress at the end, as slices that do not end. Returns how many events
    /// found no place.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(mut self, model: &Model) -> io::Result<u64> {
        let mut all: Vec<_> = model.blocked().collect();
        all.sort_by_key(|wait| (wait.start_ns, wait.event.task.tid));
        for wait in all {
            self.packets.limit();
            self.in_progress(&wait.event, wait.start_ns)?;
        }
        Ok(self.tracks.left_out)
    }

    fn ended(&mut self, wait: &Wait) -> io::Result<()> {
        let slice = Slice {
            task: &wait.task,
            kind: wait.kind,
            lock: wait.lock.as_deref(),
            probe: wait.probe.as_ref(),
            syscall: wait.syscall.as_deref(),
            start_ns: wait.mono_ns.saturating_sub(wait.dur_ns),
            end_ns: Some(wait.mono_ns),
            runqueue_ns: wait.runqueue_ns,
        };
        if self.is_left_out(wait.kind) {
            return Ok(());
        }
        let mut notes = self.notes(&slice, wait.holder.as_deref(), wait.stack.as_deref());
        notes.push(self.packets.number("dur_ns", wait.dur_ns));
        if let Some(ns) = wait.blocked_ns {
            notes.push(self.packets.number("blocked_ns", ns));
        }
        if let Some(outcome) = wait.outcome {
            notes.push(self.packets.text("outcome", outcome.name()));
        }
        if let Some(waker) = &wait.waker {
            let name = task_name(waker.comm.as_deref(), waker.tid);
            notes.push(self.packets.text("waker", &name));
        }
        for (cause, ns) in &wait.causes {
            notes.push(self.packets.number(cause.name(), *ns));
        }
        if wait.at_least {
            notes.push(self.packets.flag("at_least"));
        }
        if wait.end_unseen {
            notes.push(self.packets.flag("end_unseen"));
        }
        self.slice(&slice, notes, wait.waker.as_deref())
    }

    fn in_progress(&mut self, wait: &Blocked, start_ns: u64) -> io::Result<()> {
        let slice = Slice {
            task: &wait.task,
            kind: wait.kind,
            lock: wait.lock.as_deref(),
            probe: wait.probe.as_ref(),
            syscall: wait.syscall.as_deref(),
            start_ns,
            end_ns: None,
            runqueue_ns: None,
        };
        if self.is_left_out(wait.kind) {
            return Ok(());
        }
        let mut notes = self.notes(&slice, wait.holder.as_deref(), wait.stack.as_ref());
        notes.push(self.packets.flag("in_progress"));
        if wait.at_least {
            notes.push(self.packets.flag("at_least"));
        }
        self.slice(&slice, notes, None)
    }

    fn is_left_out(&self, kind: Kind) -> bool {
        kind.is_idle() && !self.idle
    }

    /// What is known of a wait.
    fn notes(
        &mut self,
        slice: &Slice<'_>,
        holder: Option<&Holder>,
        stack: Option<&Stack>,
    ) -> Vec<DebugAnnotation> {
        let packets = &mut self.packets;
        let mut notes = vec![packets.text("kind", slice.kind.name())];
        if let Some(lock) = slice.lock {
            notes.push(packets.text("lock", &lock.to_string()));
            notes.push(packets.text("lock_id", &lock.id));
            notes.push(packets.text("lock_class", lock.class.name()));
        }
        if let Some(holder) = holder {
            if let Some(tid) = holder.tid {
                let name = task_name(holder.comm.as_deref(), tid);
                notes.push(packets.text("holder", &name));
            }
            notes.push(packets.text("holder_confidence", holder.confidence.name()));
            notes.push(packets.text("holder_evidence", &holder.evidence));
            if let Some(doing) = &holder.doing {
                notes.push(packets.text("holder_doing", doing));
            }
        }
        if let Some(syscall) = slice.syscall {
            notes.push(packets.text("syscall", syscall));
        }
        if let Some(stack) = stack {
            let frames = stack.kernel.iter().chain(stack.user.iter());
            notes.push(packets.list("stack", frames.take(MAX_FRAMES).map(frame)));
        }
        notes
    }

    /// A wait, within it the time on the run queue, and the arrow from its waker.
    fn slice(
        &mut self,
        slice: &Slice<'_>,
        notes: Vec<DebugAnnotation>,
        waker: Option<&Waker>,
    ) -> io::Result<()> {
        let task = slice.task;
        let process = (task.pid, task.process.as_deref());
        let thread = (task.tid, task.comm.as_deref());
        let packets = &mut self.packets;
        let Some(thread) = self.tracks.thread(packets, process, thread)? else {
            return Ok(());
        };
        let span = (slice.start_ns, slice.end_ns.unwrap_or(u64::MAX));
        let row = (task.tid, slice.probe);
        let Some(place) = self.tracks.place(packets, thread, row, span)? else {
            return Ok(());
        };
        let begin = TrackEvent {
            category_iids: packets.category(slice.kind.name()),
            debug_annotations: notes,
            name_iid: Some(packets.name(&title(slice))),
            ..of(Type::SliceBegin, place.track)
        };
        packets.event(place.start_ns, begin)?;
        let Some(end_ns) = slice.end_ns else {
            return Ok(());
        };
        let runnable_ns = slice
            .runqueue_ns
            .map(|ns| end_ns.saturating_sub(ns).max(place.start_ns));
        let flow = match waker {
            Some(waker) => self.wakes(waker, task, runnable_ns.unwrap_or(end_ns))?,
            None => None,
        };
        let flow: Vec<u64> = flow.into_iter().collect();
        let packets = &mut self.packets;
        // A wait that nobody had to end is one for a CPU from its beginning on.
        if let Some(runnable_ns) = runnable_ns.filter(|at| *at > place.start_ns) {
            let begin = TrackEvent {
                category_iids: packets.category(Kind::Runqueue.name()),
                name_iid: Some(packets.name("run queue")),
                terminating_flow_ids: flow,
                ..of(Type::SliceBegin, place.track)
            };
            packets.event(runnable_ns, begin)?;
            packets.event(end_ns, of(Type::SliceEnd, place.track))?;
        } else if !flow.is_empty() {
            let woken = TrackEvent {
                name_iid: Some(packets.name("woken")),
                terminating_flow_ids: flow,
                ..of(Type::Instant, place.track)
            };
            packets.event(end_ns, woken)?;
        }
        packets.event(end_ns, of(Type::SliceEnd, place.track))
    }

    /// A mark on the waker's line; returns the arrow that begins there.
    fn wakes(&mut self, waker: &Waker, woken: &TaskRef, at_ns: u64) -> io::Result<Option<u64>> {
        let packets = &mut self.packets;
        let process = (waker.pid, None);
        let thread = (waker.tid, waker.comm.as_deref());
        let Some(track) = self.tracks.thread(packets, process, thread)? else {
            return Ok(None);
        };
        self.flows += 1;
        let event = TrackEvent {
            name_iid: Some(packets.name(&format!("wakes {woken}"))),
            flow_ids: vec![self.flows],
            ..of(Type::Instant, track)
        };
        packets.event(at_ns, event)?;
        Ok(Some(self.flows))
    }

    /// A mark on the line of findings, and one on that of each thread it is about.
    fn finding(&mut self, finding: &Finding) -> io::Result<()> {
        let mut tracks = vec![FINDINGS];
        for subject in finding.subjects.iter().take(MAX_SUBJECTS) {
            if let Subject::Task(task) = subject {
                let process = (task.pid, task.process.as_deref());
                let thread = (task.tid, task.comm.as_deref());
                tracks.extend(self.tracks.thread(&mut self.packets, process, thread)?);
            }
        }
        for track in tracks {
            let packets = &mut self.packets;
            let evidence = finding.evidence.iter().map(|line| Cow::from(line.as_str()));
            let event = TrackEvent {
                category_iids: packets.category("finding"),
                debug_annotations: vec![
                    packets.text("rule", &finding.rule),
                    packets.text("severity", finding.severity.name()),
                    packets.list("evidence", evidence.take(MAX_SUBJECTS)),
                    packets.text("advice", &finding.advice),
                ],
                name_iid: Some(packets.name(&finding.title)),
                ..of(Type::Instant, track)
            };
            packets.event(finding.mono_ns, event)?;
        }
        Ok(())
    }

    fn goroutines(&mut self, all: &Goroutines) -> io::Result<()> {
        let process = (all.pid, all.process.as_deref());
        let packets = &mut self.packets;
        let Some(track) = self.tracks.counter(packets, process, "goroutines")? else {
            return Ok(());
        };
        let event = TrackEvent {
            counter_value: Some(i64::try_from(all.total).unwrap_or(i64::MAX)),
            ..of(Type::Counter, track)
        };
        packets.event(all.mono_ns, event)
    }
}

fn of(what: Type, track_uuid: u64) -> TrackEvent {
    TrackEvent {
        r#type: what as i32,
        track_uuid,
        ..TrackEvent::default()
    }
}

/// What a wait is for, in a few words.
fn title(slice: &Slice<'_>) -> String {
    let kind = slice.kind.name();
    match (slice.lock, slice.syscall) {
        (Some(lock), _) => format!("{kind} {lock}"),
        (None, Some(syscall)) => format!("{kind} {syscall}"),
        (None, None) => kind.to_owned(),
    }
}

fn task_name(comm: Option<&str>, tid: u32) -> String {
    format!("{}/{tid}", comm.unwrap_or("?"))
}

fn frame(frame: &Frame) -> Cow<'_, str> {
    match (&frame.name, &frame.module) {
        (Some(name), _) => Cow::from(&**name),
        (None, Some(module)) => format!("{module} {}", frame.addr).into(),
        (None, None) => frame.addr.to_string().into(),
    }
}
