//! Can anybody get at a channel who may ever go on?
//!
//! A goroutine that waits for channels waits forever if only such can reach them as wait for channels of which
//! the same is true. So all that can be reached is followed as the garbage collector follows it, but the stacks of
//! goroutines that wait for channels count only from when one of their channels was reached. What counts from the
//! beginning: variables, memory outside of the heap, and the stacks of all others.
//!
//! Words that only look like addresses count as some, so a channel may be taken for one that can be reached. The
//! contrary would be an accusation: all of it is said only of one moment, in which no thread ran.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom},
};

use super::{
    channels::Queued,
    heap::{self, Budget, Heap, Present},
    inventory::{Channel, Inventory, State, WaitsFor},
    quiet::{self, Asleep},
    raw::Raw,
    resolve::Waits,
    scheduler,
    snapshot::Reading,
    target::Target,
    words::AddrSet,
};
use crate::inspect::memory::Memory;

/// Bytes of the list of mappings read.
const MAX_MAPS: u64 = 16 << 20;
const PAGE: u64 = 4096;
/// In an entry of the page map: the page is in memory, or in swap.
const PRESENT: u64 = 3 << 62;

/// What a search may cost, and whether the process slept when the look began.
pub(super) struct Search {
    /// Bytes read.
    pub(super) most: u64,
    /// As of before anything was read.
    pub(super) before: Option<Asleep>,
}

/// Why it is not known.
enum Unknown {
    /// Another moment may be better.
    Busy(&'static str),
    /// It will not be known later either.
    Because(&'static str),
}

impl From<&'static str> for Unknown {
    fn from(why: &'static str) -> Unknown {
        Unknown::Because(why)
    }
}

/// Says of each channel that somebody waits for if anybody can reach it, or why that is not known.
pub(super) fn search<M: Memory>(
    target: &mut Target<M>,
    reading: &Reading,
    waits: &Waits,
    queued: &Queued,
    search: &Search,
    inventory: &mut Inventory,
) {
    let dependent = dependents(target, reading, waits, queued, &inventory.channels);
    if !dependent.iter().any(|one| !one.channels.is_empty()) {
        return;
    }
    let found = reached(target, reading, dependent, queued, search);
    let why = match found {
        Ok(heap) => {
            for channel in &mut inventory.channels {
                // One that a timer sends to is reached by the clock.
                channel.reachable = heap
                    .is_found(channel.addr.0)
                    .map(|found| found || channel.timer);
            }
            return;
        }
        Err(Unknown::Busy(why)) => {
            inventory.searched_in_vain = true;
            why
        }
        Err(Unknown::Because(why)) => why,
    };
    inventory.notes.push(format!(
        "which channels nobody else can reach is not known: {why}"
    ));
}

/// A goroutine that goes on only if somebody comes to one of the channels that it waits for.
struct Dependent<'a> {
    raw: &'a Raw,
    /// Its places in their queues.
    places: Vec<u64>,
    /// None of them: it waits forever.
    channels: Vec<u64>,
}

/// What the runtime calls waiting for nothing.
const FOREVER: [&str; 3] = [
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "select (no cases)",
];

