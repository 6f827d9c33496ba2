//! Blocked time by stack, as a flame graph that hangs from its top: process, thread, calls.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use super::Esc;
use crate::{report::export::Folded, time::human};

/// Frames narrower than this part are left out, and so are those beyond this many.
const NARROWEST: f64 = 0.001;
const FRAMES: usize = 3_000;
/// Calls below each other.
const DEPTH: usize = 96;
const HIGH: usize = 18;
/// Colours of calls.
const TINTS: u32 = 6;

#[derive(Default)]
struct Node<'a> {
    total_ns: u64,
    children: BTreeMap<&'a str, Node<'a>>,
}

/// A frame that is drawn: its place from 0 to 1.
struct Frame<'a> {
    name: &'a str,
    depth: usize,
    from: f64,
    width: f64,
    ns: u64,
}

pub(super) fn section(page: &mut String, folded: &Folded) -> fmt::Result {
    let stacks = folded.stacks();
    let mut root = Node::default();
    for (names, weight) in &stacks {
        root.total_ns = root.total_ns.saturating_add(weight.total_ns);
        let mut at = &mut root;
        for name in names.iter().take(DEPTH) {
            at = at.children.entry(name).or_default();
            at.total_ns = at.total_ns.saturating_add(weight.total_ns);
        }
    }
    if root.total_ns == 0 {
        page.push_str("<p class=\"none\">No single wait was long enough to be told.</p>");
        return Ok(());
    }
    let mut frames = Vec::new();
    let mut left_out = 0;
    lay(&root, 0, 0.0, root.total_ns, &mut frames, &mut left_out);
    let deepest = frames.iter().map(|frame| frame.depth).max().unwrap_or(0);
    page.push_str(
        "<p class=\"note\">Time waited, idle waits left out: the wider, the longer. Process, thread, then calls \
         from the outermost on. Choose a frame to zoom in.</p>\n<div class=\"controls\"><button type=\"button\" id=\"flame-all\" \
         disabled>All</button> <output id=\"flame-what\" aria-live=\"polite\"></output></div>\n",
    );
    writeln!(
        page,
        "<svg class=\"flame\" id=\"fl\" width=\"100%\" height=\"{}\" role=\"img\" aria-label=\"Flame graph of {} waited\">",
        (deepest + 1) * HIGH,
        human(root.total_ns)
    )?;
    for frame in &frames {
        draw(page, frame, root.total_ns)?;
    }
    page.push_str("</svg>\n");
    if left_out > 0 {
        writeln!(
            page,
            "<p class=\"note\">Not drawn: {left_out} frames that are too narrow.</p>"
        )?;
    }
    Ok(())
}

/// Lays out what is below a node. The depth is bounded, so this is.
fn lay<'a>(
    node: &Node<'a>,
    depth: usize,
    from: f64,
    total_ns: u64,
    frames: &mut Vec<Frame<'a>>,
    left_out: &mut u64,
) {
    let mut from = from;
    for (name, child) in &node.children {
        let width = child.total_ns as f64 / total_ns as f64;
        if width < NARROWEST || frames.len() >= FRAMES {
            *left_out += count(child);
        } else {
            frames.push(Frame {
                name,
                depth,
                from,
                width,
                ns: child.total_ns,
            });
            lay(child, depth + 1, from, total_ns, frames, left_out);
        }
        from += width;
    }
}

fn count(node: &Node<'_>) -> u64 {
    1 + node.children.values().map(count).sum::<u64>()
}

fn draw(page: &mut String, frame: &Frame<'_>, total_ns: u64) -> fmt::Result {
    let share = frame.ns as f64 * 100.0 / total_ns as f64;
    let class = match frame.depth {
        0 => "p".to_owned(),
        1 => "t".to_owned(),
        _ => (hash(frame.name) % TINTS).to_string(),
    };
    // A nested picture cuts its text at its own width.
    writeln!(
        page,
        "<svg class=\"f f-{class}\" x=\"{:.4}%\" y=\"{}\" width=\"{:.4}%\" height=\"{}\" data-x=\"{:.6}\" data-w=\"{:.6}\">\
         <title>{name}: {} ({share:.1} %)</title><rect width=\"100%\" height=\"{}\"/><text x=\"4\" y=\"12\">{name}</text></svg>",
        frame.from * 100.0,
        frame.depth * HIGH,
        frame.width * 100.0,
        HIGH - 1,
        frame.from,
        frame.width,
        human(frame.ns),
        HIGH - 1,
        name = Esc(frame.name)
    )
}

/// The same name has the same colour (FNV-1a).
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
