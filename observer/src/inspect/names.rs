//! Names of threads and processes, from `/proc`, kept for a while.

use std::{
    fs::File,
    io::Read,
    sync::Arc,
    time::{Duration, Instant},
};

use ahash::HashMap;

/// Names kept at most; beyond it the cache starts anew.
const CAPACITY: usize = 65_536;
/// A name is read again after this long: threads rename themselves.
const FRESH: Duration = Duration::from_secs(5);
/// That of a thread that does not run is read again after this long: another one may rename it.
const LASTING: Duration = Duration::from_mins(1);

/// A cache of names by thread or process.
#[derive(Debug)]
pub struct Names {
    known: HashMap<u32, Known>,
    fresh: Duration,
}

#[derive(Debug)]
struct Known {
    name: Option<Arc<str>>,
    at: Instant,
    /// It was there, in `/proc`, at that time. What the kernel told is older: by then the thread may have another name.
    from_proc: bool,
}

impl Default for Names {
    fn default() -> Self {
        Names {
            known: HashMap::default(),
            fresh: FRESH,
        }
    }
}

impl Names {
    /// Name of a thread (of a process: of its first thread); `None` if it has ended and was not known.
    pub fn of(&mut self, tid: u32) -> Option<Arc<str>> {
        self.of_waiting(tid, Duration::ZERO)
    }

    /// Name of a thread that has not run for so long: one that was read since then is still that, as it can only have
    /// been given another by others. Where ten thousand wait this spares as many looks into `/proc` whenever their
    /// waits are told of again.
    pub fn of_waiting(&mut self, tid: u32, age: Duration) -> Option<Arc<str>> {
        let now = Instant::now();
        if let Some(known) = self.known.get(&tid) {
            let ago = now.saturating_duration_since(known.at);
            if ago < self.fresh || (known.from_proc && ago < age.min(LASTING)) {
                return known.name.clone();
            }
        }
        let found = read(tid);
        let from_proc = found.is_some();
        let name = found.or_else(|| self.known.get(&tid).and_then(|old| old.name.clone()));
        self.keep(tid, name.clone(), from_proc);
        name
    }

    /// Takes the name that the kernel gave; shares the text with the one known.
    pub fn learn(&mut self, tid: u32, comm: &[u8]) -> Option<Arc<str>> {
        let end = comm.iter().position(|b| *b == 0).unwrap_or(comm.len());
        let text = String::from_utf8_lossy(&comm[..end]);
        if text.is_empty() {
            return self.of(tid);
        }
        if let Some(name) = self.known.get(&tid).and_then(|known| known.name.as_ref())
            && **name == *text
        {
            return Some(Arc::clone(name));
        }
        let name: Arc<str> = text.into();
        self.keep(tid, Some(Arc::clone(&name)), false);
        Some(name)
    }

    fn keep(&mut self, tid: u32, name: Option<Arc<str>>, from_proc: bool) {
        if self.known.len() >= CAPACITY {
            self.known.clear();
        }
        let known = Known {
            name,
            at: Instant::now(),
            from_proc,
        };
        self.known.insert(tid, known);
    }
}

/// `/proc/TID/comm` works for every thread, though only processes are listed there.
fn read(tid: u32) -> Option<Arc<str>> {
    let mut bytes = [0u8; 64];
    let length = File::open(format!("/proc/{tid}/comm"))
        .ok()?
        .read(&mut bytes)
        .ok()?;
    let name = bytes[..length]
        .strip_suffix(b"\n")
        .unwrap_or(&bytes[..length]);
    Some(String::from_utf8_lossy(name).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_living_and_dead() {
        let mut names = Names::default();
        assert!(names.of(std::process::id()).is_some());
        assert_eq!(names.of(u32::MAX), None);
        assert_eq!(names.learn(u32::MAX, b"gone\0\0").as_deref(), Some("gone"));
        assert_eq!(names.of(u32::MAX).as_deref(), Some("gone"));
        assert_eq!(
            names.learn(7, b"\xff\x1b[31m\0").as_deref(),
            Some("\u{fffd}\u{1b}[31m")
        );
    }
    #[test]
    fn only_a_name_that_was_read_outlives_a_while() {
        let hour = Duration::from_hours(1);
        let own = std::fs::read_link("/proc/thread-self").unwrap();
        let tid = own.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let rename = |name: &str| std::fs::write("/proc/thread-self/comm", name).unwrap();
        let mut names = Names {
            fresh: Duration::ZERO,
            ..Names::default()
        };
        rename("new");
        assert_eq!(names.learn(tid, b"old\0").as_deref(), Some("old"));
        assert_eq!(names.of_waiting(tid, hour).as_deref(), Some("new"));
        rename("newest");
        assert_eq!(names.of_waiting(tid, hour).as_deref(), Some("new"));
        assert_eq!(names.of(tid).as_deref(), Some("newest"));
        // It could not be read at first.
        names.keep(tid, None, false);
        assert_eq!(names.of_waiting(tid, hour).as_deref(), Some("newest"));
        // It waits for longer than a name is believed.
        if let Some(at) = Instant::now().checked_sub(LASTING) {
            rename("last");
            names.known.get_mut(&tid).unwrap().at = at;
            assert_eq!(names.of_waiting(tid, hour).as_deref(), Some("last"));
        }
    }
}
