//! The top of the screen: what is observed, since when, what was lost and what observing costs.
//! It is always there, and what is wrong comes first in it.

use std::cmp::Reverse;

use super::{counted, whole_seconds};
use crate::{
    event::{Filters, Reason, Step},
    model::Model,
    time::human,
    tui::{
        canvas::Segment,
        rows::Tone,
        state::State,
        text::{Glyphs, cut, width},
    },
};

/// Columns between two segments.
const GAP: usize = 2;
/// Columns of a host's name or a kernel's release at most.
const NAME: usize = 24;
/// Items of a filter that are named; of the others, only how many there are.
const NAMED: usize = 4;

/// The header in lines that fit the width, `most` of them at most.
pub(in crate::tui) fn lines(
    state: &State,
    model: &Model,
    columns: u16,
    most: usize,
    glyphs: Glyphs,
) -> Vec<Vec<Segment>> {
    let mut lines: Vec<Vec<Segment>> = vec![Vec::new()];
    let mut used = 0;
    for segment in segments(state, model, glyphs) {
        let needs = width(&glyphs.clean(&segment.text));
        let gap = if used == 0 { 0 } else { GAP };
        if used + gap + needs > usize::from(columns) && used > 0 && lines.len() < most {
            lines.push(Vec::new());
            used = 0;
        }
        used += needs + if used == 0 { 0 } else { GAP };
        if let Some(line) = lines.last_mut() {
            line.push(segment);
        }
    }
    lines
}

fn segments(state: &State, model: &Model, glyphs: Glyphs) -> Vec<Segment> {
    let name = |text: &str| cut(&glyphs.clean(text), NAME, glyphs.ellipsis()).into_owned();
    let mut segments = vec![Segment::new("observer", Tone::Strong)];
    if let Some(note) = &state.note {
        segments.push(Segment::new(note.clone(), Tone::Strong));
    }
    if let Some(frozen) = &state.frozen {
        let ago = model.now_ns().saturating_sub(frozen.now_ns());
        let text = format!("PAUSED {}", whole_seconds(ago));
        segments.push(Segment::new(text, Tone::Strong));
    }
    if let Some(file) = &state.recording {
        segments.push(Segment::new(format!("REC {file}"), Tone::Strong));
    }
    if let Some(end) = model.end() {
        let why = match end.reason {
            Reason::Duration => "the time asked for is over",
            Reason::Stopped => "stopped",
            Reason::TargetEnded => "the target has ended",
        };
        segments.push(Segment::new(format!("ended: {why}"), Tone::Strong));
    }
    let lost = lost(model);
    let (alarm, calm) = match lost.tone {
        Tone::Alarm => (Some(lost), None),
        _ => (None, Some(lost)),
    };
    segments.extend(alarm);
    if let Some(meta) = model.meta() {
        segments.push(Segment::new(name(&meta.host), Tone::Normal));
        segments.push(Segment::new(name(&meta.kernel), Tone::Normal));
    }
    segments.push(Segment::new(
        whole_seconds(model.elapsed_ns()),
        Tone::Normal,
    ));
    segments.extend(calm);
    segments.extend(forgotten(model));
    segments.push(Segment::new(cost(model), Tone::Normal));
    if let Some(step) = model.budget().filter(|step| step.step != Step::Full) {
        let text = format!(
            "budget: {} (used {:.1}% of {}%)",
            step.step.name().replace('_', " "),
            step.overhead_percent,
            step.limit_percent
        );
        segments.push(Segment::new(text, Tone::Strong));
    }
    if let Some(meta) = model.meta() {
        let missing = meta.capture.missing.len();
        if missing > 0 {
            let text = format!("{missing} missing: 9 Health says what");
            segments.push(Segment::new(text, Tone::Strong));
        }
        segments.push(Segment::new(filters(&meta.filters, glyphs), Tone::Normal));
    }
    segments
}

fn lost(model: &Model) -> Segment {
    let Some(loss) = model.loss() else {
        // The stream tells of every loss: as long as it goes on, silence means none.
        let text = if model.meta().is_some() {
            "lost 0"
        } else {
            "lost ?"
        };
        return Segment::new(text, Tone::Normal);
    };
    if loss.total == 0 {
        return Segment::new("lost 0", Tone::Normal);
    }
    let mut causes: Vec<_> = loss.counters.iter().filter(|(_, n)| **n > 0).collect();
    causes.sort_by_key(|(_, n)| Reverse(**n));
    let causes: Vec<_> = causes
        .iter()
        .map(|(cause, n)| format!("{cause} {n}"))
        .collect();
    let text = format!("LOST {} ({})", loss.total, causes.join(", "));
    Segment::new(text, Tone::Alarm)
}

fn forgotten(model: &Model) -> Option<Segment> {
    let forgotten = model.forgotten();
    let counts = [
        (forgotten.locks, "lock", "locks"),
        (forgotten.tasks, "task", "tasks"),
    ];
    let parts: Vec<_> = counts
        .iter()
        .filter(|(n, ..)| *n > 0)
        .map(|(n, one, several)| counted(*n as usize, one, several))
        .collect();
    (!parts.is_empty())
        .then(|| Segment::new(format!("forgotten: {}", parts.join(", ")), Tone::Strong))
}

fn cost(model: &Model) -> String {
    let cost = model.cost();
    if cost.rss_bytes == 0 {
        return "cpu ? rss ?".to_owned();
    }
    let mut text = format!(
        "cpu {:.1}% rss {}M",
        model.cost_rate() * 100.0,
        cost.rss_bytes >> 20
    );
    if let Some(ns) = cost.bpf_run_ns {
        text = format!("{text} bpf {}", human(ns));
    }
    text
}

fn filters(filters: &Filters, glyphs: Glyphs) -> String {
    let pids: Vec<_> = filters.pids.iter().map(ToString::to_string).collect();
    let parts: Vec<_> = [
        ("pid", &pids),
        ("comm", &filters.comms),
        ("cgroup", &filters.cgroups),
        ("container", &filters.containers),
    ]
    .into_iter()
    .filter(|(_, items)| !items.is_empty())
    .map(|(what, items)| format!("{what} {}", named(items)))
    .collect();
    let tasks = if parts.is_empty() {
        "all tasks".to_owned()
    } else {
        format!("only {}", parts.join(" "))
    };
    format!(
        "{tasks}, waits {} {}",
        glyphs.at_least(),
        human(filters.min_wait_ns)
    )
}

fn named(items: &[String]) -> String {
    let text = items[..items.len().min(NAMED)].join(",");
    match items.len().saturating_sub(NAMED) {
        0 => text,
        more => format!("{text} +{more}"),
    }
}
