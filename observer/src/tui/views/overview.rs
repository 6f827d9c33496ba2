//! The first screen: what is wrong, in sentences, and how loaded the host is.

use std::cmp::Ordering;

use super::{at_least, count, counted, sheet::Sheet, whole_seconds, words};
use crate::{
    event::{Kind, Severity},
    model::{InProgress, Lock, Model},
    time::human,
    tui::{
        canvas::{Line, Segment},
        findings,
        rows::{self, Filter, Record, RowId, Tone},
        text::{Glyphs, cut},
    },
};

/// Columns of the words for how bad something is.
const SEVERITY: usize = 8;
/// Lines that load and locks take.
const LOAD: usize = 14;

/// What the page is made for.
#[derive(Clone, Copy)]
pub(in crate::tui) struct Room<'a> {
    pub(in crate::tui) columns: usize,
    pub(in crate::tui) rows: usize,
    pub(in crate::tui) glyphs: Glyphs,
    pub(in crate::tui) filter: &'a Filter,
    /// Show every finding, whatever room that takes.
    pub(in crate::tui) all: bool,
}

/// The lines of the page.
pub(in crate::tui) fn lines(model: &Model, room: Room<'_>) -> Vec<Line> {
    let mut sheet = Sheet::new(room.columns, room.glyphs);
    findings_of(&mut sheet, model, room);
    load(&mut sheet, model);
    let left = room.rows.saturating_sub(sheet.lines.len());
    hottest(&mut sheet, model, room.filter, (left / 3).clamp(5, 20));
    let left = room.rows.saturating_sub(sheet.lines.len() + 2);
    if left >= 3 {
        longest(&mut sheet, model, room.filter, left);
    }
    sheet.lines
}

