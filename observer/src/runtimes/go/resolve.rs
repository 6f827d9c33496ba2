//! From what was read to an inventory: names, and what each goroutine waits for.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    channels, gather, holders,
    inventory::{GoStack, Goroutine, Inventory, State, WaitsFor},
    labels, locks,
    machine::Machine,
    poll,
    raw::Raw,
    reach::{self, Search},
    snapshot::Reading,
    stacks::Doing,
    target::Target,
    words::{AddrMap, u64_at},
};
use crate::inspect::memory::Memory;

/// What is looked up goroutine by goroutine, by their order in the reading.
pub(super) struct Waits {
    pub(super) of: Vec<Vec<WaitsFor>>,
}

/// The inventory of a reading.
pub(super) fn resolve<M: Memory>(
    target: &mut Target<M>,
    reading: &mut Reading,
    search: Option<Search>,
) -> Inventory {
    reading.goroutines.sort_unstable_by_key(|raw| raw.goid);
    // A list that is not one may name a goroutine twice.
    reading.goroutines.dedup_by_key(|raw| raw.goid);
    let reading = &*reading;
    let mut waits = Waits {
        of: vec![Vec::new(); reading.goroutines.len()],
    };
    let mut inventory = Inventory {
        pid: target.pid,
        release: target.release.text.clone(),
        layout_of: (target.layout_of != target.release.minor)
            .then(|| format!("go1.{}", target.layout_of)),
        untested: Some(target.module.machine)
            .filter(|machine| machine.is_untested_for_go())
            .map(Machine::goarch),
        partial_references: reading.partial,
        debug_info: target.debug_info == Ok(true),
        ..Inventory::default()
    };
    let queued;
    (inventory.channels, queued) = channels::resolve(target, reading, &mut waits);
    inventory.locks = locks::resolve(target, reading, &mut waits);
    poll::resolve(target, reading, &mut waits);
    deadlines(target, reading, &mut waits);
    holders::resolve(target, reading, &waits, &mut inventory);
    if let Some(search) = search {
        reach::search(target, reading, &waits, &queued, &search, &mut inventory);
    }
    name(target, reading, waits, &mut inventory);
    notes(target, &mut inventory);
    inventory
}

/// Until when goroutines sleep.
fn deadlines<M: Memory>(target: &Target<M>, reading: &Reading, waits: &mut Waits) {
    let of_g = target.layout.g.sleep_when.is_some();
    let sleeps = |raw: &Raw| {
        let known = raw.stack.and_then(|id| target.stacks.get(id));
        raw.state == State::Waiting && known.is_some_and(|known| known.doing == Doing::Sleep)
    };
    let sleeping: Vec<usize> = (0..reading.goroutines.len())
        .filter(|i| sleeps(&reading.goroutines[*i]))
        .collect();
    let timers: Vec<u64> = sleeping
        .iter()
        .map(|i| {
            reading.goroutines[*i]
                .timer
                .wrapping_add(target.layout.timer.when as u64)
        })
        .collect();
    let mut until: Vec<Option<u64>> = vec![None; sleeping.len()];
    if of_g {
        for (until, i) in until.iter_mut().zip(&sleeping) {
            *until = Some(reading.goroutines[*i].sleep_when);
        }
    } else {
        gather::each(&target.memory, &timers, 8, |n, bytes| {
            until[n] = u64_at(bytes, 0);
        });
    }
    for (i, until) in sleeping.into_iter().zip(until) {
        if let Some(mono_ns) = until.filter(|when| *when > 0 && when >> 63 == 0) {
            waits.of[i].push(WaitsFor::Deadline { mono_ns });
        }
    }
}

/// What the runtime counts as its own: what begins in it, but for the program's first goroutine and those
/// that run the program's functions.
fn is_system(entry: Option<&str>, stack: &GoStack) -> bool {
    match entry {
        Some("runtime.main" | "runtime.handleAsyncEvent" | "runtime.corostart") | None => false,
        // Finalizers and cleanups are the program's, while one runs.
        Some("runtime.runfinq" | "runtime.runFinalizers" | "runtime.runCleanups") => {
            let mut frames = stack.frames.iter();
            frames.all(|frame| frame.function.starts_with("runtime."))
        }
        Some(name) => name.starts_with("runtime."),
    }
}

