//! One thing in full: every field that is known, nothing cut.

use std::sync::Arc;

use super::{
    at_least, counted, go_groups, goroutines, locks, sheet::Sheet, stacks, task, waits, words,
};
use crate::{
    event::{Finding, Stack, Subject as About, TaskRef, Wait},
    model::InProgress,
    tui::{
        canvas::Line,
        details::{Detail, LockPage, Subject, Waiters, locks as locks_of},
        goroutines::Resource,
        groups::{GroupKey, story},
        rows::{Context, RowId, Tone},
        text::Glyphs,
    },
};

/// Stacks of callers that are shown.
const CALLERS: usize = 5;

/// The title of a detail.
pub(in crate::tui) fn title(detail: &Detail) -> String {
    let named =
        |task: &TaskRef| format!("{} (tid {})", super::known(task.comm.as_deref()), task.tid);
    let (what, gone) = match &detail.subject {
        Some(Subject::Task(page)) => {
            let name = match (&page.name, &page.as_holder) {
                (Some(task), _) => named(task),
                (None, Some(holder)) => {
                    format!(
                        "{} (tid {})",
                        super::known(holder.comm.as_deref()),
                        page.tid
                    )
                }
                (None, None) => format!("tid {}", page.tid),
            };
            (name, "ENDED, as it was last seen")
        }
        Some(Subject::Lock(page)) => {
            let text = format!("lock {}", super::lock_name(&page.lock.totals.lock));
            (text, "GONE, as it was last seen")
        }
        Some(Subject::Wait(wait)) => (named(&wait.task), "no longer listed"),
        Some(Subject::Finding { finding, .. }) => {
            (finding.rule.replace('_', " "), "no longer listed")
        }
        Some(Subject::GoGroup(row)) => {
            let text = format!("goroutines: {}", go_groups::origin(row.group()));
            (text, "GONE, as they were last seen")
        }
        Some(Subject::Goroutine(one)) => {
            let text = format!("goroutine {}", one.goid);
            (text, "no longer among those that are named")
        }
        Some(Subject::GoResource(page)) => {
            let lock = match &page.resource {
                Resource::Lock(one) => &one.lock,
                Resource::Channel(one) => &one.lock,
            };
            (lock.to_string(), "nobody waits for it any more")
        }
        None => ("nothing is known of this".to_owned(), ""),
    };
    if detail.gone && detail.subject.is_some() {
        format!("{what}: {gone}")
    } else {
        what
    }
}

/// The lines of a detail, none wider than `columns`.
pub(in crate::tui) fn lines(detail: &Detail, columns: usize, glyphs: Glyphs) -> Vec<Line> {
    let context = Context {
        now_ns: detail.now_ns,
        glyphs,
        columns,
    };
    let mut sheet = Sheet::new(columns, glyphs);
    match &detail.subject {
        Some(Subject::Task(page)) => task::write(&mut sheet, page, detail.gone, context),
        Some(Subject::Lock(page)) => lock(&mut sheet, page, detail.gone, context),
        Some(Subject::Wait(wait)) => self::wait(&mut sheet, wait, context),
        Some(Subject::Finding { finding, over }) => self::finding(&mut sheet, finding, *over),
        Some(Subject::GoGroup(row)) => goroutines::group(&mut sheet, row),
        Some(Subject::Goroutine(one)) => goroutines::goroutine(&mut sheet, one),
        Some(Subject::GoResource(page)) => goroutines::resource(&mut sheet, page),
        None if matches!(detail.id, RowId::Goroutine { .. }) => sheet.text(
            "It is not among the goroutines that are named one by one: of a large group only some are.",
            Tone::Normal,
        ),
        None => sheet.text(
            "No totals of it have come: no wait for it has ended, and nobody holds it up.",
            Tone::Normal,
        ),
    }
    sheet.lines
}

