//! Waits of goroutines, as they happen: probes where Go's runtime parks a goroutine and makes it ready.
//!
//! Attached only when asked for, to the processes that were named, and taken out as long as the overhead budget does
//! not allow everything: each wait costs the program two traps.

use std::{
    collections::HashMap as Map,
    fs::File,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use anyhow::{Context, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData},
    programs::UProbe,
};
use observer_common::goroutine::{Key, Parked, Record, Spec};

use super::{
    Options, Unsupported,
    convert::Converter,
    load,
    usdt::{
        attach::{Place, Pmu},
        multi::Multi,
    },
};
use crate::{
    event::{Addr, LockRef, Missing, Outcome, Wait, Waker},
    runtimes::go::{Meaning, Parks},
};

/// Processes that are followed.
const MAX_PROCESSES: usize = 64;
/// Places in each.
const PLACES: usize = 3;
/// Goroutines that are parked at the same time: 64 bytes each.
const MAX_PARKED: u32 = 1 << 18;
/// What a trap costs the program beside the run time of the kernel program, in nanoseconds: measured.
pub(super) const TRAP_NS: u64 = 600;
/// What begins such a wait, as events name probes.
const PROBE: &str = "go:park";

/// A type of the kernel programs', as the maps may hold it.
macro_rules! pod {
    ($name:ident, $type:ty) => {
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        struct $name($type);

        // SAFETY: the type is integers only, without padding.
        unsafe impl aya::Pod for $name {}
    };
}

pod!(PodSpec, Spec);
pod!(PodKey, Key);
pod!(PodParked, Parked);

/// A process that is followed.
struct Process {
    pid: u32,
    file: File,
    parks: Parks,
    /// The cookie of its first place.
    cookie: u32,
}

/// The program, in the form that this kernel attaches.
enum Program {
    /// To many places at a time.
    Multi(Multi),
    /// One by one.
    Single { pmu: Pmu, program: OwnedFd, id: u32 },
}

/// Attached probes and their tables. Dropping it detaches them.
pub(super) struct Goroutines {
    program: Program,
    processes: Vec<Process>,
    by_pid: Map<u32, usize>,
    /// None while the budget does not allow them.
    links: Vec<OwnedFd>,
    parked: HashMap<MapData, PodKey, PodParked>,
}

/// Makes room in the tables, if they are to be used.
pub(super) fn size(loader: &mut EbpfLoader<'_>, options: &Options) {
    if options.go_events {
        loader
            .map_max_entries("GO_SPECS", (MAX_PROCESSES * PLACES) as u32)
            .map_max_entries("GO_PARKED", MAX_PARKED);
    }
}

/// Loads the program and attaches it to the Go processes among those that were asked for.
///
/// # Errors
/// [`Unsupported`] where the kernel does not allow it at all. Processes that cannot be followed are told in
/// `missing`.
pub(super) fn start(
    ebpf: &mut Ebpf,
    options: &Options,
    kernel: &str,
    attached: &mut Vec<String>,
    missing: &mut Vec<Missing>,
) -> Result<Option<Goroutines>> {
    if !options.go_events {
        return Ok(None);
    }
    let program = program(ebpf, kernel).map_err(|why| {
        Unsupported(format!(
            "cannot follow goroutines: {why}. It needs Linux 5.15. Run without --go-events"
        ))
    })?;
    let mut specs: Array<_, PodSpec> = Array::try_from(load::take(ebpf, "GO_SPECS")?)?;
    let mut goroutines = Goroutines {
        program,
        processes: Vec::new(),
        by_pid: Map::new(),
        links: Vec::new(),
        parked: load::take(ebpf, "GO_PARKED")?.try_into()?,
    };
    for &pid in &options.pids {
        let refuse = |why: String| Missing {
            feature: format!("goroutine events of process {pid}"),
            why,
        };
        if goroutines.processes.len() == MAX_PROCESSES {
            missing.push(refuse(format!("more than {MAX_PROCESSES} processes")));
            continue;
        }
        let process = match Process::open(pid, (goroutines.processes.len() * PLACES) as u32) {
            Ok(process) => process,
            Err(why) => {
                missing.push(refuse(why));
                continue;
            }
        };
        process.tell(&mut specs)?;
        match goroutines.program.attach(&process) {
            Ok(links) => {
                attached.push(format!(
                    "{PROBE} in process {pid} ({})",
                    process.parks.release
                ));
                goroutines.links.extend(links);
                goroutines.by_pid.insert(pid, goroutines.processes.len());
                goroutines.processes.push(process);
            }
            Err(why) => missing.push(refuse(why)),
        }
    }
    Ok(Some(goroutines))
}

fn program(ebpf: &mut Ebpf, kernel: &str) -> Result<Program, String> {
    match Multi::load(ebpf, load::OBJECT, "goroutine_multi", kernel) {
        // One for threads, not for processes, would see a part of the parks.
        Ok(multi) if multi.for_processes() => return Ok(Program::Multi(multi)),
        Ok(_) => {}
        Err(why) => log::debug!("goroutines: one by one: {why}"),
    }
    let pmu = Pmu::find()?;
    let load = || -> Result<(OwnedFd, u32)> {
        let program: &mut UProbe = load::program(ebpf, "goroutine")?.try_into()?;
        program.load()?;
        let id = program.info()?.id();
        Ok((program.fd()?.as_fd().try_clone_to_owned()?, id))
    };
    let mut load = load;
    let (program, id) = load().map_err(|error| {
        let why = load::first_line(&error);
        format!("the kernel refused the program: {why}")
    })?;
    Ok(Program::Single { pmu, program, id })
}

