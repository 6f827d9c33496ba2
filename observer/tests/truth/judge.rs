//! What observer said, held against what is true.

use std::collections::HashSet;

use serde_json::Value;

use crate::{
    harness::event::{number, of},
    scene::{Stage, Told},
};

/// How much of what there was to say was said rightly.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Score {
    pub(crate) right: usize,
    pub(crate) all: usize,
}

impl Score {
    fn count(&mut self, right: bool) -> bool {
        self.all += 1;
        self.right += usize::from(right);
        right
    }

    pub(crate) fn add(&mut self, other: Score) {
        self.right += other.right;
        self.all += other.all;
    }
}

/// What is to be said of one scene.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) deadlocks: Score,
    /// After how long the latest of them was told.
    pub(crate) slowest_ns: u64,
    pub(crate) classes: Score,
    pub(crate) names: Score,
    /// By what can be told: exact, likely, unknown.
    pub(crate) holders: [Score; 3],
    pub(crate) findings: Score,
    /// Somebody was blamed who is innocent, or by a wrong `exact`.
    pub(crate) accused: usize,
    pub(crate) faults: Vec<String>,
}

impl Verdict {
    pub(crate) fn is_right(&self) -> bool {
        self.faults.is_empty()
    }

    /// Only what more time cannot mend.
    pub(crate) fn is_final(&self) -> bool {
        self.is_right() || self.accused > 0
    }

    fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    fn accuse(&mut self, what: String) {
        self.accused += 1;
        self.fault(what);
    }
}

/// Judges all that was said of one scene so far. `starved_ns`: for how long observer had no CPU until the
/// deadlocks were told.
pub(crate) fn judge(stage: &Stage, events: &[Value], starved_ns: u64) -> Verdict {
    let mut verdict = Verdict::default();
    for truth in stage.waits() {
        judge_wait(stage, truth, events, &mut verdict);
    }
    for truth in stage.idle() {
        judge_idle(truth, events, &mut verdict);
    }
    judge_deadlocks(stage, events, starved_ns, &mut verdict);
    judge_findings(stage, events, &mut verdict);
    verdict
}

/// The reports of a thread's wait, oldest first.
fn reports<'a>(
    events: &'a [Value],
    truth: &'a Value,
) -> impl DoubleEndedIterator<Item = &'a Value> {
    let all: Vec<_> = of(events, "blocked")
        .filter(|event| event["task"]["tid"] == truth["tid"])
        .collect();
    all.into_iter()
}

fn judge_wait(stage: &Stage, truth: &Value, events: &[Value], verdict: &mut Verdict) {
    for event in reports(events, truth) {
        if event["holder"]["confidence"] == "exact" && event["holder"]["tid"] != truth["holder"] {
            verdict.accuse(format!("a wrong exact holder: {event}, not as in {truth}"));
        }
    }
    let Some(event) = reports(events, truth).next_back() else {
        verdict.classes.count(false);
        verdict.holders[stage.scene.told as usize].count(false);
        verdict.fault(format!("no report of {truth}"));
        return;
    };
    let lock = &event["lock"];
    if !verdict.classes.count(lock["class"] == truth["class"]) {
        verdict.fault(format!("class {} of {truth}", lock["class"]));
    }
    if let Some(from) = truth["addr"].as_u64() {
        let addr = lock["addr"]
            .as_str()
            .and_then(|addr| addr.strip_prefix("0x"));
        let addr = addr.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let size = number(truth, "size");
        if !addr.is_some_and(|addr| (from..from + size).contains(&addr)) {
            verdict.fault(format!("address {} of {truth}", lock["addr"]));
        }
    }
    judge_name(stage, truth, lock, verdict);
    judge_holder(stage, truth, events, verdict);
}

fn judge_name(stage: &Stage, truth: &Value, lock: &Value, verdict: &mut Verdict) {
    let (Some(expected), name) = (truth["name"].as_str(), lock["name"].as_str()) else {
        return;
    };
    let right = if stage.scene.build.has_symbols() || expected.starts_with('/') {
        name == Some(expected)
    } else if expected.starts_with("lock ") {
        // Without symbols there is no name of a function, and none may be made up.
        name.is_none()
    } else {
        // The file and the address in it.
        let file = format!("{}+0x", stage.scene.build.name());
        name.is_some_and(|name| name.starts_with(&file))
    };
    if !verdict.names.count(right) {
        verdict.fault(format!("name {name:?} of {truth}"));
    }
}

