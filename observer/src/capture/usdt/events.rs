//! Events of USDT pairs: waits that ended, waits in progress, totals.

use std::{
    collections::{HashMap, HashSet},
    fs,
    sync::Arc,
};

use observer_common::usdt::{Record, ResourceKey, Stat, TEXT, Wait as Raw, WaitKey};

use super::{MAX_RESOURCES, MAX_WAITS, Pair, PodResourceKey, PodWaitKey, Usdt};
use crate::{
    capture::convert::Converter,
    event::{Addr, Blocked, LockClass, LockRef, LockTotals, Wait},
    histogram::Histogram,
    runtimes::packs::{Shared, Values},
};

/// Parents of processes that are remembered; beyond it the cache starts anew.
const MAX_PARENTS: usize = 16_384;

/// What is known of waits in progress, to report each at its time.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Waits that were reported, and at which age again.
    reported: HashMap<WaitKey, (Raw, u64)>,
    /// Found by the latest scan, to be reported now.
    due: Vec<Raw>,
    /// Reported before, and not found by the latest scan.
    vanished: Vec<Raw>,
    parents: HashMap<u32, u32>,
    /// What was counted in entries that were given back, of resources that are still waited for.
    retired: HashMap<Arc<str>, Part>,
    /// Waits in the totals of each resource when they were last reported.
    counted: HashMap<ResourceKey, u64>,
}

impl Usdt {
    /// A wait that ended.
    pub(in crate::capture) fn wait(
        &mut self,
        record: &Record,
        converter: &mut Converter,
    ) -> Option<Wait> {
        let raw = &record.wait;
        let same = |other: &Raw| key(other) == key(raw) && other.start_ns == raw.start_ns;
        self.progress.due.retain(|other| !same(other));
        self.progress.vanished.retain(|other| !same(other));
        if (self.progress.reported.get(&key(raw))).is_some_and(|(other, _)| same(other)) {
            self.progress.reported.remove(&key(raw));
        }
        let task = converter.task(raw.tgid, raw.tid, Some(&record.comm));
        self.ended(raw, record.end_ns, task, converter)
    }

    fn ended(
        &mut self,
        raw: &Raw,
        end_ns: u64,
        task: Arc<crate::event::TaskRef>,
        converter: &mut Converter,
    ) -> Option<Wait> {
        let lock = self.lock(raw.pair, raw.tgid, &raw.args, &raw.text)?;
        let pair = self.pairs.get(raw.pair as usize)?;
        Some(Wait {
            mode: mode(pair, raw),
            ended_by: (raw.end > 0)
                .then(|| pair.end_probe(raw.end))
                .flatten()
                .map(Arc::from),
            holder: None,
            causes: std::collections::BTreeMap::new(),
            time: converter.clock.wall(end_ns),
            mono_ns: end_ns,
            task,
            kind: pair.kind,
            dur_ns: end_ns.saturating_sub(raw.start_ns),
            blocked_ns: None,
            runqueue_ns: None,
            outcome: None,
            lock: Some(lock.into()),
            locks: Vec::new(),
            waker: None,
            syscall: None,
            probe: Some(pair.probe().into()),
            stack: None,
            at_least: false,
            end_unseen: false,
        })
    }

    /// Looks at the waits in progress: which are to be reported, and which are over.
    pub(in crate::capture) fn scan(&mut self, long_ns: u64, now_ns: u64) {
        let in_progress = self.in_progress();
        let progress = &mut self.progress;
        progress.due.clear();
        let mut seen = HashSet::new();
        let mut gone = Vec::new();
        for (raw_key, raw) in in_progress {
            let age_ns = now_ns.saturating_sub(raw.start_ns);
            if age_ns < long_ns {
                continue;
            }
            // A thread that ended inside its wait leaves it behind.
            if !is_alive(raw.tgid, raw.tid) {
                gone.push(raw_key);
                continue;
            }
            seen.insert((raw_key, raw.start_ns));
            let again = match progress.reported.get(&raw_key) {
                Some((known, again)) if known.start_ns == raw.start_ns => *again,
                _ => long_ns,
            };
            if age_ns >= again {
                let again = age_ns.saturating_mul(2);
                progress.reported.insert(raw_key, (raw, again));
                progress.due.push(raw);
            }
        }
        for key in gone {
            // Another thread of the number may have begun one meanwhile and lose it: then its end is not
            // seen, as if it had begun before observer.
            let _ = self.waits.remove(&PodWaitKey(key));
        }
        progress.vanished.clear();
        let vanished = &mut progress.vanished;
        progress.reported.retain(|key, (raw, _)| {
            let there = seen.contains(&(*key, raw.start_ns));
            if !there {
                vanished.push(*raw);
            }
            there
        });
    }