/// How many findings there are, in a line.
pub(in crate::tui) fn status(model: &Model, filter: &Filter) -> String {
    let all = findings::sorted(model, filter);
    let many = |severity: Severity| {
        let is_it =
            |(found, over): &&(&crate::event::Finding, bool)| found.severity == severity && !over;
        all.iter().filter(is_it).count()
    };
    let over = all.iter().filter(|(_, over)| *over).count();
    let parts = [
        (many(Severity::Critical), "critical"),
        (many(Severity::Warning), "warning"),
        (many(Severity::Info), "info"),
        (over, "over"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| format!("{n} {word}"))
        .collect();
    if parts.is_empty() {
        "no findings".to_owned()
    } else {
        format!("findings: {}", parts.join(", "))
    }
}

fn findings_of(sheet: &mut Sheet, model: &Model, room: Room<'_>) {
    let all = findings::sorted(model, room.filter);
    if all.iter().all(|(_, over)| *over) {
        let text = nothing_wrong(model, room.filter);
        sheet.text(&text, Tone::Normal);
    }
    let most = if room.all {
        usize::MAX
    } else {
        room.rows.saturating_sub(LOAD).max(4)
    };
    let mut shown = 0;
    for (found, over) in &all {
        if sheet.lines.len() >= most {
            break;
        }
        shown += 1;
        let (word, tone) = words::severity(found, *over);
        let lead = Segment::new(format!("{word:<SEVERITY$}"), tone);
        let ago = whole_seconds(model.now_ns().saturating_sub(found.mono_ns));
        let text = format!("{} ({ago} ago)", found.title);
        let tone = if *over { Tone::Quiet } else { Tone::Normal };
        sheet.wrapped(lead, &text, tone, Some(findings::id(found)));
    }
    if shown < all.len() {
        let text = format!("and {} more: Enter shows them", all.len() - shown);
        let lead = " ".repeat(SEVERITY);
        sheet.hanging(&lead, &text, Tone::Quiet, Some(RowId::MoreFindings));
    }
}

fn nothing_wrong(model: &Model, filter: &Filter) -> String {
    if model.meta().is_none() {
        return "Nothing has been observed yet.".to_owned();
    }
    let since = whole_seconds(model.elapsed_ns());
    if filter.is_empty() {
        format!(
            "Nothing is wrong, as far as observer can tell: no rule has a finding now. Observing for {since}."
        )
    } else {
        format!("No finding matches {:?}.", filter.as_str())
    }
}

fn load(sheet: &mut Sheet, model: &Model) {
    sheet.heading("load");
    let (mut held, mut others, mut idle, mut io) = (0, 0, 0, 0);
    for wait in model.blocked() {
        io += usize::from(wait.event.kind == Kind::Io);
        let of_lock = wait.event.lock.as_ref().map(|lock| lock.class);
        if rows::is_idle(wait.event.kind) {
            idle += 1;
        } else if of_lock.is_some_and(crate::event::LockClass::is_held) {
            held += 1;
        } else {
            others += 1;
        }
    }
    let io = match io {
        0 => String::new(),
        n => format!(" ({n} in file I/O)"),
    };
    let text = format!(
        "{held} held up by locks, {others} in other waits{io}, {idle} idle (poll, sleep, child, condvar)"
    );
    sheet.field("blocked now", &text);
    let cpus = model.meta().map_or(0, |meta| meta.cpus);
    let queue = model.runqueue_waiting();
    let text = format!(
        "{queue:.1} tasks wait for a CPU on average, {}",
        counted(cpus as usize, "CPU", "CPUs")
    );
    let tone = if queue > f64::from(cpus) {
        Tone::Strong
    } else {
        Tone::Normal
    };
    sheet.labelled("run queue", &text, tone, None);
    waits_per_s(sheet, model);
    let lost = match model.loss() {
        Some(loss) if loss.total > 0 => {
            let text = format!("{}: 9 Health says by what", loss.total);
            (text, Tone::Alarm)
        }
        _ if model.meta().is_some() => ("nothing".to_owned(), Tone::Normal),
        _ => ("not known yet".to_owned(), Tone::Normal),
    };
    sheet.labelled("lost", &lost.0, lost.1, None);
}

fn waits_per_s(sheet: &mut Sheet, model: &Model) {
    let room = sheet.columns.saturating_sub(50).clamp(10, 120);
    let points = model.waits_per_s();
    let skip = points.len().saturating_sub(room);
    let points: Vec<f64> = points.skip(skip).collect();
    let Some(now) = points.last() else {
        sheet.field("waits/s", "not known yet");
        return;
    };
    let most = points.iter().copied().fold(0.0, f64::max);
    let line = super::sparkline(&points, sheet.glyphs);
    let text = format!(
        "{line} {} now, {} at most",
        count(*now as u64),
        count(most as u64)
    );
    sheet.unwrapped("waits/s", text);
}

/// The first `most` in an order, of those that are wanted. What cannot be among them is not looked at closer.
fn first<T: Copy>(
    all: impl Iterator<Item = T>,
    most: usize,
    order: impl Fn(&T, &T) -> Ordering,
    wanted: impl Fn(&T) -> bool,
) -> Vec<T> {
    let mut found: Vec<T> = Vec::with_capacity(most + 1);
    for one in all {
        let full = found.len() >= most;
        if full && found.last().is_none_or(|last| order(&one, last).is_ge()) || !wanted(&one) {
            continue;
        }
        let at = found.partition_point(|other| order(other, &one).is_lt());
        found.insert(at, one);
        found.truncate(most);
    }
    found
}

/// Locks in which time is lost: not those that tasks wait at for work.
fn hottest(sheet: &mut Sheet, model: &Model, filter: &Filter, most: usize) {
    let now_ns = model.now_ns();
    let locks = model
        .locks()
        .filter(|lock| !rows::is_idle(lock.totals.lock.class.kind()))
        .map(|lock| (lock.waited_ns(now_ns), lock))
        .filter(|(waited_ns, _)| *waited_ns > 0);
    let order = |a: &(u64, &Lock), b: &(u64, &Lock)| b.0.cmp(&a.0).then_with(|| a.1.tie(b.1));
    let locks = first(locks, most, order, |(_, lock)| {
        filter.is_empty() || lock.matches(filter)
    });
    sheet.heading("hottest locks, by time waited");
    if locks.is_empty() {
        sheet.text(
            "No task has waited for a lock that somebody holds.",
            Tone::Normal,
        );
    }
    for (waited_ns, lock) in locks {
        let lead = Segment::new(format!("{:<SEVERITY$}", human(waited_ns)), Tone::Normal);
        let waiting = match lock.waiters_now() {
            0 => "nobody waits now".to_owned(),
            n => format!("{n} waiting now"),
        };
        let process = lock.totals.process.as_deref().unwrap_or("the kernel");
        let holder = words::lock_held_by(lock, now_ns)
            .filter(|_| words::is_busy(lock))
            .map_or_else(String::new, |holder| format!(", {holder}"));
        let text = format!("{} of {process}: {waiting}{holder}", lock.totals.lock);
        let id = RowId::Lock(lock.totals.lock.id.clone());
        sheet.wrapped(lead, &text, Tone::Normal, Some(id));
    }
}

/// Tasks that are held up for longest, as many as fit.
fn longest(sheet: &mut Sheet, model: &Model, filter: &Filter, most: usize) {
    let waits = model
        .blocked()
        .filter(|wait| !rows::is_idle(wait.event.kind));
    let order = |a: &&InProgress, b: &&InProgress| rows::tie(a, b);
    let waits = first(waits, most, order, |wait| {
        filter.is_empty() || rows::is_found(wait, filter)
    });
    if waits.is_empty() {
        return;
    }
    sheet.heading("longest waits in progress");
    for wait in waits {
        let event = &wait.event;
        let age = at_least(wait.age_ns(model.now_ns()), event.at_least, sheet.glyphs);
        let lead = Segment::new(format!("{age:<SEVERITY$}"), Tone::Normal);
        let what = match (&event.lock, &event.syscall) {
            (Some(lock), _) => format!("{} {lock}", event.kind.name()),
            (None, syscall) => super::kind(event.kind, syscall.as_deref()),
        };
        let holder = event.holder.as_ref().map_or_else(String::new, |holder| {
            format!(", {}", words::held_by(holder))
        });
        let process = super::known(event.task.process.as_deref());
        let text = format!("{} of {process}: {what}{holder}", words::name(&event.task));
        let text = sheet.glyphs.clean(&text);
        let text = cut(
            &text,
            sheet.columns.saturating_sub(SEVERITY + 2),
            sheet.glyphs.ellipsis(),
        );
        let id = RowId::Task(event.task.tid);
        sheet.wrapped(lead, &text, Tone::Normal, Some(id));
    }
}
