//! Who holds a lock that is a variable of the program: its address need not be on any stack, as the code knows it.
//!
//! But the code also says where the lock is taken and where it is given back. A goroutine that is blocked behind
//! the one and before the other holds it; one that is blocked elsewhere in the same function does not, though it
//! uses the lock too. Order is that of the source lines: that of the instructions is the compiler's. Where lines do
//! not tell, nobody is named.

use std::{cmp::Ordering, collections::HashMap};

use super::{
    code::Code,
    inventory::{Holder, Inventory, Lock, LockState, WaitsFor},
    module::Module,
    pclntab::{Pclntab, Place},
    resolve::Waits,
    snapshot::Reading,
    stacks::StackId,
    target::Target,
    words::AddrMap,
};
use crate::inspect::memory::Memory;

/// Bytes of a lock: the largest is an RWMutex.
const SIZE: u64 = 24;
/// Bytes of code between a lock's address and the call that it is for.
const NEAR: usize = 24;
/// Goroutines named at most for one lock.
const MAX_NAMED: usize = 8;

/// What a function does with a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Takes,
    Gives,
    /// One less to wait for.
    Done,
}

/// Where something is in the source: functions and lines, from the outermost to the innermost that is inlined.
type Position = Vec<(String, u32)>;

/// What can be said of a goroutine and a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It holds it; what says so.
    Holds(String),
    /// It uses the lock, and does not hold it now or may not.
    Not,
}

/// Fills in the holders of locks that are variables, and takes away those that the code speaks against.
pub(super) fn resolve<M: Memory>(
    target: &mut Target<M>,
    reading: &Reading,
    waits: &Waits,
    inventory: &mut Inventory,
) {
    let is_wanted = |lock: &&mut Lock| {
        let is_plain = !matches!(lock.state, LockState::Semaphore);
        is_plain && target.module.is_data(lock.addr.0)
    };
    let mut wanted: AddrMap<&mut Lock> = inventory
        .locks
        .iter_mut()
        .filter(is_wanted)
        .map(|lock| (lock.addr.0, lock))
        .collect();
    if wanted.is_empty() {
        return;
    }
    let mut locks: Vec<u64> = wanted.keys().copied().collect();
    locks.sort_unstable();
    let mut of_stack: HashMap<StackId, Vec<(u64, Verdict)>> = HashMap::new();
    let mut holders: AddrMap<Vec<Holder>> = AddrMap::default();
    for (raw, waits_for) in reading.goroutines.iter().zip(&waits.of) {
        let Some(id) = raw.stack else { continue };
        let verdicts = of_stack.entry(id).or_insert_with(|| {
            let stacks = &mut target.stacks;
            stacks.with_calls(id, |table, calls| {
                verdicts(table, &target.memory, &target.module, calls, &locks)
            })
        });
        for (addr, verdict) in verdicts {
            let Some(lock) = wanted.get_mut(addr) else {
                continue;
            };
            let waits_itself = waits_for
                .iter()
                .any(|what| matches!(what, WaitsFor::Lock { addr: own, .. } if own.0 == *addr));
            match verdict {
                Verdict::Holds(evidence) if !waits_itself => {
                    let named = holders.entry(*addr).or_default();
                    if named.len() < MAX_NAMED {
                        named.push(Holder {
                            goid: raw.goid,
                            confidence: "likely",
                            evidence: format!("goroutine {} is {evidence}", raw.goid),
                        });
                    }
                }
                _ => lock.holders.retain(|holder| holder.goid != raw.goid),
            }
        }
    }
    for (addr, lock) in wanted {
        if !super::holders::is_held(&lock.state) {
            continue;
        }
        if let Some(named) = holders.remove(&addr) {
            lock.holders = named;
        }
        // One of several has it, and it is not told which.
        if is_for_one(&lock.state) && lock.holders.len() > 1 {
            lock.holders.clear();
        }
    }
}

/// Can no more than one hold it?
fn is_for_one(state: &LockState) -> bool {
    match state {
        LockState::Mutex(_) => true,
        LockState::RwMutex {
            writer,
            readers_pending,
            ..
        } => *writer && *readers_pending == 0,
        LockState::WaitGroup { .. } | LockState::Semaphore => false,
    }
}

