//! Who waits for whom: below each task those that wait for it.

use super::{sheet::Sheet, words};
use crate::{
    event::Holder,
    model::{Model, graph::Branch},
    tui::{
        canvas::{Line, Segment},
        rows::{RowId, Tone},
        text::Glyphs,
    },
};

/// Steps that are drawn; below, only their number.
const DEEPEST: u32 = 12;

/// The lines of some of the branches.
pub(in crate::tui) fn lines(
    forest: &[Branch],
    first: usize,
    rows: usize,
    model: &Model,
    glyphs: Glyphs,
) -> Vec<Line> {
    let from = first.min(forest.len());
    let branches = forest[from..].iter().take(rows).enumerate();
    branches
        .map(|(at, branch)| {
            let below = forest
                .get(from + at + 1)
                .filter(|next| next.depth > branch.depth);
            line(branch, below, model, glyphs)
        })
        .collect()
}

fn line(branch: &Branch, below: Option<&Branch>, model: &Model, glyphs: Glyphs) -> Line {
    let depth = branch.depth.min(DEEPEST) as usize;
    let mut lead = "  ".repeat(depth.saturating_sub(1));
    if depth > 0 {
        lead.push_str(glyphs.branch());
    }
    if branch.depth > DEEPEST {
        lead = format!("{lead}({} deep) ", branch.depth);
    }
    let who = who(branch.tid, below, model);
    let (text, tone) = if branch.closes {
        let text = format!("{} {who} again: the circle closes", glyphs.circle());
        (text, Tone::Alarm)
    } else if branch.depth == 0 && branch.in_cycle {
        let text = format!(
            "{} CIRCLE {who}, {}",
            glyphs.circle(),
            state(branch, below, model, glyphs)
        );
        (text, Tone::Alarm)
    } else {
        let mark = if branch.in_cycle {
            "in the circle: "
        } else {
            ""
        };
        let text = format!("{mark}{who}, {}", state(branch, below, model, glyphs));
        let tone = if branch.depth == 0 {
            Tone::Strong
        } else {
            Tone::Normal
        };
        (text, tone)
    };
    Line {
        segments: vec![Segment::new(lead + &text, tone)],
        target: Some(RowId::Task(branch.tid)),
    }
}

/// What the task that waits for this one knows of it.
fn as_holder<'a>(tid: u32, below: Option<&Branch>, model: &'a Model) -> Option<&'a Holder> {
    let wait = model.blocked_task(below?.tid)?;
    wait.event
        .holder
        .as_deref()
        .filter(|holder| holder.tid == Some(tid))
}

fn who(tid: u32, below: Option<&Branch>, model: &Model) -> String {
    match (model.blocked_task(tid), as_holder(tid, below, model)) {
        (Some(wait), _) => words::name(&wait.event.task),
        (None, Some(holder)) => words::holder_name(holder),
        (None, None) => format!("?/{tid}"),
    }
}

fn state(branch: &Branch, below: Option<&Branch>, model: &Model, glyphs: Glyphs) -> String {
    let behind = match branch.behind {
        0 => String::new(),
        1 => "; holds up 1 task".to_owned(),
        n => format!("; holds up {n} tasks"),
    };
    let Some(wait) = model.blocked_task(branch.tid) else {
        let holder = as_holder(branch.tid, below, model);
        let doing = holder
            .and_then(words::doing)
            .unwrap_or("not blocked for long");
        return format!("{doing}{behind}");
    };
    let sure = match &wait.event.holder {
        Some(holder) if branch.depth > 0 || branch.in_cycle => {
            format!(" ({})", holder.confidence.name())
        }
        _ => String::new(),
    };
    format!(
        "waits {}{sure}{behind}",
        words::waits(wait, model.now_ns(), glyphs)
    )
}

/// What an empty graph means.
pub(in crate::tui) fn empty(model: &Model, columns: usize, glyphs: Glyphs) -> Vec<Line> {
    let mut sheet = Sheet::new(columns, glyphs);
    let text = if model.meta().is_none() {
        "Nothing has been observed yet."
    } else {
        "No task waits for another one that is known: no lock with a known holder has been waited for \
         long enough to be looked at."
    };
    sheet.text(text, Tone::Normal);
    sheet.lines
}
