//! The answer in up to three sentences: what is wrong, which lock cost most, who is still blocked.

use std::cmp::Reverse;

use crate::{
    event::{Deadlock, Finding, Goroutines, Kind, LockClass, LockRef, Severity, TaskRef},
    model::{InProgress, Lock, Model},
    time::human,
};

/// Tasks of a circle that are named.
const NAMED: usize = 4;

/// What a run found, the worst first, in up to three sentences.
pub fn summary_sentences(model: &Model) -> Vec<String> {
    let findings = by_gravity(model.findings().collect());
    let deadlocks: Vec<&Deadlock> = model.deadlocks().collect();
    sentences(
        model,
        &deadlocks,
        &findings,
        &[],
        blocked(model.goroutines()),
    )
}

/// The same of deadlocks that the model need not know, of findings that are in order already, and of circumstances
/// that no rule knows: a sentence each, the first of which comes before any finding that is not critical.
pub(super) fn sentences(
    model: &Model,
    deadlocks: &[&Deadlock],
    findings: &[&Finding],
    circumstances: &[String],
    goroutines: u64,
) -> Vec<String> {
    let grave = !deadlocks.is_empty()
        || findings
            .first()
            .is_some_and(|found| found.severity == Severity::Critical);
    let mut sentences = Vec::new();
    match circumstances.first() {
        Some(known) if !grave => {
            sentences.push(known.clone());
            if findings.is_empty() {
                sentences.extend(costliest(model));
            } else {
                sentences.push(worst(model, deadlocks, findings));
            }
        }
        known => {
            sentences.push(worst(model, deadlocks, findings));
            sentences.extend(known.cloned().or_else(|| costliest(model)));
        }
    }
    let watched = |tid| model.task(tid).is_some();
    let mut tasks = deadlocks.iter().flat_map(|deadlock| &deadlock.tasks);
    let others = if circumstances.is_empty() && deadlocks.is_empty() {
        "thread was"
    } else if circumstances.is_empty() && !tasks.any(|one| watched(one.task.tid)) {
        // The watch was for some tasks of a process, and the look for all of them.
        "thread that was watched was"
    } else {
        "other thread was seen"
    };
    sentences.push(still(model, others, goroutines));
    sentences
}

/// Goroutines that wait for a channel or a lock.
pub(super) fn blocked<'a>(all: impl IntoIterator<Item = &'a Goroutines>) -> u64 {
    let sites = all.into_iter().flat_map(|one| &one.sites);
    sites.map(|site| site.blocked).sum()
}

/// The gravest first, of these the earliest.
pub(super) fn by_gravity(mut findings: Vec<&Finding>) -> Vec<&Finding> {
    findings.sort_by_key(|found| (Reverse(found.severity), found.mono_ns));
    findings
}

fn worst(model: &Model, deadlocks: &[&Deadlock], findings: &[&Finding]) -> String {
    let latest = model.deadlocks().next_back();
    if let Some(deadlock) = latest.or(deadlocks.first().copied()) {
        return circle(deadlock, deadlocks.len());
    }
    match findings {
        [] => "No rule found anything wrong.".to_owned(),
        [one] => format!("One finding ({}): {}.", one.severity.name(), one.title),
        [first, rest @ ..] => format!(
            "The gravest finding ({}): {}; there {} {} more.",
            first.severity.name(),
            first.title,
            if rest.len() == 1 { "is" } else { "are" },
            rest.len()
        ),
    }
}

fn circle(deadlock: &Deadlock, count: usize) -> String {
    let names: Vec<String> = deadlock
        .tasks
        .iter()
        .take(NAMED)
        .map(|one| format!("{} (for {})", one.task, one.lock))
        .collect();
    let more = match deadlock.tasks.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let process = deadlock
        .tasks
        .first()
        .map_or_else(String::new, |one| format!(" in {}", process(&one.task)));
    let age = deadlock
        .age_ns
        .map_or_else(String::new, |ns| format!(" for at least {}", human(ns)));
    let others = match count {
        0 | 1 => String::new(),
        _ => format!(" There were {count} deadlocks."),
    };
    format!(
        "Deadlock{process}: {}{more} have waited for each other{age} and will not go on.{others}",
        names.join(" ⇄ ")
    )
}

fn process(task: &TaskRef) -> String {
    match &task.process {
        Some(name) => format!("{name} {}", task.pid),
        None => format!("process {}", task.pid),
    }
}

/// Locks by the time waited for them, waits in progress included, the costliest first; those on which waiting may
/// be mere idleness last.
pub fn by_cost(model: &Model) -> Vec<&Lock> {
    let waited = |lock: &&Lock| lock.totals.waits > 0 || lock.waiters_now() > 0;
    let mut locks: Vec<&Lock> = model.locks().filter(waited).collect();
    let now_ns = model.now_ns();
    locks.sort_by(|a, b| {
        let rank = |lock: &Lock| {
            (
                may_be_idle(&lock.totals.lock),
                Reverse(lock.waited_ns(now_ns)),
            )
        };
        (rank(a), &a.totals.lock.id).cmp(&(rank(b), &b.totals.lock.id))
    });
    locks
}

