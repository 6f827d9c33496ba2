//! The heap of a Go process: its spans, and what leads to what in it.
//!
//! The runtime keeps a list of all its spans, each with objects of one size. So an address, one in the middle of
//! an object too, tells the object, and from some objects all others are found that they lead to, as the garbage
//! collector does it. Which words are addresses is not looked up: each word that may be one is taken for one.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use super::{
    gather,
    layout::{Layout, Mspan, Special},
    module::{Module, search},
    words::{AddrSet, u32_at, u64_at},
};
use crate::inspect::memory::Memory;

/// The runtime's pages, and what it reserves at once: a span lies in no other memory.
const PAGE: u64 = 8192;
const ARENA: u64 = 64 << 20;
/// Spans that the list has room for when it is new, and those believed.
const FIRST_ROOM: u64 = 8192;
const MAX_SPANS: u64 = 1 << 21;
/// Spans looked at to see if a list is theirs.
const SAMPLE: u64 = 32;
/// Things that the runtime keeps about objects: those followed.
const MAX_SPECIALS: u64 = 1 << 20;
/// Objects followed: there is a bit for each, twice.
const MAX_OBJECTS: u64 = 1 << 28;
/// User memory ends here at the latest, whatever the machine.
const HIGHEST: u64 = 1 << 48;
/// Bytes read at once.
const CHUNK: u64 = 1 << 20;
/// What a system call costs, in bytes that might have been read instead.
const CALL: u64 = 512;

/// Objects of one size, side by side.
#[derive(Debug)]
struct Span {
    from: u64,
    to: u64,
    size: u64,
    /// Its objects hold addresses.
    leads_on: bool,
    /// The number of its first object.
    first: u64,
    is_queued: bool,
}

impl Span {
    fn count(&self) -> u64 {
        (self.to - self.from) / self.size
    }
}

/// One bit an object.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn of(count: u64) -> Bits {
        Bits(vec![0; count.div_ceil(64) as usize])
    }

    fn get(&self, at: u64) -> bool {
        let word = self.0.get((at / 64) as usize);
        word.is_some_and(|word| word >> (at % 64) & 1 != 0)
    }

    /// Was it not set before?
    fn set(&mut self, at: u64) -> bool {
        let was = self.get(at);
        if let Some(word) = self.0.get_mut((at / 64) as usize) {
            *word |= 1 << (at % 64);
        }
        !was
    }
}

/// What may be read, and until when.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) bytes: u64,
    pub(super) until: Instant,
}

impl Budget {
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), &'static str> {
        let left = self.bytes.checked_sub(bytes.saturating_add(CALL));
        self.bytes = left.ok_or("there is more memory than is searched")?;
        if Instant::now() >= self.until {
            return Err("the time was up");
        }
        Ok(())
    }
}

/// Memory that is there: never touched pages hold nothing, and reading would make them.
#[derive(Debug, Default)]
pub(super) struct Present(pub(super) Vec<(u64, u64)>);

impl Present {
    /// The parts of this range that are there.
    pub(super) fn within(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.0.partition_point(|(_, end)| *end <= from);
        let parts = self.0[first..].iter().take_while(move |(at, _)| *at < to);
        parts.map(move |(at, end)| ((*at).max(from), (*end).min(to)))
    }

    /// Fills `into` from `at` on, with zeros where nothing is.
    fn fill(&self, memory: &dyn Memory, at: u64, into: &mut [u8]) -> Result<(), &'static str> {
        into.fill(0);
        for (from, to) in self.within(at, at + into.len() as u64) {
            let part = &mut into[(from - at) as usize..(to - at) as usize];
            if !memory.read(from, part) {
                return Err("its memory could not be read");
            }
        }
        Ok(())
    }
}

/// The heap at one moment, and which of its objects were found.
#[derive(Debug, Default)]
pub(super) struct Heap {
    spans: Vec<Span>,
    /// Numbers of the reservations.
    arenas: BTreeSet<u64>,
    found: Bits,
    /// Those that were looked into.
    done: Bits,
    /// Objects that are not looked into, by number.
    closed: AddrSet,
    /// Places that are not looked at.
    skipped: Vec<(u64, u64)>,
    queue: VecDeque<usize>,
}

