//! Where the fields of the runtime's structs lie, per release (`layouts.json`).
//!
//! Nobody promises these offsets. So each goroutine is held against what must be true of it before it is
//! believed, and a release that is not in the table is tried with its neighbours' layouts.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::machine::Machine;

/// The table as it was generated; `about` in it says how.
const TABLE: &str = include_str!("layouts.json");

/// Offsets of one release.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Layout {
    pub(super) g: G,
    pub(super) gobuf: Gobuf,
    pub(super) m: M,
    pub(super) sudog: Sudog,
    pub(super) hchan: Hchan,
    pub(super) timer: Timer,
    pub(super) poll_desc: PollDesc,
    pub(super) semtable: Option<Semtable>,
    pub(super) moduledata: ModuleData,
    /// Where these two are not known, nothing is said of the scheduler.
    pub(super) p: Option<P>,
    pub(super) schedt: Option<Schedt>,
    /// Where it is not known, nothing is said of who can reach a channel.
    pub(super) mspan: Option<Mspan>,
    pub(super) special: Option<Special>,
}

/// A goroutine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct G {
    pub(super) stack: usize,
    pub(super) m: usize,
    pub(super) sched: usize,
    pub(super) atomicstatus: usize,
    pub(super) goid: usize,
    pub(super) waitreason: usize,
    pub(super) lockedm: usize,
    pub(super) parent_goid: Option<usize>,
    pub(super) gopc: usize,
    pub(super) startpc: usize,
    pub(super) waiting: usize,
    pub(super) labels: usize,
    pub(super) timer: usize,
    pub(super) sleep_when: Option<usize>,
    pub(super) size: usize,
}

/// The registers of a goroutine that does not run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Gobuf {
    pub(super) sp: usize,
    pub(super) pc: usize,
    pub(super) g: usize,
    /// Where it returns to, on machines where that may be in a register.
    pub(super) lr: Option<usize>,
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct M {
    pub(super) procid: usize,
    /// The goroutine that runs on it.
    pub(super) curg: Option<usize>,
}

/// A goroutine's place in the queue of a channel or a semaphore.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sudog {
    pub(super) g: usize,
    pub(super) next: usize,
    pub(super) prev: usize,
    pub(super) elem: usize,
    pub(super) is_select: usize,
    pub(super) waitlink: usize,
    pub(super) c: usize,
    pub(super) size: usize,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Hchan {
    pub(super) qcount: usize,
    pub(super) dataqsiz: usize,
    pub(super) elemsize: usize,
    pub(super) closed: usize,
    pub(super) timer: Option<usize>,
    pub(super) recvq: usize,
    pub(super) sendq: usize,
    pub(super) size: usize,
}

/// A timer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Timer {
    pub(super) when: usize,
}

/// A descriptor that the network poller watches.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct PollDesc {
    pub(super) fd: usize,
    pub(super) rg: usize,
    pub(super) wg: usize,
}

/// A root of the table of semaphores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Semtable {
    /// The tree's address.
    pub(super) treap: usize,
    pub(super) size: usize,
}

/// The tables of a module; what lies before these is the same in all releases.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct ModuleData {
    pub(super) gofunc: usize,
    pub(super) next: usize,
}

/// What runs goroutines on a thread: there are as many as goroutines that may run at once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct P {
    pub(super) id: usize,
    pub(super) status: usize,
    pub(super) m: usize,
    pub(super) runqhead: usize,
    pub(super) runqtail: usize,
    pub(super) runnext: usize,
    /// Addresses of objects that the collector was told of: they stay when they mean nothing any more.
    #[serde(rename = "wbBuf")]
    pub(super) wb_buf: Option<usize>,
    pub(super) size: usize,
}

/// A part of the heap, with objects of one size.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mspan {
    pub(super) start_addr: usize,
    pub(super) npages: usize,
    pub(super) spanclass: usize,
    pub(super) state: usize,
    pub(super) elemsize: usize,
    pub(super) specials: usize,
    pub(super) size: usize,
}

