//! Reading every goroutine of a process while it goes on.
//!
//! Nothing holds still for the reader, so each goroutine is read before and after its stack. One that
//! changed meanwhile is read again, a few times, and then counted as torn. In pieces of a few thousand, so
//! that little time passes between the two looks.

use std::time::{Duration, Instant};

use super::{
    gather::Gathered,
    image::Identity,
    inventory::{Inventory, State},
    quiet,
    raw::Raw,
    reach::Search,
    resolve, scheduler,
    stacks::Walk,
    target::{self, MAX_GOROUTINES, Refused, Target},
};
use crate::inspect::memory::Memory;

/// Goroutines read at once.
const PIECE: usize = 2048;
/// Bytes of a stack read at first; most have no more in use.
const TOP: u64 = 1536;
/// Bytes of a stack read at most.
const DEEP: u64 = 64 << 10;
/// Bytes read of a stack that runs.
const UNKNOWN: u64 = 16 << 10;
/// Bytes of deep stacks read at once.
const DEEP_PIECE: usize = 8 << 20;
/// Looks at one goroutine.
const LOOKS: usize = 4;
/// Words of stacks kept to find who holds what: 64 MiB.
const MAX_WORDS: usize = 8 << 20;
/// Bytes of room kept from one snapshot to the next.
const MAX_KEPT: usize = 48 << 20;
/// Below this no address is mapped.
const LOWEST: u64 = 1 << 16;

/// What a snapshot may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Goroutines read; beyond it they are counted as left out.
    pub goroutines: u64,
    /// Time; goroutines not read by then are counted as left out.
    pub time: Duration,
    /// Bytes of memory read to find channels that nobody else can reach; where it would be more nothing is
    /// said of them. 0: no search.
    pub search: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            goroutines: MAX_GOROUTINES,
            time: Duration::from_secs(5),
            search: 0,
        }
    }
}

/// What has been read so far.
#[derive(Debug)]
pub(super) struct Reading {
    /// When to stop following what leads on and on.
    pub(super) until: Instant,
    pub(super) goroutines: Vec<Raw>,
    /// Words of stacks that may be addresses.
    pub(super) words: Vec<u64>,
    pub(super) partial: bool,
    pub(super) torn: Vec<u64>,
    retried: usize,
    pub(super) left_out: usize,
}

/// Room that is used again for each piece, and for the next snapshot.
#[derive(Default)]
pub(super) struct Room {
    before: Gathered,
    after: Gathered,
    stacks: Gathered,
    calls: Vec<u64>,
    /// Of [`Reading`]. Memory that is new costs more than what is written to it.
    goroutines: Vec<Raw>,
    words: Vec<u64>,
}

impl Room {
    /// Takes back what a reading used, unless it is very much.
    fn keep(&mut self, reading: Reading) {
        let (mut goroutines, mut words) = (reading.goroutines, reading.words);
        let size = goroutines.capacity() * size_of::<Raw>() + words.capacity() * size_of::<u64>();
        if size <= MAX_KEPT {
            goroutines.clear();
            words.clear();
            (self.goroutines, self.words) = (goroutines, words);
        }
    }
}

impl<M: Memory> Target<M> {
    /// Reads all goroutines, and what they wait for.
    ///
    /// # Errors
    /// If the process has ended or become another, or its list of goroutines cannot be read.
    pub fn snapshot(&mut self, limits: &Limits) -> Result<Inventory, Refused> {
        if Identity::of(self.pid).as_ref() != Some(&self.identity) {
            return Err(Refused::Gone);
        }
        let start = Instant::now();
        let mono_ns = crate::time::mono_ns();
        let search = (limits.search > 0).then(|| Search {
            most: limits.search,
            before: quiet::look(self.pid),
        });
        // Some of the time is left to name what was read.
        let until = start + limits.time * 2;
        self.stacks.begin(until);
        let most = limits.goroutines.min(MAX_GOROUTINES);
        let (mut addrs, more) = target::list(&self.memory, self.all, most).ok_or(Refused::Gone)?;
        addrs.sort_unstable();
        addrs.dedup();
        let mut room = std::mem::take(&mut self.room);
        let mut reading = Reading {
            until,
            goroutines: std::mem::take(&mut room.goroutines),
            words: std::mem::take(&mut room.words),
            partial: false,
            torn: Vec::new(),
            retried: 0,
            left_out: usize::try_from(more).unwrap_or(usize::MAX),
        };
        let scheduler = scheduler::read(self);
        self.read_all(addrs, start + limits.time, &mut reading, &mut room);
        if reading.goroutines.is_empty() && self.memory.u64(self.all.0).is_none() {
            return Err(Refused::Gone);
        }
        let mut inventory = resolve::resolve(self, &mut reading, search);
        inventory.mono_ns = mono_ns;
        inventory.scheduler = scheduler.map(|mut scheduler| {
            let in_call = |raw: &&Raw| raw.state == State::Syscall && raw.m != 0;
            scheduler.syscall_threads = reading.goroutines.iter().filter(in_call).count() as u32;
            scheduler
        });
        inventory.torn = reading.torn.len();
        inventory.retried = reading.retried;
        inventory.left_out = reading.left_out;
        inventory.total += reading.torn.len();
        room.keep(reading);
        self.room = room;
        inventory.took_ns = start.elapsed().as_nanos() as u64;
        Ok(inventory)
    }

