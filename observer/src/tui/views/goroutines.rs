//! A group of goroutines, one goroutine, and what they wait for, in full.

use super::{
    count, duration,
    go_groups::{call, growth, origin, reason, strip, wanted},
    known,
    sheet::Sheet,
};
use crate::{
    event::{GoChannel, GoFrame, GoLock, GoWaitsFor, GoroutineGroup},
    time::human,
    tui::{
        goroutines::{GoRow, One, Resource, ResourcePage},
        rows::{RowId, Tone},
    },
};

/// Goroutines of a group that can be opened.
const GOIDS: usize = 16;

pub(super) fn group(sheet: &mut Sheet, row: &GoRow) {
    let group = row.group();
    let number = format!("{} of {} in the process", group.count, row.all.total);
    sheet.field("goroutines", &number);
    common(sheet, row, group);
    sheet.field(
        "growth",
        &format!("{} a minute from this place", growth(group)),
    );
    let looks = sheet.columns.saturating_sub(30).clamp(10, 60);
    let trend = strip(row, looks, sheet.glyphs);
    sheet.field("last looks", &format!("[{trend}]"));
    sheet.field("oldest", &at_least(group.oldest_ns));
    waits_for(
        sheet,
        row.key.pid,
        &group.waits_for.iter().collect::<Vec<_>>(),
        group,
    );
    sheet.heading("some of them");
    for goid in group.goids.iter().take(GOIDS) {
        let id = RowId::Goroutine {
            pid: row.key.pid,
            goid: *goid,
        };
        sheet.link("goroutine", &goid.to_string(), Some(id));
    }
    calls(sheet, group);
}

pub(super) fn goroutine(sheet: &mut Sheet, one: &One) {
    let (row, group) = (&one.row, one.row.group());
    sheet.field("goroutine", &one.goid.to_string());
    common(sheet, row, group);
    let others = format!("{} alike", count(group.count));
    sheet.link("its group", &others, Some(RowId::GoGroup(row.key)));
    waits_for(sheet, row.key.pid, &one.waits_for(), group);
    let holds = row.all.locks.iter().filter_map(|lock| {
        let holder = lock.holders.iter().find(|holder| holder.goid == one.goid)?;
        Some((lock, holder))
    });
    for (lock, holder) in holds {
        let id = RowId::GoResource {
            pid: row.key.pid,
            id: lock.lock.id.clone(),
        };
        let text = format!(
            "{} ({}: {}), for which {} wait",
            lock.lock,
            holder.confidence.name(),
            holder.evidence,
            lock.waiters_now
        );
        sheet.link("holds", &text, Some(id));
    }
    for circle in &row.all.deadlocks {
        if circle.goroutines.iter().any(|step| step.goid == one.goid) {
            let steps: Vec<String> = circle
                .goroutines
                .iter()
                .map(|step| format!("{} waits for {}", step.goid, step.waits_for))
                .collect();
            let text = format!("{} ({})", steps.join(", "), circle.confidence.name());
            sheet.labelled("deadlock", &text, Tone::Alarm, None);
        }
    }
    calls(sheet, group);
}

fn common(sheet: &mut Sheet, row: &GoRow, group: &GoroutineGroup) {
    let process = known(row.all.process.as_deref());
    let release = row.all.told_release();
    let text = format!("{process} (pid {}), {release}", row.key.pid);
    sheet.field("process", &text);
    sheet.field("state", &reason(group));
    if group.longest_wait_ns.is_some() {
        sheet.field("waiting", &at_least(group.longest_wait_ns));
    }
    sheet.field("started by", &origin(group));
    if group.system {
        sheet.field("", "one of the Go runtime's own");
    }
}

fn at_least(ns: Option<u64>) -> String {
    match ns {
        Some(ns) => format!("at least {}", human(ns)),
        None => "known after a second look".to_owned(),
    }
}

