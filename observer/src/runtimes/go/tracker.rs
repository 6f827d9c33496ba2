//! What changes from one inventory to the next: ages, and growth per place that starts goroutines.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use serde::Serialize;

use super::inventory::{GoFrame, Goroutine, Inventory, WaitsFor};

/// Looks kept of each place.
const MAX_SAMPLES: usize = 32;
/// Places followed; beyond it new ones are not.
const MAX_SITES: usize = 16_384;
/// Looks in a row in which a place must grow to be called a leak.
const GROWING: usize = 3;
const NS_PER_MINUTE: f64 = 60e9;

/// Follows one process from look to look.
#[derive(Debug, Default)]
pub struct Tracker {
    seen: HashMap<u64, Seen>,
    sites: HashMap<Option<Arc<GoFrame>>, Site>,
    looks: u64,
    /// When the last look began.
    last_ns: u64,
}

/// A goroutine that was seen.
#[derive(Debug)]
struct Seen {
    first_ns: u64,
    /// What it waited for, as a hash, and since when it was seen so.
    wait: u64,
    since_ns: u64,
    site: Option<Arc<GoFrame>>,
    /// The look that saw it last.
    look: u64,
}

/// A place that starts goroutines.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Site {
    /// The place; absent: not known, as for the first goroutine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Arc<GoFrame>>,
    /// What was counted, the latest last.
    pub samples: VecDeque<Sample>,
    /// Goroutines that appeared between the last two looks. Those that were not there at either are not
    /// known.
    pub births: usize,
    /// Goroutines that ended between the last two looks.
    pub deaths: usize,
    /// The first moment that the oldest living one was seen at, on `CLOCK_MONOTONIC`, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_seen_ns: Option<u64>,
}

/// A place at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub mono_ns: u64,
    /// Goroutines from there.
    pub count: usize,
    /// Those of them that wait.
    pub blocked: usize,
}

/// A place whose goroutines become more and more, and wait.
#[derive(Clone, Debug, Serialize)]
pub struct Leak {
    /// Where they are started.
    pub created_by: Arc<GoFrame>,
    /// The last counts.
    pub counts: Vec<usize>,
    /// Those that wait now.
    pub blocked: usize,
    /// How many more there are after a minute at this rate.
    pub growth_per_minute: f64,
    /// The age of the oldest, at least, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ns: Option<u64>,
}

impl Site {
    /// Goroutines more per minute, over all samples that are kept; none from one sample.
    pub fn growth_per_minute(&self) -> Option<f64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let time = last
            .mono_ns
            .checked_sub(first.mono_ns)
            .filter(|ns| *ns > 0)?;
        Some((last.count as f64 - first.count as f64) / time as f64 * NS_PER_MINUTE)
    }

    /// Does it grow, and do those who came stay blocked, in each of the last looks?
    fn is_growing(&self) -> bool {
        let last: Vec<&Sample> = self.samples.iter().rev().take(GROWING).collect();
        last.len() == GROWING
            && last
                .windows(2)
                .all(|pair| pair[0].count > pair[1].count && pair[0].blocked > pair[1].blocked)
    }
}

impl Tracker {
    /// Takes a look: writes the ages into it, and remembers what it shows.
    pub fn observe(&mut self, inventory: &mut Inventory) {
        self.looks += 1;
        self.last_ns = inventory.mono_ns;
        for site in self.sites.values_mut() {
            (site.births, site.deaths, site.oldest_seen_ns) = (0, 0, None);
        }
        let mut counts: HashMap<Option<*const GoFrame>, (Option<Arc<GoFrame>>, Sample)> =
            HashMap::new();
        let mut births: Vec<Option<Arc<GoFrame>>> = Vec::new();
        let is_first = self.looks == 1;
        for goroutine in inventory.goroutines.iter_mut().filter(|g| !g.system) {
            let first_ns = self.see(goroutine, inventory.mono_ns, &mut births);
            let address = goroutine.created_by.as_ref().map(Arc::as_ptr);
            let (_, sample) = counts.entry(address).or_insert_with(|| {
                let nothing = Sample {
                    mono_ns: inventory.mono_ns,
                    count: 0,
                    blocked: 0,
                };
                (goroutine.created_by.clone(), nothing)
            });
            sample.count += 1;
            sample.blocked += usize::from(goroutine.is_blocked());
            if let Some(site) = self.sites.get_mut(&goroutine.created_by) {
                site.oldest_seen_ns =
                    Some(site.oldest_seen_ns.map_or(first_ns, |ns| ns.min(first_ns)));
            }
        }
        self.count(counts, inventory.mono_ns);
        if !is_first {
            for site in births {
                if let Some(site) = self.sites.get_mut(&site) {
                    site.births += 1;
                }
            }
        }
        self.bury(inventory.torn > 0 || inventory.left_out > 0);
    }

