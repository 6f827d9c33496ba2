//! Who waits for whom, and what follows from it: pure functions of an inventory.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::Serialize;

use super::inventory::{Channel, Goroutine, Inventory, LockMode, LockState};
use crate::event::Addr;

/// Goroutines that wait for each other in a ring.
#[derive(Clone, Debug, Serialize)]
pub struct Cycle {
    /// Each waits for the next, and the last for the first.
    pub steps: Vec<Step>,
    /// As sure as the least sure of its steps: `likely`.
    pub confidence: &'static str,
    /// Goroutines outside of the ring that wait for a lock in it, at once or behind others.
    pub behind: usize,
}

/// One goroutine of a ring.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// It waits …
    pub goid: u64,
    /// … for this lock …
    pub lock: Addr,
    /// … which this one probably has.
    pub holder: u64,
    /// Why that is believed.
    pub evidence: String,
}

/// A channel that nobody else can reach, and who waits for it.
#[derive(Clone, Debug, Serialize)]
pub struct Orphan {
    /// The channel.
    pub channel: Addr,
    /// Who waits for it.
    pub goids: Vec<u64>,
    /// `likely`: C could have it, though Go does not allow that.
    pub confidence: &'static str,
    /// Where was looked.
    pub evidence: String,
}

/// An RWMutex whose writer waits for readers, while others wait behind it.
#[derive(Clone, Debug, Serialize)]
pub struct StarvedWriter {
    /// The lock.
    pub lock: Addr,
    /// Writers that wait.
    pub writers: Vec<u64>,
    /// Readers that wait behind the writer.
    pub readers_behind: Vec<u64>,
    /// Readers that have to leave before the writer gets it.
    pub readers_pending: u32,
    /// Who they probably are.
    pub holders: Vec<u64>,
    /// How long the first writer waits, at least, in nanoseconds. Known after a second look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_ns: Option<u64>,
}

/// Rings reported, and goroutines from which one is looked for.
const MAX_RINGS: usize = 64;
const MAX_STARTS: usize = 1024;

/// By goroutine: the lock that it waits for, and the likely holders, with the number of the evidence.
type Edges = HashMap<u64, (Addr, Vec<(u64, usize)>)>;
/// By goroutine: those that wait for it.
type Incoming = HashMap<u64, Vec<u64>>;

fn edges(inventory: &Inventory) -> Edges {
    let mut edges = Edges::new();
    for goroutine in inventory.goroutines.iter().filter(|g| g.is_blocked()) {
        let Some((addr, mode)) = goroutine.lock() else {
            continue;
        };
        let Some(lock) = inventory.lock(addr).filter(|_| mode != LockMode::Pass) else {
            continue;
        };
        let holders = lock.holders.iter().enumerate();
        let holders = holders.map(|(i, holder)| (holder.goid, i)).collect();
        edges.insert(goroutine.goid, (addr, holders));
    }
    edges
}

fn incoming(edges: &Edges) -> Incoming {
    let mut incoming = Incoming::new();
    for (goid, (_, holders)) in edges {
        for (holder, _) in holders {
            incoming.entry(*holder).or_default().push(*goid);
        }
    }
    incoming
}