fn waits_for(sheet: &mut Sheet, pid: u32, all: &[&GoWaitsFor], group: &GoroutineGroup) {
    let mut label = "waits for";
    for one in all {
        let id = one.lock.as_ref().map(|lock| RowId::GoResource {
            pid,
            id: lock.id.clone(),
        });
        let text = match group.count {
            1 => wanted(one),
            _ => format!("{}, {} of them", wanted(one), one.count),
        };
        sheet.link(label, &text, id);
        label = "";
    }
    if group.waits_left_out > 0 {
        sheet.field("", &format!("and {} other things", group.waits_left_out));
    }
}

fn calls(sheet: &mut Sheet, group: &GoroutineGroup) {
    sheet.heading("where they are");
    if group.stack.is_empty() {
        sheet.text("Their calls are not known.", Tone::Quiet);
    }
    for (n, frame) in group.stack.iter().enumerate() {
        let tone = if frame.is_program() {
            Tone::Normal
        } else {
            Tone::Quiet
        };
        sheet.hanging(&format!("{n:>2}"), &in_full(frame), tone, None);
    }
    if group.stack_cut {
        sheet.text("the outermost calls are missing", Tone::Quiet);
    }
}

fn in_full(frame: &GoFrame) -> String {
    let inlined = if frame.inlined { " (inlined)" } else { "" };
    format!("{}{inlined}", call(frame))
}

pub(super) fn resource(sheet: &mut Sheet, page: &ResourcePage) {
    match &page.resource {
        Resource::Lock(one) => lock(sheet, one, page.pid),
        Resource::Channel(one) => channel(sheet, one, page.pid),
    }
    sheet.heading("who waits");
    for row in &page.waiting {
        let group = row.group();
        let text = format!("{}, started by {}", reason(group), origin(group));
        let lead = count(group.count);
        sheet.link(&lead, &text, Some(RowId::GoGroup(row.key)));
    }
}

fn lock(sheet: &mut Sheet, one: &GoLock, pid: u32) {
    sheet.field("lock", &super::lock_in_full(&one.lock));
    sheet.field("waiting now", &one.waiters_now.to_string());
    sheet.field("mean wait", &duration(one.mean_wait_ns));
    if let Some(locked) = one.locked {
        sheet.field("locked", if locked { "yes" } else { "no" });
    }
    for (label, value) in [
        ("readers", one.readers),
        ("readers to go", one.readers_pending),
        ("Done missing", one.counter),
    ] {
        if let Some(value) = value {
            sheet.field(label, &value.to_string());
        }
    }
    for holder in &one.holders {
        let id = RowId::Goroutine {
            pid,
            goid: holder.goid,
        };
        let doing = holder
            .doing
            .as_ref()
            .map_or_else(String::new, |doing| format!(", {doing}"));
        let text = format!(
            "goroutine {} ({}){doing}",
            holder.goid,
            holder.confidence.name()
        );
        sheet.link("holder", &text, Some(id));
        sheet.field("evidence", &holder.evidence);
    }
}

fn channel(sheet: &mut Sheet, one: &GoChannel, pid: u32) {
    sheet.field("channel", &super::lock_in_full(&one.lock));
    sheet.field("holds", &format!("{} of {} elements", one.len, one.cap));
    let closed = match (one.closed, one.timer) {
        (true, _) => "closed",
        (false, true) => "open; the runtime sends to it at a time",
        (false, false) => "open",
    };
    sheet.field("state", closed);
    let text = format!(
        "{}, for {} on average",
        one.senders,
        duration(one.mean_send_ns)
    );
    sheet.field("to send", &text);
    let mean = duration(one.mean_receive_ns);
    sheet.field(
        "to receive",
        &format!("{}, for {mean} on average", one.receivers),
    );
    for goid in &one.on_stacks_of {
        let id = RowId::Goroutine { pid, goid: *goid };
        sheet.link("also known to", &format!("goroutine {goid}"), Some(id));
    }
}