    /// Notes one goroutine, and gives the moment that it was first seen.
    fn see(
        &mut self,
        goroutine: &mut Goroutine,
        now: u64,
        births: &mut Vec<Option<Arc<GoFrame>>>,
    ) -> u64 {
        let wait = wait_of(goroutine);
        let seen = self.seen.entry(goroutine.goid).or_insert_with(|| {
            births.push(goroutine.created_by.clone());
            Seen {
                first_ns: now,
                wait,
                since_ns: now,
                site: goroutine.created_by.clone(),
                look: 0,
            }
        });
        if seen.wait != wait {
            (seen.wait, seen.since_ns) = (wait, now);
        }
        seen.look = self.looks;
        goroutine.first_seen_ns = Some(seen.first_ns);
        goroutine.waiting_since_ns = goroutine.is_blocked().then_some(seen.since_ns);
        seen.first_ns
    }

    fn count(
        &mut self,
        counts: HashMap<Option<*const GoFrame>, (Option<Arc<GoFrame>>, Sample)>,
        now: u64,
    ) {
        for (created_by, sample) in counts.into_values() {
            if self.sites.len() >= MAX_SITES && !self.sites.contains_key(&created_by) {
                continue;
            }
            let site = self.sites.entry(created_by.clone()).or_default();
            site.created_by = created_by;
            // The same place may have come at two addresses: a frame is read anew at times.
            match site.samples.back_mut() {
                Some(last) if last.mono_ns == now => {
                    last.count += sample.count;
                    last.blocked += sample.blocked;
                }
                _ => site.samples.push_back(sample),
            }
        }
        for site in self.sites.values_mut() {
            if site.samples.back().is_some_and(|last| last.mono_ns != now) {
                site.samples.push_back(Sample {
                    mono_ns: now,
                    count: 0,
                    blocked: 0,
                });
            }
            while site.samples.len() > MAX_SAMPLES {
                site.samples.pop_front();
            }
        }
        // A place without goroutines for as long as is remembered is forgotten.
        self.sites
            .retain(|_, site| site.samples.iter().any(|sample| sample.count > 0));
    }

    /// Forgets goroutines that ended. Who is missing from a look that was not whole may be in the next.
    fn bury(&mut self, in_doubt: bool) {
        let (sites, looks) = (&mut self.sites, self.looks);
        self.seen.retain(|_, seen| {
            let is_there = seen.look + u64::from(in_doubt) >= looks;
            if !is_there && let Some(site) = sites.get_mut(&seen.site) {
                site.deaths += 1;
            }
            is_there
        });
    }

    /// How many looks there were.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// The places that start goroutines, those with most first.
    pub fn sites(&self) -> Vec<&Site> {
        let count = |site: &Site| site.samples.back().map_or(0, |sample| sample.count);
        let mut sites: Vec<&Site> = self.sites.values().collect();
        sites.sort_by_key(|site| std::cmp::Reverse(count(site)));
        sites
    }
}

/// Places whose goroutines became more in each of three looks, and wait.
pub fn leaks(tracker: &Tracker) -> Vec<Leak> {
    let leak = |site: &Site| {
        let last = site.samples.back()?;
        Some(Leak {
            created_by: site.created_by.clone()?,
            counts: site.samples.iter().map(|sample| sample.count).collect(),
            blocked: last.blocked,
            growth_per_minute: site.growth_per_minute()?,
            oldest_ns: site
                .oldest_seen_ns
                .map(|first| tracker.last_ns.saturating_sub(first)),
        })
    };
    let growing = tracker.sites().into_iter().filter(|site| site.is_growing());
    growing.filter_map(leak).collect()
}

/// What a goroutine waits for and where, as a number: the same at two looks if it is likely the same wait.
fn wait_of(goroutine: &Goroutine) -> u64 {
    let mut hasher = DefaultHasher::new();
    goroutine.state.hash(&mut hasher);
    goroutine.wait_reason.hash(&mut hasher);
    for frame in &goroutine.stack.frames {
        frame.addr.hash(&mut hasher);
    }
    for what in &goroutine.waits_for {
        match what {
            WaitsFor::Channel { addr, .. } | WaitsFor::Lock { addr, .. } => addr.hash(&mut hasher),
            WaitsFor::Io { fd, .. } => fd.hash(&mut hasher),
            WaitsFor::Deadline { mono_ns } => mono_ns.hash(&mut hasher),
        }
    }
    hasher.finish()
}
