//! Names of threads and processes, from `/proc`, kept for a while.

use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    sync::Arc,
    time::{Duration, Instant},
};

/// Names kept at most; beyond it the cache starts anew.
const CAPACITY: usize = 65_536;
/// A name is read again after this long: threads rename themselves.
const FRESH: Duration = Duration::from_secs(5);

/// A cache of names by thread or process.
#[derive(Debug, Default)]
pub struct Names {
    known: HashMap<u32, (Option<Arc<str>>, Option<Instant>)>,
}

impl Names {
    /// Name of a thread (of a process: of its first thread); `None` if it has ended and was not known.
    pub fn of(&mut self, tid: u32) -> Option<Arc<str>> {
        let now = Instant::now();
        if let Some((name, read)) = self.known.get(&tid)
            && read.is_some_and(|at| now.duration_since(at) < FRESH)
        {
            return name.clone();
        }
        let name = read(tid).or_else(|| self.known.get(&tid).and_then(|(old, _)| old.clone()));
        if self.known.len() >= CAPACITY {
            self.known.clear();
        }
        self.known.insert(tid, (name.clone(), Some(now)));
        name
    }

    /// Takes the name that the kernel gave; shares the text with the one known.
    pub fn learn(&mut self, tid: u32, comm: &[u8]) -> Option<Arc<str>> {
        let end = comm.iter().position(|b| *b == 0).unwrap_or(comm.len());
        let text = String::from_utf8_lossy(&comm[..end]);
        if text.is_empty() {
            return self.of(tid);
        }
        if let Some((Some(known), _)) = self.known.get(&tid)
            && **known == *text
        {
            return Some(Arc::clone(known));
        }
        let name: Arc<str> = text.into();
        if self.known.len() >= CAPACITY {
            self.known.clear();
        }
        self.known
            .insert(tid, (Some(Arc::clone(&name)), Some(Instant::now())));
        Some(name)
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
}
