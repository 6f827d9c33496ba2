//! The table of locks, and each of the costliest in detail.

use std::fmt::{self, Write};

use super::{Esc, frames, histogram, left_out, table};
use crate::{
    event::Caller,
    model::{Lock, Model},
    report::{
        answer::by_cost,
        incident::{holder, stack_lines},
    },
    time::human,
};

/// Rows of the table, locks told in detail, and places each is waited for from.
const ROWS: usize = 200;
const DETAILS: usize = 20;
const CALLERS: usize = 3;

pub(super) fn section(page: &mut String, model: &Model) -> fmt::Result {
    let mut all = by_cost(model);
    all.retain(|lock| !lock.totals.lock.class.is_kernel());
    if all.is_empty() {
        page.push_str("<p class=\"none\">None.</p>");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .take(ROWS)
        .enumerate()
        .map(|(at, lock)| row(at, lock, model))
        .collect();
    let head = [
        "lock",
        ">waits",
        ">total",
        ">p50",
        ">p99",
        ">max",
        ">now",
        "class",
        "process",
        "last holder",
    ];
    table(page, "Locks by total wait", &head, &rows, true)?;
    left_out(page, all.len().saturating_sub(ROWS), "locks")?;
    page.push_str("<p class=\"note\">The total has the waits in progress too; the other numbers are of waits that ended.</p>");
    if all.iter().any(|lock| lock.totals.estimated) {
        page.push_str(
            "<p class=\"note\">Estimates: short waits were sampled to keep to the budget.</p>",
        );
    }
    for (at, lock) in all.iter().take(DETAILS).enumerate() {
        detail(page, at, lock)?;
    }
    Ok(())
}

fn row(at: usize, lock: &Lock, model: &Model) -> Vec<String> {
    let totals = &lock.totals;
    let or_dash = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), human);
    let name = Esc(totals.lock.to_string());
    let name = if at < DETAILS {
        format!("<a href=\"#lock-{at}\">{name}</a>")
    } else {
        name.to_string()
    };
    vec![
        name,
        totals.waits.to_string(),
        human(lock.waited_ns(model.now_ns())),
        or_dash(totals.p50_ns),
        or_dash(totals.p99_ns),
        or_dash((totals.waits > 0).then_some(totals.max_ns)),
        lock.waiters_now().to_string(),
        totals.lock.class.name().to_owned(),
        Esc(whose(lock)).to_string(),
        Esc(holder(lock.known_holder())).to_string(),
    ]
}

fn whose(lock: &Lock) -> String {
    match (&lock.totals.process, lock.totals.pid) {
        (Some(name), Some(pid)) => format!("{name} {pid}"),
        (None, Some(pid)) => pid.to_string(),
        _ => "-".to_owned(),
    }
}

fn detail(page: &mut String, at: usize, lock: &Lock) -> fmt::Result {
    let totals = &lock.totals;
    write!(
        page,
        "<details class=\"lock\" id=\"lock-{at}\"><summary><code>{}</code> of {}: {} waits, {} in all; {} waiting</summary>",
        Esc(totals.lock.to_string()),
        Esc(whose(lock)),
        totals.waits,
        human(totals.total_ns),
        lock.waiters_now()
    )?;
    if let Some(held_by) = lock.known_holder() {
        write!(
            page,
            "<p>Holder, as last known: {} — {}</p>",
            Esc(holder(Some(held_by))),
            Esc(&held_by.evidence)
        )?;
    }
    histogram(page, &totals.histogram)?;
    for caller in totals.callers.iter().take(CALLERS) {
        let title = place(caller);
        frames(page, &title, &stack_lines(Some(&caller.stack)))?;
    }
    left_out(page, totals.callers.len().saturating_sub(CALLERS), "places")?;
    page.push_str("</details>\n");
    Ok(())
}

fn place(caller: &Caller) -> String {
    format!(
        "waited for from here, in {} sampled waits of {}",
        caller.samples,
        human(caller.total_ns)
    )
}
