//! Files that goroutines wait for in the network poller.
//!
//! A goroutine does not record which; the poller's descriptor records the goroutine. Its address is on the
//! goroutine's stack, near the top.

use super::{
    gather,
    inventory::{IoOperation, State, WaitsFor},
    resolve::Waits,
    snapshot::Reading,
    stacks::Doing,
    target::Target,
    words::u64_at,
};
use crate::inspect::memory::Memory;

/// Words tried as the descriptor's address, for each goroutine; more where any word may be one.
const TRIED: usize = 16;
const TRIED_OF_ANY: usize = 64;
/// No address lies below.
const LOWEST: u64 = 4_096;

/// Finds the file of each goroutine that waits in the poller.
pub(super) fn resolve<M: Memory>(target: &Target<M>, reading: &Reading, waits: &mut Waits) {
    let layout = &target.layout.poll_desc;
    let size = layout.wg.max(layout.rg).max(layout.fd) + 8;
    let apart = target.module.machine.mapped_apart();
    let most = if apart == 0 { TRIED_OF_ANY } else { TRIED };
    let mut tried: Vec<(usize, u64, IoOperation)> = Vec::new();
    for (i, raw) in reading.goroutines.iter().enumerate() {
        let known = raw.stack.and_then(|id| target.stacks.get(id));
        let Some(Doing::Poll(operation)) = known.map(|known| known.doing) else {
            continue;
        };
        if raw.state != State::Waiting {
            continue;
        }
        let words = &reading.words[raw.words.0 as usize..raw.words.1 as usize];
        // Descriptors are not part of the heap of Go but mapped apart, where the kernel puts such things.
        let likely = words
            .iter()
            .filter(|word| **word >= apart.max(LOWEST) && **word % 8 == 0);
        tried.extend(likely.take(most).map(|word| (i, *word, operation)));
    }
    tried.sort_unstable_by_key(|(i, addr, _)| (*i, *addr));
    tried.dedup();
    let addrs: Vec<u64> = tried.iter().map(|(_, addr, _)| *addr).collect();
    gather::each(&target.memory, &addrs, size, |n, bytes| {
        let (i, _, operation) = tried[n];
        // The two lie side by side: at an address that is off by a word, one looks like the other.
        let waits_here = match operation {
            IoOperation::Read => layout.rg,
            IoOperation::Write => layout.wg,
        };
        if u64_at(bytes, waits_here) != Some(reading.goroutines[i].addr) {
            return;
        }
        let fd = u64_at(bytes, layout.fd).and_then(|fd| i32::try_from(fd).ok());
        if let Some(fd) = fd.filter(|_| waits.of[i].is_empty()) {
            let fd = fd.unsigned_abs();
            waits.of[i].push(WaitsFor::Io { fd, operation });
        }
    });
}