    /// What the latest scan found, now that the records of the waits that were over by then are read.
    pub(in crate::capture) fn blocked(
        &mut self,
        now_ns: u64,
        converter: &mut Converter,
    ) -> Vec<Blocked> {
        let due = std::mem::take(&mut self.progress.due);
        due.iter()
            .filter_map(|raw| {
                let lock = self.lock(raw.pair, raw.tgid, &raw.args, &raw.text)?;
                let pair = self.pairs.get(raw.pair as usize)?;
                Some(Blocked {
                    mode: mode(pair, raw),
                    access: None,
                    holder: None,
                    time: converter.clock.wall(now_ns),
                    mono_ns: now_ns,
                    task: converter.task(raw.tgid, raw.tid, None),
                    kind: pair.kind,
                    age_ns: now_ns.saturating_sub(raw.start_ns),
                    blocked_ns: None,
                    runqueue_ns: None,
                    lock: Some(lock.into()),
                    locks: Vec::new(),
                    syscall: None,
                    probe: Some(pair.probe().into()),
                    stack: None,
                    at_least: false,
                })
            })
            .collect()
    }

    /// Waits that were reported as in progress and are over, and whose record was lost.
    pub(in crate::capture) fn unseen_ends(
        &mut self,
        now_ns: u64,
        converter: &mut Converter,
    ) -> Vec<Wait> {
        let vanished = std::mem::take(&mut self.progress.vanished);
        vanished
            .iter()
            .filter_map(|raw| {
                let task = converter.task(raw.tgid, raw.tid, None);
                let wait = self.ended(raw, now_ns, task, converter)?;
                Some(Wait {
                    end_unseen: true,
                    ..wait
                })
            })
            .collect()
    }

    /// Totals of the resources that were waited for since the last call.
    pub(in crate::capture) fn totals(
        &mut self,
        now_ns: u64,
        converter: &mut Converter,
    ) -> Vec<LockTotals> {
        let mut waiters: HashMap<ResourceKey, u32> = HashMap::new();
        for raw in self.in_progress().values() {
            *waiters.entry(resource(raw)).or_default() += 1;
        }
        let all: Vec<(ResourceKey, Stat)> = self
            .stats
            .iter()
            .flatten()
            .map(|(key, stat)| (key.0, stat.0))
            .filter(|(_, stat)| stat.count > 0)
            .collect();
        // One that several processes share is told as one, if any of its parts changed.
        let mut quiet = Vec::new();
        let mut sums: HashMap<Arc<str>, Sum> = HashMap::new();
        for (key, stat) in all.iter().copied() {
            let Some(lock) = self.resource(&key, &stat) else {
                continue;
            };
            let changed = self.progress.counted.insert(key, stat.count) != Some(stat.count);
            let waiting = waiters.get(&key).copied().unwrap_or(0);
            if !changed && waiting == 0 {
                quiet.push((key, stat, Arc::clone(&lock.id)));
            }
            let retired = self.progress.retired.get(&lock.id).copied();
            let sum = sums.entry(Arc::clone(&lock.id)).or_insert_with(|| Sum {
                lock,
                tgid: key.tgid,
                part: retired.unwrap_or_default(),
                changed: false,
                waiters: 0,
            });
            sum.changed |= changed;
            sum.waiters += waiting;
            sum.part.add(&stat);
        }
        if all.len() >= MAX_RESOURCES as usize / 4 * 3 {
            self.evict(quiet, &sums);
        }
        sums.into_values()
            .filter(|sum| sum.changed)
            .map(|sum| sum.totals(now_ns, converter))
            .collect()
    }

