//! Who may hold a lock, and who may still use a channel: whoever has the address on the stack.
//!
//! Go does not record owners. But who holds a mutex will unlock it, and for that its address is kept, on the
//! stack or in a deferred call.

use super::{
    inventory::{Holder, Inventory, LockState, WaitsFor},
    resolve::Waits,
    snapshot::Reading,
    target::Target,
    variables,
    words::{AddrMap, AddrSet},
};
use crate::inspect::memory::Memory;

/// Goroutines named at most for one address.
const MAX_NAMED: usize = 8;

/// Fills in holders of locks, and whose stacks channels are on.
pub(super) fn resolve<M: Memory>(
    target: &mut Target<M>,
    reading: &Reading,
    waits: &Waits,
    inventory: &mut Inventory,
) {
    let locks = inventory.locks.iter().map(|lock| lock.addr.0);
    let channels = inventory.channels.iter().map(|channel| channel.addr.0);
    let wanted: AddrSet = locks.chain(channels).collect();
    let found = on_stacks(reading, waits, &wanted);
    for lock in &mut inventory.locks {
        if !is_held(&lock.state) {
            continue;
        }
        let holders = found.get(&lock.addr.0).map(Vec::as_slice);
        lock.holders = holders
            .unwrap_or_default()
            .iter()
            .map(|i| holder(target, reading, *i))
            .collect();
    }
    variables::resolve(target, reading, waits, inventory);
    for channel in &mut inventory.channels {
        if let Some(others) = found.get(&channel.addr.0) {
            let goid = |i: &usize| reading.goroutines[*i].goid;
            channel.on_stacks_of = others.iter().map(goid).collect();
        }
    }
}

/// Who has which of these addresses on the stack, and does not itself wait for it.
fn on_stacks(reading: &Reading, waits: &Waits, wanted: &AddrSet) -> AddrMap<Vec<usize>> {
    let mut found: AddrMap<Vec<usize>> = AddrMap::default();
    if wanted.is_empty() {
        return found;
    }
    let lowest = wanted.iter().copied().min().unwrap_or_default();
    let highest = wanted.iter().copied().max().unwrap_or_default();
    for (i, raw) in reading.goroutines.iter().enumerate() {
        for word in &reading.words[raw.words.0 as usize..raw.words.1 as usize] {
            // Most are elsewhere: this is cheaper than the set.
            if *word < lowest || *word > highest || !wanted.contains(word) {
                continue;
            }
            let waits_itself = waits.of[i].iter().any(|what| {
                matches!(what, WaitsFor::Channel { addr, .. } | WaitsFor::Lock { addr, .. } if addr.0 == *word)
            });
            if waits_itself {
                continue;
            }
            let others = found.entry(*word).or_default();
            if others.len() < MAX_NAMED && others.last() != Some(&i) {
                others.push(i);
            }
        }
    }
    found
}

/// Is anybody holding it at all?
pub(super) fn is_held(state: &LockState) -> bool {
    match state {
        LockState::Mutex(mutex) => mutex.locked,
        LockState::RwMutex {
            writers,
            writer,
            readers,
            ..
        } => writers.locked || *writer || *readers > 0,
        LockState::WaitGroup { counter, .. } => *counter > 0,
        LockState::Semaphore => false,
    }
}

fn holder<M: Memory>(target: &Target<M>, reading: &Reading, i: usize) -> Holder {
    let raw = &reading.goroutines[i];
    let known = raw.stack.and_then(|id| target.stacks.get(id));
    // The innermost of the program's own calls.
    let place = known.and_then(|known| known.stack.frames.iter().find(|frame| frame.is_program()));
    let place = place.map_or_else(String::new, |frame| format!(", in {}", frame.function));
    Holder {
        goid: raw.goid,
        confidence: "likely",
        evidence: format!(
            "the lock's address is on the stack of goroutine {}{place}",
            raw.goid
        ),
    }
}
