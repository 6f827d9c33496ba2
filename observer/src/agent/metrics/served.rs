//! What the process that serves HTTP has counted, and what it costs.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use crate::{agent::serving::tally::Tally, inspect::proc};

/// Names of the metrics.
pub(super) const NAMES: [&str; 8] = [
    "http_unauthorized",
    "kubernetes_events",
    "otlp_records",
    "otlp_metrics",
    "otlp_failures",
    "serving_restarts",
    "serving_cpu_seconds",
    "serving_resident_bytes",
];

/// The metrics.
#[derive(Default)]
pub(super) struct Served {
    unauthorized: Counter,
    cluster_told: Counter,
    otlp_records: Counter,
    otlp_metrics: Counter,
    otlp_failures: Counter,
    restarts: Counter,
    cpu: Counter<f64, AtomicU64>,
    resident: Gauge,
    /// CPU time of the process that was there last.
    before: (u32, f64),
}

impl Served {
    pub(super) fn register(&self, registry: &mut Registry) {
        let helps = [
            (
                "Requests without the token that they needed",
                &self.unauthorized,
            ),
            ("Incidents that the cluster was told of", &self.cluster_told),
            (
                "Log records that the receiver of OTLP took",
                &self.otlp_records,
            ),
            ("Times that it took the metrics", &self.otlp_metrics),
            (
                "Times that something could not be sent to it",
                &self.otlp_failures,
            ),
            (
                "Times that the process that serves HTTP was started again",
                &self.restarts,
            ),
        ];
        for (name, (help, counter)) in NAMES.into_iter().zip(helps) {
            registry.register(name, help, counter.clone());
        }
        let [.., cpu, resident] = NAMES;
        registry.register(cpu, "CPU time of that process", self.cpu.clone());
        registry.register(resident, "Resident memory of it", self.resident.clone());
    }

    pub(super) fn tally(&self, news: &Tally) {
        self.unauthorized.inc_by(news.unauthorized);
        self.cluster_told.inc_by(news.cluster_told);
        self.otlp_records.inc_by(news.otlp_records);
        self.otlp_metrics.inc_by(news.otlp_metrics);
        self.otlp_failures.inc_by(news.otlp_failures);
    }

    pub(super) fn process(&mut self, restarts: u64, pid: Option<u32>) {
        let new = restarts.saturating_sub(self.restarts.get());
        self.restarts.inc_by(new);
        let Some((pid, usage)) = pid.and_then(|pid| Some((pid, proc::usage(pid)?))) else {
            self.resident.set(0);
            return;
        };
        let (before, so_far) = self.before;
        let so_far = if before == pid { so_far } else { 0.0 };
        self.cpu.inc_by((usage.cpu_seconds - so_far).max(0.0));
        self.before = (pid, usage.cpu_seconds);
        self.resident.set(usage.resident_bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured() {
        let mut served = Served::default();
        served.process(0, Some(std::process::id()));
        assert!(served.resident.get() > 1 << 20);
        served.process(2, None);
        served.process(2, None);
        assert_eq!((served.restarts.get(), served.resident.get()), (2, 0));
        let cpu = served.cpu.get();
        served.process(2, Some(std::process::id()));
        assert!(served.cpu.get() >= cpu);
    }
}
