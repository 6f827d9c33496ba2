//! Who waits for whom, as a picture: tasks in boxes, below each those that wait for it, and circles closed by an
//! arrow back.

use std::{
    collections::HashMap,
    fmt::{self, Write},
};

use super::{Esc, left_out};
use crate::{
    event::{Confidence, Holder},
    model::{Model, graph::Branch},
    text::{cut, printable},
    time::human,
};

/// Boxes that are drawn, and steps to the right.
const BOXES: usize = 40;
const DEPTH: u32 = 8;
/// Sizes in pixels: they are those of the page too, so that its text has one size.
const WIDE: u32 = 258;
const HIGH: u32 = 46;
const STEP_X: u32 = 28;
const STEP_Y: u32 = 66;
const MARGIN: u32 = 40;
/// Characters that fit into a box.
const CHARS: usize = 36;

pub(super) fn section(page: &mut String, model: &Model) -> fmt::Result {
    let forest = model.graph().forest();
    if forest.is_empty() {
        page.push_str(
            "<p class=\"none\">Nobody was seen waiting for anybody known at the end.</p>",
        );
        return Ok(());
    }
    page.push_str(
        "<p class=\"note\">An arrow leads from a task that waits to the one that holds what it waits for; \
         a dashed one is likely, not exact. Red: a circle, nobody in it can go on.</p>\n",
    );
    let boxes: Vec<&Branch> = forest.iter().filter(|branch| !branch.closes).collect();
    let shown = &boxes[..boxes.len().min(BOXES)];
    let deepest = shown.iter().map(|branch| branch.depth.min(DEPTH)).max();
    let width = MARGIN + WIDE + deepest.unwrap_or(0) * STEP_X + 8;
    let height = shown.len() as u32 * STEP_Y + 8;
    write!(
        page,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Picture of who waits for whom\">\
         <svg class=\"graph\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{} tasks; the table of blocked tasks says the same in words\">\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0 8 4 0 8z\"/></marker>\
         <marker id=\"tip-bad\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path class=\"bad\" d=\"M0 0 8 4 0 8z\"/></marker></defs>",
        shown.len()
    )?;
    let names = holders(model);
    // The box above on each level, whose tasks the next ones wait for.
    let mut above: Vec<usize> = Vec::new();
    let mut root = 0;
    let mut last_of_circle = None;
    for (at, branch) in shown.iter().enumerate() {
        if branch.depth == 0 {
            close(page, shown, root, last_of_circle.take())?;
            root = at;
        }
        above.truncate(branch.depth as usize);
        if let Some(&parent) = above.last() {
            arrow(page, model, shown, at, parent)?;
        }
        above.push(at);
        if branch.in_cycle && branch.depth > 0 {
            last_of_circle = Some(at);
        }
        one(page, model, &names, at, branch)?;
    }
    close(page, shown, root, last_of_circle)?;
    page.push_str("</svg></div>\n");
    left_out(page, boxes.len() - shown.len(), "tasks")
}

/// Holders by their threads: they may wait for nobody themselves.
fn holders(model: &Model) -> HashMap<u32, &Holder> {
    model
        .blocked()
        .filter_map(|wait| wait.event.holder.as_deref())
        .filter_map(|holder| Some((holder.tid?, holder)))
        .collect()
}

fn place(at: usize, branch: &Branch) -> (u32, u32) {
    (
        MARGIN + branch.depth.min(DEPTH) * STEP_X,
        at as u32 * STEP_Y + 4,
    )
}

fn one(
    page: &mut String,
    model: &Model,
    names: &HashMap<u32, &Holder>,
    at: usize,
    branch: &Branch,
) -> fmt::Result {
    let (x, y) = place(at, branch);
    let wait = model.blocked_task(branch.tid).map(|wait| {
        let event = &wait.event;
        let least = if event.at_least { "≥" } else { "" };
        let age = human(wait.age_ns(model.now_ns()));
        let lock = event
            .lock
            .as_ref()
            .map_or_else(|| event.kind.name().to_owned(), ToString::to_string);
        (
            event.task.to_string(),
            format!("waits {least}{age} for {lock}"),
        )
    });
    let (name, doing) = wait.unwrap_or_else(|| match names.get(&branch.tid) {
        Some(holder) => (
            format!("{}/{}", holder.comm.as_deref().unwrap_or("?"), branch.tid),
            holder
                .doing
                .as_deref()
                .unwrap_or("does not wait")
                .to_owned(),
        ),
        None => (format!("thread {}", branch.tid), String::new()),
    });
    let left = x + 12;
    let fit = |text: &str| Esc(cut(&printable(text), CHARS, "…")).to_string();
    write!(
        page,
        "<g class=\"{}\"><title>{}: {}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDE}\" height=\"{HIGH}\" rx=\"8\"/>\
         <text class=\"name\" x=\"{left}\" y=\"{}\">{}</text><text x=\"{left}\" y=\"{}\">{}</text></g>",
        if branch.in_cycle { "box bad" } else { "box" },
        Esc(&name),
        Esc(&doing),
        y + 19,
        fit(&name),
        y + 36,
        fit(&doing),
    )
}

/// From one that waits up to the one that it waits for.
fn arrow(
    page: &mut String,
    model: &Model,
    shown: &[&Branch],
    from: usize,
    to: usize,
) -> fmt::Result {
    let (x, y) = place(from, shown[from]);
    let (to_x, to_y) = place(to, shown[to]);
    let middle = y + HIGH / 2;
    let stem = to_x + 14;
    // Beyond the deepest step boxes stand below each other.
    let path = if x > stem {
        format!("M{x} {middle}H{stem}V{}", to_y + HIGH + 1)
    } else {
        format!("M{} {y}V{}", x + 20, to_y + HIGH + 1)
    };
    let circle = shown[from].in_cycle && shown[to].in_cycle;
    write!(
        page,
        "<path class=\"edge{}{}\" marker-end=\"url(#{})\" d=\"{path}\"/>",
        if circle { " bad" } else { "" },
        if is_exact(model, shown[from].tid) {
            ""
        } else {
            " likely"
        },
        if circle { "tip-bad" } else { "tip" }
    )
}

fn is_exact(model: &Model, tid: u32) -> bool {
    let wait = model.blocked_task(tid);
    wait.and_then(|wait| wait.event.holder.as_ref())
        .is_some_and(|holder| holder.confidence == Confidence::Exact)
}

/// From the first of a circle around to the last one, for which it waits.
fn close(page: &mut String, shown: &[&Branch], first: usize, last: Option<usize>) -> fmt::Result {
    let Some(last) = last else { return Ok(()) };
    let (x, y) = place(first, shown[first]);
    let (to_x, to_y) = place(last, shown[last]);
    let (from, to) = (y + HIGH / 2, to_y + HIGH - 10);
    write!(
        page,
        "<path class=\"edge bad\" marker-end=\"url(#tip-bad)\" d=\"M{x} {from}H{0}Q12 {from} 12 {1}V{2}Q12 {to} {0} {to}H{3}\"/>",
        24,
        from + 12,
        to - 12,
        to_x - 1
    )
}