/// Something that the runtime keeps about one object: a finalizer, a cleanup.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Special {
    pub(super) next: usize,
    /// Of the object in its span; as wide as there is room before `kind`.
    pub(super) offset: usize,
    pub(super) kind: usize,
    pub(super) size: usize,
}

/// The scheduler's own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Schedt {
    pub(super) lock: usize,
    pub(super) nmidle: usize,
    pub(super) mnext: usize,
    pub(super) nmfreed: usize,
    pub(super) npidle: usize,
    pub(super) nmspinning: usize,
    pub(super) runqsize: usize,
    pub(super) gcwaiting: usize,
}

#[derive(Deserialize)]
struct Table {
    releases: BTreeMap<String, Map<String, Value>>,
}

/// The part of a release that has those structs that differ on arm64.
const ARM64: &str = "arm64";

/// A release's layout on a machine.
fn layout_on(machine: Machine, mut structs: Map<String, Value>) -> Option<Arc<Layout>> {
    let others = structs.remove(ARM64);
    if machine == Machine::Arm64
        && let Some(Value::Object(others)) = others
    {
        structs.extend(others);
    }
    serde_json::from_value(Value::Object(structs)).ok()
}

/// The layouts of a machine by minor number.
fn table(machine: Machine) -> &'static BTreeMap<u32, Arc<Layout>> {
    static AMD64: OnceLock<BTreeMap<u32, Arc<Layout>>> = OnceLock::new();
    static ARM64: OnceLock<BTreeMap<u32, Arc<Layout>>> = OnceLock::new();
    let layouts = match machine {
        Machine::X86_64 => &AMD64,
        Machine::Arm64 => &ARM64,
    };
    layouts.get_or_init(|| {
        // The table is part of the program, and a test reads it.
        let table: Option<Table> = serde_json::from_str(TABLE).ok();
        let releases = table.map(|table| table.releases).unwrap_or_default();
        releases
            .into_iter()
            .filter_map(|(release, structs)| {
                let minor = release.strip_prefix("1.")?.parse().ok()?;
                Some((minor, layout_on(machine, structs)?))
            })
            .collect()
    })
}

/// Layouts to try for a release, the likeliest first, each with the minor number that it was made from.
/// A release that is in the table has its own only: another that happens to fit would mean something else.
pub(super) fn candidates(machine: Machine, minor: u32) -> Vec<(u32, Arc<Layout>)> {
    let table = table(machine);
    if let Some(layout) = table.get(&minor) {
        return vec![(minor, Arc::clone(layout))];
    }
    let mut all: Vec<(u32, Arc<Layout>)> = table
        .iter()
        .map(|(from, layout)| (*from, Arc::clone(layout)))
        .collect();
    all.sort_by_key(|(from, _)| (from.abs_diff(minor), *from));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        for machine in [Machine::X86_64, Machine::Arm64] {
            let table = table(machine);
            let releases: Vec<u32> = table.keys().copied().collect();
            assert_eq!(releases, [19, 21, 22, 23, 24, 25, 26, 27]);
            assert_eq!(table[&27].g.goid, 152);
            assert_eq!(table[&27].sudog.c, 96);
            assert_eq!(table[&19].g.parent_goid, None);
            assert!(table.values().all(|layout| layout.gobuf.lr.is_some()));
        }
    }

    #[test]
    fn where_arm64_differs_it_has_its_own() {
        let size = |machine| table(machine)[&27].p.as_ref().map(|p| p.size);
        assert_eq!(size(Machine::X86_64), Some(15920));
        assert_eq!(size(Machine::Arm64), Some(14320));
        let queue = |machine| table(machine)[&27].p.as_ref().map(|p| p.runqhead);
        assert_eq!(queue(Machine::X86_64), queue(Machine::Arm64));
    }

    #[test]
    fn unknown_releases_are_tried_with_their_neighbours() {
        let candidates = |minor| candidates(Machine::X86_64, minor);
        let first = |minor| candidates(minor).first().map(|(from, _)| *from);
        assert_eq!(first(24), Some(24));
        assert_eq!(candidates(24).len(), 1);
        assert_eq!(first(28), Some(27));
        assert_eq!(first(18), Some(19));
        assert_eq!(candidates(20).len(), 8);
    }
}
