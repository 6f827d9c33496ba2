//! Follows the goroutines of one process from look to look, and makes events of them.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    inventory::Inventory,
    snapshot::Limits,
    stuck::{self, Cycle, Orphan},
    target::{Refused, Target},
    told::{self, Beside},
    tracker::Tracker,
};
use crate::{
    event::{Addr, Goroutines, SocketRef},
    inspect::{proc, sockets},
    time::WallTime,
};

/// Sockets remembered from look to look.
const MAX_SOCKETS: usize = 4096;
/// New sockets are looked for this often.
const SOCKETS_EVERY: Duration = Duration::from_secs(5);

/// Who waits for what, and for whom.
type Ring = Vec<(u64, Addr, u64)>;

/// A Go process that is looked at again and again.
pub struct Follower {
    target: Target,
    process: Option<Arc<str>>,
    tracker: Tracker,
    /// Circles of the last look: told when the next one sees them too.
    rings: Vec<Ring>,
    /// Channels that nobody could reach at the last search, likewise.
    suspects: Vec<Addr>,
    /// Those that were confirmed, as long as the same goroutines wait.
    orphans: Vec<Orphan>,
    in_doubt: bool,
    in_vain: bool,
    /// Sockets by inode; none: not one that can be told.
    sockets: HashMap<u64, Option<SocketRef>>,
    sockets_read: Option<Instant>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

impl Follower {
    /// Makes a process ready.
    ///
    /// # Errors
    /// Why its goroutines cannot be seen.
    pub fn open(pid: u32) -> Result<Follower, Refused> {
        Ok(Follower {
            target: Target::open(pid)?,
            process: proc::stat(pid, pid).map(|stat| stat.comm.into()),
            tracker: Tracker::default(),
            rings: Vec::new(),
            suspects: Vec::new(),
            orphans: Vec::new(),
            in_doubt: false,
            in_vain: false,
            sockets: HashMap::new(),
            sockets_read: None,
        })
    }

    /// Looks once. `wall`: the wall clock at a time of `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    /// As [`Target::snapshot`].
    pub fn look(
        &mut self,
        limits: &Limits,
        wall: impl Fn(u64) -> WallTime,
    ) -> Result<Goroutines, Refused> {
        let began = Instant::now();
        let mut inventory = self.target.snapshot(limits)?;
        self.tracker.observe(&mut inventory);
        let cycles = self.cycles(&inventory);
        self.in_vain = inventory.searched_in_vain;
        self.confirm_orphans(&inventory, limits.search > 0 && !self.in_vain);
        let mut told = told::told(
            &inventory,
            Beside {
                process: self.process.clone(),
                time: wall(inventory.mono_ns),
                tracker: &self.tracker,
                cycles: &cycles,
                orphans: &self.orphans,
            },
        );
        self.name_files(&mut told);
        told.took_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(told)
    }

    /// Did the last look see something that is told only if the next one sees it too?
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Was the process too busy to tell which channels nobody can reach?
    pub fn searched_in_vain(&self) -> bool {
        self.in_vain
    }

    /// Says what the descriptors are that are waited for.
    fn name_files(&mut self, told: &mut Goroutines) {
        let pid = told.pid;
        let waits = || told.groups.iter().flat_map(|group| &group.waits_for);
        let files: HashMap<u32, String> = waits()
            .filter_map(|wait| Some((wait.fd?, proc::file(pid, wait.fd?.into())?)))
            .collect();
        let inodes = files.values().filter_map(|file| sockets::inode(file));
        let new: BTreeSet<u64> = inodes
            .filter(|inode| !self.sockets.contains_key(inode))
            .collect();
        // The lists of a host with many connections are long.
        let is_time = |read: Instant| read.elapsed() >= SOCKETS_EVERY;
        if !new.is_empty() && self.sockets_read.is_none_or(is_time) {
            if self.sockets.len() > MAX_SOCKETS {
                self.sockets.clear();
            }
            let mut found = sockets::find(pid, &new);
            let known = new.into_iter().map(|inode| (inode, found.remove(&inode)));
            self.sockets.extend(known);
            self.sockets_read = Some(Instant::now());
        }
        for wait in told
            .groups
            .iter_mut()
            .flat_map(|group| &mut group.waits_for)
        {
            let Some(file) = wait.fd.and_then(|fd| files.get(&fd)) else {
                continue;
            };
            let known = sockets::inode(file).and_then(|inode| self.sockets.get(&inode));
            wait.socket = known.cloned().flatten();
            wait.file = Some(file.as_str().into());
        }
    }

    /// The circles that the look before saw as well.
    fn cycles(&mut self, inventory: &Inventory) -> Vec<Cycle> {
        let ring = |cycle: &Cycle| -> Ring {
            let steps = cycle.steps.iter();
            steps
                .map(|step| (step.goid, step.lock, step.holder))
                .collect()
        };
        let mut cycles = stuck::cycles(inventory);
        let rings: Vec<Ring> = cycles.iter().map(ring).collect();
        cycles.retain(|cycle| self.rings.contains(&ring(cycle)));
        self.in_doubt = cycles.len() < rings.len();
        self.rings = rings;
        cycles
    }

    fn confirm_orphans(&mut self, inventory: &Inventory, searched: bool) {
        let still = |orphan: &Orphan| {
            orphan.goids.iter().all(|goid| {
                inventory.goroutine(*goid).is_some_and(|goroutine| {
                    goroutine.channels().any(|addr| addr == orphan.channel)
                })
            })
        };
        self.orphans.retain(still);
        if !searched {
            return;
        }
        let found = stuck::orphan_channels(inventory);
        let suspects: Vec<Addr> = found.iter().map(|orphan| orphan.channel).collect();
        let confirmed = found
            .into_iter()
            .filter(|orphan| self.suspects.contains(&orphan.channel));
        self.orphans = confirmed.collect();
        self.in_doubt |= self.orphans.len() < suspects.len();
        self.suspects = suspects;
    }
}
