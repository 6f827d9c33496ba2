//! Stacks, innermost frames first, with what is known of each frame and how the stack ended.

use super::sheet::Sheet;
use crate::{
    event::{Frame, Stack},
    tui::{groups::is_machinery, rows::Tone, text::Glyphs},
};

/// Frames that are shown: a deep recursion says no more after these.
const FRAMES: usize = 64;

/// Writes a stack below its title.
pub(super) fn write(sheet: &mut Sheet, title: &str, stack: Option<&Stack>, why_not: &str) {
    let upper = sheet.glyphs.clean(title).into_owned();
    sheet.text(&upper, Tone::Strong);
    let stack = stack.filter(|stack| !stack.user.is_empty() || !stack.kernel.is_empty());
    let Some(stack) = stack else {
        sheet.text(why_not, Tone::Quiet);
        return;
    };
    let runtime = runtime(&stack.user);
    let shown = stack.user.len() - runtime;
    for (n, frame) in stack.user[..shown].iter().take(FRAMES).enumerate() {
        let tone = if frame.file.is_some() {
            Tone::Normal
        } else {
            Tone::Quiet
        };
        sheet.hanging(&format!("{n:>2}"), &self::frame(frame), tone, None);
    }
    if shown > FRAMES {
        let text = format!("and {} more", shown - FRAMES);
        sheet.text(&text, Tone::Quiet);
    }
    if runtime > 0 {
        let text = format!("{runtime} outer frames of the language's runtime; an export has them");
        sheet.hanging(&format!("{shown:>2}"), &text, Tone::Quiet, None);
    }
    if let Some(end) = stack.end {
        sheet.text(&format!("the stack ends: {end}"), Tone::Quiet);
    }
    if !stack.kernel.is_empty() {
        let names = stack.kernel.iter().map(name).collect::<Vec<_>>();
        let text = format!("inside the kernel: {}", names.join(", "));
        sheet.text(&text, Tone::Quiet);
    }
}

/// How many of the outermost frames are those that every thread of a language begins with; none where they
/// take little room.
fn runtime(frames: &[Frame]) -> usize {
    const FEW: usize = 3;
    let outer = frames.iter().rev().take_while(|frame| is_machinery(frame));
    let count = outer.count();
    if count > FEW && count < frames.len() {
        count
    } else {
        0
    }
}

/// The functions of a stack in a line, innermost first.
pub(super) fn brief(frames: &[&Frame], glyphs: Glyphs) -> String {
    let names: Vec<String> = frames.iter().map(|frame| name(frame)).collect();
    names.join(&format!(" {} ", glyphs.called_by()))
}

fn name(frame: &Frame) -> String {
    match &frame.name {
        Some(name) => name.to_string(),
        None => match &frame.module {
            Some(module) => format!("{} in {}", frame.addr, last(module, 1)),
            None => frame.addr.to_string(),
        },
    }
}

fn frame(frame: &Frame) -> String {
    let mut text = name(frame);
    match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => {
            text = format!("{text}  {}:{line}", last(file, 2));
        }
        (Some(file), None, _) => text = format!("{text}  {}", last(file, 2)),
        (None, _, Some(module)) if frame.name.is_some() => {
            text = format!("{text}  [{}]", last(module, 1));
        }
        _ => {}
    }
    if frame.inlined {
        text.push_str(" (inlined)");
    }
    if frame.scanned {
        text.push_str(" (found by its return address, perhaps of an earlier call)");
    }
    text
}

/// The last parts of a path.
pub(super) fn last(path: &str, parts: usize) -> &str {
    let cut = path.rmatch_indices('/').nth(parts - 1);
    cut.map_or(path, |(at, _)| &path[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_say_what_is_known() {
        assert_eq!(last("/src/ledger/main.rs", 2), "ledger/main.rs");
        assert_eq!(last("main.rs", 2), "main.rs");
        let mut one = Frame {
            name: Some("transfer".into()),
            file: Some("/src/ledger/main.rs".into()),
            line: Some(41),
            inlined: true,
            ..Frame::default()
        };
        assert_eq!(frame(&one), "transfer  ledger/main.rs:41 (inlined)");
        one.file = None;
        one.inlined = false;
        one.module = Some("/lib/libc.so.6".into());
        assert_eq!(frame(&one), "transfer  [libc.so.6]");
        one.name = None;
        assert_eq!(frame(&one), "0x0 in libc.so.6");
    }
}