/// Rings of goroutines of which each waits for a lock that the next probably has. One for each knot: where
/// several rings share goroutines, the shortest through the one with the lowest number.
pub fn cycles(inventory: &Inventory) -> Vec<Cycle> {
    let edges = edges(inventory);
    let incoming = incoming(&edges);
    let live = in_rings(&edges, &incoming);
    let mut starts: Vec<u64> = live.iter().copied().collect();
    starts.sort_unstable();
    let mut done: HashSet<u64> = HashSet::new();
    let mut cycles = Vec::new();
    for start in starts.into_iter().take(MAX_STARTS) {
        if done.contains(&start) || cycles.len() == MAX_RINGS {
            continue;
        }
        let Some(ring) = shortest_ring(&edges, &live, start) else {
            continue;
        };
        let reached = reaching(&incoming, &ring);
        done.extend(reached.iter().filter(|goid| live.contains(goid)));
        done.extend(&ring);
        let step = |i: usize| {
            let (goid, holder) = (ring[i], ring[(i + 1) % ring.len()]);
            let (addr, holders) = edges.get(&goid)?;
            let (_, evidence) = holders.iter().find(|(other, _)| *other == holder)?;
            let evidence = inventory.lock(*addr)?.holders.get(*evidence)?;
            Some(Step {
                goid,
                lock: *addr,
                holder,
                evidence: evidence.evidence.clone(),
            })
        };
        cycles.push(Cycle {
            steps: (0..ring.len()).filter_map(step).collect(),
            confidence: "likely",
            behind: reached.len(),
        });
    }
    cycles
}

/// Goroutines that may be part of a ring: what is left when those who wait for nobody, and those for whom
/// nobody waits, are taken away again and again.
fn in_rings(edges: &Edges, incoming: &Incoming) -> HashSet<u64> {
    let mut live: HashSet<u64> = edges.keys().copied().collect();
    let mut todo: Vec<u64> = live.iter().copied().collect();
    while let Some(goid) = todo.pop() {
        if !live.contains(&goid) {
            continue;
        }
        let out = edges.get(&goid).map(|(_, holders)| holders.as_slice());
        let out = out.unwrap_or_default().iter().map(|(holder, _)| *holder);
        let into = incoming.get(&goid).map(Vec::as_slice).unwrap_or_default();
        if out.clone().any(|other| live.contains(&other)) && into.iter().any(|g| live.contains(g)) {
            continue;
        }
        live.remove(&goid);
        todo.extend(out);
        todo.extend(into);
    }
    live
}

/// The shortest way from a goroutine back to itself.
fn shortest_ring(edges: &Edges, live: &HashSet<u64>, start: u64) -> Option<Vec<u64>> {
    let mut from: HashMap<u64, u64> = HashMap::new();
    let mut todo = VecDeque::from([start]);
    while let Some(goid) = todo.pop_front() {
        let (_, holders) = edges.get(&goid)?;
        for (holder, _) in holders {
            if *holder == start {
                let mut ring = vec![goid];
                while let Some(before) = ring.last().and_then(|last| from.get(last)) {
                    ring.push(*before);
                }
                ring.reverse();
                return Some(ring);
            }
            if live.contains(holder) && !from.contains_key(holder) {
                from.insert(*holder, goid);
                todo.push_back(*holder);
            }
        }
    }
    None
}

/// Those outside of a ring that cannot go on while it is there.
fn reaching(incoming: &Incoming, ring: &[u64]) -> HashSet<u64> {
    let members: HashSet<u64> = ring.iter().copied().collect();
    let mut found = HashSet::new();
    let mut todo = ring.to_vec();
    while let Some(goid) = todo.pop() {
        for other in incoming.get(&goid).into_iter().flatten() {
            if !members.contains(other) && found.insert(*other) {
                todo.push(*other);
            }
        }
    }
    found
}