impl Process {
    fn open(pid: u32, cookie: u32) -> Result<Process, String> {
        let path = format!("/proc/{pid}/exe");
        let file = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
        let parks = Parks::find(pid).map_err(|why| why.to_string())?;
        Ok(Process {
            pid,
            file,
            parks,
            cookie,
        })
    }

    /// Tells the kernel program of its places.
    fn tell(&self, specs: &mut Array<MapData, PodSpec>) -> Result<()> {
        for (i, (_, role)) in (0..).zip(&self.parks.places) {
            let spec = Spec {
                role: *role,
                ..self.parks.spec
            };
            specs
                .set(self.cookie + i, PodSpec(spec), 0)
                .context("cannot tell the kernel program of a place in a Go program")?;
        }
        Ok(())
    }

    fn places(&self) -> Vec<Place> {
        let places = (0..).zip(&self.parks.places);
        places
            .map(|(i, (offset, _))| Place {
                file: self.file.as_raw_fd(),
                offset: *offset,
                semaphore: None,
                pid: Some(self.pid),
                cookie: u64::from(self.cookie + i),
            })
            .collect()
    }
}

impl Program {
    /// Those that end waits first: one that begins must not miss its end.
    fn attach(&self, process: &Process) -> Result<Vec<OwnedFd>, String> {
        let places = process.places();
        match self {
            Program::Multi(multi) => multi
                .attach(Some(process.pid), &places)
                .map(|link| vec![link])
                .map_err(|error| format!("uprobe.multi: {error}")),
            Program::Single { pmu, program, .. } => places
                .iter()
                .map(|place| pmu.attach(program.as_fd(), place))
                .collect(),
        }
    }
}

impl Goroutines {
    /// Puts the probes in or takes them out, as the budget allows.
    pub(super) fn allow(&mut self, allowed: bool) {
        if !allowed {
            self.links.clear();
            return;
        }
        if !self.links.is_empty() {
            return;
        }
        // Who parked before may have parked again meanwhile.
        let stale: Vec<Key> = self.parked.keys().flatten().map(|key| key.0).collect();
        for key in stale {
            let _ = self.parked.remove(&PodKey(key));
        }
        for process in &self.processes {
            match self.program.attach(process) {
                Ok(links) => self.links.extend(links),
                Err(why) => log::warn!("goroutines of process {}: {why}", process.pid),
            }
        }
    }

    /// What it has cost so far, beside the run time of programs that aya knows.
    pub(super) fn cost_ns(&self) -> u64 {
        match &self.program {
            Program::Multi(multi) => multi.run_time_ns() + multi.runs().saturating_mul(TRAP_NS),
            Program::Single { id, .. } => runs_of(*id).saturating_mul(TRAP_NS),
        }
    }

    /// A wait that ended.
    pub(super) fn wait(&self, record: &Record, converter: &mut Converter) -> Option<Wait> {
        let process = self.processes.get(*self.by_pid.get(&record.tgid)?)?;
        let parked = &record.parked;
        let meaning = process.parks.meaning(parked.reason, parked.lock)?;
        let mut task = converter.task(record.tgid, parked.tid, None);
        Arc::make_mut(&mut task).goid = Some(parked.goid);
        let by = converter.task(record.tgid, record.waker_tid, None);
        let waker = Waker {
            pid: record.tgid,
            tid: record.waker_tid,
            comm: by.comm.clone(),
            goid: Some(record.waker),
        };
        let dur_ns = record.end_ns.saturating_sub(parked.start_ns);
        let lock = meaning.channel.map(|addr| LockRef {
            id: format!("{}:{}", record.tgid, Addr(addr)).into(),
            class: Meaning::CLASS,
            name: None,
            addr: Addr(addr),
            shared: false,
        });
        Some(Wait {
            time: converter.clock.wall(record.end_ns),
            mono_ns: record.end_ns,
            task,
            kind: meaning.kind,
            dur_ns,
            blocked_ns: Some(dur_ns),
            runqueue_ns: None,
            outcome: Some(Outcome::Woken),
            lock: lock.map(Arc::new),
            locks: Vec::new(),
            mode: Some(meaning.reason),
            holder: None,
            causes: std::collections::BTreeMap::new(),
            // Timers and the poller are nobody.
            waker: (record.waker != 0).then(|| Arc::new(waker)),
            syscall: None,
            probe: Some(PROBE.into()),
            ended_by: None,
            stack: None,
            at_least: false,
            end_unseen: false,
        })
    }
}

/// How often a program ran, while the kernel's statistics are on.
fn runs_of(id: u32) -> u64 {
    let all = aya::programs::loaded_programs().flatten();
    let mut own = all.filter(|info| info.id() == id);
    own.next().map_or(0, |info| info.run_count())
}