fn finding(sheet: &mut Sheet, finding: &Finding, over: bool) {
    let (word, tone) = words::severity(finding, over);
    let mut text = format!("{}: {}", finding.severity.name(), finding.title);
    if over {
        text.push_str(" (its waits are over)");
    }
    let _ = word;
    sheet.text(&text, tone);
    sheet.heading("evidence");
    for line in &finding.evidence {
        sheet.text(line, Tone::Normal);
    }
    sheet.heading("what to do");
    sheet.text(&finding.advice, Tone::Normal);
    sheet.heading("what it is about");
    for subject in &finding.subjects {
        match subject {
            About::Task(task) => {
                let id = RowId::Task(task.tid);
                sheet.link("task", &super::task_in_full(task), Some(id));
            }
            About::Lock(lock) => {
                let id = RowId::Lock(lock.id.clone());
                sheet.link("lock", &super::lock_in_full(lock), Some(id));
            }
            About::Process(pid) => {
                let id = RowId::Group(GroupKey::Process(*pid));
                sheet.link("process", &pid.to_string(), Some(id));
            }
        }
    }
    sheet.field("told", &finding.time.to_string());
    sheet.field("rule", &finding.rule);
}

fn wait(sheet: &mut Sheet, wait: &Wait, context: Context) {
    let id = RowId::Task(wait.task.tid);
    sheet.link("task", &super::task_in_full(&wait.task), Some(id));
    for lock in locks_of(wait.lock.as_deref(), &wait.locks) {
        lock_link(sheet, lock);
    }
    for (label, value) in waits::fields(wait, context) {
        sheet.field(label, &value);
    }
    if let Some(holder) = &wait.holder {
        let target = holder.tid.map(RowId::Task);
        sheet.link("holder", &words::holder(holder), target);
        sheet.field("evidence", &holder.evidence);
    }
    sheet.blank();
    let why_not =
        "not taken: it was not within the budget, or the wait was too short to be looked at";
    stacks::write(sheet, "where it waited", wait.stack.as_deref(), why_not);
}

/// What a lock is, as something to open.
pub(super) fn lock_link(sheet: &mut Sheet, lock: &crate::event::LockRef) {
    let id = RowId::Lock(lock.id.clone());
    let mut label = "lock";
    for line in locks::identity(lock) {
        sheet.link(label, &line, Some(id.clone()));
        label = "";
    }
}

fn lock(sheet: &mut Sheet, page: &LockPage, gone: bool, context: Context) {
    let totals = &page.lock.totals;
    let mut label = "lock";
    for line in locks::identity(&totals.lock) {
        sheet.field(label, &line);
        label = "";
    }
    if let Some(memory) = &page.memory {
        sheet.field("in memory", memory);
    }
    match page.lock.holder() {
        Some(holder) => {
            let target = holder.tid.map(RowId::Task);
            let tone = words::holder_tone(Some(holder));
            sheet.labelled("holder", &words::holder(holder), tone, target);
            sheet.field("evidence", &holder.evidence);
        }
        None if let Some((holder, _)) = page.lock.last_holder() => {
            let text = words::lock_held_by(&page.lock, context.now_ns).unwrap_or_default();
            sheet.link("holder", &text, holder.tid.map(RowId::Task));
            sheet.field("evidence", &holder.evidence);
        }
        None if page.lock.waiters_now() > 0 => {
            sheet.field("holder", "not looked at: nobody has waited for long enough");
        }
        None => sheet.field("holder", "nobody waits for it now"),
    }
    for (label, value) in locks::fields(&page.lock, context) {
        sheet.field(label, &value);
    }
    history(sheet, page, context);
    if !gone {
        waiters(sheet, "waiting", &page.waiters, context);
    }
    often(sheet, "held most", &page.held);
    often(sheet, "waited most", &page.waited);
    often(sheet, "released by", &page.released);
    locks::histogram(sheet, &totals.histogram);
    if let Some(wait) = &page.holder_wait {
        sheet.blank();
        let title = format!("where the holder waits: {}", words::name(&wait.event.task));
        stacks::write(sheet, &title, wait.event.stack.as_ref(), "not known");
    }
    callers(sheet, page);
}

