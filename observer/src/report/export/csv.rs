//! Waits as CSV (RFC 4180), for spreadsheets and data frames.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use crate::{
    event::{Blocked, Event, Holder, LockRef, TaskRef, Wait},
    model::Model,
};

/// The first line.
pub const HEAD: &str = "time,mono_ns,pid,tid,process,comm,kind,dur_ns,blocked_ns,runqueue_ns,outcome,\
    in_progress,at_least,lock_id,lock_class,lock_name,holder_tid,holder_comm,holder_confidence,waker_tid,\
    waker_comm,syscall";

/// Writes the first line.
///
/// # Errors
/// The writer's.
pub fn head(out: &mut impl Write) -> io::Result<()> {
    write!(out, "{HEAD}\r\n")
}

/// Writes an event, if it is a wait.
///
/// # Errors
/// The writer's.
pub fn line(out: &mut impl Write, event: &Event) -> io::Result<()> {
    match event {
        Event::Wait(wait) => ended(out, wait),
        _ => Ok(()),
    }
}

/// Writes the waits that are in progress at the end.
///
/// # Errors
/// The writer's.
pub fn finish(out: &mut impl Write, model: &Model) -> io::Result<()> {
    let mut all: Vec<_> = model.blocked().collect();
    all.sort_by_key(|wait| (wait.start_ns, wait.event.task.tid));
    all.into_iter()
        .try_for_each(|wait| in_progress(out, &wait.event, wait.age_ns(model.now_ns())))
}

fn ended(out: &mut impl Write, wait: &Wait) -> io::Result<()> {
    let waker = wait.waker.as_ref();
    let mut cells = Vec::with_capacity(22);
    cells.extend([text(&wait.time.to_string()), number(Some(wait.mono_ns))]);
    task(&mut cells, &wait.task);
    cells.push(text(wait.kind.name()));
    cells.push(number(Some(wait.dur_ns)));
    cells.push(number(wait.blocked_ns));
    cells.push(number(wait.runqueue_ns));
    cells.push(text(wait.outcome.map_or("", |outcome| outcome.name())));
    cells.extend([flag(false), flag(wait.at_least)]);
    lock(&mut cells, wait.lock.as_deref());
    holder(&mut cells, wait.holder.as_deref());
    cells.push(number(waker.map(|waker| waker.tid)));
    cells.push(text(
        waker
            .and_then(|waker| waker.comm.as_deref())
            .unwrap_or_default(),
    ));
    cells.push(text(wait.syscall.as_deref().unwrap_or_default()));
    row(out, &cells)
}

fn in_progress(out: &mut impl Write, wait: &Blocked, age_ns: u64) -> io::Result<()> {
    let mut cells = Vec::with_capacity(22);
    cells.extend([text(&wait.time.to_string()), number(Some(wait.mono_ns))]);
    task(&mut cells, &wait.task);
    cells.push(text(wait.kind.name()));
    cells.push(number(Some(age_ns)));
    cells.push(number(wait.blocked_ns));
    cells.push(number(wait.runqueue_ns));
    cells.push(text(""));
    cells.extend([flag(true), flag(wait.at_least)]);
    lock(&mut cells, wait.lock.as_deref());
    holder(&mut cells, wait.holder.as_deref());
    cells.extend([text(""), text("")]);
    cells.push(text(wait.syscall.as_deref().unwrap_or_default()));
    row(out, &cells)
}

fn task(cells: &mut Vec<String>, task: &TaskRef) {
    cells.push(task.pid.to_string());
    cells.push(task.tid.to_string());
    cells.push(text(task.process.as_deref().unwrap_or_default()));
    cells.push(text(task.comm.as_deref().unwrap_or_default()));
}

fn lock(cells: &mut Vec<String>, lock: Option<&LockRef>) {
    cells.push(text(lock.map_or("", |lock| &lock.id)));
    cells.push(text(lock.map_or("", |lock| lock.class.name())));
    cells.push(text(
        lock.and_then(|lock| lock.name.as_deref())
            .unwrap_or_default(),
    ));
}

fn holder(cells: &mut Vec<String>, holder: Option<&Holder>) {
    cells.push(number(holder.and_then(|holder| holder.tid)));
    cells.push(text(
        holder
            .and_then(|holder| holder.comm.as_deref())
            .unwrap_or_default(),
    ));
    cells.push(text(holder.map_or("", |holder| holder.confidence.name())));
}

fn number<N: ToString>(value: Option<N>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn flag(value: bool) -> String {
    value.to_string()
}

/// A cell. A spreadsheet takes what begins with `=`, `+`, `-` or `@` for a formula, and a thread may bear such
/// a name: an apostrophe before it makes it text.
fn text(value: &str) -> String {
    let dangerous = value.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let value: Cow<'_, str> = if dangerous {
        format!("'{value}").into()
    } else {
        value.into()
    };
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.into_owned()
    }
}

fn row(out: &mut impl Write, cells: &[String]) -> io::Result<()> {
    write!(out, "{}\r\n", cells.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_no_formulas() {
        for (value, cell) in [
            ("worker", "worker"),
            ("=1+1", "'=1+1"),
            ("@a", "'@a"),
            ("-x", "'-x"),
            ("+x,y", "\"'+x,y\""),
            ("say \"hi\"\n", "\"say \"\"hi\"\"\n\""),
            ("\t=1", "'\t=1"),
        ] {
            assert_eq!(text(value), cell, "{value:?}");
        }
    }
}
