//! Metrics, from events and the model, in the OpenMetrics form. docs/agent.md lists them.
//!
//! What is told by process, container, pod and namespace has a limit: sets of labels beyond it are counted as
//! `process="_other"`, and `observer_metrics_series_cut_total` says how often.

mod labels;
pub mod samples;
mod series;
mod served;
mod tasks;
mod text;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
};

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};

use super::serving::tally::Tally;
use crate::{
    event::{Cost, Event, GoState, Goroutines, Kind, TaskTotals, Wait},
    model::Model,
};

use self::labels::{KindClass, OfCause, OfKind, OfOutcome, OfRule, OfType, Who, WhoKind, WhoState};
use self::series::Series;
use self::served::Served;
use self::tasks::Tasks;
pub use self::text::{classic, text};

type Seconds = Counter<f64, AtomicU64>;
type Float = Gauge<f64, AtomicU64>;

/// Looks at goroutines older than this say nothing of now.
const GOROUTINES_NS: u64 = 120_000_000_000;

/// All metrics.
pub struct Metrics {
    series: Series,
    tasks: Tasks,
    lost: HashMap<String, u64>,
    cost: Cost,
    goroutines_shown: Vec<WhoState>,

    waits: Family<WhoKind, Counter>,
    wait_seconds: Family<WhoKind, Seconds>,
    wait_duration: Family<KindClass, Histogram, fn() -> Histogram>,
    runqueue_waits: Family<Who, Counter>,
    runqueue_seconds: Family<Who, Seconds>,
    runqueue_latency: Histogram,
    blocked: Family<OfKind, Gauge>,
    oldest: Family<OfKind, Float>,
    goroutines: Family<WhoState, Gauge>,
    deadlocks: Gauge,
    deadlocks_found: Counter,
    findings: Family<OfRule, Counter>,
    losses: Family<OfCause, Counter>,
    events: Family<OfType, Counter>,
    cpu: Seconds,
    bpf: Seconds,
    resident: Gauge,
    budget_step: Gauge,
    series_now: Gauge,
    series_cut: Counter,
    recorder_bytes: Gauge,
    recorder_limit: Gauge,
    symbols: Gauge,
    memory_limit: Gauge,
    incidents: Family<OfOutcome, Counter>,
    served: Served,
}

/// Names, descriptions and fields of all metrics that are counted here.
macro_rules! all_metrics {
    ($what:ident) => {
        $what! {
            "waits", "Waits that ended, short ones included", waits;
            "wait_seconds", "Time in them", wait_seconds;
            "wait_duration_seconds", "Durations of single waits, from capture.min_wait on", wait_duration;
            "runqueue_waits", "Waits for a CPU", runqueue_waits;
            "runqueue_seconds", "Time in them", runqueue_seconds;
            "runqueue_latency_seconds", "From runnable to running, of single waits that are reported", runqueue_latency;
            "blocked_tasks", "Tasks that have waited for longer than capture.long_wait", blocked;
            "blocked_oldest_seconds", "Age of the oldest of those waits", oldest;
            "goroutines", "Goroutines by state", goroutines;
            "deadlocks", "Deadlocks that last", deadlocks;
            "deadlocks_found", "Deadlocks found", deadlocks_found;
            "findings", "Findings by rule", findings;
            "lost", "What was lost, by cause", losses;
            "events", "Events by type", events;
            "cpu_seconds", "CPU time of the agent", cpu;
            "bpf_seconds", "Run time of the kernel programs, where it may be measured", bpf;
            "resident_bytes", "Resident memory of the agent", resident;
            "budget_step", "How much less is done to keep to the overhead budget: 0 nothing, 3 the most", budget_step;
            "metrics_series", "Sets of labels of processes in use", series_now;
            "metrics_series_cut", "Times that a set of labels was beyond the limit", series_cut;
            "recorder_bytes", "Compressed events that are kept in memory", recorder_bytes;
            "recorder_limit_bytes", "How many may be", recorder_limit;
            "symbols_bytes", "Sizes of the files that are read for names at the same time", symbols;
            "memory_limit_bytes", "Resident memory above which less is kept: half where the node is short of memory", memory_limit;
            "incidents", "Incidents by what became of them", incidents;
        }
    };
}

/// Is there a family of metrics of this name?
pub fn is_one(name: &str) -> bool {
    macro_rules! names {
        ($($name:literal, $help:literal, $field:ident;)*) => { [$($name),*] };
    }
    let is = |known: &&str| name.strip_prefix("observer_") == Some(known);
    all_metrics!(names).iter().chain(&served::NAMES).any(is)
}

