//! Goroutines in groups, for people: those of the program first, with what they wait for.

use std::io::{self, Write};

use crate::{
    event::{
        GoChannel, GoFrame, GoGc, GoLock, GoOperation, GoScheduler, GoWaitsFor, GoroutineGroup,
        Goroutines, LockClass, LockRef,
    },
    text::printable,
    time::human,
};

/// Goroutines named of each group.
const NAMES: usize = 4;
/// Things that a group waits for which are written out.
const THINGS: usize = 3;
/// Calls written out of a stack.
const CALLS: usize = 32;

/// Processors whose queues are written out.
const QUEUES: usize = 32;

/// Writes the goroutines of one process.
///
/// # Errors
/// The writer's.
pub fn text(out: &mut impl Write, all: &Goroutines) -> io::Result<()> {
    write!(
        out,
        "\nprocess {} {}: {} goroutines ({}",
        all.pid,
        printable(all.process.as_deref().unwrap_or("?")),
        all.total,
        printable(&all.told_release())
    )?;
    if let Some(other) = &all.layout_of {
        write!(out, ", read as {}", printable(other))?;
    }
    write!(out, ")")?;
    let mut sign = ':';
    for (state, count) in &all.by_state {
        write!(out, "{sign} {count} {}", state.name())?;
        sign = ',';
    }
    writeln!(out)?;
    if let Some(known) = &all.scheduler {
        scheduler(out, known)?;
    }
    if all.torn + all.left_out > 0 {
        writeln!(
            out,
            "  not shown: {} changed while they were read, {} beyond the limits",
            all.torn, all.left_out
        )?;
    }
    for note in &all.notes {
        writeln!(out, "  {}", printable(note))?;
    }
    let (own, of_runtime): (Vec<_>, Vec<_>) = all.groups.iter().partition(|group| !group.system);
    for group in own {
        self::group(out, all, group)?;
    }
    let count: u64 = of_runtime.iter().map(|group| group.count).sum();
    if count > 0 {
        writeln!(out, "\n  {count} more of the runtime's own")?;
    }
    if all.groups_left_out > 0 {
        writeln!(out, "  {} more groups, the smallest", all.groups_left_out)?;
    }
    Ok(())
}

/// `scheduler: 2 processors (1 idle), 3 goroutines queued (1 shared; 2 0), 5 threads: …`
fn scheduler(out: &mut impl Write, known: &GoScheduler) -> io::Result<()> {
    write!(
        out,
        "  scheduler: {} processors ({} idle), {} goroutines queued (shared {}",
        known.processors, known.idle_processors, known.queued, known.run_queue
    )?;
    let queues = known.run_queues.iter().take(QUEUES);
    let queues: Vec<String> = queues.map(ToString::to_string).collect();
    write!(out, ", own {}", queues.join(" "))?;
    if known.processors > queues.len() as u64 {
        write!(out, " …")?;
    }
    write!(
        out,
        "), {} threads ({} idle, {} spinning, {} in system calls)",
        known.threads, known.idle_threads, known.spinning_threads, known.syscall_threads
    )?;
    match known.gc {
        Some(GoGc::Mark) => write!(out, ", garbage collection marks")?,
        Some(GoGc::MarkTermination) => write!(out, ", garbage collection finishes marking")?,
        Some(GoGc::Off) | None => {}
    }
    if known.stopping {
        write!(out, ", the world is stopped or stopping")?;
    }
    writeln!(out)
}

fn group(out: &mut impl Write, all: &Goroutines, group: &GoroutineGroup) -> io::Result<()> {
    write!(out, "\n  {} {}", group.count, group.state.name())?;
    if let Some(reason) = &group.wait_reason {
        write!(out, " ({})", printable(reason))?;
    }
    if let Some(longest_ns) = group.longest_wait_ns {
        write!(out, " for ≥{}", human(longest_ns))?;
    }
    let names: Vec<String> = group.goids.iter().map(ToString::to_string).collect();
    let named = names.len().min(NAMES);
    write!(out, ": goroutine {}", names[..named].join(", "))?;
    if group.count > named as u64 {
        write!(out, " and {} more", group.count - named as u64)?;
    }
    if let Some(wakes_ns) = group.wakes_in_ns {
        let word = if group.count > 1 { "the first " } else { "" };
        write!(out, ", {word}sleeps for {} more", human(wakes_ns))?;
    }
    writeln!(out)?;
    self::facts(out, group)?;
    for wait in group.waits_for.iter().take(THINGS) {
        waits_for(out, all, group, wait)?;
    }
    let more = group.waits_for.len().saturating_sub(THINGS) as u64 + group.waits_left_out;
    if more > 0 {
        writeln!(out, "      waits for {more} more")?;
    }
    for frame in group.stack.iter().take(CALLS) {
        call(out, "at", frame)?;
    }
    if group.stack_cut || group.stack.len() > CALLS {
        writeln!(out, "      … more calls")?;
    }
    match &group.created_by {
        Some(place) => call(out, "created by", place),
        None => Ok(()),
    }
}