fn may_be_idle(lock: &LockRef) -> bool {
    // A futex whose user is not known may be a lock.
    !lock.class.is_held() && !matches!(lock.class, LockClass::Futex | LockClass::Usdt)
}

fn costliest(model: &Model) -> Option<String> {
    let lock = by_cost(model)
        .into_iter()
        .filter(|lock| !may_be_idle(&lock.totals.lock) && lock.totals.total_ns > 0)
        .max_by_key(|lock| lock.totals.total_ns)?;
    let totals = &lock.totals;
    let about = if totals.estimated { "about " } else { "" };
    let whose = match (&totals.process, totals.pid) {
        (Some(name), Some(pid)) => format!(" of {name} {pid}"),
        (None, Some(pid)) => format!(" of process {pid}"),
        _ => String::new(),
    };
    let holder = lock.known_holder().and_then(|holder| {
        let tid = holder.tid?;
        let name = holder.comm.as_deref().unwrap_or("?");
        let doing = holder
            .doing
            .as_ref()
            .map_or_else(String::new, |doing| format!(", {doing}"));
        Some(format!(
            "; last held by {name}/{tid} ({}{doing})",
            holder.confidence.name()
        ))
    });
    Some(format!(
        "The costliest lock is {} ({}){whose}: {about}{} waits of {} in all, the longest {}{}.",
        totals.lock,
        totals.lock.class.name(),
        totals.waits,
        human(totals.total_ns),
        human(totals.max_ns),
        holder.unwrap_or_default()
    ))
}

/// Waits in progress that are not of an idle kind: the oldest first, and those last that may be
/// mere idleness: on condition variables and semaphores, for the end of a thread, parked by a runtime.
pub fn held_up(model: &Model) -> Vec<&InProgress> {
    let mut blocked: Vec<&InProgress> = model
        .blocked()
        .filter(|wait| !wait.event.kind.is_idle())
        .collect();
    blocked.sort_by_key(|wait| (may_be_idleness(wait), wait.start_ns, wait.event.task.tid));
    blocked
}

/// A pool waits for work like this, a main thread for its others, and runtimes park their threads.
fn may_be_idleness(wait: &InProgress) -> bool {
    let class = wait.event.lock.as_ref().map(|lock| lock.class);
    matches!(
        wait.event.kind,
        Kind::Condvar | Kind::Semaphore | Kind::Join
    ) || matches!(class, Some(LockClass::JvmPark | LockClass::GoRuntime))
}

/// `others`: what kind of thread was not held up if none is known to be.
fn still(model: &Model, others: &str, goroutines: u64) -> String {
    let blocked = held_up(model);
    let held = blocked.iter().filter(|wait| !may_be_idleness(wait)).count();
    let idle = match blocked.len() - held {
        0 => String::new(),
        1 => "; one more waits for a signal or a thread, which may be mere idleness".to_owned(),
        count => {
            format!("; {count} more wait for a signal or a thread, which may be mere idleness")
        }
    };
    let who = match (held, blocked.first()) {
        (0, _) | (_, None) => format!("No {others} held up at the end"),
        (1, Some(oldest)) => format!("One thread was held up at the end: {}", one(oldest, model)),
        (count, Some(oldest)) => {
            format!(
                "{count} threads were held up at the end, the longest {}",
                one(oldest, model)
            )
        }
    };
    let goroutines = match goroutines {
        0 => String::new(),
        1 => "; one goroutine waits for a channel or a lock".to_owned(),
        count => format!("; {count} goroutines wait for channels or locks"),
    };
    let lost = match model.loss() {
        Some(loss) if loss.total > 0 => {
            format!(
                " ({} records were lost, so this may not be all)",
                loss.total
            )
        }
        Some(_) => String::new(),
        None => " (what was lost is not known)".to_owned(),
    };
    format!("{who}{goroutines}{idle}{lost}.")
}

fn one(wait: &InProgress, model: &Model) -> String {
    let event = &wait.event;
    let on = match (&event.lock, &event.syscall) {
        (Some(lock), _) => format!("waiting for {lock}"),
        (None, Some(call)) => format!("in {call}"),
        (None, None) => format!("in {}", event.kind.name()),
    };
    let age = match wait.age_ns(model.now_ns()) {
        // One look from outside does not tell.
        0 => "a time that is not known".to_owned(),
        age_ns if event.at_least => format!("at least {}", human(age_ns)),
        age_ns => human(age_ns),
    };
    format!("{}, {on}, for {age}", event.task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{model, waiter};

    #[test]
    fn nothing_is_an_answer_too() {
        let sentences = summary_sentences(&Model::default());
        assert_eq!(sentences.len(), 2);
        assert_eq!(sentences[0], "No rule found anything wrong.");
        assert!(
            sentences[1].starts_with("No thread was held up"),
            "{sentences:?}"
        );
    }

    #[test]
    fn who_is_still_blocked() {
        let model = model(&[
            waiter(10).at(1).long(5).blocked(),
            waiter(11).at(1).long(9).blocked(),
        ]);
        let last = summary_sentences(&model).pop().unwrap();
        assert!(
            last.starts_with("2 threads were held up at the end, the longest t11/11"),
            "{last}"
        );
        assert!(last.contains("9.00s"), "{last}");
    }
}