/// Channels that others cannot reach any more: who waits for nothing but such channels waits forever. Known
/// only of inventories whose heap was searched.
pub fn orphan_channels(inventory: &Inventory) -> Vec<Orphan> {
    let is_lost = |channel: &&Channel| channel.reachable == Some(false) && !channel.timer;
    let lost = inventory.channels.iter().filter(is_lost);
    let mut lost: HashSet<Addr> = lost.map(|channel| channel.addr).collect();
    let waiting: Vec<&Goroutine> = inventory
        .goroutines
        .iter()
        .filter(|goroutine| goroutine.channels().next().is_some())
        .collect();
    // Who may go on can do something with every channel that it has, those that it waits for as well.
    loop {
        let before = lost.len();
        for goroutine in &waiting {
            if goroutine.system || goroutine.channels().any(|addr| !lost.contains(&addr)) {
                for addr in goroutine.channels() {
                    lost.remove(&addr);
                }
            }
        }
        if lost.len() == before {
            break;
        }
    }
    let mut by_channel: HashMap<Addr, Vec<u64>> = HashMap::new();
    for goroutine in waiting {
        for addr in goroutine.channels().filter(|addr| lost.contains(addr)) {
            by_channel.entry(addr).or_default().push(goroutine.goid);
        }
    }
    let orphans = inventory.channels.iter().filter_map(|channel| {
        // A main goroutine with nothing else to do may be meant to wait there for ever.
        let goids = by_channel.remove(&channel.addr)?;
        (goids != [1]).then_some(Orphan {
            channel: channel.addr,
            goids,
            confidence: "likely",
            evidence: "no variable, timer or finalizer leads to it, nor any goroutine that may go on: all memory \
                       was searched while no thread ran"
                .to_owned(),
        })
    });
    orphans.collect()
}

