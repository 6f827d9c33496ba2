//! Locks that goroutines wait for: `sync.Mutex`, `RWMutex`, `WaitGroup`, all of which sleep on a semaphore.
//!
//! Who sleeps there is in `runtime.semtable`: trees by the semaphore's address, and a list of goroutines at
//! each. What the semaphore belongs to is told by the calls of who sleeps.

use std::{collections::VecDeque, time::Instant};

use super::{
    gather,
    inventory::{Lock, LockMode, LockState, MutexState, State, WaitsFor},
    resolve::Waits,
    snapshot::Reading,
    stacks::{Doing, Semaphore},
    target::Target,
    words::{AddrMap, AddrSet, i32_at, u32_at, u64_at},
};
use crate::{event::Addr, inspect::memory::Memory};

/// Roots of `runtime.semtable`.
const ROOTS: usize = 251;
/// Bytes of the largest root believed.
const MAX_ROOT: usize = 1024;
/// Places in the trees and lists looked at.
const MAX_PLACES: usize = 2 << 20;
/// Pages of places kept while the lists are followed.
const MAX_PAGES: usize = 4096;
const PAGE: u64 = 4096;
/// Readers that an RWMutex can have; taken away while a writer waits.
const MAX_READERS: i32 = 1 << 30;
/// Bytes of the largest lock.
const SIZE: usize = 24;

/// A lock as it is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Use {
    addr: u64,
    class: Class,
    mode: LockMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Mutex,
    RwMutex,
    WaitGroup,
    Semaphore,
}

/// Finds what each goroutine sleeps on. Gives the locks by address.
pub(super) fn resolve<M: Memory>(
    target: &Target<M>,
    reading: &Reading,
    waits: &mut Waits,
) -> Vec<Lock> {
    let semaphores = semaphores(target, reading.until);
    let mut uses: Vec<(usize, Use)> = Vec::new();
    for (i, raw) in reading.goroutines.iter().enumerate() {
        let sleeps = matches!(raw.state, State::Waiting | State::Leaked);
        let known = raw.stack.and_then(|id| target.stacks.get(id));
        let Some(Doing::Semaphore(semaphore)) = known.map(|known| known.doing) else {
            continue;
        };
        if let Some(addr) = semaphores.get(&raw.addr)
            && sleeps
        {
            uses.push((i, lock_of(*addr, semaphore)));
        }
    }
    let mut addrs: Vec<(u64, Class)> = uses
        .iter()
        .map(|(_, used)| (used.addr, used.class))
        .collect();
    // One address, two classes: one of the goroutines has gone on meanwhile.
    addrs.sort_unstable_by_key(|(addr, class)| (*addr, *class as u8));
    addrs.dedup_by_key(|(addr, _)| *addr);
    let mut states = vec![None; addrs.len()];
    let places: Vec<u64> = addrs.iter().map(|(addr, _)| *addr).collect();
    gather::each(&target.memory, &places, SIZE, |i, bytes| {
        states[i] = state(bytes, addrs[i].1);
    });
    let known = places.into_iter().zip(states);
    let mut locks: Vec<Lock> = known
        .filter_map(|(addr, state)| {
            Some(Lock {
                addr: Addr(addr),
                state: state?,
                waiting: 0,
                holders: Vec::new(),
            })
        })
        .collect();
    for (i, used) in uses {
        if let Ok(at) = locks.binary_search_by_key(&used.addr, |lock| lock.addr.0) {
            locks[at].waiting += 1;
            waits.of[i].push(WaitsFor::Lock {
                addr: Addr(used.addr),
                mode: used.mode,
            });
        }
    }
    locks
}

/// Which lock a semaphore is part of.
fn lock_of(semaphore: u64, kind: Semaphore) -> Use {
    let (before, class, mode) = match kind {
        Semaphore::Mutex => (4, Class::Mutex, LockMode::Exclusive),
        Semaphore::Writers => (4, Class::RwMutex, LockMode::Exclusive),
        Semaphore::Writer => (8, Class::RwMutex, LockMode::Exclusive),
        Semaphore::Reader => (12, Class::RwMutex, LockMode::Shared),
        Semaphore::WaitGroup => (8, Class::WaitGroup, LockMode::Pass),
        Semaphore::Other => (0, Class::Semaphore, LockMode::Pass),
    };
    Use {
        addr: semaphore.wrapping_sub(before),
        class,
        mode,
    }
}

fn state(bytes: &[u8], class: Class) -> Option<LockState> {
    Some(match class {
        Class::Mutex => LockState::Mutex(mutex(bytes)?),
        Class::RwMutex => {
            let readers = i32_at(bytes, 16)?;
            let writer = readers < 0;
            let readers = if writer {
                readers.wrapping_add(MAX_READERS)
            } else {
                readers
            };
            LockState::RwMutex {
                writers: mutex(bytes)?,
                writer,
                readers: u32::try_from(readers).ok()?,
                readers_pending: u32::try_from(i32_at(bytes, 20)?).unwrap_or_default(),
            }
        }
        Class::WaitGroup => LockState::WaitGroup {
            counter: u32_at(bytes, 4)?,
            // The highest bit marks one of a test's bubble, from 1.25 on.
            waiters: u32_at(bytes, 0)? & !(1 << 31),
        },
        Class::Semaphore => LockState::Semaphore,
    })
}

