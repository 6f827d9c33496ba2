//! Events and the summary of a run, for people.

use std::{
    io::{self, Write},
    sync::Arc,
};

use crate::{
    event::{
        Attached, Blocked, End, Event, Finding, Holder, LockRef, Meta, Missing, Outcome, Reason,
        TaskRef, Wait,
    },
    model::Model,
    text::printable,
    time::{WallTime, human},
};

/// Rows of each table of the summary.
const ROWS: usize = 10;

/// Writes an event; totals are left to the [`summary`]. Idle waits (poll, sleep, child) only with `all`.
///
/// # Errors
/// The writer's.
pub fn line(out: &mut impl Write, event: &Event, all: bool) -> io::Result<()> {
    match event {
        Event::Meta(meta) => heading(out, meta, all),
        Event::Wait(wait) if all || !wait.kind.is_idle() => wait_line(out, wait),
        Event::Blocked(blocked) if all || !blocked.kind.is_idle() => blocked_line(out, blocked),
        Event::Finding(found) => finding(out, found),
        Event::Loss(loss) if loss.total > 0 => {
            write!(out, "{}  LOST     {}:", clock(loss.time), loss.total)?;
            for (cause, count) in loss.counters.iter().filter(|(_, count)| **count > 0) {
                write!(out, " {cause} {count}")?;
            }
            writeln!(out)
        }
        Event::Budget(step) => writeln!(
            out,
            "{}  BUDGET   {}: observing used {:.1}% of the CPU time, {}% are allowed",
            clock(step.time),
            step.step.name().replace('_', " "),
            step.overhead_percent,
            step.limit_percent
        ),
        Event::Attached(later) => attached(out, later),
        // What a deadlock is, its finding says in a sentence, with the tasks below it.
        _ => Ok(()),
    }
}

fn heading(out: &mut impl Write, meta: &Meta, all: bool) -> io::Result<()> {
    writeln!(
        out,
        "observer {} on {} (Linux {}, {} CPUs): waits of {} and more, in progress from {} on; futexes by {}",
        meta.observer,
        printable(&meta.host),
        meta.kernel,
        meta.cpus,
        human(meta.filters.min_wait_ns),
        human(meta.filters.long_wait_ns),
        meta.capture.futex,
    )?;
    missing(out, &meta.capture.missing)?;
    if !all {
        writeln!(
            out,
            "idle waits (poll, sleep, child) are not shown; --all shows them"
        )?;
    }
    Ok(())
}

fn missing(out: &mut impl Write, all: &[Missing]) -> io::Result<()> {
    for missing in all {
        let (feature, why) = (printable(&missing.feature), printable(&missing.why));
        writeln!(out, "missing: {feature}: {why}")?;
    }
    Ok(())
}

fn attached(out: &mut impl Write, later: &Attached) -> io::Result<()> {
    for hook in &later.attached {
        writeln!(out, "{}  ATTACHED {}", clock(later.time), printable(hook))?;
    }
    missing(out, &later.missing)
}

/// The time of day of a time stamp, to the millisecond.
fn clock(time: WallTime) -> String {
    let text = time.to_string();
    text.get(11..23).unwrap_or(&text).to_owned()
}

fn task(task: &TaskRef) -> String {
    let name = task.comm.as_deref().unwrap_or("?");
    let named = match &task.process {
        Some(process) if **process != *name => format!(
            "{}/{} ({} {})",
            printable(name),
            task.tid,
            printable(process),
            task.pid
        ),
        _ if task.pid == task.tid => format!("{}/{}", printable(name), task.tid),
        _ => format!("{}/{} ({})", printable(name), task.tid, task.pid),
    };
    let named = match task.goid {
        Some(goid) => format!("goroutine {goid} on {named}"),
        None => named,
    };
    match &task.container {
        Some(container) => format!("{named} in {}", printable(&container.to_string())),
        None => named,
    }
}

fn lock(lock: &LockRef) -> String {
    match &lock.name {
        Some(name) => format!("{} {}", lock.class.name(), printable(name)),
        None => format!("{} {}", lock.class.name(), lock.addr),
    }
}