/// What these calls, the innermost first, say of these locks.
fn verdicts(
    table: &mut Pclntab,
    memory: &dyn Memory,
    module: &Module,
    calls: &[u64],
    locks: &[u64],
) -> Vec<(u64, Verdict)> {
    let mut found: Vec<(u64, Verdict)> = Vec::new();
    for pc in calls {
        let Some(function) = table.function(memory, *pc) else {
            continue;
        };
        let name = table.name(memory, &function).unwrap_or_default();
        let is_librarys = ["runtime.", "sync.", "internal/"];
        if is_librarys.iter().any(|of| name.starts_with(of)) {
            continue;
        }
        let Some(code) = Code::of(memory, &function) else {
            continue;
        };
        let mut uses: Vec<(u64, Use, Position)> = Vec::new();
        for (at, addr) in code.references(module) {
            let lock = locks.partition_point(|lock| *lock <= addr);
            let lock = lock.checked_sub(1).map(|i| locks[i]);
            let Some(lock) = lock.filter(|lock| addr - lock < SIZE) else {
                continue;
            };
            let mut places = table.places(memory, &function, at);
            let how = inlined(&mut places).or_else(|| {
                code.calls(module.machine, at, NEAR)
                    .into_iter()
                    .find_map(|entry| {
                        let called = table.function(memory, entry)?;
                        let name = table.name(memory, &called)?;
                        kind(&name).filter(|_| called.entry == entry)
                    })
            });
            if let Some(how) = how {
                uses.push((lock, how, position(&places)));
            }
        }
        let here = position(&table.places(memory, &function, pc.saturating_sub(1)));
        for lock in locks {
            let of_lock = uses.iter().filter(|(addr, ..)| addr == lock);
            let of_lock: Vec<(Use, &Position)> = of_lock.map(|(_, how, at)| (*how, at)).collect();
            if let Some(verdict) = verdict(&of_lock, &here, &name) {
                found.push((*lock, verdict));
            }
        }
    }
    // One call that holds it is enough.
    found.sort_by_key(|(lock, verdict)| (*lock, *verdict == Verdict::Not));
    found.dedup_by_key(|(lock, _)| *lock);
    found
}

/// What a method of a lock does.
fn kind(name: &str) -> Option<Use> {
    let name = name
        .strip_prefix("internal/sync.")
        .or_else(|| name.strip_prefix("sync."))?;
    let (of, method) = name.split_once(").")?;
    Some(match (of, method) {
        ("(*Mutex" | "(*RWMutex", "Lock" | "lockSlow" | "TryLock" | "RLock" | "TryRLock") => {
            Use::Takes
        }
        ("(*Mutex" | "(*RWMutex", "Unlock" | "unlockSlow" | "RUnlock" | "rUnlockSlow") => {
            Use::Gives
        }
        ("(*WaitGroup", "Done") => Use::Done,
        _ => return None,
    })
}

/// The lock's method that this is part of, if it is inlined; its places are taken away.
fn inlined(places: &mut Vec<Place>) -> Option<Use> {
    let outermost = places
        .iter()
        .rposition(|place| kind(&place.function).is_some())?;
    let how = kind(&places[outermost].function);
    places.drain(..=outermost);
    how
}

fn position(places: &[Place]) -> Position {
    let places = places.iter().rev();
    places
        .map(|place| (place.function.clone(), place.line.unwrap_or_default()))
        .collect()
}

/// Which comes first in the source; none: it cannot be told.
fn order(one: &Position, other: &Position) -> Option<Ordering> {
    for ((function, line), (other_function, other_line)) in one.iter().zip(other) {
        if function != other_function || *line == 0 || *other_line == 0 {
            return None;
        }
        if line != other_line {
            return Some(line.cmp(other_line));
        }
    }
    None
}