    /// Waits in progress. They change meanwhile, and one may be met twice, or the walk begin anew.
    fn in_progress(&self) -> HashMap<WaitKey, Raw> {
        self.waits
            .iter()
            .take(MAX_WAITS as usize * 2)
            .flatten()
            .map(|(key, raw)| (key.0, raw.0))
            .collect()
    }

    /// Gives back entries of resources that were not waited for since the last call. Of one that other
    /// processes go on to wait for, what was counted stays in its sum. An entry that is waited for at this very
    /// moment loses that wait.
    fn evict(&mut self, quiet: Vec<(ResourceKey, Stat, Arc<str>)>, sums: &HashMap<Arc<str>, Sum>) {
        for (key, stat, id) in quiet {
            if self.stats.remove(&PodResourceKey(key)).is_err() {
                continue;
            }
            self.progress.counted.remove(&key);
            if self.progress.retired.len() >= MAX_RESOURCES as usize {
                self.evicted += self.progress.retired.drain().count() as u64;
            }
            if sums.get(&id).is_some_and(|sum| sum.changed) {
                self.progress.retired.entry(id).or_default().add(&stat);
            } else {
                self.progress.retired.remove(&id);
                self.evicted += 1;
            }
        }
    }

    /// A resource of the totals as a lock: of fleeting ones all of a sort are one.
    fn resource(&mut self, key: &ResourceKey, stat: &Stat) -> Option<LockRef> {
        let lock = self.lock(key.pair, key.tgid, &stat.args, &stat.text)?;
        let pair = self.pairs.get(key.pair as usize)?;
        let sort = pair.by.and_then(|by| stat.args.get(pair.slot(by)?));
        let Some((sort, name)) = sort.and_then(|sort| pair.fleeting.get_key_value(sort)) else {
            return Some(lock);
        };
        let scope = lock.id.split(':').next().unwrap_or_default();
        Some(LockRef {
            id: format!("{scope}:usdt:{}:all/{sort:#x}", pair.probe()).into(),
            name: Some(name.as_str().into()),
            addr: Addr::NONE,
            ..lock
        })
    }

    /// The resource as a lock.
    fn lock(&mut self, pair: u32, tgid: u32, args: &[u64], text: &[u64]) -> Option<LockRef> {
        let pair = self.pairs.get(pair as usize)?;
        let mut text = text_of(text);
        if pair.class == LockClass::JvmMonitor {
            text = java_class(&text);
        }
        let values = Values {
            args: &args[..pair.slots.len().min(args.len())],
            text: (!text.is_empty()).then_some(&text),
        };
        let scope = match pair.shared {
            Shared::No => tgid.to_string(),
            Shared::Siblings => parent(&mut self.progress.parents, tgid).to_string(),
            Shared::Host => "host".into(),
        };
        Some(LockRef {
            id: format!("{scope}:{}", pair.identity(args)).into(),
            class: pair.class,
            name: pair.name_of(&values).map(Arc::from),
            addr: pair
                .addr
                .and_then(|argument| args.get(pair.slot(argument)?))
                .map_or(Addr::NONE, |addr| Addr(*addr)),
            shared: pair.shared != Shared::No,
        })
    }
}

/// How the task wants the resource.
fn mode(pair: &Pair, raw: &Raw) -> Option<Arc<str>> {
    let values = Values {
        args: &raw.args[..pair.slots.len().min(raw.args.len())],
        text: None,
    };
    pair.mode_of(&values).map(Arc::from)
}

fn key(raw: &Raw) -> WaitKey {
    WaitKey {
        tid: raw.tid,
        pair: raw.pair,
    }
}

fn resource(raw: &Raw) -> ResourceKey {
    ResourceKey {
        resource: raw.resource,
        tgid: raw.tgid,
        pair: raw.pair,
    }
}

