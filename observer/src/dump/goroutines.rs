//! The goroutines of the processes that were asked for.

use std::{thread, time::Duration};

use crate::{
    event::{Goroutines, Missing},
    runtimes::go::{Follower, Limits, Refused, recognise},
    time::Clock,
};

/// What is in doubt is looked at again after this.
const CONFIRM: Duration = Duration::from_millis(50);
/// Looks at most: a process is not busy all the time.
const LOOKS: usize = 3;
/// Bytes searched for channels that nobody else can reach.
const SEARCH: u64 = 256 << 20;

/// Looks at a process once, and again at what has to be confirmed or was too busy. `None`: it is no Go process, or not
/// there any more.
pub(crate) fn look(pid: u32, clock: Clock) -> Option<Result<Goroutines, Missing>> {
    match take(pid, clock) {
        Ok(found) => Some(Ok(found)),
        Err(Refused::NotGo | Refused::Gone) => None,
        Err(why) => missing(pid, &why).map(Err),
    }
}

/// That a process's goroutines cannot be seen, if it has any.
pub(crate) fn missing(pid: u32, why: &Refused) -> Option<Missing> {
    let release = match why {
        Refused::NotGo | Refused::Gone => return None,
        // These say themselves that it is Go.
        Refused::Machine(_) | Refused::Layout { .. } => String::new(),
        _ => format!(" ({})", recognise(pid).ok()?),
    };
    Some(Missing {
        feature: format!("goroutines of process {pid}{release}"),
        why: why.to_string(),
    })
}

fn take(pid: u32, clock: Clock) -> Result<Goroutines, Refused> {
    let mut follower = Follower::open(pid)?;
    let limits = Limits {
        search: SEARCH,
        ..Limits::default()
    };
    let wall = |mono_ns| clock.wall(mono_ns);
    let mut last = follower.look(&limits, wall)?;
    for _ in 1..LOOKS {
        if !follower.is_in_doubt() && !follower.searched_in_vain() {
            break;
        }
        thread::sleep(CONFIRM);
        // A process that has ended meanwhile leaves what was seen of it.
        let Ok(again) = follower.look(&limits, wall) else {
            break;
        };
        last = again;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_go_is_missing() {
        assert_eq!(missing(1, &Refused::NotGo), None);
        assert_eq!(missing(1, &Refused::Gone), None);
        let layout = Refused::Layout {
            release: "go1.99".into(),
            reason: "no state is one".into(),
        };
        let missing = missing(7, &layout).unwrap();
        assert_eq!(missing.feature, "goroutines of process 7");
        assert!(missing.why.contains("go1.99"), "{}", missing.why);
        // This is no Go program, whatever is said of its memory.
        let denied = Refused::Permission("memory".into());
        assert_eq!(super::missing(std::process::id(), &denied), None);
    }
}