/// Does who is blocked here hold the lock? None: the function does nothing with it.
fn verdict(uses: &[(Use, &Position)], here: &Position, function: &str) -> Option<Verdict> {
    if uses.is_empty() {
        return None;
    }
    if uses
        .iter()
        .any(|(how, at)| *how == Use::Done && order(at, here) == Some(Ordering::Greater))
    {
        return Some(Verdict::Holds(format!(
            "in {function}, which says later that it is done"
        )));
    }
    let line = |at: &Position| at.last().map_or(0, |(_, line)| *line);
    let before = uses
        .iter()
        .filter(|(how, at)| *how == Use::Takes && order(at, here) == Some(Ordering::Less));
    let last = before.max_by(|(_, one), (_, other)| order(one, other).unwrap_or(Ordering::Equal));
    let Some((_, taken)) = last else {
        return Some(Verdict::Not);
    };
    // It is given back neither before this place nor where that cannot be told.
    let is_given = uses.iter().any(|(how, at)| {
        *how == Use::Gives
            && order(at, here) != Some(Ordering::Greater)
            && order(at, taken) != Some(Ordering::Less)
    });
    if is_given {
        return Some(Verdict::Not);
    }
    Some(Verdict::Holds(format!(
        "in {function} at line {}, behind taking it at line {} and before giving it back",
        line(here),
        line(taken)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u32) -> Position {
        vec![("main.f".to_owned(), line)]
    }

    fn judge(uses: &[(Use, u32)], here: u32) -> Option<bool> {
        let uses: Vec<(Use, Position)> = uses.iter().map(|(how, line)| (*how, at(*line))).collect();
        let uses: Vec<(Use, &Position)> = uses.iter().map(|(how, at)| (*how, at)).collect();
        let verdict = verdict(&uses, &at(here), "main.f")?;
        Some(verdict != Verdict::Not)
    }

    #[test]
    fn who_is_between_taking_and_giving_holds() {
        use Use::{Done, Gives, Takes};
        for (uses, here, holds) in [
            (&[(Takes, 3), (Gives, 9)][..], 5, Some(true)),
            (&[(Takes, 3), (Gives, 4)], 5, Some(false)),
            (&[(Takes, 3), (Gives, 9)], 2, Some(false)),
            (&[(Takes, 3), (Gives, 9)], 10, Some(false)),
            (
                &[(Takes, 3), (Gives, 4), (Takes, 5), (Gives, 9)],
                6,
                Some(true),
            ),
            // On one line, nobody knows.
            (&[(Takes, 3), (Gives, 9)], 3, Some(false)),
            (&[(Takes, 3), (Gives, 5)], 5, Some(false)),
            (&[(Takes, 3), (Gives, 3)], 5, Some(false)),
            // It is given back by what was deferred.
            (&[(Takes, 3)], 5, Some(true)),
            (&[(Gives, 3)], 5, Some(false)),
            (&[(Done, 9)], 5, Some(true)),
            (&[(Done, 3)], 5, Some(false)),
            (&[], 5, None),
        ] {
            assert_eq!(judge(uses, here), holds, "{uses:?} {here}");
        }
    }

    #[test]
    fn places_are_compared_where_they_are_in_the_same_function() {
        let place = |steps: &[(&str, u32)]| -> Position {
            steps
                .iter()
                .map(|(name, line)| ((*name).to_owned(), *line))
                .collect()
        };
        let outer = place(&[("f", 3)]);
        let (early, late) = (place(&[("f", 3), ("g", 7)]), place(&[("f", 3), ("g", 8)]));
        assert_eq!(order(&early, &late), Some(Ordering::Less));
        assert_eq!(order(&outer, &early), None);
        assert_eq!(order(&early, &place(&[("f", 3), ("h", 9)])), None);
        assert_eq!(order(&early, &place(&[("f", 4)])), Some(Ordering::Less));
        assert_eq!(order(&early, &early), None);
    }

    #[test]
    fn methods_of_locks() {
        assert_eq!(kind("sync.(*Mutex).Lock"), Some(Use::Takes));
        assert_eq!(kind("internal/sync.(*Mutex).unlockSlow"), Some(Use::Gives));
        assert_eq!(kind("sync.(*RWMutex).RLock"), Some(Use::Takes));
        assert_eq!(kind("sync.(*WaitGroup).Done"), Some(Use::Done));
        for name in ["sync.(*Once).Do", "main.(*Mutex).Lock", "", "sync.Mutex"] {
            assert_eq!(kind(name), None);
        }
    }
}
