//! Blocked time by stack: folded lines, and the flame graph of them.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use crate::{
    event::{Event, Frame, Kind, LockRef, Stack, TaskRef},
    model::Model,
    text::printable,
};

/// Different stacks that are kept; what comes later is added up as one.
const MAX_STACKS: usize = 1 << 18;
/// Frames of a stack.
const MAX_FRAMES: usize = 512;
/// The one that stands for those that found no room.
const OTHERS: &str = "(other stacks)";

/// How often and for how long there was a wait with one stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Waits.
    pub waits: u64,
    /// Their durations' sum.
    pub total_ns: u64,
}

/// Blocked time by stack, the outermost frame first.
#[derive(Debug, Default)]
pub struct Folded {
    stacks: HashMap<Vec<Box<str>>, Weight>,
    /// With idle waits: poll, sleep, child.
    idle: bool,
}

impl Folded {
    /// Nothing yet. `idle`: idle waits (poll, sleep, child) count too.
    pub fn new(idle: bool) -> Folded {
        Folded {
            idle,
            ..Folded::default()
        }
    }

    /// Looks at an event.
    pub fn see(&mut self, event: &Event) {
        if let Event::Wait(wait) = event
            && wait.probe.is_none()
        {
            // Time on the run queue is no blocked time, but time not running nevertheless.
            self.add(
                &wait.task,
                wait.kind,
                wait.lock.as_deref(),
                wait.stack.as_deref(),
                wait.dur_ns,
            );
        }
    }

    /// Adds the waits that are in progress at the end.
    pub fn finish(&mut self, model: &Model) {
        for wait in model.blocked().filter(|wait| wait.event.probe.is_none()) {
            let event = &wait.event;
            let age_ns = wait.age_ns(model.now_ns());
            self.add(
                &event.task,
                event.kind,
                event.lock.as_deref(),
                event.stack.as_ref(),
                age_ns,
            );
        }
    }

    fn add(
        &mut self,
        task: &TaskRef,
        kind: Kind,
        lock: Option<&LockRef>,
        stack: Option<&Stack>,
        ns: u64,
    ) {
        if kind.is_idle() && !self.idle {
            return;
        }
        let mut names = frames(task, stack);
        if names.len() <= 2 {
            names.push(leaf(kind, lock));
        }
        if self.stacks.len() >= MAX_STACKS && !self.stacks.contains_key(&names) {
            names = vec![OTHERS.into()];
        }
        let weight = self.stacks.entry(names).or_default();
        weight.waits += 1;
        weight.total_ns = weight.total_ns.saturating_add(ns);
    }

    /// Stacks with their weights, in order.
    pub fn stacks(&self) -> Vec<(&[Box<str>], Weight)> {
        let mut all: Vec<_> = self
            .stacks
            .iter()
            .map(|(names, weight)| (names.as_slice(), *weight))
            .collect();
        all.sort_by_key(|(names, _)| *names);
        all
    }

    /// Lines of `frame;frame;… nanoseconds`.
    pub fn lines(&self) -> Vec<String> {
        self.stacks()
            .into_iter()
            .map(|(names, weight)| format!("{} {}", names.join(";"), weight.total_ns))
            .collect()
    }

    /// Writes folded lines.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.lines()
            .iter()
            .try_for_each(|line| writeln!(out, "{line}"))
    }

    /// Writes a flame graph as SVG.
    ///
    /// # Errors
    /// The writer's, and when there is nothing to draw.
    pub fn flame_graph(&self, out: &mut impl Write) -> io::Result<()> {
        let mut options = inferno::flamegraph::Options::default();
        "Time not running".clone_into(&mut options.title);
        "ns".clone_into(&mut options.count_name);
        options.colors =
            inferno::flamegraph::Palette::Basic(inferno::flamegraph::color::BasicPalette::Blue);
        options.hash = true;
        let lines = self.lines();
        inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out)
            .map_err(io::Error::other)
    }
}

/// Process and thread, then the frames from the outermost on.
fn frames(task: &TaskRef, stack: Option<&Stack>) -> Vec<Box<str>> {
    let name = |text: Option<&str>| clean(text.unwrap_or("?"));
    let mut names = vec![name(task.process.as_deref()), name(task.comm.as_deref())];
    let Some(stack) = stack else { return names };
    names.extend(stack.user.iter().rev().take(MAX_FRAMES).map(frame));
    // The mark that flame graphs know the kernel's frames by.
    let kernel = stack.kernel.iter().rev().take(MAX_FRAMES);
    names.extend(kernel.map(|one| format!("{}_[k]", frame(one)).into()));
    names
}

/// The frames in one text, from the outermost on.
pub(super) fn joined(stack: &Stack) -> String {
    let user = stack.user.iter().rev().take(MAX_FRAMES).map(frame);
    let kernel = stack.kernel.iter().rev().take(MAX_FRAMES);
    let kernel = kernel.map(|one| format!("{}_[k]", frame(one)).into());
    user.chain(kernel).collect::<Vec<_>>().join(";")
}

fn frame(frame: &Frame) -> Box<str> {
    match (&frame.name, &frame.module) {
        (Some(name), _) => clean(name),
        (None, Some(module)) => {
            let file = module.rsplit('/').next().unwrap_or(module);
            clean(&format!("[{file}]"))
        }
        (None, None) => frame.addr.to_string().into(),
    }
}

/// What was waited for, where there is no stack.
fn leaf(kind: Kind, lock: Option<&LockRef>) -> Box<str> {
    match lock {
        Some(lock) => clean(&format!("[{} {lock}]", kind.name())),
        None => format!("[{}]", kind.name()).into(),
    }
}

/// A name that neither ends a frame nor a line.
fn clean(name: &str) -> Box<str> {
    printable(name).replace(';', ":").into()
}