/// How often it was waited for in the last minutes.
fn history(sheet: &mut Sheet, page: &LockPage, context: Context) {
    let room = sheet.columns.saturating_sub(50).clamp(10, 120);
    let skip = page.waits_per_s.len().saturating_sub(room);
    let points = &page.waits_per_s[skip..];
    if points.len() < 2 {
        return;
    }
    let all = page.waits_per_s.len() as u64;
    let span_ns = context.now_ns.saturating_sub(page.since_ns) / all * points.len() as u64;
    let most = points.iter().copied().fold(0.0, f64::max);
    let text = format!(
        "[{}] {} at most, in the last {}",
        super::sparkline(points, sheet.glyphs),
        locks::rate(most),
        super::whole_seconds(span_ns)
    );
    sheet.unwrapped("waits/s", text);
}

/// Where it is waited for from.
fn callers(sheet: &mut Sheet, page: &LockPage) {
    let sampled = &page.lock.totals.callers;
    let sampled: Vec<(&Stack, u64)> = sampled.iter().map(|c| (&c.stack, c.samples)).collect();
    let (title, callers) = if sampled.is_empty() {
        let looked_at = page.callers.iter().map(|(stack, count)| (stack, *count));
        (
            "callers, by long waits that were looked at",
            looked_at.collect(),
        )
    } else {
        ("callers, by sampled stacks", sampled)
    };
    if !callers.is_empty() {
        sheet.heading(title);
    }
    let all: u64 = callers.iter().map(|(_, samples)| samples).sum();
    for (stack, samples) in callers.iter().take(CALLERS) {
        let share = samples * 100 / all.max(1);
        let own = stacks::brief(&story(stack, 6), sheet.glyphs);
        sheet.hanging(&format!("{share:>3}%"), &own, Tone::Normal, None);
    }
    if callers.len() > CALLERS {
        let text = format!("and {} more places", callers.len() - CALLERS);
        sheet.text(&text, Tone::Quiet);
    }
    sheet.blank();
    // A stack that was unwound by the program's tables says more than one by frame pointers.
    match (&page.example, callers.first()) {
        (Some((task, stack)), _) => {
            let title = format!("where {} waits for it", words::name(task));
            stacks::write(sheet, &title, Some(stack), "");
        }
        (None, Some((stack, _))) => {
            let title = "the most frequent one in full";
            stacks::write(sheet, title, Some(stack), "");
        }
        (None, None) => {}
    }
}

/// Who waited and who let others go on, by the long waits that ended.
fn often(sheet: &mut Sheet, label: &str, tasks: &[(Arc<TaskRef>, usize)]) {
    let mut label = label;
    for (task, count) in tasks {
        let text = format!(
            "{} in {}",
            words::name(task),
            counted(*count, "long wait", "long waits")
        );
        sheet.link(label, &text, Some(RowId::Task(task.tid)));
        label = "";
    }
}

/// Tasks that wait, each to be opened.
pub(super) fn waiters(sheet: &mut Sheet, label: &str, waiters: &Waiters, context: Context) {
    let mut label = label;
    for wait in &waiters.first {
        sheet.link(
            label,
            &waiter(wait, context),
            Some(RowId::Task(wait.event.task.tid)),
        );
        label = "";
    }
    if waiters.more > 0 {
        let text = format!("and {}", counted(waiters.more, "other", "others"));
        sheet.field(label, &text);
    }
}

fn waiter(wait: &InProgress, context: Context) -> String {
    let event = &wait.event;
    let age = at_least(wait.age_ns(context.now_ns), event.at_least, context.glyphs);
    let access = event
        .access
        .map_or_else(String::new, |access| format!(", to {}", access.name()));
    let name = super::known(event.task.comm.as_deref());
    format!("{age:>8}  {name} (tid {}){access}", event.task.tid)
}