fn dependents<'a, M: Memory>(
    target: &Target<M>,
    reading: &'a Reading,
    waits: &Waits,
    queued: &Queued,
    channels: &[Channel],
) -> Vec<Dependent<'a>> {
    let mut places: Vec<Vec<u64>> = vec![Vec::new(); reading.goroutines.len()];
    for (of, addr) in &queued.places {
        places[*of as usize].push(*addr);
    }
    let marked = target.layout.hchan.timer.is_some();
    let is_timer = |addr: u64| {
        let at = channels.binary_search_by_key(&addr, |channel| channel.addr.0);
        // Before Go 1.23 those are not marked, but they have room for one time.
        at.map(|at| &channels[at]).is_ok_and(|channel| {
            channel.timer || (!marked && channel.cap == 1 && channel.elem_size == 24)
        })
    };
    let each = reading.goroutines.iter().zip(&waits.of).zip(places);
    let dependent = each.filter_map(|((raw, waits), places)| {
        let sleeps = matches!(raw.state, State::Waiting | State::Leaked);
        let addr = |what: &WaitsFor| match what {
            WaitsFor::Channel { addr, .. } if !is_timer(addr.0) => Some(addr.0),
            _ => None,
        };
        // Something else that it waits for, or a channel that could not be read: it may go on.
        let channels = waits.iter().map(addr).collect::<Option<Vec<u64>>>()?;
        let reason = target.reasons.get(usize::from(raw.reason));
        let is_one = if channels.is_empty() {
            places.is_empty() && reason.is_some_and(|reason| FOREVER.contains(&&**reason))
        } else {
            places.len() == channels.len()
        };
        (sleeps && is_one).then_some(Dependent {
            raw,
            places,
            channels,
        })
    });
    dependent.collect()
}

/// The heap with all found that anybody can reach who may ever go on.
fn reached<M: Memory>(
    target: &mut Target<M>,
    reading: &Reading,
    mut dependent: Vec<Dependent<'_>>,
    queued: &Queued,
    search: &Search,
) -> Result<Heap, Unknown> {
    let runs = |raw: &Raw| matches!(raw.state, State::Running | State::Copying);
    if search.before.is_none() || reading.goroutines.iter().any(runs) {
        return Err(Unknown::Busy(
            "goroutines run, and what they have in registers is not seen",
        ));
    }
    if !reading.torn.is_empty() {
        return Err(Unknown::Busy("goroutines changed while they were read"));
    }
    if reading.left_out > 0 || queued.partial {
        return Err("not all goroutines were read".into());
    }
    let mut budget = Budget {
        bytes: search.most,
        until: reading.until,
    };
    let mut heap = open(target, &mut budget)?;
    let memory = &target.memory;
    let present = present(target.pid).ok_or("its mappings could not be read")?;
    for one in &dependent {
        heap.close(one.raw.addr);
        one.places.iter().for_each(|place| heap.close(*place));
    }
    outside(memory, &present, &mut heap, &mut budget)?;
    let depends: AddrSet = dependent.iter().map(|one| one.raw.addr).collect();
    for raw in &reading.goroutines {
        if !depends.contains(&raw.addr) {
            stack(memory, reading, raw, &present, &mut heap, &mut budget)?;
        }
    }
    loop {
        heap.follow(memory, &present, &mut budget)?;
        let before = dependent.len();
        let mut rest = Vec::new();
        for one in dependent {
            // A channel that is nowhere in the heap may be anywhere.
            let mut channels = one.channels.iter();
            if !channels.any(|addr| heap.is_found(*addr) != Some(false)) {
                rest.push(one);
                continue;
            }
            heap.open(one.raw.addr);
            one.places.iter().for_each(|place| heap.open(*place));
            stack(memory, reading, one.raw, &present, &mut heap, &mut budget)?;
        }
        dependent = rest;
        if dependent.len() == before {
            break;
        }
    }
    if quiet::look(target.pid) != search.before {
        return Err(Unknown::Busy(
            "the process ran while its memory was searched",
        ));
    }
    Ok(heap)
}

fn open<M: Memory>(target: &mut Target<M>, budget: &mut Budget) -> Result<Heap, &'static str> {
    const LAYOUT: &str = "how the runtime of this release keeps its heap is not known";
    if target.spans.is_none() {
        target.spans = heap::find(&target.memory, &target.module, &target.layout);
    }
    let list = target
        .spans
        .ok_or("the list of its heap's parts was not found")?;
    let layout = target.layout.mspan.as_ref().ok_or(LAYOUT)?;
    let special = target.layout.special.as_ref().ok_or(LAYOUT)?;
    let mut heap = Heap::read(&target.memory, (layout, special), list, budget)?;
    heap.skip(scheduler::leftovers(target));
    Ok(heap)
}