    fn read_all(
        &mut self,
        addrs: Vec<u64>,
        until: Instant,
        reading: &mut Reading,
        room: &mut Room,
    ) {
        let mut todo = addrs;
        for look in 0..LOOKS {
            let mut pieces = todo.chunks(PIECE);
            for piece in pieces.by_ref() {
                if Instant::now() >= until {
                    let rest: usize = pieces.map(<[u64]>::len).sum();
                    reading.left_out = reading.left_out.saturating_add(rest + piece.len());
                    return;
                }
                self.read_piece(piece, reading, room);
            }
            if reading.torn.is_empty() || look == LOOKS - 1 {
                break;
            }
            todo = std::mem::take(&mut reading.torn);
            reading.retried += todo.len();
        }
    }

    fn read_piece(&mut self, addrs: &[u64], reading: &mut Reading, room: &mut Room) {
        let size = self.layout.g.size;
        let wanted: Vec<_> = addrs.iter().map(|addr| (*addr, size as u32)).collect();
        room.before.read(&self.memory, &wanted);
        let mut found = Vec::with_capacity(addrs.len());
        for (i, addr) in addrs.iter().enumerate() {
            let bytes = room.before.get(i).unwrap_or_default();
            match Raw::parse(bytes, *addr, &self.layout, &self.module) {
                Ok(Some(raw)) => found.push(raw),
                Ok(None) => {}
                Err(_) => reading.torn.push(*addr),
            }
        }
        let deep = self.read_stacks(found, TOP, reading, room);
        for piece in deep.chunks(DEEP_PIECE / DEEP as usize) {
            self.read_stacks(piece.to_vec(), DEEP, reading, room);
        }
    }

    /// Reads so much of each stack, sees that the goroutine is still there, and walks. Gives back those
    /// for which it was too little.
    fn read_stacks(
        &mut self,
        found: Vec<Raw>,
        most: u64,
        reading: &mut Reading,
        room: &mut Room,
    ) -> Vec<Raw> {
        let extent = |raw: &Raw| match raw.state {
            // What is in use of a stack that runs is not known: all of it may be.
            State::Running | State::Copying => (raw.lo.max(raw.hi.saturating_sub(UNKNOWN)), raw.hi),
            _ => (raw.sp, raw.hi.min(raw.sp.saturating_add(most))),
        };
        let extent = |raw: &Raw| {
            let (from, to) = extent(raw);
            (from, (to - from) as u32)
        };
        let wanted: Vec<_> = found.iter().map(extent).collect();
        room.stacks.read(&self.memory, &wanted);
        let size = self.layout.g.size as u32;
        let wanted: Vec<_> = found.iter().map(|raw| (raw.addr, size)).collect();
        room.after.read(&self.memory, &wanted);
        let mut deep = Vec::new();
        for (i, raw) in found.into_iter().enumerate() {
            let bytes = room.stacks.get(i);
            let later = room.after.get(i).unwrap_or_default();
            let later = Raw::parse(later, raw.addr, &self.layout, &self.module);
            // What could not be read was not there any more.
            let is_same = matches!(later, Ok(Some(later)) if raw.is_same(&later));
            let Some(bytes) = bytes.filter(|_| is_same) else {
                reading.torn.push(raw.addr);
                continue;
            };
            let is_all = most == DEEP || raw.sp.wrapping_add(bytes.len() as u64) == raw.hi;
            if !self.take(raw, bytes, is_all, reading, &mut room.calls) {
                deep.push(raw);
            }
        }
        deep
    }

    /// Walks one stack and keeps the goroutine. False: more of the stack is needed.
    fn take(
        &mut self,
        mut raw: Raw,
        bytes: &[u8],
        is_all: bool,
        reading: &mut Reading,
        calls: &mut Vec<u64>,
    ) -> bool {
        if raw.has_stack() {
            raw.stack = self.stacks.again(raw.pc, raw.link, bytes);
        }
        if raw.has_stack() && raw.stack.is_none() {
            let mut end = self
                .stacks
                .walk(&self.memory, (raw.pc, raw.link), bytes, calls);
            if end == Walk::Short && !is_all {
                return false;
            }
            if end == Walk::Short && bytes.len() as u64 == DEEP {
                end = Walk::Cut;
            }
            let id = self.stacks.intern(&self.memory, calls, end);
            if end == Walk::Whole {
                self.stacks.remember(raw.pc, id);
            }
            raw.stack = Some(id);
            reading.partial |= end == Walk::Cut;
        }
        reading.partial |= !raw.has_stack() && (bytes.len() as u64) < raw.hi - raw.lo;
        let from = reading.words.len();
        let possible = LOWEST..self.module.machine.memory_end();
        let (words, _) = bytes.as_chunks::<8>();
        for word in words {
            let word = u64::from_le_bytes(*word);
            let is_own = word >= raw.lo && word < raw.hi;
            // Most words are small numbers, code, or the stack itself.
            if possible.contains(&word) && !is_own && !self.module.is_code(word) {
                reading.words.push(word);
            }
        }
        if reading.words.len() > MAX_WORDS {
            reading.words.truncate(from);
            reading.partial = true;
        }
        raw.words = (from as u32, reading.words.len() as u32);
        reading.goroutines.push(raw);
        true
    }
}
