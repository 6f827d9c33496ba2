//! What views say in sentences: of tasks, locks and holders.

use super::{UNKNOWN, at_least};
use crate::{
    event::{Confidence, Finding, Holder, HolderState, LockRef, Severity, TaskRef},
    model::{InProgress, Lock},
    time::human,
    tui::{rows::Tone, text::Glyphs},
};

/// `transfer-1/4101`: name and thread.
pub(super) fn name(task: &TaskRef) -> String {
    task.to_string()
}

pub(super) fn holder_name(holder: &Holder) -> String {
    let comm = holder.comm.as_deref().unwrap_or("?");
    match holder.tid {
        Some(tid) => format!("{comm}/{tid}"),
        None => match &holder.comm {
            Some(comm) => comm.to_string(),
            None => "nobody known".to_owned(),
        },
    }
}

/// What a holder does, in a word or a few. For how long it had done so when that was told is left out: on a screen
/// that goes on it would be wrong a moment later.
pub(super) fn doing(holder: &Holder) -> Option<&str> {
    let told = holder.doing.as_deref().map(without_time);
    told.or(holder.state.map(HolderState::name))
}

/// `waiting for b` of `waiting for b for 3.10s`.
fn without_time(doing: &str) -> &str {
    match doing.rsplit_once(" for ") {
        Some((what, time))
            if time.starts_with(|c: char| c.is_ascii_digit())
                && time.ends_with(['s', 'm', 'h'])
                && !time.contains(' ') =>
        {
            what
        }
        _ => doing,
    }
}

/// `held by writer/12 (exact), waiting for b`.
pub(super) fn held_by(holder: &Holder) -> String {
    match holder.tid {
        Some(_) => format!("held by {}", self::holder(holder)),
        None => format!("holder unknown: {}", holder.evidence),
    }
}

/// `writer/12 (exact), waiting for b`.
pub(super) fn holder(holder: &Holder) -> String {
    let who = holder_name(holder);
    let sure = holder.confidence.name();
    match doing(holder) {
        Some(doing) => format!("{who} ({sure}), {doing}"),
        None => format!("{who} ({sure})"),
    }
}

/// Is it waited for, now or a moment ago?
pub(super) fn is_busy(lock: &Lock) -> bool {
    lock.waiters_now() > 0 || lock.waits_per_s > 0.0
}

/// The holder of a lock; where nobody waits for long enough now, the last one that was seen.
pub(super) fn lock_held_by(lock: &Lock, now_ns: u64) -> Option<String> {
    match (lock.holder(), lock.last_holder()) {
        (Some(holder), _) => Some(held_by(holder)),
        (None, Some((holder, at_ns))) => {
            let ago = human(now_ns.saturating_sub(at_ns));
            Some(format!("last {}, {ago} ago", held_by(holder)))
        }
        (None, None) => None,
    }
}

/// Something is wrong with a holder that cannot go on by itself.
pub(super) fn holder_tone(holder: Option<&Holder>) -> Tone {
    match holder.and_then(|holder| holder.state) {
        Some(HolderState::Ended | HolderState::Stopped | HolderState::Throttled) => Tone::Alarm,
        _ => match holder.map(|holder| holder.confidence) {
            Some(Confidence::Exact) => Tone::Normal,
            _ => Tone::Quiet,
        },
    }
}

pub(super) fn lock(lock: Option<&LockRef>) -> String {
    lock.map_or_else(|| UNKNOWN.to_owned(), ToString::to_string)
}

/// `41.0s in lock accounts`: for how long a task waits, and in what.
pub(super) fn waits(wait: &InProgress, now_ns: u64, glyphs: Glyphs) -> String {
    let event = &wait.event;
    let age = at_least(wait.age_ns(now_ns), event.at_least, glyphs);
    match (&event.lock, &event.syscall) {
        (Some(lock), _) => format!("{age} for {} {lock}", event.kind.name()),
        (None, Some(syscall)) => format!("{age} in {} ({syscall})", event.kind.name()),
        (None, None) => format!("{age} in {}", event.kind.name()),
    }
}

/// How bad a finding is: the word says it, the tone stresses it.
pub(super) fn severity(finding: &Finding, over: bool) -> (&'static str, Tone) {
    if over {
        return ("over", Tone::Quiet);
    }
    match finding.severity {
        Severity::Critical => ("CRITICAL", Tone::Alarm),
        Severity::Warning => ("WARNING", Tone::Strong),
        Severity::Info => ("info", Tone::Normal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_what_holders_do_are_left_out() {
        for (told, shown) in [
            ("waiting for b for 3.10s", "waiting for b"),
            ("in clock_nanosleep for 154ms", "in clock_nanosleep"),
            ("in read for 1h02m", "in read"),
            ("waiting for b", "waiting for b"),
            ("waiting for 7 cats", "waiting for 7 cats"),
            ("running", "running"),
        ] {
            assert_eq!(without_time(told), shown);
        }
    }
}