/// Locks whose writer waits for readers to leave.
pub fn writer_starvation(inventory: &Inventory) -> Vec<StarvedWriter> {
    let mut waiting: HashMap<(Addr, LockMode), Vec<&Goroutine>> = HashMap::new();
    for goroutine in &inventory.goroutines {
        if let Some(wait) = goroutine.lock() {
            waiting.entry(wait).or_default().push(goroutine);
        }
    }
    let mut starved = Vec::new();
    for lock in &inventory.locks {
        let LockState::RwMutex {
            writer: true,
            readers_pending,
            ..
        } = lock.state
        else {
            continue;
        };
        let here = |mode| waiting.get(&(lock.addr, mode)).map(Vec::as_slice);
        let writers = here(LockMode::Exclusive).unwrap_or_default();
        let readers = here(LockMode::Shared).unwrap_or_default();
        if writers.is_empty() || readers_pending == 0 {
            continue;
        }
        let since = writers.iter().filter_map(|g| g.waiting_since_ns).min();
        starved.push(StarvedWriter {
            lock: lock.addr,
            writers: writers.iter().map(|g| g.goid).collect(),
            readers_behind: readers.iter().map(|g| g.goid).collect(),
            readers_pending,
            holders: lock.holders.iter().map(|holder| holder.goid).collect(),
            waits_ns: since.map(|since| inventory.mono_ns.saturating_sub(since)),
        });
    }
    starved
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::runtimes::go::{
        ChannelOperation, GoStack, Holder, Lock, MutexState, State, WaitsFor,
    };

    /// Goroutines that wait for locks, and locks with holders: `(goid, lock)`, `(lock, holders)`.
    fn inventory(waits: &[(u64, u64)], held: &[(u64, &[u64])]) -> Inventory {
        let goroutine = |(goid, lock): &(u64, u64)| {
            waiting(
                *goid,
                vec![WaitsFor::Lock {
                    addr: Addr(*lock),
                    mode: LockMode::Exclusive,
                }],
            )
        };
        let lock = |(addr, holders): &(u64, &[u64])| Lock {
            addr: Addr(*addr),
            state: LockState::Mutex(MutexState::default()),
            waiting: 1,
            holders: holders
                .iter()
                .map(|goid| Holder {
                    goid: *goid,
                    confidence: "likely",
                    evidence: format!("it is {goid}"),
                })
                .collect(),
        };
        Inventory {
            goroutines: waits.iter().map(goroutine).collect(),
            locks: held.iter().map(lock).collect(),
            ..Inventory::default()
        }
    }

    fn waiting(goid: u64, waits_for: Vec<WaitsFor>) -> Goroutine {
        Goroutine {
            goid,
            state: State::Waiting,
            wait_reason: None,
            created_by: None,
            parent_goid: None,
            entry: None,
            stack: Arc::new(GoStack::default()),
            labels: Arc::default(),
            tid: None,
            locked_to_thread: false,
            system: false,
            waits_for,
            first_seen_ns: None,
            waiting_since_ns: None,
        }
    }

    fn rings(inventory: &Inventory) -> Vec<(Vec<u64>, usize)> {
        let ring = |cycle: &Cycle| {
            let goids = cycle.steps.iter().map(|step| step.goid).collect();
            (goids, cycle.behind)
        };
        cycles(inventory).iter().map(ring).collect()
    }

    #[test]
    fn rings_are_found_once_with_those_behind() {
        // 1 and 2 wait for each other, 3 for 1, 4 for 3; 5 waits for one that is busy.
        let waits = [(1, 0x20), (2, 0x10), (3, 0x10), (4, 0x30), (5, 0x50)];
        let held: [(u64, &[u64]); 4] = [(0x10, &[1]), (0x20, &[2]), (0x30, &[3]), (0x50, &[9])];
        assert_eq!(rings(&inventory(&waits, &held)), [(vec![1, 2], 2)]);
    }

    #[test]
    fn a_false_candidate_does_not_hide_a_ring() {
        let waits = [(1, 0x20), (2, 0x30), (3, 0x10)];
        let held: [(u64, &[u64]); 3] = [(0x10, &[7, 1]), (0x20, &[8, 2]), (0x30, &[3])];
        assert_eq!(rings(&inventory(&waits, &held)), [(vec![1, 2, 3], 0)]);
    }

    #[test]
    fn queues_and_chains_are_no_rings() {
        let waits = [(1, 0x20), (2, 0x30), (3, 0x40)];
        let held: [(u64, &[u64]); 3] = [(0x20, &[2]), (0x30, &[3]), (0x40, &[])];
        assert!(rings(&inventory(&waits, &held)).is_empty());
        assert!(rings(&Inventory::default()).is_empty());
    }

    #[test]
    fn many_rings_end_in_time() {
        let waits: Vec<(u64, u64)> = (0..20_000).map(|i| (i, (i ^ 1) + 0x10_0000)).collect();
        let holders: Vec<[u64; 1]> = (0..20_000).map(|i| [i]).collect();
        let held = holders.iter().map(|one| (one[0] + 0x10_0000, &one[..]));
        let inventory = inventory(&waits, &held.collect::<Vec<_>>());
        let start = std::time::Instant::now();
        assert_eq!(cycles(&inventory).len(), MAX_RINGS);
        assert!(start.elapsed().as_secs() < 5);
    }

    #[test]
    fn a_channel_is_not_lost_while_one_who_waits_may_go_on() {
        let wait = |addr| WaitsFor::Channel {
            addr: Addr(addr),
            operation: Some(ChannelOperation::Receive),
            select: true,
        };
        let channel = |addr, reachable| Channel {
            addr: Addr(addr),
            len: 0,
            cap: 0,
            elem_size: 8,
            closed: false,
            timer: false,
            receivers: 1,
            senders: 0,
            on_stacks_of: Vec::new(),
            reachable,
        };
        let mut inventory = Inventory {
            goroutines: vec![
                // The main goroutine waits for ever where nobody else is.
                waiting(1, vec![wait(0x40)]),
                waiting(5, vec![wait(0x10)]),
                waiting(2, vec![wait(0x10), wait(0x20)]),
                waiting(3, vec![wait(0x30)]),
            ],
            channels: vec![
                channel(0x10, Some(false)),
                channel(0x20, Some(true)),
                channel(0x30, Some(false)),
                channel(0x40, Some(false)),
            ],
            ..Inventory::default()
        };
        let lost = |inventory: &Inventory| {
            let orphans = orphan_channels(inventory);
            orphans.iter().map(|o| o.channel.0).collect::<Vec<_>>()
        };
        assert_eq!(lost(&inventory), [0x30]);
        inventory.channels[1].reachable = Some(false);
        assert_eq!(lost(&inventory), [0x10, 0x20, 0x30]);
        inventory.channels[2].reachable = None;
        assert_eq!(lost(&inventory), [0x10, 0x20]);
    }
}