/// What is written to and does not belong to the heap: variables, and what the runtime and C have there.
fn outside(
    memory: &dyn Memory,
    present: &Present,
    heap: &mut Heap,
    budget: &mut Budget,
) -> Result<(), &'static str> {
    for (from, to) in &present.0 {
        let mut at = *from;
        while at < *to {
            let end = Heap::end_of_arena(at).min(*to);
            if !heap.owns(at) {
                heap.mark_range(memory, present, (at, end), budget)?;
            }
            at = end;
        }
    }
    Ok(())
}

/// What a goroutine has on its stack.
fn stack(
    memory: &dyn Memory,
    reading: &Reading,
    raw: &Raw,
    present: &Present,
    heap: &mut Heap,
    budget: &mut Budget,
) -> Result<(), &'static str> {
    heap.mark(raw.addr);
    if reading.partial {
        return heap.mark_range(memory, present, (raw.sp & !7, raw.hi), budget);
    }
    for word in &reading.words[raw.words.0 as usize..raw.words.1 as usize] {
        heap.mark(*word);
    }
    Ok(())
}

/// Memory that is written to and is there: never touched pages hold nothing, and reading would make them.
fn present(pid: u32) -> Option<Present> {
    let maps = File::open(format!("/proc/{pid}/maps")).ok()?;
    let mut pages = File::open(format!("/proc/{pid}/pagemap")).ok()?;
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for line in BufReader::new(maps.take(MAX_MAPS)).lines() {
        let line = line.ok()?;
        let Some((from, to)) = writable(&line) else {
            continue;
        };
        pages.seek(SeekFrom::Start(from / PAGE * 8)).ok()?;
        let mut entries = Vec::new();
        let count = (to - from) / PAGE;
        (&mut pages)
            .take(count * 8)
            .read_to_end(&mut entries)
            .ok()?;
        let (entries, _) = entries.as_chunks::<8>();
        for (i, entry) in entries.iter().enumerate() {
            if u64::from_le_bytes(*entry) & PRESENT == 0 {
                continue;
            }
            let at = from + i as u64 * PAGE;
            match spans.last_mut() {
                Some(last) if last.1 == at => last.1 += PAGE,
                _ => spans.push((at, at + PAGE)),
            }
        }
    }
    Some(Present(spans))
}

/// The extent of a mapping that is written to and of memory: not special, as those of the kernel are. Nor the
/// first thread's stack, on which the runtime itself runs: the collector does not look at it either, and much is
/// left over there.
fn writable(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let name = fields.nth(3).unwrap_or_default();
    if !permissions.starts_with("rw")
        || name.starts_with("[v")
        || name == "[stack]"
        || name.starts_with("/dev/")
    {
        return None;
    }
    let from = u64::from_str_radix(from, 16).ok()?;
    let to = u64::from_str_radix(to, 16).ok()?;
    // Large reservations have a page map of their own size.
    (from < to && to - from <= 1 << 38).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_that_are_searched() {
        assert_eq!(
            writable("c000000000-c000400000 rw-p 00000000 00:00 0   [anon: Go: heap]"),
            Some((0xc0_0000_0000, 0xc0_0040_0000))
        );
        for line in [
            "",
            "1000-2000 r--p 0 00:00 0",
            "1000-2000 rw-p 0 00:00 0 [vvar]",
            "1000-2000 rw-p 0 00:00 0 [stack]",
            "1000-2000 rw-s 0 00:06 5 /dev/dri/card0",
            "2000-1000 rw-p 0 00:00 0",
            "x-y rw-p 0 00:00 0",
        ] {
            assert_eq!(writable(line), None, "{line}");
        }
    }

    #[test]
    fn own_memory_is_present() {
        let spans = present(std::process::id()).unwrap().0;
        let value = Box::new(7u64);
        let at = &raw const *value as u64;
        assert!(spans.iter().any(|(from, to)| (*from..*to).contains(&at)));
    }
}
