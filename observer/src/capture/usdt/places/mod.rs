//! Which places of a file are attached to, and attaching to them: at the start, and to files that are mapped later.

mod java;
mod told;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use anyhow::Result;
use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::UProbe,
};
use observer_common::usdt::{Spec, role};

use self::java::{EARLY, Early, Java};
pub(in crate::capture) use self::told::Told;
use super::{
    MAX_PLACES, PodSpec,
    attach::{Place, Pmu, descriptors},
    find::{Finder, Found, Identity, Looked},
    monitors::{self, Monitors},
    multi::Multi,
    spec,
};
use crate::{
    capture::load::{first_line, program},
    event::Missing,
    inspect::{
        proc,
        usdt::{Probe, files},
    },
    runtimes::packs::Pair,
    time::mono_ns,
};

/// Places of one file.
const MAX_OF_FILE: u32 = MAX_PLACES / 8;

/// The kernel program, in the forms that it is attached in.
pub(super) struct Way {
    pub(super) pmu: Pmu,
    /// To many places at a time, where the kernel can.
    pub(super) multi: Option<Multi>,
    /// One by one: loaded when it is needed first.
    pub(super) single: Option<OwnedFd>,
}

impl Way {
    /// Loads the program that is attached one by one, if it is not loaded.
    pub(super) fn single(&mut self, ebpf: &mut Ebpf) -> Result<BorrowedFd<'_>, String> {
        let single = match self.single.take() {
            Some(single) => single,
            None => load(ebpf).map_err(|error| {
                let why = first_line(&error);
                format!("the kernel refused the program: {why}")
            })?,
        };
        let single: &OwnedFd = self.single.insert(single);
        Ok(single.as_fd())
    }
}

