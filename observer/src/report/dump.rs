//! A dump, for people: deadlocks first, then each process with its threads, equal ones together.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use crate::{
    dump::{Dump, Task},
    event::{Addr, Frame, StackEnd},
    text::printable,
    time::human,
};

/// Names of threads that are written out of a group.
const NAMES: usize = 4;

/// Writes a dump.
///
/// # Errors
/// The writer's.
pub fn text(out: &mut impl Write, dump: &Dump) -> io::Result<()> {
    writeln!(
        out,
        "observer {} on {} (Linux {}): {} threads at {}",
        dump.meta.observer,
        printable(&dump.meta.host),
        dump.meta.kernel,
        dump.tasks.len(),
        dump.meta.time
    )?;
    for missing in &dump.meta.capture.missing {
        writeln!(out, "missing: {}: {}", missing.feature, missing.why)?;
    }
    for found in &dump.findings {
        writeln!(
            out,
            "\n{}: {}",
            found.severity.name(),
            printable(&found.title)
        )?;
        for line in &found.evidence {
            writeln!(out, "    {}", printable(line))?;
        }
        writeln!(out, "    → {}", found.advice)?;
    }
    let mut processes: BTreeMap<u32, Vec<&Task>> = BTreeMap::new();
    for task in &dump.tasks {
        processes.entry(task.task.pid).or_default().push(task);
    }
    for (pid, tasks) in &processes {
        process(out, *pid, tasks)?;
    }
    for goroutines in &dump.goroutines {
        super::goroutines::text(out, goroutines)?;
    }
    losses(out, dump)
}

fn losses(out: &mut impl Write, dump: &Dump) -> io::Result<()> {
    if dump.loss.total == 0 {
        return Ok(());
    }
    write!(out, "\nnot looked at:")?;
    for (cause, count) in dump.loss.counters.iter().filter(|(_, count)| **count > 0) {
        write!(out, " {cause} {count}")?;
    }
    writeln!(out)
}

/// One process: groups of threads that do the same at the same place, those that are held up first.
fn process(out: &mut impl Write, pid: u32, tasks: &[&Task]) -> io::Result<()> {
    let name = tasks
        .first()
        .and_then(|task| task.task.process.as_deref())
        .unwrap_or("?");
    let threads = if tasks.len() == 1 {
        "1 thread".to_owned()
    } else {
        format!("{} threads", tasks.len())
    };
    writeln!(out, "\nprocess {pid} {}: {threads}", printable(name))?;
    let mut groups: Vec<Vec<&Task>> = Vec::new();
    let mut index = BTreeMap::new();
    for task in tasks {
        let at = *index.entry(key(task)).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[at].push(task);
    }
    groups.sort_by_key(|group| {
        let task = group[0];
        let held = task.lock.as_ref().is_some_and(|lock| lock.class.is_held());
        (!held, task.kind.is_none_or(crate::event::Kind::is_idle))
    });
    for group in groups {
        self::group(out, &group)?;
    }
    Ok(())
}

/// What threads of one group have in common: what they wait for and their frames.
fn key(task: &Task) -> String {
    use std::fmt::Write;
    let mut key = format!(
        "{:?} {:?} {:?}",
        task.state,
        task.kind,
        task.lock.as_ref().map(|lock| &lock.id)
    );
    for frame in task.stack.iter().flat_map(|stack| stack.user.iter()) {
        // Writing to a string cannot fail.
        let _ = write!(key, " {}", frame.addr);
    }
    key
}

fn group(out: &mut impl Write, group: &[&Task]) -> io::Result<()> {
    let task = group[0];
    let names: Vec<String> = group
        .iter()
        .take(NAMES)
        .map(|task| printable(&task.task.to_string()).into_owned())
        .collect();
    let more = group.len().saturating_sub(NAMES);
    write!(out, "\n  {}", names.join(", "))?;
    if more > 0 {
        write!(out, " and {more} more")?;
    }
    let state = task.state.map_or("", |state| state.name());
    match task.kind {
        None => writeln!(out, ": {state}")?,
        Some(kind) => {
            write!(out, ": {}", kind.name())?;
            if let Some(age_ns) = group.iter().filter_map(|task| task.age_ns).max() {
                let least = if task.at_least { "≥" } else { "" };
                write!(out, " for {least}{}", human(age_ns))?;
            }
            if let Some(syscall) = &task.syscall {
                write!(out, ", in {syscall}")?;
            }
            if let Some(file) = &task.file {
                write!(out, "({})", printable(file))?;
            }
            writeln!(out)?;
        }
    }
    lock(out, task)?;
    if let Some(stack) = &task.stack {
        for frame in stack.user.iter() {
            self::frame(out, frame)?;
        }
        if let Some(end) = stack.end.filter(|end| *end != StackEnd::Root) {
            writeln!(out, "      … the stack ends: {}", end.words())?;
        }
    }
    Ok(())
}

fn lock(out: &mut impl Write, task: &Task) -> io::Result<()> {
    let Some(lock) = &task.lock else {
        return Ok(());
    };
    write!(out, "      waits for {}", lock.class.name())?;
    if let Some(name) = &lock.name {
        write!(out, " {}", printable(name))?;
    }
    if lock.addr != Addr::NONE {
        write!(out, " at {}", lock.addr)?;
    }
    if let Some(mode) = &task.mode {
        write!(out, " as {}", printable(mode))?;
    }
    if let Some(access) = task.access {
        write!(out, " to {}", access.name())?;
    }
    if let Some(holder) = &task.holder {
        match holder.tid {
            Some(tid) => write!(
                out,
                ", held by {}/{tid} ({}: {})",
                printable(holder.comm.as_deref().unwrap_or("?")),
                holder.confidence.name(),
                printable(&holder.evidence)
            )?,
            None => write!(out, ", holder unknown: {}", printable(&holder.evidence))?,
        }
        if let Some(doing) = &holder.doing {
            write!(out, ", {}", printable(doing))?;
        }
    }
    writeln!(out)?;
    if !task.chain.is_empty() {
        let chain: Vec<String> = task.chain.iter().map(ToString::to_string).collect();
        writeln!(out, "      chain: {}", chain.join(" → "))?;
    }
    Ok(())
}

/// `at transfer+0x1c (bank.c:42)`.
fn frame(out: &mut impl Write, frame: &Frame) -> io::Result<()> {
    if frame.scanned {
        writeln!(out, "      … frames are missing here")?;
    }
    match &frame.name {
        Some(name) => write!(out, "      at {}", printable(name))?,
        None => write!(out, "      at {}", frame.addr)?,
    }
    match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => write!(out, " ({}:{line})", printable(file))?,
        (_, _, Some(module)) => write!(out, " ({})", printable(module))?,
        _ => {}
    }
    if frame.inlined {
        write!(out, " [inlined]")?;
    }
    writeln!(out)
}