fn finding(out: &mut impl Write, found: &Finding) -> io::Result<()> {
    let title = printable(&found.title);
    writeln!(
        out,
        "{}  FINDING  {}: {title}",
        clock(found.time),
        found.severity.name()
    )?;
    for line in &found.evidence {
        writeln!(out, "                        {}", printable(line))?;
    }
    Ok(())
}

/// ` held by writer/12 (exact), in fsync(/data/wal)`.
fn holder(out: &mut impl Write, holder: Option<&Holder>) -> io::Result<()> {
    let Some(holder) = holder else { return Ok(()) };
    let Some(tid) = holder.tid else {
        return write!(out, "  holder unknown: {}", printable(&holder.evidence));
    };
    let name = holder.comm.as_deref().unwrap_or("?");
    write!(
        out,
        "  held by {}/{tid} ({})",
        printable(name),
        holder.confidence.name()
    )?;
    match &holder.doing {
        Some(doing) => write!(out, ", {}", printable(doing)),
        None => Ok(()),
    }
}

fn wait_line(out: &mut impl Write, wait: &Wait) -> io::Result<()> {
    let least = if wait.at_least { "≥" } else { "" };
    write!(
        out,
        "{}  wait     {:>8}  {}  {}",
        clock(wait.time),
        format!("{least}{}", human(wait.dur_ns)),
        task(&wait.task),
        wait.kind.name()
    )?;
    purpose(
        out,
        wait.lock.as_deref(),
        &wait.locks,
        wait.syscall.as_deref(),
    )?;
    holder(out, wait.holder.as_deref())?;
    match (wait.outcome, &wait.waker) {
        (Some(Outcome::Woken), Some(waker)) => {
            let name = waker.comm.as_deref().unwrap_or("?");
            write!(out, "  woken by ")?;
            if let Some(goid) = waker.goid {
                write!(out, "goroutine {goid} on ")?;
            }
            write!(out, "{}/{}", printable(name), waker.tid)?;
        }
        (Some(outcome), _) => write!(out, "  {}", outcome.name())?,
        (None, _) if wait.end_unseen => write!(out, "  (end not seen)")?,
        (None, _) => {}
    }
    for (cause, ns) in &wait.causes {
        write!(out, "  {} {}", cause.name().replace('_', " "), human(*ns))?;
    }
    if let Some(runqueue_ns) = wait.runqueue_ns
        && runqueue_ns.saturating_mul(10) > wait.dur_ns
    {
        write!(out, "  of it {} runnable", human(runqueue_ns))?;
    }
    writeln!(out)
}

fn blocked_line(out: &mut impl Write, blocked: &Blocked) -> io::Result<()> {
    let least = if blocked.at_least { "≥" } else { "" };
    write!(
        out,
        "{}  blocked  {:>8}  {}  {}",
        clock(blocked.time),
        format!("{least}{}", human(blocked.age_ns)),
        task(&blocked.task),
        blocked.kind.name()
    )?;
    purpose(
        out,
        blocked.lock.as_deref(),
        &blocked.locks,
        blocked.syscall.as_deref(),
    )?;
    holder(out, blocked.holder.as_deref())?;
    if let Some(runqueue_ns) = blocked.runqueue_ns {
        write!(out, "  runnable for {}", human(runqueue_ns))?;
    }
    writeln!(out)
}

fn purpose(
    out: &mut impl Write,
    one: Option<&LockRef>,
    several: &[Arc<LockRef>],
    syscall: Option<&str>,
) -> io::Result<()> {
    if let Some(one) = one {
        write!(out, "  {}", lock(one))?;
    }
    if several.len() > 1 {
        write!(out, "  of {} locks", several.len())?;
    }
    match syscall {
        Some(syscall) => write!(out, "  in {syscall}"),
        None => Ok(()),
    }
}

/// Writes what a run found: tasks still blocked, locks by their waits' total time, losses, cost.
///
/// # Errors
/// The writer's.
pub fn summary(out: &mut impl Write, model: &Model) -> io::Result<()> {
    let mut findings: Vec<_> = model.findings().collect();
    findings.sort_by_key(|found| std::cmp::Reverse(found.severity));
    if !findings.is_empty() {
        writeln!(out, "\nfindings: {}", findings.len())?;
    }
    for found in findings.iter().take(ROWS) {
        writeln!(
            out,
            "  {:<8}  {}",
            found.severity.name(),
            printable(&found.title)
        )?;
    }
    more(out, findings.len())?;
    blocked_table(out, model)?;
    lock_table(out, model)?;
    if let Some(end) = model.end() {
        writeln!(out)?;
        ending(out, end)?;
    }
    match model.loss() {
        Some(loss) if loss.total > 0 => {
            write!(out, "LOST {}:", loss.total)?;
            for (cause, count) in loss.counters.iter().filter(|(_, count)| **count > 0) {
                write!(out, " {cause} {count}")?;
            }
            writeln!(out)
        }
        Some(_) => writeln!(out, "lost: nothing"),
        None => Ok(()),
    }
}