fn judge_holder(stage: &Stage, truth: &Value, events: &[Value], verdict: &mut Verdict) {
    let told = stage.scene.told;
    let Some(event) = reports(events, truth).next_back() else {
        return;
    };
    let holder = &event["holder"];
    let is_lock = truth["class"] != "futex";
    let right = match told {
        Told::Unknown => holder.get("tid").is_none() && (holder.is_object() == is_lock),
        _ => holder["tid"] == truth["holder"] && holder["confidence"] == told.name(),
    };
    if !verdict.holders[told as usize].count(right) {
        verdict.fault(format!(
            "holder {holder}, not {} as in {truth}; {}",
            told.name(),
            event["stack"]
        ));
    }
    if told == Told::Unknown {
        return;
    }
    // One that comes and goes has to be seen in each state only once.
    let says = |name: &str, part: &str| {
        reports(events, truth).any(|event| {
            let said = event["holder"][name].as_str();
            said.is_some_and(|said| said.starts_with(part))
        })
    };
    let doing = truth["doing"]
        .as_str()
        .map(|doing| match doing.split_once(" for ") {
            // Without symbols the lock is called otherwise.
            Some((waiting, _)) if !stage.scene.build.has_symbols() => waiting,
            _ => doing,
        });
    if let Some(doing) = doing
        && !says("doing", doing)
    {
        verdict.fault(format!(
            "holder is {}, not {doing}: {truth}",
            holder["doing"]
        ));
    }
    if let Some(state) = truth["state"].as_str()
        && !says("state", state)
        // Who wants a CPU may have to wait for it on a busy machine.
        && !(state == "running" && says("state", "runnable"))
    {
        verdict.fault(format!(
            "holder is {}, not {state}: {truth}",
            holder["state"]
        ));
    }
}

fn judge_idle(truth: &Value, events: &[Value], verdict: &mut Verdict) {
    for event in reports(events, truth) {
        if event["holder"].is_object() || event["kind"] == "lock" {
            verdict.accuse(format!("an idle thread waits for nobody: {event}"));
        }
    }
    if let Some(class) = truth["class"].as_str() {
        let last = reports(events, truth).next_back();
        let said = last.map_or(&Value::Null, |event| &event["lock"]["class"]);
        if !verdict.classes.count(said == class) {
            verdict.fault(format!("class {said} of idle {truth}"));
        }
    }
}

/// A deadlock is told within this time of observer's start, or of its forming, on a CPU.
const SOON_NS: u64 = 1_000_000_000;

fn judge_deadlocks(stage: &Stage, events: &[Value], starved_ns: u64, verdict: &mut Verdict) {
    let processes: HashSet<u64> = stage.processes().collect();
    let members = |event: &Value| -> Vec<u64> {
        let tasks = event["tasks"].as_array().unwrap().iter();
        tasks.map(|one| number(&one["task"], "tid")).collect()
    };
    let circles: Vec<Vec<u64>> = stage.circles().collect();
    for circle in &circles {
        let told: Vec<_> = of(events, "deadlock")
            .filter(|event| is_rotated(&members(event), circle))
            .collect();
        if !verdict.deadlocks.count(told.len() == 1) {
            verdict.fault(format!("deadlock {circle:?} was told {} times", told.len()));
        }
        let Some(event) = told.first() else { continue };
        let begin = if stage.scene.later {
            number(event, "mono_ns") - number(event, "age_ns")
        } else {
            number(&events[0], "mono_ns")
        };
        let after_ns = number(event, "mono_ns") - begin;
        verdict.slowest_ns = verdict.slowest_ns.max(after_ns);
        if after_ns > SOON_NS + starved_ns {
            verdict.fault(format!(
                "told after {after_ns} ns, {starved_ns} of them without a CPU: {event}"
            ));
        }
        if event["confidence"] != stage.scene.told.name() {
            verdict.fault(format!("confidence {}", event["confidence"]));
        }
    }
    for event in of(events, "deadlock") {
        let own = number(&event["tasks"][0]["task"], "pid");
        let all = members(event);
        if processes.contains(&own) && !circles.iter().any(|circle| is_rotated(&all, circle)) {
            verdict.accuse(format!("no such deadlock: {event}"));
        }
    }
}

/// Are they the same circle, wherever it is entered?
fn is_rotated(one: &[u64], other: &[u64]) -> bool {
    one.len() == other.len()
        && (0..one.len()).any(|by| one.iter().cycle().skip(by).take(one.len()).eq(other))
}

/// Processes that a finding is about.
fn subjects(finding: &Value) -> impl Iterator<Item = u64> {
    let subjects = finding["subjects"].as_array().unwrap().iter();
    subjects.filter_map(|subject| {
        let lock = subject["lock"]["id"].as_str();
        let of_lock = lock.and_then(|id| id.split(':').next()?.parse().ok());
        let of_task = subject["task"]["pid"].as_u64();
        of_task.or(of_lock).or(subject["process"].as_u64())
    })
}

fn judge_findings(stage: &Stage, events: &[Value], verdict: &mut Verdict) {
    let processes: HashSet<u64> = stage.processes().collect();
    let about: Vec<&Value> = of(events, "finding")
        .filter(|finding| subjects(finding).any(|pid| processes.contains(&pid)))
        .collect();
    for rule in stage.scene.found {
        if !verdict
            .findings
            .count(about.iter().any(|finding| finding["rule"] == *rule))
        {
            verdict.fault(format!("rule {rule} found nothing"));
        }
    }
    for finding in about {
        let rule = finding["rule"].as_str().unwrap();
        if !stage.scene.found.contains(&rule) && !stage.scene.allowed.contains(&rule) {
            verdict.accuse(format!("nothing of the kind is wrong: {finding}"));
        }
    }
}