fn load(ebpf: &mut Ebpf) -> Result<OwnedFd> {
    let program: &mut UProbe = program(ebpf, "usdt")?.try_into()?;
    program.load()?;
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

/// A place that is to be attached to.
struct Wanted {
    pair: u32,
    begins: bool,
    probe: String,
    place: Place,
}

/// A file that is attached to.
struct Attached {
    path: String,
    /// Its places name it by its descriptor.
    file: Arc<File>,
    wanted: Vec<Wanted>,
    /// Processes that it is attached to for; none: for all.
    pids: Vec<u32>,
    /// Pairs of which it was told that they are attached to.
    told: HashSet<u32>,
}

/// Attaches file by file.
pub(super) struct Attacher {
    pub(super) pairs: Arc<[Pair]>,
    pub(super) way: Way,
    pub(super) specs: Array<MapData, PodSpec>,
    pub(super) finder: Finder,
    /// What Java virtual machines' own functions tell, if a pair is of that.
    pub(super) monitors: Option<Monitors>,
    /// Cookies in use, and how many were when the file was met that is being attached to.
    places: u32,
    before: u32,
    /// Descriptors that this process may have.
    limit: u64,
    /// One a place and process, or one a file and process; closing one lowers the semaphore again.
    links: Vec<OwnedFd>,
    /// Files that may be attached to for another process.
    files: HashMap<Identity, Attached>,
    /// Is the start over?
    pub(super) later: bool,
    early: HashMap<Identity, Early>,
    /// By path, why nothing was taken of a file.
    refused: HashMap<String, Vec<Missing>>,
    told: Told,
}

impl Attacher {
    pub(super) fn new(
        pairs: &[Pair],
        way: Way,
        specs: Array<MapData, PodSpec>,
        monitors: Option<Monitors>,
    ) -> Attacher {
        Attacher {
            pairs: pairs.into(),
            way,
            specs,
            finder: Finder::default(),
            monitors,
            places: 0,
            before: 0,
            limit: descriptors(),
            links: Vec::new(),
            files: HashMap::new(),
            later: false,
            early: HashMap::new(),
            refused: HashMap::new(),
            told: Told::default(),
        }
    }

    /// What is to be told since the last call.
    pub(super) fn told(&mut self) -> Told {
        mem::take(&mut self.told)
    }

    /// Is nothing attached to?
    pub(super) fn is_idle(&self) -> bool {
        self.links.is_empty()
    }

    /// Why there is no room for another place, if so.
    pub(super) fn full(&self) -> Option<String> {
        if self.places >= MAX_PLACES {
            return Some(format!("all {MAX_PLACES} places are in use"));
        }
        self.crowded()
    }

    /// Why nothing else can be attached to, if so. The other half of the descriptors is for everything else.
    fn crowded(&self) -> Option<String> {
        let links = self.links.len() + self.monitors.as_ref().map_or(0, Monitors::links);
        let open = (links + self.files.len()) as u64;
        (open >= self.limit / 2).then(|| {
            format!(
                "half of the {} descriptors that observer may have are in use (ulimit -n)",
                self.limit
            )
        })
    }

    /// Attaches to the files that a process maps, from this one of them on: for it alone, or for all that map them. One
    /// that has ended meanwhile maps nothing. When it is time to stop, which one is the next.
    pub(super) fn process(
        &mut self,
        ebpf: &mut Ebpf,
        pid: u32,
        alone: bool,
        from: usize,
        until_ns: u64,
    ) -> Option<usize> {
        let files = files::mapped(pid).unwrap_or_default();
        for (number, mapped) in files.iter().enumerate().skip(from) {
            self.mapped(ebpf, pid, mapped, alone.then_some(pid));
            if number + 1 < files.len() && mono_ns() >= until_ns {
                return Some(number + 1);
            }
        }
        None
    }

    fn mapped(&mut self, ebpf: &mut Ebpf, pid: u32, mapped: &files::Mapped, only: Option<u32>) {
        let pairs = Arc::clone(&self.pairs);
        match self.finder.mapped(pid, mapped, &pairs) {
            Looked::New(found) => self.new_file(ebpf, *found, only),
            Looked::Known(identity) => match self.early.remove(&identity) {
                Some(Early { mut found, java }) => {
                    found.mapped_by = Some(pid);
                    self.file(ebpf, found, Some(java), only);
                }
                None => self.join(ebpf, identity, only),
            },
            Looked::Other => {}
        }
    }

    /// What has been there for long is looked at anew: files without probes, and machines that told nothing more.
    pub(super) fn forget(&mut self) {
        let finder = &mut self.finder;
        self.early.retain(|identity, early| {
            let is_early = early.java.since.elapsed() < EARLY;
            if !is_early {
                finder.take_back(*identity);
            }
            is_early
        });
        finder.forget();
    }

    /// Attaches to a file that a pair names.
    pub(super) fn path(&mut self, ebpf: &mut Ebpf, path: &Path) {
        let pairs = Arc::clone(&self.pairs);
        let why = match self.finder.named(path, &pairs) {
            Ok(Looked::New(found)) => return self.new_file(ebpf, *found, None),
            Ok(Looked::Known(_)) => return,
            Ok(Looked::Other) => "it has none of the pack's probes".to_owned(),
            Err(error) => error.to_string(),
        };
        self.told.missing.push(Missing {
            feature: format!("usdt: {}", path.display()),
            why,
        });
    }

    fn new_file(&mut self, ebpf: &mut Ebpf, found: Found, pid: Option<u32>) {
        let java = self.java(&found);
        self.file(ebpf, found, java, pid);
    }

    fn file(&mut self, ebpf: &mut Ebpf, found: Found, java: Option<Java>, pid: Option<u32>) {
        let places = java.as_ref().map(|java| {
            let symbols = java.symbols.as_ref().map_err(Clone::clone)?;
            monitors::find(&found, symbols)
        });
        let java = match (java, &places) {
            (Some(java), Some(Ok(places)))
                if self.later && places.unnamed.is_some() && java.since.elapsed() < EARLY =>
            {
                return self.keep(Early { found, java });
            }
            (java, _) => java.zip(places),
        };
        let told = self.told.missing.len();
        self.before = self.places;
        let pairs = Arc::clone(&self.pairs);
        let mut wanted = Vec::new();
        for (number, pair) in pairs.iter().enumerate() {
            self.want(&found, number as u32, pair, &mut wanted);
        }
        let library = java.and_then(|(java, places)| self.library(&found, java.number, places));
        if wanted.is_empty() && library.is_none() {
            return self.refuse_file(&found, told);
        }
        let mut attached = Attached {
            path: found.path,
            file: Arc::new(found.file),
            wanted,
            pids: pid.into_iter().collect(),
            told: HashSet::new(),
        };
        self.attach(ebpf, &mut attached, pid);
        if let (Some(library), Some(monitors)) = (library, &mut self.monitors) {
            let refused = monitors.add(found.identity, library, Arc::clone(&attached.file), pid);
            let refused = refused.filter(|_| !pid.is_some_and(is_gone));
            self.told.missing.extend(refused);
        }
        self.cut_short(told, &attached.path);
        if pid.is_some() {
            self.files.insert(found.identity, attached);
        }
    }

    /// Attaches for another process to a file that is attached to.
    fn join(&mut self, ebpf: &mut Ebpf, identity: Identity, pid: Option<u32>) {
        let (Some(pid), Some(mut file)) = (pid, self.files.remove(&identity)) else {
            return;
        };
        if !file.pids.contains(&pid) {
            let told = self.told.missing.len();
            file.pids.push(pid);
            self.attach(ebpf, &mut file, Some(pid));
            if let Some(monitors) = &mut self.monitors {
                let refused = monitors.join(identity, pid).filter(|_| !is_gone(pid));
                self.told.missing.extend(refused);
            }
            self.cut_short(told, &file.path);
        }
        self.files.insert(identity, file);
    }

    /// Notes all places of a pair in a file. The ends first: a wait whose beginning is seen must not miss
    /// it.
    fn want(&mut self, found: &Found, number: u32, pair: &Pair, wanted: &mut Vec<Wanted>) {
        let of = |name: &str| {
            let (provider, name) = (pair.provider.clone(), name.to_owned());
            found
                .binary
                .probes
                .iter()
                .filter(move |probe| probe.provider == provider && probe.name == name)
        };
        let begins: Vec<_> = of(&pair.begin)
            .filter_map(|probe| {
                let spec = spec::begin(pair, number, probe, &found.binary);
                spec.map_err(|why| self.refuse(&found.path, &named(probe), why))
                    .ok()
                    .map(|spec| (probe, spec))
            })
            .collect();
        if begins.is_empty() {
            return;
        }
        let before = wanted.len();
        for (which, name) in pair.ends.iter().enumerate() {
            for probe in of(name) {
                wanted.extend(self.want_place(found, probe, spec::end(number, which as u8)));
            }
        }
        if wanted.len() == before {
            self.endless(&found.path, pair);
            return;
        }
        for (probe, spec) in begins {
            wanted.extend(self.want_place(found, probe, spec));
        }
    }

    fn endless(&mut self, path: &str, pair: &Pair) {
        let why = format!(
            "nothing would end its waits: there is no {} that can be attached to",
            pair.ends.join(" or ")
        );
        self.refuse(path, &pair.probe(), why);
    }

    fn refuse(&mut self, path: &str, probe: &str, why: String) {
        self.told.missing.push(Missing {
            feature: format!("usdt/{probe} in {path}"),
            why,
        });
    }

    /// Gives a place its cookie and tells the kernel program what it means.
    fn want_place(&mut self, found: &Found, probe: &Probe, spec: Spec) -> Option<Wanted> {
        let cookie = self.places;
        let full = (cookie - self.before >= MAX_OF_FILE)
            .then(|| format!("more than {MAX_OF_FILE} places of one file"))
            .or_else(|| self.full());
        let why = match (full, probe.offset, &probe.refused) {
            (Some(full), ..) => full,
            (None, Some(offset), None) => match self.specs.set(cookie, PodSpec(spec), 0) {
                Ok(()) => {
                    self.places += 1;
                    return Some(Wanted {
                        pair: spec.pair,
                        begins: spec.role == role::BEGIN,
                        probe: named(probe),
                        place: Place {
                            file: found.file.as_raw_fd(),
                            offset,
                            semaphore: probe.semaphore.and_then(|semaphore| semaphore.offset),
                            pid: None,
                            cookie: u64::from(cookie),
                        },
                    });
                }
                Err(error) => format!("cannot tell the kernel program of it: {error}"),
            },
            (None, _, refused) => refused.clone().unwrap_or_default(),
        };
        self.refuse(&found.path, &named(probe), why);
        None
    }

    /// Attaches to what was noted of a file, for one process or all.
    fn attach(&mut self, ebpf: &mut Ebpf, file: &mut Attached, pid: Option<u32>) {
        if file.wanted.is_empty() {
            return;
        }
        let places: Vec<Place> = file.wanted.iter().map(|wanted| wanted.place).collect();
        let multi = self.way.multi.as_ref().filter(|_| self.crowded().is_none());
        let (how, begun) = match multi.map(|multi| multi.attach(pid, &places)) {
            Some(Ok(link)) => {
                self.links.push(link);
                let begun = file.wanted.iter().map(|wanted| wanted.pair).collect();
                (" (uprobe.multi)", begun)
            }
            refused => {
                if let Some(Err(error)) = refused {
                    log::debug!("usdt: {}, one by one: {error}", file.path);
                }
                ("", self.one_by_one(ebpf, file, pid))
            }
        };
        for (number, pair) in (0..).zip(self.pairs.iter()) {
            if begun.contains(&number) && file.told.insert(number) {
                let (probe, path) = (pair.probe(), &file.path);
                let hook = format!("usdt/{probe} in {path}{how}");
                self.told.attached.push(hook);
            }
        }
    }

    /// Attaches to each place by itself, and says which could not be. The pairs whose waits are seen to begin.
    fn one_by_one(&mut self, ebpf: &mut Ebpf, file: &Attached, pid: Option<u32>) -> HashSet<u32> {
        let mut begun = HashSet::new();
        let mut ends = HashSet::new();
        let mut endless = HashSet::new();
        for wanted in &file.wanted {
            if wanted.begins && !ends.contains(&wanted.pair) {
                let pairs = Arc::clone(&self.pairs);
                if endless.insert(wanted.pair)
                    && let Some(pair) = pairs.get(wanted.pair as usize)
                {
                    self.endless(&file.path, pair);
                }
                continue;
            }
            let place = Place {
                pid,
                ..wanted.place
            };
            let pmu = self.way.pmu;
            let attached = if let Some(why) = self.crowded() {
                Err(why)
            } else {
                let single = self.way.single(ebpf);
                single.and_then(|program| pmu.attach(program, &place))
            };
            match attached {
                Ok(link) => {
                    self.links.push(link);
                    let set = if wanted.begins { &mut begun } else { &mut ends };
                    set.insert(wanted.pair);
                }
                // It has ended meanwhile.
                Err(_) if pid.is_some_and(is_gone) => break,
                Err(why) => {
                    let who = pid.map_or_else(String::new, |pid| format!("process {pid}: "));
                    self.refuse(&file.path, &wanted.probe, format!("{who}{why}"));
                }
            }
        }
        begun
    }
}

/// Has a process ended, but for its number?
fn is_gone(pid: u32) -> bool {
    proc::stat(pid, pid).is_none_or(|stat| stat.state == proc::State::Ended)
}

/// `provider:name`.
fn named(probe: &Probe) -> String {
    format!("{}:{}", probe.provider, probe.name)
}