/// Where the list of spans is: the address of the slice.
pub(super) fn find(memory: &dyn Memory, module: &Module, layout: &Layout) -> Option<u64> {
    let mspan = layout.mspan.as_ref()?;
    module.data.iter().find_map(|(from, to)| {
        let found = search(memory, *from, to - from, |bytes| {
            slice(bytes, 0).is_some_and(|(first, count)| are_spans(memory, mspan, first, count))
        });
        found.first().copied()
    })
}

/// A slice with so much room as that of the spans.
fn slice(bytes: &[u8], at: usize) -> Option<(u64, u64)> {
    let (first, count) = (u64_at(bytes, at)?, u64_at(bytes, at + 8)?);
    let room = u64_at(bytes, at + 16)?;
    let is_one = first != 0
        && first % 8 == 0
        && first < HIGHEST
        && (FIRST_ROOM..=MAX_SPANS).contains(&room)
        && (1..=room).contains(&count);
    is_one.then_some((first, count))
}

fn are_spans(memory: &dyn Memory, layout: &Mspan, first: u64, count: u64) -> bool {
    let mut bytes = vec![0; (count.min(SAMPLE) * 8) as usize];
    if !memory.read(first, &mut bytes) {
        return false;
    }
    let addrs = addresses(&bytes);
    let (mut sound, mut used) = (0, 0);
    gather::each(memory, &addrs, layout.size, |_, bytes| {
        if let Some(found) = parse(bytes, layout) {
            sound += 1;
            used += usize::from(found.objects.is_some());
        }
    });
    sound == addrs.len() && used > 0
}

fn addresses(bytes: &[u8]) -> Vec<u64> {
    let words = bytes.as_chunks::<8>().0.iter();
    words.map(|word| u64::from_le_bytes(*word)).collect()
}

/// A span as its bytes have it: its extent, none if it has none any more; the size of its objects, and whether
/// they lead on, if it has any.
struct Parsed {
    extent: Option<(u64, u64)>,
    objects: Option<(u64, bool)>,
    /// The first thing that is kept about one of them.
    special: u64,
}

fn parse(bytes: &[u8], layout: &Mspan) -> Option<Parsed> {
    const DEAD: u8 = 0;
    const IN_USE: u8 = 1;
    const MANUAL: u8 = 2;
    let from = u64_at(bytes, layout.start_addr)?;
    let pages = u64_at(bytes, layout.npages)?;
    let state = *bytes.get(layout.state)?;
    let to = pages.checked_mul(PAGE)?.checked_add(from)?;
    let is_extent = from != 0 && from % PAGE == 0 && pages > 0 && to <= HIGHEST;
    let extent = is_extent.then_some((from, to));
    let size = u64_at(bytes, layout.elemsize)?;
    let special = u64_at(bytes, layout.specials)?;
    let without = Parsed {
        extent,
        objects: None,
        special: 0,
    };
    match state {
        DEAD => Some(without),
        MANUAL if is_extent => Some(without),
        IN_USE if is_extent && size >= 8 && size % 8 == 0 && size <= to - from => {
            // The lowest bit of the class: no addresses in it.
            let leads_on = bytes.get(layout.spanclass)? & 1 == 0;
            Some(Parsed {
                extent,
                objects: Some((size, leads_on)),
                special,
            })
        }
        _ => None,
    }
}

/// Where in its span the object is that something is kept about.
fn offset(bytes: &[u8], layout: &Special) -> Option<u64> {
    match layout.kind.checked_sub(layout.offset)? {
        2 => u32_at(bytes, layout.offset).map(|wide| u64::from(wide as u16)),
        8 => u64_at(bytes, layout.offset),
        _ => None,
    }
}

