//! Monitors of Java virtual machines that were started without probes for them: places in the machine's own functions
//! ([`Contended`]). Taken out as long as the overhead budget does not allow everything.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use aya::maps::{HashMap, MapData, MapError};
use observer_common::usdt::{Monitor, Spec, WaitKey, role};

use super::{
    PodMonitor, PodWaitKey, Usdt,
    attach::{Place, Pmu},
    find::{Found, Identity},
    multi::Multi,
    spec,
};
use crate::{
    capture::goroutines::TRAP_NS,
    event::Missing,
    inspect::{
        memory::{Memory, ProcessMemory},
        process,
        usdt::functions::{self, Symbols},
    },
    runtimes::jvm::contended::{Contended, FUNCTIONS, SYMBOLS},
};

/// Libraries that are attached to.
pub(super) const MAX_LIBRARIES: u32 = 64;

/// The places of a machine's library.
pub(super) struct Library {
    pub(super) path: String,
    /// Where waits begin, and where they end.
    pub(super) begin: Place,
    pub(super) end: Place,
    /// The pair whose waits these are.
    pub(super) pair: u32,
}

/// A library that is attached to.
struct Attached {
    identity: Identity,
    library: Library,
    #[expect(dead_code, reason = "kept open: the places name it by its descriptor")]
    file: Arc<File>,
    /// For these processes, or for all that map it.
    pids: Vec<Option<u32>>,
}

/// Attached places. Dropping it detaches them.
pub(super) struct Monitors {
    pmu: Pmu,
    /// A program of their own where the kernel attaches to many places at a time, so that their cost is known.
    multi: Option<Multi>,
    /// The program that is attached one by one.
    single: Option<OwnedFd>,
    /// What the program is told of each place where a wait begins.
    table: HashMap<MapData, u32, PodMonitor>,
    libraries: Vec<Attached>,
    /// Does the budget allow them?
    allowed: bool,
    /// None while it does not. What begins waits goes before what ends them, in this order also
    /// when all is dropped, and comes after it.
    begins: Vec<OwnedFd>,
    ends: Vec<OwnedFd>,
}

/// What a file's symbols tell of its functions.
pub(super) fn symbols(found: &Found) -> Result<Symbols, String> {
    functions::symbols(&found.file, FUNCTIONS, &SYMBOLS)
}

/// The places in a file with these symbols.
pub(super) fn find(found: &Found, symbols: &Symbols) -> Result<Contended, String> {
    let mapped_by = found
        .mapped_by
        .map(|pid| (process::process(pid), ProcessMemory::of(pid)));
    let mapped_by = mapped_by
        .as_ref()
        .map(|(process, memory)| (&**process, memory as &dyn Memory));
    Contended::find(&found.binary, symbols, mapped_by)
}

/// What the program is told of the place where a wait begins: the monitor is the only argument that it reads.
pub(super) fn begin(pair: u32) -> Spec {
    Spec {
        role: role::MONITOR,
        ..spec::end(pair, 0)
    }
}

impl Monitors {
    pub(super) fn new(
        pmu: Pmu,
        multi: Option<Multi>,
        single: Option<OwnedFd>,
        table: HashMap<MapData, u32, PodMonitor>,
    ) -> Monitors {
        Monitors {
            pmu,
            multi,
            single,
            table,
            libraries: Vec::new(),
            allowed: true,
            begins: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Descriptors in use.
    pub(super) fn links(&self) -> usize {
        self.begins.len() + self.ends.len() + self.libraries.len()
    }

    /// Tells the program of a place, by its cookie.
    pub(super) fn tell(&mut self, cookie: u32, monitor: Monitor) -> Result<(), MapError> {
        self.table.insert(cookie, PodMonitor(monitor), 0)
    }

    /// Attaches to a library, for one process or all that map it, as soon as the budget allows it; why it cannot.
    pub(super) fn add(
        &mut self,
        identity: Identity,
        library: Library,
        file: Arc<File>,
        pid: Option<u32>,
    ) -> Option<Missing> {
        self.libraries.push(Attached {
            identity,
            library,
            file,
            pids: vec![pid],
        });
        self.attach(self.libraries.len() - 1, pid)
    }

    /// The same for another process that maps one.
    pub(super) fn join(&mut self, identity: Identity, pid: u32) -> Option<Missing> {
        let mut libraries = self.libraries.iter_mut();
        let index = libraries.position(|one| one.identity == identity)?;
        self.libraries[index].pids.push(Some(pid));
        self.attach(index, Some(pid))
    }

    fn attach(&mut self, index: usize, pid: Option<u32>) -> Option<Missing> {
        if !self.allowed {
            return None;
        }
        let library = &self.libraries.get(index)?.library;
        let end = self.link(&library.end, pid);
        let both = end.and_then(|end| Ok((end, self.link(&library.begin, pid)?)));
        match both {
            Ok((end, begin)) => {
                self.ends.push(end);
                self.begins.push(begin);
                None
            }
            Err(why) => Some(Missing {
                feature: format!(
                    "monitors in {} without -XX:+DTraceMonitorProbes",
                    library.path
                ),
                why,
            }),
        }
    }

    fn attach_all(&mut self) {
        for index in 0..self.libraries.len() {
            for pid in self.libraries[index].pids.clone() {
                if let Some(Missing { feature, why }) = self.attach(index, pid) {
                    log::warn!("{feature}: {why}");
                }
            }
        }
    }

    fn link(&self, place: &Place, pid: Option<u32>) -> Result<OwnedFd, String> {
        let mut why = String::new();
        if let Some(multi) = &self.multi {
            match multi.attach(pid, &[*place]) {
                Ok(link) => return Ok(link),
                Err(error) => why = format!("uprobe.multi: {error}"),
            }
        }
        let program = self.single.as_ref().ok_or(why)?;
        self.pmu.attach(program.as_fd(), &Place { pid, ..*place })
    }
}

impl Usdt {
    /// Puts the places of monitors in or takes them out, as the budget allows.
    pub(in crate::capture) fn allow(&mut self, allowed: bool) {
        let Some(monitors) = &mut self.attacher.monitors else {
            return;
        };
        let was_allowed = std::mem::replace(&mut monitors.allowed, allowed);
        if allowed {
            if !was_allowed {
                monitors.attach_all();
            }
            return;
        }
        monitors.begins.clear();
        monitors.ends.clear();
        // Their ends will not be seen. Where a probe of the machine's own began a wait it gave the name's address.
        let ours = |pair: u32| {
            monitors
                .libraries
                .iter()
                .any(|one| one.library.pair == pair)
        };
        let waits = self.waits.iter().flatten();
        let begun: Vec<WaitKey> = waits
            .filter(|(key, wait)| ours(key.0.pair) && wait.0.args[1] == 0)
            .map(|(key, _)| key.0)
            .collect();
        for key in begun {
            let _ = self.waits.remove(&PodWaitKey(key));
        }
    }

    /// What the places of monitors have cost so far, traps included, while the kernel's statistics are on.
    pub(super) fn monitors_ns(&self) -> u64 {
        let monitors = self.attacher.monitors.as_ref();
        let multi = monitors.and_then(|one| one.multi.as_ref());
        multi.map_or(0, |multi| {
            multi.run_time_ns() + multi.runs().saturating_mul(TRAP_NS)
        })
    }
}