fn durations() -> Histogram {
    // 1 ms to 65 s, each bound four times the one before.
    Histogram::new(exponential_buckets(0.001, 4.0, 9))
}

fn latencies() -> Histogram {
    // 10 µs to 2.6 s.
    Histogram::new(exponential_buckets(0.000_01, 4.0, 10))
}

impl Metrics {
    /// Makes them, all at zero, and the registry that they are read from.
    pub fn new(config: &super::config::Metrics) -> (Metrics, Registry) {
        let wait_duration: Family<KindClass, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(durations);
        let mut metrics = Metrics {
            series: Series::default(),
            tasks: Tasks::default(),
            lost: HashMap::new(),
            cost: Cost::default(),
            goroutines_shown: Vec::new(),
            waits: Family::default(),
            wait_seconds: Family::default(),
            wait_duration,
            runqueue_waits: Family::default(),
            runqueue_seconds: Family::default(),
            runqueue_latency: latencies(),
            blocked: Family::default(),
            oldest: Family::default(),
            goroutines: Family::default(),
            deadlocks: Gauge::default(),
            deadlocks_found: Counter::default(),
            findings: Family::default(),
            losses: Family::default(),
            events: Family::default(),
            cpu: Seconds::default(),
            bpf: Seconds::default(),
            resident: Gauge::default(),
            budget_step: Gauge::default(),
            series_now: Gauge::default(),
            series_cut: Counter::default(),
            recorder_bytes: Gauge::default(),
            recorder_limit: Gauge::default(),
            symbols: Gauge::default(),
            memory_limit: Gauge::default(),
            incidents: Family::default(),
            served: Served::default(),
        };
        metrics.series_cut = metrics.series.cut.clone();
        metrics.tally(&Tally::default());
        metrics.set_limits(config);
        for outcome in ["written", "rate_limited", "failed", "told"] {
            drop(metrics.incidents.get_or_create(&OfOutcome { outcome }));
        }
        let registry = metrics.registry();
        (metrics, registry)
    }

    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("observer");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The agent", version);
        macro_rules! register {
            ($($name:literal, $help:literal, $field:ident;)*) => {
                $(registry.register($name, $help, self.$field.clone());)*
            };
        }
        all_metrics!(register);
        self.served.register(&mut registry);
        registry
    }

    /// Takes the limits of a configuration.
    pub fn set_limits(&mut self, config: &super::config::Metrics) {
        self.series.set_limits(config);
    }

    /// Counts an event.
    pub fn see(&mut self, event: &Event) {
        let kind = match event {
            Event::Meta(_) => "meta",
            Event::Wait(wait) => {
                self.wait(wait);
                "wait"
            }
            Event::Blocked(_) => "blocked",
            Event::Lock(_) => "lock",
            Event::Task(totals) => {
                self.task(totals);
                "task"
            }
            Event::Deadlock(_) => {
                self.deadlocks_found.inc();
                "deadlock"
            }
            Event::Goroutines(_) => "goroutines",
            Event::Finding(finding) => {
                let labels = OfRule {
                    rule: Arc::clone(&finding.rule),
                    severity: finding.severity.name(),
                };
                self.findings.get_or_create(&labels).inc();
                "finding"
            }
            Event::Loss(loss) => {
                for (cause, count) in &loss.counters {
                    self.lose(cause, *count);
                }
                "loss"
            }
            Event::Cost(report) => {
                self.cost(report.cost);
                "cost"
            }
            Event::Runtime(_) => "runtime",
            Event::Attached(_) => "attached",
            Event::Budget(step) => {
                self.budget_step.set(step.step as i64);
                "budget"
            }
            Event::End(_) => "end",
        };
        self.events.get_or_create(&OfType { r#type: kind }).inc();
    }

    /// Takes a cumulative count of what was lost.
    pub fn lose(&mut self, cause: &str, count: u64) {
        let before = self.lost.entry(cause.to_owned()).or_default();
        let new = count.saturating_sub(*before);
        *before = count;
        let labels = OfCause {
            cause: cause.to_owned(),
        };
        self.losses.get_or_create(&labels).inc_by(new);
    }

    /// Adds what the process that serves HTTP has counted meanwhile.
    pub(super) fn tally(&mut self, news: &Tally) {
        for (cause, count) in [
            ("stream_lagged", news.lagged),
            ("webhook", news.webhook_lost),
            ("kubernetes_event", news.cluster_lost),
            ("otlp", news.otlp_lost),
        ] {
            let cause = cause.to_owned();
            let lost = self.losses.get_or_create(&OfCause { cause });
            lost.inc_by(count);
        }
        let told = OfOutcome { outcome: "told" };
        self.incidents
            .get_or_create(&told)
            .inc_by(news.webhook_told);
        self.served.tally(news);
    }

    /// How often that process was started again, and its number, if it is there.
    pub(super) fn serving(&mut self, restarts: u64, pid: Option<u32>) {
        self.served.process(restarts, pid);
    }

    /// Counts what became of an incident.
    pub fn incident(&mut self, outcome: &'static str) {
        self.incidents.get_or_create(&OfOutcome { outcome }).inc();
    }

    /// What the flight recorder holds, and may.
    pub fn recorder(&mut self, bytes: u64, limit: u64) {
        self.recorder_bytes.set(bytes as i64);
        self.recorder_limit.set(limit as i64);
    }

    /// Sizes of the files that were read for names.
    pub fn symbols(&mut self, bytes: u64) {
        self.symbols.set(bytes as i64);
    }

    /// Resident memory above which less is kept.
    pub fn memory(&mut self, limit: u64) {
        self.memory_limit.set(limit as i64);
    }

    fn wait(&mut self, wait: &Wait) {
        let labels = KindClass {
            kind: wait.kind.name(),
            class: wait.lock.as_ref().map_or("", |lock| lock.class.name()),
        };
        self.wait_duration
            .get_or_create(&labels)
            .observe(seconds(wait.dur_ns));
        if let Some(ns) = wait.runqueue_ns {
            self.runqueue_latency.observe(seconds(ns));
        }
    }

    fn task(&mut self, totals: &TaskTotals) {
        let Some(news) = self.tasks.news(totals) else {
            self.series_cut.inc();
            return;
        };
        let who = self.series.admit(
            totals.task.process.as_deref(),
            totals.task.container.as_deref(),
            totals.mono_ns,
        );
        for (kind, (count, ns)) in news.kinds {
            self.series.count(&who, kind.name());
            let labels = WhoKind {
                who: who.clone(),
                kind: kind.name(),
            };
            self.waits.get_or_create(&labels).inc_by(count);
            self.wait_seconds.get_or_create(&labels).inc_by(seconds(ns));
        }
        if let Some((count, ns)) = news.runqueue {
            self.runqueue_waits.get_or_create(&who).inc_by(count);
            self.runqueue_seconds
                .get_or_create(&who)
                .inc_by(seconds(ns));
        }
    }

    fn cost(&mut self, cost: Cost) {
        let before = std::mem::replace(&mut self.cost, cost);
        self.cpu
            .inc_by(seconds(cost.cpu_ns.saturating_sub(before.cpu_ns)));
        let bpf = |cost: Cost| cost.bpf_run_ns.unwrap_or(0);
        self.bpf
            .inc_by(seconds(bpf(cost).saturating_sub(bpf(before))));
        self.resident.set(cost.rss_bytes as i64);
    }

    /// Sets what the model knows of now, and forgets what is over.
    pub fn update(&mut self, model: &Model) {
        let now_ns = model.now_ns();
        self.forget(now_ns);
        self.blocked_now(model, now_ns);
        let last = model.deadlocks().filter(|deadlock| {
            deadlock.tasks.iter().all(|task| {
                model
                    .blocked_task(task.task.tid)
                    .is_some_and(|wait| wait.start_ns <= deadlock.mono_ns)
            })
        });
        let fresh =
            |goroutines: &&Goroutines| now_ns.saturating_sub(goroutines.mono_ns) < GOROUTINES_NS;
        let of_go: usize = model
            .goroutines()
            .filter(fresh)
            .map(|go| go.deadlocks.len())
            .sum();
        self.deadlocks.set((last.count() + of_go) as i64);
        // Several processes may have the same labels.
        let mut counts: HashMap<WhoState, i64> = HashMap::new();
        for goroutines in model.goroutines().filter(fresh) {
            self.goroutines_of(goroutines, &mut counts);
        }
        for (labels, count) in &counts {
            self.goroutines.get_or_create(labels).set(*count);
        }
        for gone in self
            .goroutines_shown
            .iter()
            .filter(|labels| !counts.contains_key(labels))
        {
            self.goroutines.remove(gone);
        }
        self.goroutines_shown = counts.into_keys().collect();
        self.series_now.set(self.series.len() as i64);
    }

    fn goroutines_of(&mut self, goroutines: &Goroutines, counts: &mut HashMap<WhoState, i64>) {
        let who = self.series.admit(
            goroutines.process.as_deref(),
            goroutines.container.as_deref(),
            goroutines.mono_ns,
        );
        for state in GoState::ALL.iter().copied() {
            let count = goroutines.by_state.get(&state).copied().unwrap_or(0);
            let labels = WhoState {
                who: who.clone(),
                state: state.name(),
            };
            *counts.entry(labels).or_default() += count as i64;
        }
    }

    fn blocked_now(&mut self, model: &Model, now_ns: u64) {
        let mut now: HashMap<Kind, (i64, u64)> = HashMap::new();
        for wait in model.blocked() {
            let (count, oldest) = now.entry(wait.event.kind).or_default();
            *count += 1;
            *oldest = (*oldest).max(wait.age_ns(now_ns));
        }
        for kind in Kind::ALL.iter().copied() {
            let (count, oldest) = now.get(&kind).copied().unwrap_or_default();
            let labels = OfKind { kind: kind.name() };
            self.blocked.get_or_create(&labels).set(count);
            self.oldest.get_or_create(&labels).set(seconds(oldest));
        }
    }

    fn forget(&mut self, now_ns: u64) {
        self.tasks.forget(now_ns);
        for (who, kinds) in self.series.forget(now_ns) {
            self.runqueue_waits.remove(&who);
            self.runqueue_seconds.remove(&who);
            for kind in kinds {
                let labels = WhoKind {
                    who: who.clone(),
                    kind,
                };
                self.waits.remove(&labels);
                self.wait_seconds.remove(&labels);
            }
        }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        agent::config,
        event::{TaskRef, WaitTotals},
        time::WallTime,
    };

    fn totals(tid: u32, process: &str, waits: u64, mono_ns: u64) -> Event {
        let total = WaitTotals {
            waits,
            total_ns: waits * 1_000_000_000,
            max_ns: 1_000_000_000,
        };
        Event::from(TaskTotals {
            time: WallTime(0),
            mono_ns,
            task: TaskRef {
                process: Some(process.into()),
                ..TaskRef::new(tid, tid)
            }
            .into(),
            kinds: [(Kind::Lock, total)].into(),
            runqueue: None,
            estimated: false,
        })
    }

    fn limited(max_series: usize) -> (Metrics, Registry) {
        Metrics::new(&config::Metrics {
            max_series,
            forget_after: Duration::from_mins(1),
        })
    }

    #[test]
    fn cumulative_totals_are_counted_once() {
        let (mut metrics, registry) = limited(10);
        metrics.see(&totals(1, "a", 3, 1));
        metrics.see(&totals(1, "a", 5, 2));
        metrics.see(&totals(2, "a", 2, 2));
        let shown = super::text(&registry);
        let line = "observer_waits_total{process=\"a\",container=\"\",pod=\"\",namespace=\"\",kind=\"lock\"} 7";
        assert!(shown.contains(line), "{shown}");
        // Another task with the number of the first.
        metrics.see(&totals(1, "a", 1, 3));
        assert!(super::text(&registry).contains("kind=\"lock\"} 8"));
        assert!(shown.ends_with("# EOF\n"));
    }

    #[test]
    fn the_limit_cuts_and_says_so() {
        let (mut metrics, registry) = limited(2);
        for (tid, name) in ["a", "b", "c", "d"].iter().enumerate() {
            metrics.see(&totals(tid as u32, name, 1, 1));
        }
        metrics.update(&Model::default());
        let shown = super::text(&registry);
        assert!(
            shown.contains(
                "process=\"_other\",container=\"\",pod=\"\",namespace=\"\",kind=\"lock\"} 2"
            ),
            "{shown}"
        );
        assert!(!shown.contains("process=\"c\""));
        assert!(shown.contains("observer_metrics_series_cut_total 2"));
    }

    #[test]
    fn what_is_quiet_is_forgotten() {
        let (mut metrics, registry) = limited(10);
        metrics.see(&totals(1, "old", 1, 1));
        metrics.see(&totals(2, "new", 1, 61_000_000_000));
        metrics.forget(61_000_000_000);
        let shown = super::text(&registry);
        assert!(
            shown.contains("process=\"new\"") && !shown.contains("process=\"old\""),
            "{shown}"
        );
    }

    #[test]
    fn labels_are_escaped() {
        let (mut metrics, registry) = limited(10);
        metrics.see(&totals(1, "a\"\n\\}", 1, 1));
        assert!(super::text(&registry).contains("process=\"a\\\"\\n\\\\}\""));
    }
}
