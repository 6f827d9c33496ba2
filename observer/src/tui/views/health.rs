//! Can what the other views say be relied on: what was lost, what observing costs, what is attached and what
//! is missing.

use std::cmp::Reverse;

use super::{sheet::Sheet, whole_seconds};
use crate::{
    event::{Capture, Step},
    model::Model,
    time::human,
    tui::{canvas::Line, rows::Tone, text::Glyphs},
};

/// The lines of the page.
pub(in crate::tui) fn lines(model: &Model, columns: usize, glyphs: Glyphs) -> Vec<Line> {
    let mut sheet = Sheet::new(columns, glyphs);
    losses(&mut sheet, model);
    cost(&mut sheet, model);
    if let Some(meta) = model.meta() {
        missing(&mut sheet, &meta.capture);
        attached(&mut sheet, &meta.capture);
    }
    sheet.lines
}

/// The page in a line.
pub(in crate::tui) fn status(model: &Model) -> String {
    let lost = match model.loss() {
        Some(loss) if loss.total > 0 => format!("LOST {}", loss.total),
        _ => "nothing lost".to_owned(),
    };
    let missing = model.meta().map_or(0, |meta| meta.capture.missing.len());
    match missing {
        0 => format!("{lost}, nothing missing"),
        n => format!("{lost}, {n} missing"),
    }
}

fn losses(sheet: &mut Sheet, model: &Model) {
    sheet.heading("lost");
    match model.loss() {
        Some(loss) => {
            let mut causes: Vec<_> = loss.counters.iter().collect();
            causes.sort_by_key(|(cause, n)| (Reverse(**n), (*cause).clone()));
            let none: Vec<&str> = causes
                .iter()
                .filter(|(_, n)| **n == 0)
                .map(|(cause, _)| &***cause)
                .collect();
            for (cause, n) in causes.iter().filter(|(_, n)| **n > 0) {
                sheet.labelled(&n.to_string(), cause, Tone::Alarm, None);
            }
            sheet.field("0", &none.join(", "));
        }
        None if model.meta().is_some() => {
            sheet.text("Nothing: no loss has been told.", Tone::Normal);
        }
        None => sheet.text("Not known yet.", Tone::Normal),
    }
    let forgotten = model.forgotten();
    if forgotten.locks + forgotten.tasks > 0 {
        let text = format!(
            "{} locks and {} tasks, to keep memory bounded",
            forgotten.locks, forgotten.tasks
        );
        sheet.labelled("forgotten", &text, Tone::Strong, None);
    }
}

fn cost(sheet: &mut Sheet, model: &Model) {
    sheet.heading("what observing costs");
    let cost = model.cost();
    if cost.rss_bytes == 0 {
        sheet.text("Not known yet.", Tone::Normal);
    } else {
        let elapsed = whole_seconds(model.elapsed_ns());
        let text = format!(
            "{:.1}% of a core now; {} in {elapsed}",
            model.cost_rate() * 100.0,
            human(cost.cpu_ns)
        );
        sheet.field("observer", &text);
        sheet.field("memory", &format!("{} MiB resident", cost.rss_bytes >> 20));
        let text = match cost.bpf_run_ns {
            Some(ns) => format!("{} in {elapsed}, estimated from samples", human(ns)),
            None => "not known: the kernel's statistics need more privileges".to_owned(),
        };
        sheet.field("in the kernel", &text);
    }
    let (text, tone) = match model.budget() {
        Some(step) => (
            format!(
                "{}: used {:.1}% of the CPU time, {}% are allowed",
                step.step.name().replace('_', " "),
                step.overhead_percent,
                step.limit_percent
            ),
            if step.step == Step::Full {
                Tone::Normal
            } else {
                Tone::Strong
            },
        ),
        None => ("full: everything is done".to_owned(), Tone::Normal),
    };
    sheet.labelled("budget", &text, tone, None);
}

fn missing(sheet: &mut Sheet, capture: &Capture) {
    sheet.heading("missing");
    if capture.missing.is_empty() {
        sheet.text(
            "Nothing: this kernel and these privileges give all that observer asks for.",
            Tone::Normal,
        );
    }
    for missing in &capture.missing {
        let text = format!("{}: {}", missing.feature, missing.why);
        sheet.text(&text, Tone::Strong);
    }
    if !capture.missing.is_empty() {
        sheet.text("`observer doctor` says how to get it.", Tone::Normal);
    }
}

fn attached(sheet: &mut Sheet, capture: &Capture) {
    sheet.heading("attached");
    sheet.field("futexes by", &capture.futex);
    sheet.field("hooks", &capture.attached.join(", "));
    let text = format!(
        "{} tasks and {} locks at a time, ring buffer of {} KiB",
        capture.task_slots,
        capture.lock_slots,
        capture.ring_bytes >> 10
    );
    sheet.field("room for", &text);
}
