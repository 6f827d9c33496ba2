//! A worker of an asynchronous runtime is blocked by synchronous code.

use std::collections::HashSet;

use super::{Diagnosis, Rule, Thresholds};
use crate::{
    event::{Frame, Severity, Stack, Subject},
    model::{InProgress, Model},
    time::human,
};

/// A worker of tokio's runs a task that waits other than by `.await`: no other task of it goes on.
///
/// Stacks are read once: of ten thousand waits hardly one has another stack a second later.
#[derive(Default)]
pub(super) struct BlockedAsyncWorker {
    /// When it was last asked.
    asked_ns: u64,
    /// Waits of workers that are blocked: they are told again as long as they last.
    found: HashSet<(u32, u64)>,
}

/// An event may come this much later than it says.
const LATE_NS: u64 = 2_000_000_000;

/// Parts of names of functions in which a worker runs a task.
const TASK: [&str; 2] = [
    "multi_thread::worker::Context::run_task",
    "current_thread::Context::run_task",
];
/// Those of a worker; where the compiler put the function above into one of these, the task's own code tells.
const WORKER: [&str; 3] = [
    "multi_thread::worker::Context::run",
    "multi_thread::worker::run",
    "current_thread::CoreGuard",
];
/// Here a worker waits for work, or has given its tasks to another one before it waits.
const INNOCENT: [&str; 4] = [
    "::park",
    "::block_in_place",
    "::driver::",
    "runtime::context::blocking::",
];
/// Beginnings of the names of what lies between the system call and the task's own code.
const PLUMBING: [&str; 14] = [
    "std::",
    "core::",
    "alloc::",
    "tokio::",
    "mio::",
    "parking_lot",
    "lock_api::",
    "<std::",
    "<core::",
    "<alloc::",
    "<tokio::",
    "<mio::",
    "<parking_lot",
    "<lock_api::",
];

/// A worker in a task.
struct InTask<'a> {
    /// The task's function that waits, if it has a name.
    own: Option<&'a Frame>,
}

fn name_of(frame: &Frame) -> &str {
    frame.name.as_deref().unwrap_or_default()
}

/// Is this the stack of a worker in a task?
fn in_task(stack: &Stack) -> Option<InTask<'_>> {
    let is_tokio = |name: &str| name.contains("tokio::runtime::");
    let has = |parts: &[&str]| {
        stack.user.iter().position(|frame| {
            let name = name_of(frame);
            is_tokio(name) && parts.iter().any(|part| name.contains(part))
        })
    };
    let task = has(&TASK);
    let worker = task.or_else(|| has(&WORKER))?;
    let inner = &stack.user[..worker];
    let innocent = inner.iter().any(|frame| {
        let name = name_of(frame);
        name.contains("tokio::") && INNOCENT.iter().any(|part| name.contains(part))
    });
    if innocent {
        return None;
    }
    let own = inner.iter().find(|frame| {
        let name = name_of(frame);
        name.contains("::") && !PLUMBING.iter().any(|part| name.starts_with(part))
    });
    (own.is_some() || task.is_some()).then_some(InTask { own })
}

/// `app::handler (src/main.rs:12)`
fn place(frame: &Frame) -> String {
    let name = frame.name.as_deref().unwrap_or("?");
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{name} ({file}:{line})"),
        _ => name.to_owned(),
    }
}

impl Rule for BlockedAsyncWorker {
    fn name(&self) -> &'static str {
        "blocked_async_worker"
    }

    fn advice(&self) -> &'static str {
        "No task of this worker goes on meanwhile. Use the asynchronous form of the call (tokio::time::sleep, \
         tokio::fs, tokio::sync), or move it into tokio::task::spawn_blocking."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        let now = model.now_ns();
        let asked_ns = std::mem::replace(&mut self.asked_ns, now);
        let long_ns = thresholds.async_blocked_ns;
        let is_known = |wait: &InProgress| {
            asked_ns <= now
                && wait.event.mono_ns.saturating_add(LATE_NS) < asked_ns
                && wait.age_ns(asked_ns) >= long_ns
        };
        let before = std::mem::take(&mut self.found);
        let mut diagnoses = Vec::new();
        for wait in model.blocked().filter(|wait| wait.age_ns(now) >= long_ns) {
            let key = (wait.event.task.tid, wait.start_ns);
            if is_known(wait) && !before.contains(&key) {
                continue;
            }
            if let Some(stack) = &wait.event.stack
                && let Some(in_task) = in_task(stack)
            {
                self.found.insert(key);
                diagnoses.push(diagnosis(wait, stack, &in_task, now));
            }
        }
        diagnoses
    }
}