/// Text up to its NUL; what is no UTF-8 is replaced.
fn text_of(words: &[u64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A class's name in Java's form, of the machine's own; empty where it cannot be one: it comes from the memory of a
/// process, found by what another process said of the machine. Of a long one there is the beginning only.
fn java_class(text: &str) -> String {
    let is_cut = text.len() >= TEXT - 1;
    // The end may be within a character.
    let text = if is_cut {
        text.trim_end_matches(char::REPLACEMENT_CHARACTER)
    } else {
        text
    };
    if !text
        .chars()
        .all(|c| c.is_alphanumeric() || "_$/.;[+-<>".contains(c))
    {
        return String::new();
    }
    let name = text.replace('/', ".");
    if is_cut { name + "…" } else { name }
}

/// The parent of a process; of one that has ended, itself: nothing is joined that may not belong together.
fn parent(parents: &mut HashMap<u32, u32>, pid: u32) -> u32 {
    if let Some(parent) = parents.get(&pid) {
        return *parent;
    }
    let parent = fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        // The name is in parentheses and may hold some of its own.
        .and_then(|stat| {
            let fields = stat.rsplit_once(')')?.1;
            fields.split_ascii_whitespace().nth(1)?.parse().ok()
        })
        .unwrap_or(pid);
    if parents.len() >= MAX_PARENTS {
        parents.clear();
    }
    parents.insert(pid, parent);
    parent
}

fn is_alive(tgid: u32, tid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{tgid}/task/{tid}")).exists()
}

/// What was counted of a resource, or of a part of it.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    waits: u64,
    total_ns: u64,
    max_ns: u64,
    histogram: Histogram,
}

impl Part {
    fn add(&mut self, stat: &Stat) {
        self.waits += stat.count;
        self.total_ns = self.total_ns.saturating_add(stat.total_ns);
        self.max_ns = self.max_ns.max(stat.max_ns);
        self.histogram.merge(&stat.histogram);
    }
}

/// A resource, summed over the processes that share it.
struct Sum {
    lock: LockRef,
    tgid: u32,
    part: Part,
    changed: bool,
    waiters: u32,
}

impl Sum {
    fn totals(self, now_ns: u64, converter: &mut Converter) -> LockTotals {
        let Part {
            waits,
            total_ns,
            max_ns,
            histogram,
        } = self.part;
        LockTotals {
            holder: None,
            time: converter.clock.wall(now_ns),
            mono_ns: now_ns,
            lock: self.lock.into(),
            pid: Some(self.tgid),
            process: converter.names.of(self.tgid),
            waits,
            total_ns,
            max_ns,
            p50_ns: histogram.quantile(0.5, max_ns),
            p99_ns: histogram.quantile(0.99, max_ns),
            timeouts: 0,
            interrupted: 0,
            waiters_now: self.waiters,
            histogram: histogram.buckets(),
            callers: Vec::new(),
            estimated: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_at_its_nul() {
        let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
        assert_eq!(text_of(&[word(b"Lock\0xxx"), 0]), "Lock");
        assert_eq!(
            text_of(&[word(b"12345678"), word(b"9\0\0\0\0\0\0\0")]),
            "123456789"
        );
        assert_eq!(text_of(&[word(b"\xff\0\0\0\0\0\0\0")]), "\u{fffd}");
        assert_eq!(text_of(&[0]), "");
        assert_eq!(text_of(&[word(b"12345678")]), "12345678");
    }

    #[test]
    fn names_of_classes_are_such() {
        assert_eq!(java_class("java/lang/Object"), "java.lang.Object");
        assert_eq!(java_class("[I"), "[I");
        assert_eq!(java_class("Größe$$Lambda+0x7f"), "Größe$$Lambda+0x7f");
        assert_eq!(java_class("a b"), "");
        assert_eq!(java_class("\u{1b}[31m"), "");
        let long = format!("{}/é", "a".repeat(62));
        let cut = String::from_utf8_lossy(&long.as_bytes()[..64]).into_owned();
        assert_eq!(java_class(&cut), format!("{}.…", "a".repeat(62)));
    }

    #[test]
    fn parents_are_known_and_those_of_the_dead_are_themselves() {
        let mut parents = HashMap::new();
        let own = std::process::id();
        assert_eq!(
            parent(&mut parents, own),
            std::os::unix::process::parent_id()
        );
        assert_eq!(parent(&mut parents, u32::MAX / 2), u32::MAX / 2);
    }
}
