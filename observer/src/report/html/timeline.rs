//! Waits of each task on a line of time. All rows have one scale, so that a zoom is a change of their view boxes.

use std::fmt::{self, Write};

use super::Esc;
use crate::{
    event::Kind,
    report::{
        gather::{Row, Slice},
        incident::{Incident, task},
    },
    time::human,
};

/// Tasks that are drawn.
const ROWS: usize = 40;
/// Units of the width: a slice is placed to a millionth.
const UNITS: f64 = 1_000_000.0;
/// Marks below the rows.
const MARKS: u64 = 5;

pub(super) fn section(page: &mut String, incident: &Incident<'_>) -> fmt::Result {
    let timeline = incident.gathered.timeline();
    let rows = timeline.rows();
    if rows.is_empty() {
        page.push_str("<p class=\"none\">No single wait was long enough to be told.</p>");
        return Ok(());
    }
    let shown = &rows[..rows.len().min(ROWS)];
    let end_ns = incident.model.now_ns();
    let run_ns = end_ns.saturating_sub(incident.model.elapsed_ns());
    // A deadlock of days would press a run of seconds to nothing: what was before the run is cut to its length.
    let earliest = shown
        .iter()
        .flat_map(|row| row.slices.iter().map(|slice| slice.start_ns))
        .min()
        .unwrap_or(run_ns);
    let least = run_ns.saturating_sub(incident.model.elapsed_ns().max(1_000_000_000));
    let start_ns = earliest.min(run_ns).max(least);
    let span_ns = end_ns.saturating_sub(start_ns).max(1);
    head(page)?;
    writeln!(
        page,
        "<div class=\"timeline\" id=\"tl\" data-span=\"{span_ns}\" data-zero=\"{}\" tabindex=\"0\" role=\"group\" \
         aria-label=\"Waits of each task, from {} before the watch began to its end\">",
        run_ns.saturating_sub(start_ns),
        human(run_ns.saturating_sub(start_ns))
    )?;
    let mut gone = (0, 0);
    for row in shown {
        gone = (gone.0 + row.left_out, gone.1 + row.left_out_ns);
        self::row(page, row, start_ns, span_ns, run_ns)?;
    }
    page.push_str("<div class=\"axis\" aria-hidden=\"true\"><span class=\"who\"></span><span class=\"marks\">");
    for mark in 0..MARKS {
        let at_ns = start_ns + span_ns / (MARKS - 1) * mark;
        write!(page, "<span>{}</span>", since(at_ns, run_ns))?;
    }
    page.push_str("</span></div></div>\n<p id=\"tl-what\" class=\"what\" aria-live=\"polite\">Choose a wait to read what it is.</p>\n");
    let rest = rows.len() - shown.len();
    if rest > 0 {
        let more = if timeline.dropped { "more than " } else { "" };
        writeln!(
            page,
            "<p class=\"note\">Not drawn: {more}{rest} tasks that waited less.</p>"
        )?;
    }
    if gone.0 > 0 {
        writeln!(
            page,
            "<p class=\"note\">Not drawn: {} shorter waits of these tasks, {} in all.</p>",
            gone.0,
            human(gone.1)
        )?;
    }
    Ok(())
}

fn head(page: &mut String) -> fmt::Result {
    page.push_str(
        "<p class=\"note\">Idle waits (poll, sleep, child) are not drawn. Time 0 is the start of the watch.</p>\n\
         <div class=\"controls\" role=\"toolbar\" aria-label=\"Zoom\">\
         <button type=\"button\" data-zoom=\"in\">Zoom in</button>\
         <button type=\"button\" data-zoom=\"out\">Zoom out</button>\
         <button type=\"button\" data-zoom=\"left\" aria-label=\"Earlier\">←</button>\
         <button type=\"button\" data-zoom=\"right\" aria-label=\"Later\">→</button>\
         <button type=\"button\" data-zoom=\"all\">All</button></div>\n<ul class=\"legend\">",
    );
    for (class, name) in [
        ("lock", "lock"),
        ("kernel", "lock inside the kernel"),
        ("io", "file, page"),
        ("net", "socket, pipe"),
        ("cpu", "run queue"),
        (
            "idle",
            "may be idle: condition variable, semaphore, join, parked",
        ),
        ("other", "other"),
    ] {
        write!(
            page,
            "<li><svg width=\"12\" height=\"12\" aria-hidden=\"true\"><rect class=\"k-{class}\" width=\"12\" height=\"12\" rx=\"2\"/></svg>{name}</li>"
        )?;
    }
    page.push_str("</ul>\n");
    Ok(())
}

fn row(page: &mut String, row: &Row, start_ns: u64, span_ns: u64, run_ns: u64) -> fmt::Result {
    write!(
        page,
        "<div class=\"row\"><span class=\"who\"><bdi>{}</bdi> <small>{} · {}</small></span>\
         <svg viewBox=\"0 0 {UNITS} 20\" preserveAspectRatio=\"none\" height=\"20\" role=\"img\" aria-label=\"{} waits, {} in all\">",
        Esc(task(&row.task)),
        row.waits,
        human(row.total_ns),
        row.waits,
        human(row.total_ns)
    )?;
    for slice in &row.slices {
        let place = |ns: u64| ns.saturating_sub(start_ns) as f64 * UNITS / span_ns as f64;
        let (from, to) = (place(slice.start_ns), place(slice.end_ns));
        write!(
            page,
            "<rect class=\"k-{}{}\" x=\"{from:.0}\" y=\"2\" width=\"{:.0}\" height=\"16\"><title>{}</title></rect>",
            tint(slice),
            if slice.open { " open" } else { "" },
            (to - from).max(1.0),
            Esc(words(slice, run_ns))
        )?;
    }
    page.push_str("</svg></div>\n");
    Ok(())
}

fn words(slice: &Slice, run_ns: u64) -> String {
    let length = human(slice.end_ns.saturating_sub(slice.start_ns));
    let mut words = format!("{} {length}", slice.kind.name());
    if slice.open {
        words.push_str(" and not over");
    }
    if let Some(lock) = &slice.lock {
        // Writing to a string cannot fail.
        let _ = write!(words, ", for {lock}");
    }
    if let Some(holder) = slice.holder.as_ref().filter(|holder| holder.tid.is_some()) {
        let _ = write!(
            words,
            ", held by {}",
            crate::report::incident::holder(Some(holder))
        );
    }
    let _ = write!(words, ", from {}", since(slice.start_ns, run_ns));
    words
}

/// A time, from the start of the watch on.
fn since(at_ns: u64, run_ns: u64) -> String {
    if at_ns < run_ns {
        format!("−{}", human(run_ns - at_ns))
    } else {
        human(at_ns - run_ns)
    }
}

fn tint(slice: &Slice) -> &'static str {
    match slice.kind {
        _ if slice.may_be_idle() => "idle",
        Kind::Lock
        | Kind::Futex
        | Kind::GoroutineMutex
        | Kind::JvmMonitor
        | Kind::PostgresLock
        | Kind::Usdt => "lock",
        Kind::KernelLock => "kernel",
        Kind::Io | Kind::PageFault => "io",
        Kind::Socket | Kind::Pipe => "net",
        Kind::Runqueue => "cpu",
        Kind::Condvar
        | Kind::Semaphore
        | Kind::Barrier
        | Kind::GoroutineChannel
        | Kind::Join
        | Kind::Poll
        | Kind::Sleep
        | Kind::Child => "idle",
        Kind::Other => "other",
    }
}
