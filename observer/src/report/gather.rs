//! What a report needs of single events, which the model does not keep: the longest waits, waits of each task on a
//! line of time, blocked time by stack, lengths. All of it is bounded, however long the recording is.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use super::export::Folded;
use crate::{
    event::{Event, Holder, Kind, LockClass, LockRef, TaskRef, Wait},
    histogram::Histogram,
    model::Model,
};

/// Longest waits that are kept.
const LONGEST: usize = 100;
/// Tasks on the line of time that are kept, waits of each, and waits of all together: where they are more, each task
/// keeps half of them.
const MAX_ROWS: usize = 16_384;
const MAX_SLICES: usize = 150;
const ALL_SLICES: usize = 200_000;
const LEAST_SLICES: usize = 4;

/// Gathers from events.
#[derive(Debug, Default)]
pub struct Gathered {
    longest: Longest,
    timeline: Timeline,
    folded: Folded,
    lengths: Histogram,
    max_ns: u64,
}

impl Gathered {
    /// Looks at an event.
    pub fn see(&mut self, event: &Event) {
        let Event::Wait(wait) = event else { return };
        self.folded.see(event);
        if wait.kind.is_idle() {
            return;
        }
        self.lengths.add(wait.dur_ns);
        self.max_ns = self.max_ns.max(wait.dur_ns);
        self.longest.see(wait);
        self.timeline.see(wait);
    }

    /// Adds the waits that are in progress at the end.
    pub(super) fn finish(&mut self, model: &Model) {
        self.longest.cut();
        for wait in &mut self.longest.waits {
            if let Some(name) = name(wait.lock.as_deref(), model) {
                wait.kind = name.class.kind();
                wait.lock = Some(name);
            }
        }
        self.folded.finish(model);
        self.timeline.finish(model);
    }

    /// The longest waits, longest first.
    pub fn longest(&self) -> &[Wait] {
        &self.longest.waits
    }

    /// Waits of each task.
    pub(super) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Blocked time by stack.
    pub(super) fn folded(&self) -> &Folded {
        &self.folded
    }

    /// Waits told one by one, by their length.
    pub(super) fn lengths(&self) -> &Histogram {
        &self.lengths
    }
}

/// Waits that ended, the longest.
#[derive(Debug, Default)]
struct Longest {
    waits: Vec<Wait>,
}

impl Longest {
    /// Looks at a wait.
    fn see(&mut self, wait: &Wait) {
        self.waits.push(wait.clone());
        // Sorted seldom, so that each wait costs little.
        if self.waits.len() >= 10 * LONGEST {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.waits
            .sort_by_key(|wait| (std::cmp::Reverse(wait.dur_ns), wait.mono_ns));
        self.waits.truncate(LONGEST);
    }
}

/// What a lock was found to be after a wait for it was told: its first waits come before anybody has looked.
fn name(lock: Option<&LockRef>, model: &Model) -> Option<Arc<LockRef>> {
    let lock = lock.filter(|lock| lock.class == LockClass::Futex)?;
    let known = &model.lock(&lock.id)?.totals.lock;
    (known.class != LockClass::Futex).then(|| known.clone())
}

/// One wait on the line of time.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) kind: Kind,
    pub(super) lock: Option<Arc<LockRef>>,
    pub(super) holder: Option<Box<Holder>>,
    /// It had not ended.
    pub(super) open: bool,
}

impl Slice {
    fn length(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    /// May it be mere idleness: a pool that waits for work, a thread that its runtime parked?
    pub(super) fn may_be_idle(&self) -> bool {
        let class = self.lock.as_ref().map(|lock| lock.class);
        self.kind.is_mostly_idle()
            || matches!(class, Some(LockClass::GoRuntime | LockClass::JvmPark))
    }
}

/// One task on the line of time.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) task: Arc<TaskRef>,
    /// Its longest waits.
    pub(super) slices: Vec<Slice>,
    pub(super) waits: u64,
    pub(super) total_ns: u64,
    /// Of it, waits that may be mere idleness.
    idle_ns: u64,
    /// Waits that are not among `slices`.
    pub(super) left_out: u64,
    pub(super) left_out_ns: u64,
}