fn blocked_table(out: &mut impl Write, model: &Model) -> io::Result<()> {
    let mut blocked: Vec<_> = model.blocked().collect();
    blocked.sort_by_key(|wait| {
        (
            wait.event.kind.is_mostly_idle(),
            wait.start_ns,
            wait.event.task.tid,
        )
    });
    let idle = blocked
        .iter()
        .filter(|wait| wait.event.kind.is_mostly_idle())
        .count();
    let held = blocked.len() - idle;
    writeln!(
        out,
        "\nblocked at the end: {held} (and {idle} idle: poll, sleep, child, condvar)"
    )?;
    for wait in blocked.iter().take(held.min(ROWS)) {
        let least = if wait.event.at_least { "≥" } else { "" };
        let age = format!("{least}{}", human(wait.age_ns(model.now_ns())));
        write!(
            out,
            "  {age:>8}  {}  {}",
            task(&wait.event.task),
            wait.event.kind.name()
        )?;
        purpose(
            out,
            wait.event.lock.as_deref(),
            &wait.event.locks,
            wait.event.syscall.as_deref(),
        )?;
        holder(out, wait.event.holder.as_deref())?;
        writeln!(out)?;
    }
    more(out, held)
}

fn lock_table(out: &mut impl Write, model: &Model) -> io::Result<()> {
    let mut locks: Vec<_> = model.locks().filter(|lock| lock.totals.waits > 0).collect();
    locks.sort_by(|a, b| {
        (b.totals.total_ns, &a.totals.lock.id).cmp(&(a.totals.total_ns, &b.totals.lock.id))
    });
    let estimated = if locks.iter().any(|lock| lock.totals.estimated) {
        " (estimates: short waits were sampled to keep to the budget)"
    } else {
        ""
    };
    writeln!(out, "\nlocks by total wait: {}{estimated}", locks.len())?;
    if !locks.is_empty() {
        writeln!(
            out,
            "  {:>8} {:>8} {:>8} {:>8} {:>8} {:>4}  lock",
            "waits", "total", "p50", "p99", "max", "now"
        )?;
    }
    for row in locks.iter().take(ROWS) {
        let totals = &row.totals;
        let or_dash = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), human);
        writeln!(
            out,
            "  {:>8} {:>8} {:>8} {:>8} {:>8} {:>4}  {}{}",
            totals.waits,
            human(totals.total_ns),
            or_dash(totals.p50_ns),
            or_dash(totals.p99_ns),
            human(totals.max_ns),
            totals.waiters_now,
            lock(&totals.lock),
            totals.pid.map_or_else(String::new, |pid| {
                let process = totals.process.as_deref().unwrap_or("?");
                format!(" of {} {pid}", printable(process))
            }),
        )?;
    }
    more(out, locks.len())
}

fn more(out: &mut impl Write, rows: usize) -> io::Result<()> {
    if rows > ROWS {
        writeln!(out, "  … and {} more", rows - ROWS)?;
    }
    Ok(())
}

fn ending(out: &mut impl Write, end: &End) -> io::Result<()> {
    let why = match end.reason {
        Reason::Duration => "time over",
        Reason::Stopped => "stopped",
        Reason::TargetEnded => "the observed processes have ended",
    };
    write!(
        out,
        "{why} after {}: {} waits of {} in all; observer used {} of CPU, {} MiB",
        human(end.dur_ns),
        end.waits,
        human(end.total_ns),
        human(end.cost.cpu_ns),
        end.cost.rss_bytes >> 20,
    )?;
    if let Some(ns) = end.cost.bpf_run_ns {
        write!(out, ", its kernel programs {}", human(ns))?;
    }
    writeln!(out)
}