/// What is said of a worker that is blocked.
fn diagnosis(wait: &InProgress, stack: &Stack, in_task: &InTask<'_>, now: u64) -> Diagnosis {
    let task = &wait.event.task;
    let (kind, call) = (wait.event.kind, wait.event.syscall.as_deref());
    let what = wait.event.lock.as_ref().map_or_else(
        || call.map_or_else(|| kind.name().to_owned(), |call| format!("in {call}")),
        |lock| format!("waiting for {lock}"),
    );
    let by = in_task
        .own
        .map_or_else(String::new, |frame| format!(" by {}", place(frame)));
    let is_tokio = |frame: &&Frame| name_of(frame).contains("tokio::runtime::");
    let frames = stack.user.iter().take_while(|frame| !is_tokio(frame));
    Diagnosis {
        key: format!("{} {}", task.tid, wait.start_ns),
        severity: Severity::Warning,
        title: format!(
            "tokio worker {task} is blocked{by}: {what} for {}",
            human(wait.age_ns(now))
        ),
        evidence: std::iter::once("its stack, innermost first:".to_owned())
            .chain(frames.take(16).map(place))
            .collect(),
        subjects: vec![Subject::Task(task.clone())],
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::event::Kind;

    const RUN: &str = "tokio::runtime::scheduler::multi_thread::worker::Context::run";
    const RUN_TASK: &str = "tokio::runtime::scheduler::multi_thread::worker::Context::run_task";

    fn found(names: &[&str]) -> Vec<Diagnosis> {
        let frames = names.iter().map(|name| Frame {
            name: Some((*name).into()),
            ..Frame::default()
        });
        let mut sleeper = waiter(10).kind(Kind::Sleep, "clock_nanosleep");
        sleeper.0.stack = Some(Stack {
            user: frames.collect(),
            ..Stack::default()
        });
        let model = model(&[sleeper.blocked()]);
        BlockedAsyncWorker::default().check(&model, &Thresholds::default())
    }

    #[test]
    fn synchronous_code_in_a_task() {
        let stack = [
            "clock_nanosleep",
            "std::thread::sleep",
            "app::slow::{{closure}}",
        ];
        for run in [
            &[RUN_TASK, RUN][..],
            // The compiler put the one into the other.
            &[RUN],
            &["tokio::runtime::scheduler::current_thread::CoreGuard::block_on"],
        ] {
            let found = found(&[&stack[..], &["tokio::runtime::task::raw::poll"], run].concat());
            assert_eq!(
                found[0].title,
                "tokio worker t10/10 is blocked by app::slow::{{closure}}: in clock_nanosleep for 1.00s"
            );
        }
        assert_eq!(found(&["clock_nanosleep", RUN_TASK]).len(), 1);
    }

    #[test]
    fn it_is_told_for_as_long_as_it_lasts() {
        let worker = |mono_s: u64, stack: Option<&[&str]>| {
            let mut wait = waiter(10)
                .at(1)
                .long(1)
                .kind(Kind::Sleep, "clock_nanosleep");
            wait.0.mono_ns = mono_s * 1_000_000_000;
            wait.0.age_ns = (mono_s - 1) * 1_000_000_000;
            wait.0.stack = stack.map(|names| Stack {
                user: names
                    .iter()
                    .map(|name| Frame {
                        name: Some((*name).into()),
                        ..Frame::default()
                    })
                    .collect(),
                ..Stack::default()
            });
            wait.blocked()
        };
        let mut rule = BlockedAsyncWorker::default();
        let mut model = model(&[worker(2, None)]);
        let mut ask = |model: &mut Model, second: u64| {
            model.advance(second * 1_000_000_000);
            rule.check(model, &Thresholds::default()).len()
        };
        for second in 3..10 {
            assert_eq!(ask(&mut model, second), 0);
        }
        // A later event has its stack, and comes late.
        model.apply(worker(8, Some(&["clock_nanosleep", "app::read", RUN_TASK])));
        for second in 10..20 {
            assert_eq!(ask(&mut model, second), 1);
        }
    }

    #[test]
    fn who_waits_for_work_and_who_may_block_is_innocent() {
        let park = "tokio::runtime::scheduler::multi_thread::park::Parker::park";
        let place = "tokio::runtime::scheduler::multi_thread::worker::block_in_place";
        for names in [
            &["epoll_wait", "mio::poll::Poll::poll", park, RUN][..],
            // The parker is not seen: nothing of the program's own is.
            &[
                "syscall",
                "std::sys::sync::condvar::futex::Condvar::wait",
                RUN,
            ],
            &[
                "clock_nanosleep",
                "app::read",
                place,
                "app::main::{{closure}}",
                RUN_TASK,
                RUN,
            ],
            &[
                "clock_nanosleep",
                "app::read",
                "tokio::runtime::blocking::pool::Inner::run",
            ],
            &["clock_nanosleep", "app::main"],
            &[],
        ] {
            assert_eq!(found(names), [], "{names:?}");
        }
    }
}