/// Threads and labels.
fn facts(out: &mut impl Write, group: &GoroutineGroup) -> io::Result<()> {
    if !group.tids.is_empty() {
        let tids: Vec<String> = group.tids.iter().map(ToString::to_string).collect();
        write!(out, "      on thread {}", tids.join(", "))?;
        if group.locked_to_thread > 0 {
            write!(out, ", {} of them locked to it", group.locked_to_thread)?;
        }
        writeln!(out)?;
    }
    if group.labels.is_empty() {
        return Ok(());
    }
    write!(out, "      labels:")?;
    for label in &group.labels {
        let (key, value) = (printable(&label.key), printable(&label.value));
        write!(out, " {key}={value}")?;
        if group.count > 1 {
            write!(out, " ({})", label.count)?;
        }
    }
    writeln!(out)
}

/// `at main.serve (server.go:42)`.
fn call(out: &mut impl Write, word: &str, frame: &GoFrame) -> io::Result<()> {
    write!(out, "      {word} {}", printable(&frame.to_string()))?;
    if frame.inlined {
        write!(out, " [inlined]")?;
    }
    writeln!(out)
}

fn waits_for(
    out: &mut impl Write,
    all: &Goroutines,
    group: &GoroutineGroup,
    wait: &GoWaitsFor,
) -> io::Result<()> {
    write!(out, "      ")?;
    if group.count > 1 {
        write!(out, "{} of them: ", wait.count)?;
    }
    write!(out, "waits")?;
    match wait.operation {
        Some(GoOperation::Pass) | None => {}
        Some(GoOperation::Exclusive) => write!(out, " to lock")?,
        Some(GoOperation::Shared) => write!(out, " to read under")?,
        Some(operation) => write!(out, " to {}", operation.name())?,
    }
    if let Some(fd) = wait.fd {
        write!(out, " on descriptor {fd}")?;
        match (&wait.socket, &wait.file) {
            (Some(socket), _) => write!(out, " ({})", printable(&socket.to_string()))?,
            (None, Some(file)) => write!(out, " ({})", printable(file))?,
            (None, None) => {}
        }
    }
    if let Some(lock) = &wait.lock {
        let word = if wait.select { ", among others," } else { "" };
        write!(out, "{word} {lock}")?;
        state(out, all, lock)?;
    }
    writeln!(out)
}

/// What is known of a lock or a channel.
fn state(out: &mut impl Write, all: &Goroutines, lock: &LockRef) -> io::Result<()> {
    if lock.class == LockClass::GoChan {
        let known = all.channels.iter().find(|one| one.lock.id == lock.id);
        return known.map_or(Ok(()), |known| channel(out, known));
    }
    let known = all.locks.iter().find(|one| one.lock.id == lock.id);
    known.map_or(Ok(()), |known| self::lock(out, known))
}

fn channel(out: &mut impl Write, channel: &GoChannel) -> io::Result<()> {
    write!(out, " ({} of {} in it", channel.len, channel.cap)?;
    if channel.closed {
        write!(out, ", closed")?;
    }
    if channel.timer {
        write!(out, ", a timer's")?;
    }
    write!(
        out,
        ", {} to receive, {} to send)",
        channel.receivers, channel.senders
    )?;
    if !channel.on_stacks_of.is_empty() {
        let others: Vec<String> = channel
            .on_stacks_of
            .iter()
            .map(ToString::to_string)
            .collect();
        write!(out, ", known to goroutine {}", others.join(", "))?;
    }
    Ok(())
}

fn lock(out: &mut impl Write, lock: &GoLock) -> io::Result<()> {
    let mut facts = vec![format!("{} waiting", lock.waiters_now)];
    facts.extend(
        lock.locked
            .map(|yes| if yes { "locked" } else { "free" }.to_owned()),
    );
    facts.extend(
        lock.starving
            .filter(|yes| *yes)
            .map(|_| "starving".to_owned()),
    );
    facts.extend(lock.readers.map(|count| format!("{count} readers")));
    facts.extend(
        lock.readers_pending
            .map(|count| format!("{count} to leave first")),
    );
    facts.extend(lock.counter.map(|count| format!("{count} not done")));
    write!(out, " ({})", facts.join(", "))?;
    let word = if lock.counter.is_some() {
        "needs"
    } else {
        "held by"
    };
    for holder in &lock.holders {
        write!(
            out,
            ", {word} goroutine {} ({}: {})",
            holder.goid,
            holder.confidence.name(),
            printable(&holder.evidence)
        )?;
        if let Some(doing) = &holder.doing {
            write!(out, ", {}", printable(doing))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::goroutines;

    #[test]
    fn what_is_untested_is_called_so() {
        let first = |untested: Option<&str>| {
            let all = Goroutines {
                untested: untested.map(str::to_owned),
                ..goroutines()
            };
            let mut out = Vec::new();
            text(&mut out, &all).unwrap();
            let out = String::from_utf8(out).unwrap();
            out.trim_start().lines().next().unwrap().to_owned()
        };
        assert_eq!(first(None), "process 1 server: 1 goroutines (go1.24.1)");
        assert_eq!(
            first(Some("arm64")),
            "process 1 server: 1 goroutines (go1.24.1 for arm64, untested)"
        );
    }
}
