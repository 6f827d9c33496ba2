//! Diagnoses: each rule looks at the model and says what is wrong, with its evidence.
//!
//! A rule is a function of the model and of what it remembers itself; it reads no file and has no clock, so
//! a recording gives the findings of the live run. Each has its innocents: a pool that waits for work, an
//! event loop and a timer are idle, not held up, and a test holds the rule to that. docs/rules.md tells users
//! what each means.

mod blocked_async_worker;
mod blocked_goroutines;
mod convoy;
mod dead_owner;
mod deadlock;
mod gil_convoy;
mod goroutine_count;
mod goroutine_deadlock;
mod goroutine_leak;
mod goroutine_starvation;
mod long_hold;
mod lost_channel;
mod not_running;
mod pileup;
mod postgres_deadlock;
mod runqueue;
mod starvation;
mod stuck;
#[cfg(test)]
pub(crate) mod testing;
mod thread_leak;
mod thresholds;

use std::collections::HashMap;

pub use self::thresholds::Thresholds;
use crate::{
    event::{Finding, Goroutines, Severity, Subject},
    model::Model,
};

/// What a rule says.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// What it is about: a diagnosis with the same key is the same one, and is told once.
    pub key: String,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence.
    pub title: String,
    /// What it rests on.
    pub evidence: Vec<String>,
    /// What it is about.
    pub subjects: Vec<Subject>,
}

/// A rule.
pub trait Rule: Send {
    /// Its name, as in docs/rules.md.
    fn name(&self) -> &'static str;

    /// What to do about it.
    fn advice(&self) -> &'static str;

    /// What is wrong now.
    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis>;
}

/// A diagnosis that has not been made for this long is a new one when it is made again.
const FORGOTTEN_NS: u64 = 30_000_000_000;
/// Diagnoses remembered.
const MAX_ACTIVE: usize = 10_000;

/// All rules, and what they have said.
pub struct Rules {
    all: Vec<Box<dyn Rule>>,
    thresholds: Thresholds,
    /// When each diagnosis was last made.
    active: HashMap<(&'static str, String), u64>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules::new(Thresholds::default())
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules")
            .field("thresholds", &self.thresholds)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

impl Rules {
    /// All rules with thresholds of one's own.
    pub fn new(thresholds: Thresholds) -> Rules {
        Rules {
            all: vec![
                Box::new(deadlock::Deadlocks),
                Box::new(dead_owner::DeadOwner),
                Box::new(not_running::HolderNotRunning),
                Box::new(long_hold::LongHold),
                Box::new(starvation::WriterStarvation),
                Box::new(convoy::Convoy),
                Box::new(pileup::PileUp),
                Box::new(stuck::Stuck),
                Box::new(runqueue::RunQueue),
                Box::<thread_leak::ThreadLeak>::default(),
                Box::new(goroutine_deadlock::GoroutineDeadlocks),
                Box::<goroutine_leak::GoroutineLeak>::default(),
                Box::<goroutine_count::GoroutineCount>::default(),
                Box::<blocked_goroutines::BlockedGoroutines>::default(),
                Box::<goroutine_starvation::GoWriterStarvation>::default(),
                Box::new(lost_channel::LostChannel),
                Box::new(postgres_deadlock::PostgresDeadlock),
                Box::new(gil_convoy::GilConvoy),
                Box::<blocked_async_worker::BlockedAsyncWorker>::default(),
            ],
            thresholds,
            active: HashMap::new(),
        }
    }

    /// What is wrong and has not been said yet.
    pub fn check(&mut self, model: &Model) -> Vec<Finding> {
        let now = model.now_ns();
        let time = model.wall_time();
        self.active
            .retain(|_, seen| now.saturating_sub(*seen) < FORGOTTEN_NS);
        let mut findings = Vec::new();
        for rule in &mut self.all {
            for diagnosis in rule.check(model, &self.thresholds) {
                let key = (rule.name(), diagnosis.key);
                let is_new = self.active.len() < MAX_ACTIVE && !self.active.contains_key(&key);
                self.active.insert(key, now);
                if is_new {
                    findings.push(Finding {
                        time,
                        mono_ns: now,
                        rule: rule.name().into(),
                        severity: diagnosis.severity,
                        title: diagnosis.title,
                        evidence: diagnosis.evidence,
                        advice: rule.advice().to_owned(),
                        subjects: diagnosis.subjects,
                    });
                }
            }
        }
        findings
    }
}

/// `3 tasks`, `1 task`.
fn plural(count: usize, one: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {one}s")
    }
}

/// `process 12 server`.
fn process_name(all: &Goroutines) -> String {
    match &all.process {
        Some(name) => format!("process {} {name}", all.pid),
        None => format!("process {}", all.pid),
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::*, *};

    #[test]
    fn a_finding_is_told_once_and_again_when_it_comes_back() {
        let mut model = model(&[waiter(10).at(1).long(5).held_by(20, "running").blocked()]);
        let mut rules = Rules::default();
        assert_eq!(rules.check(&model).len(), 1);
        assert_eq!(rules.check(&model).len(), 0);
        model.advance(model.now_ns() + FORGOTTEN_NS + 1);
        assert_eq!(rules.check(&model).len(), 1);
    }

    #[test]
    fn every_rule_is_documented() {
        let page = include_str!("../../../docs/rules.md");
        for rule in &Rules::default().all {
            assert!(
                page.contains(&format!("## {}\n", rule.name())),
                "{}",
                rule.name()
            );
        }
    }

    /// The table of thresholds is made from the code. `OBSERVER_WRITE_DOCS=1` writes it.
    #[test]
    fn thresholds_are_documented() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rules.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (begin, end) = ("<!-- thresholds -->\n", "<!-- end of thresholds -->");
        let (before, rest) = page.split_once(begin).unwrap();
        let (_, after) = rest.split_once(end).unwrap();
        let made = format!("{before}{begin}{}{end}{after}", Thresholds::table());
        if std::env::var_os("OBSERVER_WRITE_DOCS").is_some() {
            std::fs::write(path, made).unwrap();
            return;
        }
        assert_eq!(page, made, "run this test with OBSERVER_WRITE_DOCS=1");
    }

    #[test]
    fn every_threshold_is_of_a_rule() {
        let all = Rules::default();
        let names: Vec<&str> = all.all.iter().map(|rule| rule.name()).collect();
        for name in Thresholds::rules() {
            assert!(names.contains(&name), "{name}");
        }
    }

    #[test]
    fn idle_waits_accuse_nobody() {
        let idle: Vec<_> = (0..50)
            .map(|i| waiter(100 + i).at(1).long(100).idle(i).blocked())
            .collect();
        let mut model = model(&idle);
        let mut rules = Rules::default();
        for _ in 0..5 {
            assert_eq!(rules.check(&model), []);
            model.advance(model.now_ns() + 6_000_000_000);
        }
    }
}