/// Turns what was read into goroutines.
fn name<M: Memory>(
    target: &mut Target<M>,
    reading: &Reading,
    waits: Waits,
    inventory: &mut Inventory,
) {
    let labels = labels::read(target, reading);
    let threads = threads(target, reading);
    let nothing: Arc<GoStack> = Arc::default();
    let mut entries: AddrMap<Option<Arc<str>>> = AddrMap::default();
    let no_labels: Arc<BTreeMap<String, String>> = Arc::default();
    inventory.goroutines.reserve(reading.goroutines.len());
    for (raw, waits_for) in reading.goroutines.iter().zip(waits.of) {
        let entry = entries
            .entry(raw.startpc)
            .or_insert_with(|| target.stacks.function(&target.memory, raw.startpc))
            .clone();
        let is_waiting = matches!(raw.state, State::Waiting | State::Leaked);
        let reason = target.reasons.get(usize::from(raw.reason));
        let wait_reason = reason
            .filter(|text| is_waiting && !text.is_empty())
            .cloned();
        let known = raw.stack.and_then(|id| target.stacks.get(id));
        inventory.broken_stacks += usize::from(known.is_some_and(|known| known.broken));
        let stack = known.map_or(&nothing, |known| &known.stack);
        let system = is_system(entry.as_deref(), stack);
        inventory.total += usize::from(!system);
        let stack = Arc::clone(stack);
        let created_by = (raw.gopc != 0).then(|| {
            target
                .stacks
                .frames(&target.memory, raw.gopc)
                .first()
                .cloned()
        });
        inventory.goroutines.push(Goroutine {
            goid: raw.goid,
            state: raw.state,
            wait_reason,
            // The first one is started by nobody: its caller is the program's entry.
            created_by: created_by.flatten().filter(|_| raw.goid != 1),
            parent_goid: Some(raw.parent).filter(|parent| *parent != 0),
            entry,
            stack,
            labels: labels.get(&raw.labels).unwrap_or(&no_labels).clone(),
            tid: threads.get(&raw.m).copied(),
            locked_to_thread: raw.locked,
            system,
            waits_for,
            first_seen_ns: None,
            waiting_since_ns: None,
        });
    }
}

/// The kernel's numbers of the threads that run goroutines, by the address of the runtime's own.
fn threads<M: Memory>(target: &Target<M>, reading: &Reading) -> AddrMap<u32> {
    let on_thread = |raw: &&Raw| raw.m != 0 && matches!(raw.state, State::Running | State::Syscall);
    let mut ms: Vec<u64> = reading
        .goroutines
        .iter()
        .filter(on_thread)
        .map(|raw| raw.m)
        .collect();
    ms.sort_unstable();
    ms.dedup();
    let at = target.layout.m.procid as u64;
    let addrs: Vec<u64> = ms.iter().map(|m| m.wrapping_add(at)).collect();
    let mut threads = AddrMap::default();
    gather::each(&target.memory, &addrs, 8, |i, bytes| {
        let tid = u64_at(bytes, 0).and_then(|tid| u32::try_from(tid).ok());
        if let Some(tid) = tid.filter(|tid| *tid != 0) {
            threads.insert(ms[i], tid);
        }
    });
    threads
}

fn notes<M: Memory>(target: &Target<M>, inventory: &mut Inventory) {
    if target.reasons.is_empty() {
        inventory
            .notes
            .push("the texts of the reasons to wait were not found".to_owned());
    }
    if let Err(why) = &target.debug_info {
        inventory
            .notes
            .push(format!("{why}: the layout of its release was used"));
    }
    if target.semaphores.is_none() {
        inventory
            .notes
            .push("the table of semaphores was not found: locks are not known".to_owned());
    }
    if target.scheduler.is_none() {
        inventory
            .notes
            .push("the scheduler's variables were not found: nothing is said of it".to_owned());
    }
    if target.module.next != 0 {
        inventory
            .notes
            .push("plugins: functions in them have no names".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Addr, runtimes::go::GoFrame};

    #[test]
    fn the_runtimes_own_are_told() {
        let stack = |functions: &[&str]| GoStack {
            frames: functions
                .iter()
                .map(|function| {
                    Arc::new(GoFrame {
                        function: (*function).to_owned(),
                        file: None,
                        line: None,
                        inlined: false,
                        addr: Addr(0),
                    })
                })
                .collect(),
            cut: false,
        };
        for (entry, functions, system) in [
            (Some("main.main.func1"), &["runtime.gopark"][..], false),
            (
                Some("runtime.main"),
                &["runtime.gopark", "main.main"],
                false,
            ),
            (Some("runtime.bgsweep"), &["runtime.gopark"], true),
            (Some("runtime.runfinq"), &["runtime.gopark"], true),
            // It was started just now.
            (Some("runtime.runfinq"), &[], true),
            (
                Some("runtime.runfinq"),
                &["runtime.gopark", "main.close"],
                false,
            ),
            (None, &[], false),
        ] {
            assert_eq!(is_system(entry, &stack(functions)), system, "{entry:?}");
        }
    }
}
