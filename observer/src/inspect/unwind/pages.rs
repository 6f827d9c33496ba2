//! What is read of a process: its code and unwind tables by pages that are kept, and its stacks by windows.

use std::collections::HashMap;

use crate::inspect::memory::Memory;

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;
/// Pages kept of one process; beyond it they are read anew.
const MAX_PAGES: usize = 512;
/// Bytes of unwind tables that are evaluated for one stack; usual stacks take 3 KB, and once only.
const MAX_TABLES: usize = 1 << 20;
/// Bytes of a stack that are read first: enough for nearly all blocked threads.
const FIRST: u64 = 8 << 10;
/// Bytes read when that was not enough.
const MORE: u64 = 32 << 10;
/// Bytes of one stack that are read at most.
const MAX_STACK: u64 = 1 << 20;

/// Pages that do not change while the process runs.
#[derive(Debug, Default)]
pub(super) struct Pages {
    known: HashMap<u64, Option<Box<[u8]>>>,
    /// Bytes of unwind tables that may still be evaluated for this stack.
    left: usize,
}

impl Pages {
    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// A new stack: its own share of work begins.
    pub(super) fn begin(&mut self) {
        self.left = MAX_TABLES;
    }

    /// May this many bytes of tables be evaluated? Tables that were made to take long come to an end here.
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        let enough = bytes <= self.left;
        self.left = self.left.saturating_sub(bytes);
        enough
    }

    /// Fills `into`; false if a part of it is not mapped.
    pub(super) fn read(&mut self, memory: &impl Memory, addr: u64, into: &mut [u8]) -> bool {
        let mut done = 0;
        while done < into.len() {
            let Some(at) = addr.checked_add(done as u64) else {
                return false;
            };
            let (base, offset) = (at & !(PAGE - 1), (at % PAGE) as usize);
            let Some(page) = self.page(memory, base) else {
                return false;
            };
            let take = (into.len() - done).min(page.len() - offset);
            into[done..done + take].copy_from_slice(&page[offset..offset + take]);
            done += take;
        }
        true
    }

    /// A word of 32 bits.
    pub(super) fn u32(&mut self, memory: &impl Memory, addr: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(memory, addr, &mut bytes)
            .then(|| u32::from_le_bytes(bytes))
    }

    fn page(&mut self, memory: &impl Memory, base: u64) -> Option<&[u8]> {
        if self.known.len() >= MAX_PAGES && !self.known.contains_key(&base) {
            self.known.clear();
        }
        self.known
            .entry(base)
            .or_insert_with(|| {
                let mut page = vec![0; PAGE as usize].into_boxed_slice();
                memory.read(base, &mut page).then_some(page)
            })
            .as_deref()
    }
}

/// A stretch of a stack, upwards from where the thread's stack pointer is. Most stacks take one system call.
#[derive(Debug, Default)]
pub(super) struct Window {
    base: u64,
    /// First address behind the mapping.
    limit: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Starts anew at `sp`, in a mapping that ends at `limit`; keeps the room.
    pub(super) fn open(&mut self, sp: u64, limit: u64) {
        self.base = sp;
        self.limit = limit;
        self.bytes.clear();
    }

    /// The word at `addr`: from the window, or else, for a signal's stack of its own, straight from memory.
    pub(super) fn word(&mut self, memory: &impl Memory, addr: u64) -> Option<u64> {
        let end = addr.checked_add(8)?;
        if addr < self.base || end > self.limit || end - self.base > MAX_STACK {
            return memory.u64(addr);
        }
        let offset = (addr - self.base) as usize;
        while self.bytes.len() < offset + 8 {
            self.grow(memory)?;
        }
        let bytes = self.bytes.get(offset..offset + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// The mapping's end.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    fn grow(&mut self, memory: &impl Memory) -> Option<()> {
        let from = self.base + self.bytes.len() as u64;
        let wanted = if self.bytes.is_empty() { FIRST } else { MORE };
        let room = self.limit.checked_sub(from).filter(|room| *room > 0)?;
        // What cannot be read as a whole may be readable up to the next page.
        for length in [wanted.min(room), (PAGE - from % PAGE).min(room)] {
            let start = self.bytes.len();
            self.bytes.resize(start + length as usize, 0);
            if memory.read(from, &mut self.bytes[start..]) {
                return Some(());
            }
            self.bytes.truncate(start);
        }
        None
    }
}