impl Heap {
    /// Reads the list of spans. The error says what was in the way.
    pub(super) fn read(
        memory: &dyn Memory,
        (layout, special): (&Mspan, &Special),
        list: u64,
        budget: &mut Budget,
    ) -> Result<Heap, &'static str> {
        const ODD: &str = "the list of its heap's parts contradicts itself";
        let mut head = [0; 24];
        let slice = memory.read(list, &mut head).then(|| slice(&head, 0));
        let (first, count) = slice.flatten().ok_or(ODD)?;
        budget.take(count.saturating_mul(8 + layout.size as u64))?;
        let mut bytes = vec![0; (count * 8) as usize];
        if !memory.read(first, &mut bytes) {
            return Err(ODD);
        }
        let addrs = addresses(&bytes);
        let mut heap = Heap::default();
        let mut sound = 0;
        let mut specials = Vec::new();
        gather::each(memory, &addrs, layout.size, |_, bytes| {
            if let Some(parsed) = parse(bytes, layout) {
                sound += 1;
                heap.add(&parsed);
                if parsed.special != 0 {
                    let from = parsed.extent.map_or(0, |(from, _)| from);
                    specials.push((parsed.special, from));
                }
            }
        });
        heap.spans.sort_unstable_by_key(|span| span.from);
        let mut pairs = heap.spans.windows(2);
        if sound != addrs.len() || pairs.any(|pair| pair[0].to > pair[1].from) {
            return Err(ODD);
        }
        let mut number = 0;
        for span in &mut heap.spans {
            span.first = number;
            number = number.saturating_add(span.count());
        }
        if number > MAX_OBJECTS {
            return Err("its heap has more objects than are followed");
        }
        heap.found = Bits::of(number);
        heap.done = Bits::of(number);
        heap.mark_special(memory, special, specials, budget)?;
        Ok(heap)
    }

    /// Finds the objects that something is kept about: who has a finalizer, or is referred to weakly, can be
    /// reached until the collector was there.
    fn mark_special(
        &mut self,
        memory: &dyn Memory,
        layout: &Special,
        mut todo: Vec<(u64, u64)>,
        budget: &mut Budget,
    ) -> Result<(), &'static str> {
        let mut seen = 0;
        while !todo.is_empty() {
            seen += todo.len() as u64;
            budget.take(todo.len() as u64 * layout.size as u64)?;
            if seen > MAX_SPECIALS {
                return Err("its heap has more finalizers than are followed");
            }
            let addrs: Vec<u64> = todo.iter().map(|(addr, _)| *addr).collect();
            let (mut next, mut read) = (Vec::new(), 0);
            gather::each(memory, &addrs, layout.size, |i, bytes| {
                let from = todo[i].1;
                let Some(offset) = offset(bytes, layout) else {
                    return;
                };
                read += 1;
                self.mark(from.saturating_add(offset));
                if let Some(other) = u64_at(bytes, layout.next).filter(|other| *other != 0) {
                    next.push((other, from));
                }
            });
            if read != addrs.len() {
                return Err("its heap's finalizers could not be read");
            }
            todo = next;
        }
        Ok(())
    }

    fn add(&mut self, parsed: &Parsed) {
        let Some((from, to)) = parsed.extent else {
            return;
        };
        // What was given up may have become part of something else, but of the same reservation.
        let last = if parsed.objects.is_some() {
            to - 1
        } else {
            from
        };
        // A forged extent may be all of memory.
        self.arenas
            .extend((from / ARENA..=last / ARENA).take(1 << 16));
        if let Some((size, leads_on)) = parsed.objects {
            self.spans.push(Span {
                from,
                to,
                size,
                leads_on,
                first: 0,
                is_queued: false,
            });
        }
    }

    /// Does this memory belong to the heap, in use or not?
    pub(super) fn owns(&self, addr: u64) -> bool {
        self.arenas.contains(&(addr / ARENA))
    }

    /// Where a reservation ends that begins at or before this address.
    pub(super) fn end_of_arena(addr: u64) -> u64 {
        (addr / ARENA + 1).saturating_mul(ARENA)
    }

    /// Leaves these places out.
    pub(super) fn skip(&mut self, places: Vec<(u64, u64)>) {
        self.skipped = places;
        self.skipped.sort_unstable();
    }

    /// The span and the number of the object that an address leads to.
    fn object(&self, addr: u64) -> Option<(usize, u64)> {
        let behind = self.spans.partition_point(|span| span.from <= addr);
        let at = behind.checked_sub(1)?;
        let span = &self.spans[at];
        let index = (addr - span.from) / span.size;
        (addr < span.to && index < span.count()).then(|| (at, span.first + index))
    }

    /// Was the object found? None: there is none at this address.
    pub(super) fn is_found(&self, addr: u64) -> Option<bool> {
        let (_, object) = self.object(addr)?;
        Some(self.found.get(object))
    }

    /// What the object at this address leads to does not count, until it is opened.
    pub(super) fn close(&mut self, addr: u64) {
        if let Some((_, object)) = self.object(addr) {
            self.closed.insert(object);
        }
    }

    /// What it leads to counts from now on; it is found itself.
    pub(super) fn open(&mut self, addr: u64) {
        let Some((at, object)) = self.object(addr) else {
            return;
        };
        if self.closed.remove(&object) && self.found.get(object) {
            self.queue(at);
        }
        self.mark(addr);
    }

    /// Something leads to this address.
    pub(super) fn mark(&mut self, addr: u64) {
        let (Some(first), Some(last)) = (self.spans.first(), self.spans.last()) else {
            return;
        };
        if addr < first.from || addr >= last.to {
            return;
        }
        if let Some((at, object)) = self.object(addr)
            && self.found.set(object)
            && self.spans[at].leads_on
            && !self.closed.contains(&object)
        {
            self.queue(at);
        }
    }

    fn queue(&mut self, at: usize) {
        let span = &mut self.spans[at];
        if !span.is_queued {
            span.is_queued = true;
            self.queue.push_back(at);
        }
    }

    /// Looks at words that lie at an address.
    pub(super) fn mark_words(&mut self, at: u64, bytes: &[u8]) {
        let words = bytes.as_chunks::<8>().0.iter().enumerate();
        for (i, word) in words {
            let word = u64::from_le_bytes(*word);
            if word >= PAGE && !self.is_skipped(at + i as u64 * 8) {
                self.mark(word);
            }
        }
    }

    fn is_skipped(&self, addr: u64) -> bool {
        let behind = self.skipped.partition_point(|(from, _)| *from <= addr);
        behind
            .checked_sub(1)
            .is_some_and(|i| addr < self.skipped[i].1)
    }

    /// Looks at memory that is there between two addresses.
    pub(super) fn mark_range(
        &mut self,
        memory: &dyn Memory,
        present: &Present,
        (from, to): (u64, u64),
        budget: &mut Budget,
    ) -> Result<(), &'static str> {
        let mut at = from;
        let mut bytes = Vec::new();
        while at < to {
            let length = (to - at).min(CHUNK);
            budget.take(length)?;
            bytes.resize(length as usize, 0);
            present.fill(memory, at, &mut bytes)?;
            self.mark_words(at, &bytes);
            at += length;
        }
        Ok(())
    }

    /// Follows all that was found to all that it leads to.
    pub(super) fn follow(
        &mut self,
        memory: &dyn Memory,
        present: &Present,
        budget: &mut Budget,
    ) -> Result<(), &'static str> {
        while let Some(at) = self.queue.pop_front() {
            let (objects, whole) = self.next_of(at);
            let span = &self.spans[at];
            let (from, size) = (span.from, span.size);
            if let Some((low, high)) = whole {
                // They are close together: one system call.
                let mut bytes = vec![0; (high - low) as usize];
                budget.take(high - low)?;
                present.fill(memory, low, &mut bytes)?;
                for index in objects {
                    let begin = from + index * size;
                    let within = (begin - low) as usize;
                    self.mark_words(begin, &bytes[within..within + size as usize]);
                }
                continue;
            }
            for index in objects {
                let begin = from + index * size;
                self.mark_range(memory, present, (begin, begin + size), budget)?;
            }
        }
        Ok(())
    }

    /// The objects of a span that are to be looked into, and from where to where they lie if it is better to
    /// read them at once.
    fn next_of(&mut self, at: usize) -> (Vec<u64>, Option<(u64, u64)>) {
        let span = &mut self.spans[at];
        span.is_queued = false;
        let (first, count) = (span.first, span.count());
        let mut objects = Vec::new();
        for index in 0..count {
            let object = first + index;
            if self.found.get(object) && !self.closed.contains(&object) && self.done.set(object) {
                objects.push(index);
            }
        }
        let span = &self.spans[at];
        let whole = objects.first().zip(objects.last()).map(|(low, high)| {
            let low = span.from + low * span.size;
            (low, span.from + (high + 1) * span.size)
        });
        let worth = objects.len() as u64 * (span.size + CALL);
        let whole = whole.filter(|(low, high)| high - low <= worth.min(CHUNK));
        (objects, whole)
    }
}

#[cfg(test)]
mod tests;
