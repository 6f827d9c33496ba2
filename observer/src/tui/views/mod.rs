//! What each view shows: the columns of the tables and the texts around them.

pub(super) mod blocked;
pub(super) mod detail;
mod go_groups;
mod goroutines;
pub(super) mod graph;
pub(super) mod groups;
pub(super) mod header;
pub(super) mod health;
pub(super) mod help;
pub(super) mod locks;
pub(super) mod overview;
mod rollups;
mod runtimes;
mod sheet;
mod stacks;
pub(super) mod status;
mod task;
pub(super) mod waits;
mod words;

use std::sync::Arc;

use super::{
    rows::{Context, Tone},
    text::{Glyphs, cut, tail, width},
};
use crate::{
    event::{Addr, Holder, Kind, LockRef, TaskRef},
    time::human,
};

/// What stands in a cell for a value that is not known.
const UNKNOWN: &str = "-";

fn known(text: Option<&str>) -> String {
    text.unwrap_or(UNKNOWN).to_owned()
}

fn duration(ns: Option<u64>) -> String {
    ns.map_or_else(|| UNKNOWN.to_owned(), human)
}

/// A duration of which only the lower limit may be known.
fn at_least(ns: u64, at_least: bool, glyphs: Glyphs) -> String {
    let sign = if at_least { glyphs.at_least() } else { "" };
    format!("{sign}{}", human(ns))
}

fn lock_name(lock: &LockRef) -> String {
    match &lock.name {
        Some(name) => name.to_string(),
        None => lock.addr.to_string(),
    }
}

/// A lock by its name or address, and something that stays when there is little room. An address is
/// cut at its front: locks differ in their last digits.
fn lock_cell(lock: &LockRef, suffix: &str, context: Context) -> String {
    let room = context.columns.saturating_sub(suffix.len());
    let ellipsis = context.glyphs.ellipsis();
    let address = lock.addr.to_string();
    let name = match &lock.name {
        Some(name) => cut(&context.glyphs.clean(name), room, ellipsis).into_owned(),
        None => tail(&address, room, ellipsis).into_owned(),
    };
    name + suffix
}

/// The lock of a wait; of several, the first, and how many others there are.
fn locks_cell(lock: Option<&LockRef>, all: &[Arc<LockRef>], context: Context) -> String {
    let Some(lock) = lock.or(all.first().map(|lock| &**lock)) else {
        return UNKNOWN.to_owned();
    };
    match all.len() {
        0 | 1 => lock_cell(lock, "", context),
        several => lock_cell(lock, &format!(" (+{})", several - 1), context),
    }
}

/// Numbers as a strip of levels.
fn sparkline(points: &[f64], glyphs: Glyphs) -> String {
    let most = points.iter().copied().fold(0.0, f64::max);
    let level = |value: &f64| {
        let share = if most > 0.0 { value / most } else { 0.0 };
        // What is not nothing is seen.
        let least = usize::from(*value > 0.0);
        glyphs.level(((share * 8.0) as usize).max(least))
    };
    points.iter().map(level).collect()
}

/// A count in five digits or fewer.
fn count(n: u64) -> String {
    match n {
        0..100_000 => n.to_string(),
        100_000..10_000_000 => format!("{}k", n / 1_000),
        10_000_000..10_000_000_000 => format!("{}M", n / 1_000_000),
        _ => format!("{}G", n / 1_000_000_000),
    }
}

/// A count with its noun.
fn counted(n: usize, one: &str, several: &str) -> String {
    if n == 1 {
        format!("1 {one}")
    } else {
        format!("{n} {several}")
    }
}

/// A time of which only whole seconds matter.
fn whole_seconds(ns: u64) -> String {
    match ns / 1_000_000_000 {
        secs @ 0..60 => format!("{secs}s"),
        _ => human(ns),
    }
}

/// The tone of most columns.
fn plain<R>(_: &R) -> Tone {
    Tone::Normal
}

/// A record in full: a label and a value each.
type Fields = Vec<(&'static str, String)>;

/// A duration in full.
fn exact(ns: u64, context: Context) -> String {
    let human = human(ns);
    if ns < 1_000 {
        human
    } else {
        format!("{human} {} {ns} ns", context.glyphs.dot())
    }
}

/// A lock in full.
fn lock_in_full(lock: &LockRef) -> String {
    match &lock.name {
        Some(name) if lock.addr == Addr::NONE => format!("{name}, {}", lock.class.name()),
        Some(name) => format!("{name}, {} at {}", lock.class.name(), lock.addr),
        None => format!("{} at {}", lock.class.name(), lock.addr),
    }
}

/// A holder by its name, and how sure that is, which stays when there is little room.
fn holder_cell(holder: Option<&Holder>, context: Context) -> String {
    let Some(holder) = holder else {
        return UNKNOWN.to_owned();
    };
    if holder.tid.is_none() && holder.comm.is_none() {
        return holder.confidence.name().to_owned();
    }
    let sure = format!(" {}", holder.confidence.name());
    let room = context.columns.saturating_sub(sure.len());
    let full = words::holder_name(holder);
    let full = context.glyphs.clean(&full);
    let short = context.glyphs.clean(holder.comm.as_deref().unwrap_or("?"));
    let name = if width(&full) <= room { full } else { short };
    cut(&name, room, context.glyphs.ellipsis()).into_owned() + &sure
}

/// A task in full.
fn task_in_full(task: &TaskRef) -> String {
    let comm = task.comm.as_deref().unwrap_or(UNKNOWN);
    let process = task.process.as_deref().unwrap_or(UNKNOWN);
    format!("{comm} (tid {}) of {process} (pid {})", task.tid, task.pid)
}

/// What a task waits in, in full.
fn kind(kind: Kind, syscall: Option<&str>) -> String {
    match syscall {
        Some(syscall) => format!("{}, in the system call {syscall}", kind.name()),
        None => kind.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stay_short() {
        for (n, text) in [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100k"),
            (9_999_999, "9999k"),
            (12_345_678, "12M"),
            (u64::MAX, "18446744073G"),
        ] {
            assert_eq!(count(n), text);
        }
    }

    #[test]
    fn seconds_do_not_flicker() {
        assert_eq!(whole_seconds(0), "0s");
        assert_eq!(whole_seconds(59_999_999_999), "59s");
        assert_eq!(whole_seconds(61_000_000_000), "1m01s");
    }
}