impl Row {
    /// Adds a wait; at most `most` are kept, or twice as many until the next cut. Returns how many more are kept.
    fn add(&mut self, slice: Slice, most: usize) -> isize {
        let before = self.slices.len();
        let length = slice.length();
        self.waits += 1;
        self.total_ns = self.total_ns.saturating_add(length);
        if slice.may_be_idle() {
            self.idle_ns = self.idle_ns.saturating_add(length);
        }
        self.slices.push(slice);
        // Sorted seldom, so that each wait costs little.
        if self.slices.len() >= 2 * most {
            self.cut(most);
        }
        self.slices.len() as isize - before as isize
    }

    fn cut(&mut self, most: usize) {
        self.slices
            .sort_by_key(|slice| (Reverse(slice.length()), slice.start_ns));
        for slice in self.slices.drain(most.min(self.slices.len())..) {
            self.left_out += 1;
            self.left_out_ns = self.left_out_ns.saturating_add(slice.length());
        }
    }

    /// What counts for the order of rows.
    fn weight(&self) -> (u64, u64) {
        (self.total_ns.saturating_sub(self.idle_ns), self.total_ns)
    }
}

/// Waits of each task, idle kinds left out.
#[derive(Debug)]
pub(super) struct Timeline {
    rows: HashMap<u32, Row>,
    /// Waits that are kept of each task, and how many there are of all.
    most: usize,
    slices: usize,
    /// Rows were dropped for others.
    pub(super) dropped: bool,
}

impl Default for Timeline {
    fn default() -> Self {
        Timeline {
            rows: HashMap::new(),
            most: MAX_SLICES,
            slices: 0,
            dropped: false,
        }
    }
}

impl Timeline {
    fn see(&mut self, wait: &Wait) {
        let slice = Slice {
            start_ns: wait.mono_ns.saturating_sub(wait.dur_ns),
            end_ns: wait.mono_ns,
            kind: wait.kind,
            lock: wait.lock.clone(),
            holder: wait.holder.clone(),
            open: false,
        };
        self.add(&wait.task, slice);
    }

    fn add(&mut self, task: &Arc<TaskRef>, slice: Slice) {
        if self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&task.tid) {
            self.drop_half();
        }
        let more = self
            .rows
            .entry(task.tid)
            .or_insert_with(|| Row {
                task: Arc::clone(task),
                slices: Vec::new(),
                waits: 0,
                total_ns: 0,
                idle_ns: 0,
                left_out: 0,
                left_out_ns: 0,
            })
            .add(slice, self.most);
        self.slices = self.slices.saturating_add_signed(more);
        while self.slices > ALL_SLICES && self.most > LEAST_SLICES {
            self.most = (self.most / 2).max(LEAST_SLICES);
            let most = self.most;
            self.rows.values_mut().for_each(|row| row.cut(most));
            self.count();
        }
    }

    fn count(&mut self) {
        self.slices = self.rows.values().map(|row| row.slices.len()).sum();
    }

    fn drop_half(&mut self) {
        let mut weights: Vec<_> = self.rows.values().map(Row::weight).collect();
        let at = weights.len() / 2;
        let (_, &mut limit, _) = weights.select_nth_unstable(at);
        let mut room = at;
        self.rows.retain(|_, row| {
            let drop = room > 0 && row.weight() <= limit;
            room -= usize::from(drop);
            !drop
        });
        self.dropped = true;
        self.count();
    }

    fn finish(&mut self, model: &Model) {
        let now_ns = model.now_ns();
        for wait in model.blocked() {
            let event = &wait.event;
            if event.kind.is_idle() {
                continue;
            }
            let slice = Slice {
                start_ns: wait.start_ns.min(now_ns.saturating_sub(event.age_ns)),
                end_ns: now_ns,
                kind: event.kind,
                lock: event.lock.clone(),
                holder: event.holder.clone(),
                open: true,
            };
            self.add(&event.task, slice);
        }
        for row in self.rows.values_mut() {
            row.cut(self.most);
            for slice in &mut row.slices {
                if let Some(name) = name(slice.lock.as_deref(), model) {
                    slice.kind = name.class.kind();
                    slice.lock = Some(name);
                }
            }
            row.slices
                .sort_by_key(|slice| (slice.start_ns, slice.end_ns));
        }
    }

    /// Rows, those of the most time held up first.
    pub(super) fn rows(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.values().collect();
        rows.sort_by_key(|row| (Reverse(row.weight()), row.task.tid));
        rows
    }
}
