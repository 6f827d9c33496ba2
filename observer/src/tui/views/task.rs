//! A task in full: what it waits for, who holds that and how it is known, where both are, and what its last
//! minute was like.

use super::{
    at_least,
    detail::{lock_link, waiters},
    exact,
    sheet::{LABEL, Sheet},
    stacks, words,
};
use crate::{
    event::{TaskTotals, Wait},
    model::InProgress,
    text::printable,
    time::human,
    tui::{
        canvas::{Line, Segment},
        details::{Task, locks},
        rows::{Context, RowId, Tone},
    },
};

/// The time that the strip shows.
const STRIP_NS: u64 = 60_000_000_000;
/// Waits that are listed.
const RECENT: usize = 8;

pub(super) fn write(sheet: &mut Sheet, page: &Task, gone: bool, context: Context) {
    if let Some(task) = &page.name {
        sheet.field("task", &super::task_in_full(task));
        if let Some(container) = &task.container {
            sheet.field("container", &printable(&container.to_string()));
        }
        if let (Some(pid), Some(tid)) = (task.ns_pid, task.ns_tid) {
            sheet.field("in there", &format!("thread {tid} of process {pid}"));
        }
    }
    match page.wait() {
        Some(wait) => blocked(sheet, page, wait, context),
        None => not_blocked(sheet, page),
    }
    for (label, value) in &page.facts {
        sheet.field(label, value);
    }
    if !gone {
        waiters(sheet, "holds up", &page.behind, context);
        waiters(sheet, "also waiting", &page.beside, context);
    }
    both_stacks(sheet, page);
    history(sheet, page, context);
    if let Some(totals) = &page.totals {
        totals_of(sheet, totals);
    }
}

fn blocked(sheet: &mut Sheet, page: &Task, wait: &InProgress, context: Context) {
    let event = &wait.event;
    let age_ns = wait.age_ns(context.now_ns);
    let age = if event.at_least {
        let age = at_least(age_ns, true, context.glyphs);
        format!("{age}: it began before observer did")
    } else {
        exact(age_ns, context)
    };
    let state = match (event.runqueue_ns, event.blocked_ns) {
        (Some(ns), Some(blocked_ns)) => {
            format!(
                "runnable for {}, after being blocked for {}",
                human(ns),
                human(blocked_ns)
            )
        }
        (Some(ns), None) => format!("runnable for {}: it waits for a CPU", human(ns)),
        (None, _) => "blocked".to_owned(),
    };
    sheet.field("state", &state);
    sheet.field("kind", &super::kind(event.kind, event.syscall.as_deref()));
    sheet.field("for", &age);
    for lock in locks(event.lock.as_deref(), &event.locks) {
        lock_link(sheet, lock);
    }
    if let Some(memory) = &page.memory {
        sheet.field("in memory", memory);
    }
    if let Some(access) = event.access {
        sheet.field("wants to", access.name());
    }
    if let Some(holder) = &event.holder {
        let target = holder.tid.map(RowId::Task);
        let tone = words::holder_tone(Some(holder));
        sheet.labelled("holder", &words::holder(holder), tone, target);
        sheet.field("evidence", &holder.evidence);
    }
    if page.chain.len() > 1 || page.circle {
        let tone = if page.circle {
            Tone::Alarm
        } else {
            Tone::Normal
        };
        sheet.labelled("chain", &chain(page, context), tone, None);
    }
    sheet.field("looked at", &event.time.to_string());
}

/// `a waits for m, held by b (exact), which waits for n, held by a: a circle, none of them will go on`.
fn chain(page: &Task, context: Context) -> String {
    let mut text = String::new();
    for (n, wait) in page.chain.iter().enumerate() {
        let event = &wait.event;
        let who = match n {
            0 => words::name(&event.task),
            _ => ", which".to_owned(),
        };
        let what = match (&event.lock, &event.syscall) {
            (Some(lock), _) => format!("waits for {lock}"),
            (None, Some(syscall)) => format!("is in {syscall} ({})", event.kind.name()),
            (None, None) => format!("waits ({})", event.kind.name()),
        };
        text = format!("{text}{who} {what}");
        if let Some(holder) = event.holder.as_ref().filter(|holder| holder.tid.is_some()) {
            let who = words::holder_name(holder);
            text = format!("{text}, held by {who} ({})", holder.confidence.name());
        }
    }
    if page.circle {
        text.push_str(": a circle, none of them can go on");
    } else if let Some(last) = page.chain.last()
        && let Some(holder) = &last.event.holder
        && let Some(doing) = words::doing(holder)
    {
        text = format!("{text}, which is {doing}");
    }
    context.glyphs.clean(&text).into_owned()
}

fn not_blocked(sheet: &mut Sheet, page: &Task) {
    sheet.field("state", "not blocked now, or not for long");
    if let Some(holder) = &page.as_holder {
        if let Some(doing) = words::doing(holder) {
            sheet.field("doing", &format!("{doing}, when it was last looked at"));
        }
        sheet.field(
            "evidence",
            &format!("{}: {}", holder.confidence.name(), holder.evidence),
        );
    }
}

