//! One record in full: every field that is known, nothing cut.

use super::{Fields, UNKNOWN, at_least, blocked, known, locks, waits};
use crate::tui::{
    details::{Detail, Subject},
    rows::Context,
    text::{Glyphs, wrap},
};

/// Columns of the labels.
const LABEL: usize = 12;

/// The title of a detail.
pub(in crate::tui) fn title(detail: &Detail) -> String {
    let task = |comm: Option<&str>, tid| format!("{} (tid {tid})", comm.unwrap_or(UNKNOWN));
    let (what, gone) = match &detail.record {
        Some(Subject::Blocked(wait)) => {
            let who = &wait.event.task;
            let text = task(who.comm.as_deref(), who.tid);
            (text, "ENDED, as it was last seen")
        }
        Some(Subject::Lock(lock)) => {
            let text = format!("lock {}", super::lock_name(&lock.totals.lock));
            (text, "GONE, as it was last seen")
        }
        Some(Subject::Wait(wait)) => {
            let text = task(wait.task.comm.as_deref(), wait.task.tid);
            (text, "no longer listed")
        }
        None => ("nothing".to_owned(), ""),
    };
    if detail.gone {
        format!("{what}: {gone}")
    } else {
        what
    }
}

/// The lines of a detail, none wider than `columns`.
pub(in crate::tui) fn lines(detail: &Detail, columns: usize, glyphs: Glyphs) -> Vec<String> {
    let context = Context {
        now_ns: detail.now_ns,
        glyphs,
        columns,
    };
    let mut lines = Vec::new();
    for (label, value) in fields(detail, context) {
        let value = glyphs.clean(&value);
        let mut label = label;
        for part in wrap(&value, columns.saturating_sub(LABEL)) {
            lines.push(format!("{label:<LABEL$}{part}"));
            label = "";
        }
    }
    lines
}

fn fields(detail: &Detail, context: Context) -> Fields {
    let mut fields = match &detail.record {
        Some(Subject::Blocked(wait)) => blocked::fields(wait, context),
        Some(Subject::Lock(lock)) => locks::fields(lock, context),
        Some(Subject::Wait(wait)) => waits::fields(wait, context),
        None => Vec::new(),
    };
    let also = match &detail.record {
        Some(Subject::Lock(_)) | None => "wait for it",
        Some(record) => {
            let locks = record.locks().into_iter().flat_map(locks::identity);
            // After who waits, and in what.
            let place = fields.len().min(2);
            fields.splice(place..place, locks);
            "also waiting"
        }
    };
    if !detail.gone {
        fields.extend(waiters(detail, also, context));
    }
    fields
}

fn waiters(detail: &Detail, label: &'static str, context: Context) -> Fields {
    let mut lines: Vec<String> = detail
        .waiters
        .iter()
        .map(|wait| {
            let event = &wait.event;
            let age = at_least(wait.age_ns(context.now_ns), event.at_least, context.glyphs);
            let name = known(event.task.comm.as_deref());
            format!("{age:>8}  {name} (tid {})", event.task.tid)
        })
        .collect();
    if detail.more_waiters > 0 {
        lines.push(format!("and {} others", detail.more_waiters));
    }
    let first = |n| if n == 0 { label } else { "" };
    let lines = lines.into_iter().enumerate();
    lines.map(|(n, line)| (first(n), line)).collect()
}
