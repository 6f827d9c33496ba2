//! Did a process run meanwhile?
//!
//! What is read of memory one piece after the other is of one moment if nobody wrote to it in between. A thread
//! that slept at both ends and did not leave a CPU once more slept all the time.

use crate::inspect::proc;

/// Threads asked.
const MAX_THREADS: usize = 4096;

/// How often each thread has left a CPU, by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asleep(Vec<(u32, u64)>);

/// Looks at all threads. None: one of them runs or wants to, or it cannot be told.
pub(super) fn look(pid: u32) -> Option<Asleep> {
    let mut threads = proc::threads(pid);
    if threads.is_empty() || threads.len() > MAX_THREADS {
        return None;
    }
    threads.sort_unstable();
    let each = threads.into_iter();
    let each = each.map(|tid| Some((tid, proc::switches_of_sleeper(pid, tid)?)));
    each.collect::<Option<Vec<_>>>().map(Asleep)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn one_that_runs_is_not_asleep() {
        // This one reads its own state.
        assert_eq!(look(std::process::id()), None);
        assert_eq!(look(u32::MAX), None);
    }

    #[test]
    fn a_sleeper_that_ran_is_told() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_mins(1);
        let pid = child.id();
        let asleep = || {
            loop {
                if let Some(asleep) = look(pid) {
                    return asleep;
                }
                assert!(Instant::now() < until);
            }
        };
        // It sleeps several times while it starts.
        let mut input = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let mut turn = || {
            input.write_all(b"x\n").unwrap();
            lines.read_line(&mut line).unwrap();
        };
        turn();
        let before = asleep();
        assert_eq!(look(pid), Some(before.clone()));
        turn();
        assert_ne!(asleep(), before);
        drop(input);
        child.wait().unwrap();
    }
}
