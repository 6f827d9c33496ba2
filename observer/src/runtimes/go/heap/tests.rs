//! Spans and objects made by hand.

use std::time::Duration;

use super::*;

const LAYOUT: Mspan = Mspan {
    start_addr: 24,
    npages: 32,
    spanclass: 98,
    state: 99,
    elemsize: 104,
    specials: 128,
    size: 160,
};
const SPECIAL: Special = Special {
    next: 0,
    offset: 8,
    kind: 16,
    size: 24,
};
const BASE: u64 = 0xc0_0000_0000;

/// Memory from a base on.
struct At(u64, Vec<u8>);

impl At {
    fn put(&mut self, addr: u64, word: u64) {
        let at = (addr - self.0) as usize;
        self.1[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
}

impl Memory for At {
    fn read(&self, addr: u64, into: &mut [u8]) -> bool {
        let at = addr.checked_sub(self.0).map(|at| at as usize);
        let part = at.and_then(|at| self.1.get(at..at.checked_add(into.len())?));
        part.is_some_and(|part| {
            into.copy_from_slice(part);
            true
        })
    }
}

fn budget() -> Budget {
    Budget {
        bytes: 1 << 24,
        until: Instant::now() + Duration::from_mins(1),
    }
}

/// A list with one span of objects that lead on, one of others, and one of stacks; behind it the spans.
fn heap() -> (At, Present) {
    let mut memory = At(BASE, vec![0; 16 * PAGE as usize]);
    let list = BASE + 8 * PAGE;
    let spans = [
        (0u64, 64u64, 1u64, 0u64),
        (1, 32, 1, 1),
        (2, 0, 2, 0),
        (3, 0, 0, 0),
    ];
    memory.put(list, list + 64);
    memory.put(list + 8, spans.len() as u64);
    memory.put(list + 16, FIRST_ROOM);
    for (i, (page, size, state, class)) in spans.into_iter().enumerate() {
        let addr = list + 1024 + i as u64 * 256;
        memory.put(list + 64 + i as u64 * 8, addr);
        memory.put(addr + 24, BASE + page * PAGE);
        memory.put(addr + 32, 1);
        memory.put(addr + 96, (state << 24) | (class << 16));
        memory.put(addr + 104, size);
    }
    let present = Present(vec![(BASE, BASE + 16 * PAGE)]);
    (memory, present)
}

fn read(memory: &At) -> Heap {
    Heap::read(memory, (&LAYOUT, &SPECIAL), BASE + 8 * PAGE, &mut budget()).unwrap()
}

#[test]
fn what_leads_to_what_is_followed() {
    let (mut memory, present) = heap();
    // From the middle of one object to another, to one that leads nowhere, which names a fourth.
    memory.put(BASE + 64 + 16, BASE + 128 + 8);
    memory.put(BASE + 128, BASE + PAGE + 32);
    memory.put(BASE + PAGE + 32, BASE + 256);
    let mut heap = read(&memory);
    heap.mark(BASE + 64 + 63);
    heap.follow(&memory, &present, &mut budget()).unwrap();
    for (addr, found) in [
        (BASE, Some(false)),
        (BASE + 64, Some(true)),
        (BASE + 128, Some(true)),
        (BASE + PAGE + 32, Some(true)),
        (BASE + 256, Some(false)),
        // Stacks, what was given up, and what is none of the heap's.
        (BASE + 2 * PAGE, None),
        (BASE + 3 * PAGE, None),
        (1 << 20, None),
    ] {
        assert_eq!(heap.is_found(addr), found, "{addr:#x}");
    }
    assert!(heap.owns(BASE + 3 * PAGE) && !heap.owns(BASE - 1));
}

#[test]
fn objects_that_something_is_kept_about_are_found() {
    let (mut memory, present) = heap();
    let kept = BASE + 12 * PAGE;
    memory.put(BASE + 8 * PAGE + 1024 + 128, kept);
    memory.put(kept, kept + 64);
    memory.put(kept + 8, 128);
    memory.put(kept + 64 + 8, 70);
    memory.put(BASE + 128, BASE + 256);
    let mut heap = read(&memory);
    heap.follow(&memory, &present, &mut budget()).unwrap();
    let found = |at| heap.is_found(BASE + at).unwrap();
    assert_eq!([0, 64, 128, 256].map(found), [false, true, true, true]);
    let narrow = Special {
        kind: 10,
        ..SPECIAL
    };
    let bytes: Vec<u8> = [0u64, 0x2_0080]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    assert_eq!(offset(&bytes, &narrow), Some(0x80));
    // A ring.
    memory.put(kept + 64, kept);
    let found = Heap::read(&memory, (&LAYOUT, &SPECIAL), BASE + 8 * PAGE, &mut budget());
    assert!(found.is_err());
}

#[test]
fn closed_objects_lead_on_when_they_are_opened() {
    let (mut memory, present) = heap();
    memory.put(BASE, BASE + 64);
    memory.put(BASE + 64, BASE + 128);
    let mut heap = read(&memory);
    heap.close(BASE + 64);
    heap.mark(BASE);
    heap.follow(&memory, &present, &mut budget()).unwrap();
    assert_eq!(heap.is_found(BASE + 64), Some(true));
    assert_eq!(heap.is_found(BASE + 128), Some(false));
    heap.open(BASE + 64);
    heap.follow(&memory, &present, &mut budget()).unwrap();
    assert_eq!(heap.is_found(BASE + 128), Some(true));
}

#[test]
fn places_are_left_out_and_pages_that_are_not_there() {
    let (mut memory, _) = heap();
    memory.put(BASE, BASE + 64);
    memory.put(BASE + 8, BASE + 128);
    let mut heap = read(&memory);
    heap.skip(vec![(BASE, BASE + 8)]);
    heap.mark(BASE);
    let present = Present(vec![(BASE, BASE + PAGE)]);
    heap.follow(&memory, &present, &mut budget()).unwrap();
    assert_eq!(heap.is_found(BASE + 64), Some(false));
    assert_eq!(heap.is_found(BASE + 128), Some(true));
    let mut heap = read(&memory);
    heap.mark(BASE);
    let nothing = Present::default();
    heap.follow(&memory, &nothing, &mut budget()).unwrap();
    assert_eq!(heap.is_found(BASE + 128), Some(false));
}

#[test]
fn lists_that_are_none_are_refused() {
    let (whole, _) = heap();
    let list = BASE + 8 * PAGE;
    let first = list + 1024;
    for (addr, word) in [
        (list, 0),
        (list + 8, 0),
        (list + 8, MAX_SPANS + 1),
        (list + 16, 1),
        (list + 64, 8),
        (first + 24, 1),
        (first + 32, u64::MAX),
        // Two that overlap.
        (first + 32, 2),
        (first + 96, 7 << 24),
        (first + 104, 0),
        (first + 104, 2 * PAGE),
    ] {
        let mut memory = At(whole.0, whole.1.clone());
        memory.put(addr, word);
        let found = Heap::read(&memory, (&LAYOUT, &SPECIAL), list, &mut budget());
        assert!(found.is_err(), "{addr:#x} {word:#x}");
    }
}

#[test]
fn what_may_be_read_is_bounded() {
    let (mut memory, present) = heap();
    memory.put(BASE, BASE + 64);
    let mut heap = read(&memory);
    heap.mark(BASE);
    let mut little = Budget {
        bytes: 64,
        ..budget()
    };
    assert!(heap.follow(&memory, &present, &mut little).is_err());
}