fn both_stacks(sheet: &mut Sheet, page: &Task) {
    let Some(wait) = page.wait() else { return };
    let why_not = "not known: the process may not be read, or the thread was not looked at";
    let mut left = sheet.half();
    let title = format!("where {} waits", words::name(&wait.event.task));
    stacks::write(&mut left, &title, wait.event.stack.as_ref(), why_not);
    let mut right = sheet.half();
    match (page.holder_wait(), &wait.event.holder) {
        (Some(holder), _) if holder.event.task.tid != page.tid => {
            let title = format!("where its holder {} waits", words::name(&holder.event.task));
            stacks::write(&mut right, &title, holder.event.stack.as_ref(), why_not);
        }
        (None, Some(holder)) if holder.tid.is_some() => {
            let title = format!("its holder {}", words::holder_name(holder));
            let doing = words::doing(holder).unwrap_or("not known");
            let why_not = format!("{doing}; its stack is not known: it is not blocked for long");
            stacks::write(&mut right, &title, None, &why_not);
        }
        _ => {}
    }
    sheet.blank();
    sheet.beside(left, right);
}

/// The last minute as a strip, and the waits that ended, the newest first.
fn history(sheet: &mut Sheet, page: &Task, context: Context) {
    sheet.heading("recent waits");
    let cells = sheet.columns.saturating_sub(LABEL + 8).clamp(10, 60);
    let strip = strip(page, context.now_ns, cells);
    if page.recent.is_empty() && page.chain.is_empty() {
        sheet.text("No long wait of it has been seen.", Tone::Normal);
        return;
    }
    let cells: String = strip
        .iter()
        .map(|share| {
            // Little is seen too, and only all is full.
            let level = (share * 8 / 100) as usize;
            context.glyphs.level(level.max(usize::from(*share > 0)))
        })
        .collect();
    sheet.lines.push(Line::new(vec![Segment::new(
        format!("{:<LABEL$}[{cells}]  now", "60s ago"),
        Tone::Normal,
    )]));
    for wait in page.recent.iter().take(RECENT) {
        let id = RowId::Wait {
            tid: wait.task.tid,
            end_ns: wait.mono_ns,
        };
        let ago = human(context.now_ns.saturating_sub(wait.mono_ns));
        sheet.link(&format!("{ago} ago"), &ended(wait), Some(id));
    }
    if page.recent.len() > RECENT {
        let text = format!(
            "and {} before these; 5 Waits lists them",
            page.recent.len() - RECENT
        );
        sheet.field("", &text);
    }
}

fn ended(wait: &Wait) -> String {
    let lock = match &wait.lock {
        Some(lock) => format!("{} {lock}", wait.kind.name()),
        None => super::kind(wait.kind, wait.syscall.as_deref()),
    };
    let outcome = match (wait.outcome, &wait.waker) {
        (Some(_), Some(waker)) => {
            format!(
                ", woken by {}/{}",
                waker.comm.as_deref().unwrap_or("?"),
                waker.tid
            )
        }
        (Some(outcome), None) => format!(", {}", outcome.name()),
        (None, _) => String::new(),
    };
    format!("{:>7}  {lock}{outcome}", human(wait.dur_ns))
}

/// For each part of the last minute, the share of it in percent that the task waited in long waits.
fn strip(page: &Task, now_ns: u64, cells: usize) -> Vec<u64> {
    let cell_ns = STRIP_NS / cells as u64;
    let begin = now_ns.saturating_sub(STRIP_NS);
    let mut waited = vec![0; cells];
    let ended = page
        .recent
        .iter()
        .map(|wait| (wait.mono_ns.saturating_sub(wait.dur_ns), wait.mono_ns));
    let current = page.wait().map(|wait| (wait.start_ns, now_ns));
    for (from, to) in ended.chain(current) {
        for (n, sum) in (0u64..).zip(&mut waited) {
            let cell = begin + n * cell_ns;
            let part = to.min(cell + cell_ns).saturating_sub(from.max(cell));
            *sum = (*sum + part).min(cell_ns);
        }
    }
    waited.iter().map(|ns| ns * 100 / cell_ns).collect()
}

fn totals_of(sheet: &mut Sheet, totals: &TaskTotals) {
    sheet.heading("waits since the start, short ones too");
    for (kind, all) in &totals.kinds {
        let text = format!(
            "{} waits, {} in all, the longest {}",
            all.waits,
            human(all.total_ns),
            human(all.max_ns)
        );
        sheet.field(kind.name(), &text);
    }
    if let Some(all) = totals.runqueue {
        let text = format!(
            "{} in all, the longest {}",
            human(all.total_ns),
            human(all.max_ns)
        );
        sheet.field("for a CPU", &text);
    }
    if totals.estimated {
        sheet.text(
            "Estimates: short waits were sampled to keep to the budget.",
            Tone::Quiet,
        );
    }
}