fn mutex(bytes: &[u8]) -> Option<MutexState> {
    let word = u32_at(bytes, 0)?;
    Some(MutexState {
        locked: word & 1 != 0,
        starving: word & 4 != 0,
        waiters: word >> 3,
    })
}

/// Places, read by pages: those that follow each other in a list often lie side by side.
struct Places<'a> {
    memory: &'a dyn Memory,
    size: usize,
    pages: AddrMap<Option<Box<[u8; PAGE as usize]>>>,
}

impl Places<'_> {
    fn get(&mut self, addr: u64, into: &mut Vec<u8>) -> bool {
        into.clear();
        let within = (addr % PAGE) as usize;
        if within + self.size > PAGE as usize {
            into.resize(self.size, 0);
            return self.memory.read(addr, into);
        }
        if self.pages.len() > MAX_PAGES {
            self.pages.clear();
        }
        let memory = self.memory;
        let page = self
            .pages
            .entry(addr - within as u64)
            .or_insert_with_key(|base| {
                let mut page = Box::new([0; PAGE as usize]);
                memory.read(*base, &mut page[..]).then_some(page)
            });
        if let Some(page) = page {
            into.extend_from_slice(&page[within..within + self.size]);
        }
        !into.is_empty()
    }
}

/// The semaphore that each goroutine sleeps on, by the goroutine's address.
fn semaphores<M: Memory>(target: &Target<M>, until: Instant) -> AddrMap<u64> {
    let mut sleeping = AddrMap::default();
    let root = target.layout.semtable;
    let root = root.unwrap_or_else(|| target.module.machine.semtable());
    // A forged layout may have any numbers.
    let size = root.size.min(MAX_ROOT);
    let mut table = vec![0; ROOTS * size];
    let Some(at) = target.semaphores else {
        return sleeping;
    };
    if !target.memory.read(at, &mut table) {
        return sleeping;
    }
    let layout = &target.layout.sudog;
    let mut places = Places {
        memory: &target.memory,
        size: layout.size,
        pages: AddrMap::default(),
    };
    let mut seen = AddrSet::default();
    // A node of a tree has children; the rest of its list has none.
    let roots = (0..ROOTS).filter_map(|i| u64_at(&table, i * size + root.treap));
    let mut todo: VecDeque<(u64, Option<u64>)> = roots.map(|node| (node, None)).collect();
    let mut bytes = Vec::new();
    while let Some((addr, semaphore)) = todo.pop_front() {
        if Instant::now() >= until {
            break;
        }
        if addr == 0
            || seen.len() > MAX_PLACES
            || !seen.insert(addr)
            || !places.get(addr, &mut bytes)
        {
            continue;
        }
        let word = |at| u64_at(&bytes, at).unwrap_or_default();
        let address = semaphore.unwrap_or_else(|| word(layout.elem));
        sleeping.insert(word(layout.g), address);
        todo.push_front((word(layout.waitlink), Some(address)));
        if semaphore.is_none() {
            todo.push_back((word(layout.prev), None));
            todo.push_back((word(layout.next), None));
        }
    }
    sleeping
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: [i32; 6]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn states_are_decoded() {
        let mutex = MutexState {
            locked: true,
            starving: true,
            waiters: 3,
        };
        assert_eq!(
            state(&bytes([0b11101, 0, 0, 0, 0, 0]), Class::Mutex),
            Some(LockState::Mutex(mutex))
        );
        // A writer waits for one of two readers.
        let waits = bytes([1, 0, 0, 0, 2 - MAX_READERS, 1]);
        assert_eq!(
            state(&waits, Class::RwMutex),
            Some(LockState::RwMutex {
                writers: MutexState {
                    locked: true,
                    ..MutexState::default()
                },
                writer: true,
                readers: 2,
                readers_pending: 1,
            })
        );
        assert_eq!(
            state(&bytes([i32::MIN + 1, 2, 0, 0, 0, 0]), Class::WaitGroup),
            Some(LockState::WaitGroup {
                counter: 2,
                waiters: 1
            })
        );
        assert_eq!(state(&[], Class::Mutex), None);
    }

    #[test]
    fn semaphores_lie_within_their_locks() {
        assert_eq!(lock_of(0x1004, Semaphore::Writers).addr, 0x1000);
        assert_eq!(lock_of(0x100c, Semaphore::Reader).addr, 0x1000);
        assert_eq!(lock_of(0x1008, Semaphore::WaitGroup).addr, 0x1000);
        assert_eq!(lock_of(0, Semaphore::Reader).addr, u64::MAX - 11);
    }
}
