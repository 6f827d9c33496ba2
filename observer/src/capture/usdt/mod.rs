//! Waits that programs tell of themselves: by USDT probes, in pairs that packs declare.
//!
//! Loaded and attached only when packs were asked for. The kernel program keeps what is in progress and the
//! totals by resource; here are attached the places, and made the events.

pub(super) mod attach;
mod events;
mod find;
mod later;
mod monitors;
pub(super) mod multi;
mod places;
mod scope;
mod spec;

use std::sync::Arc;

use anyhow::Result;
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData},
};
use observer_common::usdt::{Monitor, ResourceKey, Spec, Stat, Wait, WaitKey};

use self::{
    attach::Pmu,
    events::Progress,
    later::Rounds,
    monitors::{MAX_LIBRARIES, Monitors},
    multi::Multi,
    places::{Attacher, Way},
    scope::Scope,
};
use super::{Options, Unsupported};
use crate::{
    event::Missing,
    runtimes::{jvm::contended, packs::Pair},
};

/// Places that are attached to.
const MAX_PLACES: u32 = 4_096;
/// Waits in progress, and resources, that are followed.
const MAX_WAITS: u32 = 16_384;
const MAX_RESOURCES: u32 = 8_192;

/// A type of the kernel programs', as the maps may hold it.
macro_rules! pod {
    ($name:ident, $type:ty) => {
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub(super) struct $name(pub(super) $type);

        // SAFETY: the type is integers only, without padding.
        unsafe impl aya::Pod for $name {}
    };
}

pod!(PodSpec, Spec);
pod!(PodMonitor, Monitor);
pod!(PodWaitKey, WaitKey);
pod!(PodWait, Wait);
pod!(PodResourceKey, ResourceKey);
pod!(PodStat, Stat);

/// Attached probes and their tables. Dropping it detaches them.
pub(super) struct Usdt {
    pairs: Arc<[Pair]>,
    attacher: Attacher,
    scope: Scope,
    rounds: Rounds,
    waits: HashMap<MapData, PodWaitKey, PodWait>,
    stats: HashMap<MapData, PodResourceKey, PodStat>,
    progress: Progress,
    /// Resources whose entries were given back.
    pub(super) evicted: u64,
}

/// Makes room in the tables, if they are to be used.
pub(super) fn size(loader: &mut EbpfLoader<'_>, options: &Options) {
    if !options.usdt.is_empty() {
        loader
            .map_max_entries("USDT_SPECS", MAX_PLACES)
            .map_max_entries("USDT_MONITORS", MAX_LIBRARIES)
            .map_max_entries("USDT_WAITS", MAX_WAITS)
            .map_max_entries("USDT_STATS", MAX_RESOURCES);
    }
}

/// Which way to attach; both have to give the same answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// To many places at a time where the kernel can, one by one elsewhere.
    #[default]
    Auto,
    /// One by one.
    Single,
    /// To many places at a time.
    Multi,
}

/// Loads the program and attaches it to all places of the pairs that were asked for.
///
/// # Errors
/// [`Unsupported`] where the kernel does not allow it at all. Single probes that cannot be attached to are
/// told in `missing`.
pub(super) fn start(
    ebpf: &mut Ebpf,
    options: &Options,
    kernel: &str,
    attached: &mut Vec<String>,
    missing: &mut Vec<Missing>,
) -> Result<Option<Usdt>> {
    if options.usdt.is_empty() {
        return Ok(None);
    }
    let pmu = Pmu::find().map_err(|why| unsupported(&why))?;
    let mut way = Way {
        pmu,
        multi: multi(ebpf, options, kernel)?,
        single: None,
    };
    if way.multi.is_none() {
        way.single(ebpf)
            .map_err(|why| unsupported(&format!("{why}. It needs Linux 5.15")))?;
    }
    let monitors = monitors(ebpf, options, kernel, &mut way)?;
    let specs = Array::try_from(super::load::take(ebpf, "USDT_SPECS")?)?;
    let attacher = Attacher::new(&options.usdt, way, specs, monitors);
    let mut usdt = Usdt {
        pairs: Arc::clone(&attacher.pairs),
        attacher,
        scope: Scope::of(options),
        rounds: Rounds::default(),
        waits: super::load::take(ebpf, "USDT_WAITS")?.try_into()?,
        stats: super::load::take(ebpf, "USDT_STATS")?.try_into()?,
        progress: Progress::default(),
        evicted: 0,
    };
    let told = usdt.attach(ebpf);
    attached.extend(told.attached);
    missing.extend(told.missing);
    if usdt.attacher.is_idle() {
        missing.push(Missing {
            feature: "usdt".into(),
            why: "none of the processes maps a file with the probes asked for: one that does later is attached to \
                  a moment after. `observer usdt list PID` shows those there are; `path` in a pack names a file that \
                  is not mapped yet"
                .into(),
        });
    }
    Ok(Some(usdt))
}

fn unsupported(why: &str) -> Unsupported {
    Unsupported(format!(
        "cannot attach to USDT probes: {why}. Run without --usdt, or see docs/usdt.md"
    ))
}

/// The program that attaches to many places at a time, where there is one.
fn multi(ebpf: &Ebpf, options: &Options, kernel: &str) -> Result<Option<Multi>> {
    if options.usdt_attach == Attach::Single {
        return Ok(None);
    }
    match Multi::load(ebpf, super::load::OBJECT, "usdt_multi", kernel) {
        Ok(multi) => Ok(Some(multi)),
        Err(why) if options.usdt_attach == Attach::Multi => Err(unsupported(&why).into()),
        Err(why) => {
            log::debug!("usdt: one by one: {why}");
            Ok(None)
        }
    }
}

/// The same once more for monitors of Java, so that their cost is known by itself; `None`: no pair is of them.
fn monitors(
    ebpf: &mut Ebpf,
    options: &Options,
    kernel: &str,
    way: &mut Way,
) -> Result<Option<Monitors>> {
    if !options.usdt.iter().any(contended::is_told_by) {
        return Ok(None);
    }
    // One for threads, not for processes, would see a part of the waits.
    let multi = multi(ebpf, options, kernel)?
        .filter(|multi| multi.for_processes() || options.whole_processes().is_empty());
    let single = match multi {
        Some(_) => None,
        None => way
            .single(ebpf)
            .map(|program| program.try_clone_to_owned())
            .map_err(|why| unsupported(&why))?
            .ok(),
    };
    let table = super::load::take(ebpf, "USDT_MONITORS")?.try_into()?;
    Ok(Some(Monitors::new(way.pmu, multi, single, table)))
}

impl Usdt {
    /// Run time of the program that aya does not know, while the kernel's statistics are on.
    pub(super) fn run_time_ns(&self) -> u64 {
        let multi = self.attacher.way.multi.as_ref();
        multi.map_or(0, Multi::run_time_ns) + self.monitors_ns()
    }
}
