//! Export by OTLP (HTTP, protobuf): findings and long waits as logs, the metrics as metrics.
//!
//! The messages are those of the OpenTelemetry project (opentelemetry-proto). Its SDK is not used: it exports metrics
//! that it measures itself, where these are the ones that Prometheus reads, and it drops a batch that could not be
//! sent. Here a batch is kept until the receiver takes it, more wait in a bounded queue, and what finds the queue
//! full is counted: `observer_lost_total{cause="otlp"}`.

mod metrics;
mod records;
mod values;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use hyper::{StatusCode, body::Bytes};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceResponse, metrics::v1::ExportMetricsServiceResponse,
};
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

pub(super) use self::records::{Record, record};
use self::values::Attributes;
use super::{
    config::Otlp,
    http::Shared,
    log,
    material::Peer,
    metrics::samples,
    serving::{
        messages::Question,
        tally::{Counts, more},
    },
};
use crate::client::Client;

/// Records in one message.
const BATCH: usize = 512;
/// A batch waits this long for more.
const LINGER: Duration = Duration::from_millis(500);
/// Time until the second try; doubled for each one after it.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(1);
/// A receiver that asks for more patience than this does not get it.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(5);
/// At the end, what is left has this long to be sent.
const FAREWELL: Duration = Duration::from_secs(3);
/// The same, and time for what is just being sent.
pub(super) const END: Duration = Duration::from_secs(5);
const PROTOBUF: &str = "application/x-protobuf";

/// A receiver, ready to be sent to.
#[derive(Clone)]
pub(super) struct Receiver {
    client: Client,
    resource: Attributes,
    interval: Duration,
}

/// What a receiver is made of.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OtlpMaterial {
    peer: Peer,
    /// Who tells: names and values.
    resource: Vec<(String, String)>,
    interval: Duration,
}

impl OtlpMaterial {
    /// Reads what the configuration names; `None`: nothing is exported.
    ///
    /// # Errors
    /// A file cannot be read, or the endpoint is no URL.
    pub(super) fn read(config: &Otlp) -> Result<Option<OtlpMaterial>> {
        let Some(endpoint) = &config.endpoint else {
            return Ok(None);
        };
        let (token, trusted) = (config.token_file.as_deref(), config.ca_file.as_deref());
        Ok(Some(OtlpMaterial {
            peer: Peer::read(endpoint, token, trusted).context("otlp.endpoint")?,
            resource: agent(config).texts_of(),
            interval: config.interval,
        }))
    }
}

impl Receiver {
    /// The one of these.
    ///
    /// # Errors
    /// The certificates are none.
    pub(super) fn open(material: &OtlpMaterial) -> Result<Receiver> {
        let mut resource = Attributes::default();
        for (name, value) in &material.resource {
            resource.text(name, value);
        }
        Ok(Receiver {
            client: material.peer.client().context("otlp.endpoint")?,
            resource,
            interval: material.interval,
        })
    }
}

/// Who tells: the agent, its host, and in a cluster its node, pod and namespace.
fn agent(config: &Otlp) -> Attributes {
    let mut about = Attributes::default();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let of_environment = |name: &str| std::env::var(name).ok();
    let node = of_environment("OBSERVER_NODE_NAME");
    about.text("service.name", "observer");
    about.text("service.version", env!("CARGO_PKG_VERSION"));
    about.text("host.name", node.as_deref().unwrap_or(host.trim()));
    about.text("os.type", "linux");
    about.text("telemetry.sdk.name", "observer");
    about.text("telemetry.sdk.language", "rust");
    about.text("telemetry.sdk.version", env!("CARGO_PKG_VERSION"));
    about.optional("k8s.node.name", node);
    about.optional("k8s.pod.name", of_environment("OBSERVER_POD_NAME"));
    about.optional("k8s.pod.uid", of_environment("OBSERVER_POD_UID"));
    about.optional("k8s.namespace.name", of_environment("OBSERVER_NAMESPACE"));
    for (name, value) in &config.resource {
        about.0.retain(|known| known.key != *name);
        about.text(name, value);
    }
    about
}

/// Why something was not taken.
enum Refusal {
    /// It may be taken later; not before this long, if the receiver said so.
    Later(String, Option<Duration>),
    /// It will not.
    Never(String),
}

/// A batch that is being sent.
struct Batch {
    records: Vec<Record>,
    failures: u32,
    next: Instant,
}

/// Sends what comes, as long as there is somebody who sends records here.
pub(super) struct Exporter {
    shared: Arc<Shared>,
    start_ns: u64,
    /// Was the latest try a failure? Only changes are logged.
    down: bool,
}

impl Exporter {
    /// `start_ns`: since when the metrics count.
    pub(super) fn new(shared: Arc<Shared>, start_ns: u64) -> Exporter {
        Exporter {
            shared,
            start_ns,
            down: false,
        }
    }

    /// Runs until `end`, and then sends what is left.
    pub(super) async fn run(
        mut self,
        mut records: mpsc::Receiver<Record>,
        mut end: oneshot::Receiver<()>,
    ) {
        let mut batch: Option<Batch> = None;
        let mut period = self.period();
        let mut next_metrics = Instant::now() + period;
        loop {
            let due = batch.as_ref().map_or(next_metrics, |batch| batch.next);
            tokio::select! {
                _ = &mut end => break,
                record = records.recv(), if batch.is_none() => {
                    let Some(record) = record else { break };
                    batch = Some(Batch {
                        records: vec![record],
                        failures: 0,
                        next: Instant::now() + LINGER,
                    });
                }
                () = sleep_until(due), if batch.is_some() => {
                    batch = self.send(batch.take(), &mut records).await;
                }
                () = sleep_until(next_metrics) => {
                    self.metrics().await;
                    // A reload may have changed it.
                    period = self.period();
                    next_metrics = Instant::now() + period;
                }
            }
        }
        self.farewell(batch, records).await;
    }

    fn period(&self) -> Duration {
        let receiver = self.shared.settings().otlp;
        receiver.map_or_else(|| Otlp::default().interval, |one| one.interval)
    }

    /// One try each for what is left.
    async fn farewell(&mut self, mut batch: Option<Batch>, mut records: mpsc::Receiver<Record>) {
        let settled = |counts: &Counts| {
            let tally = counts.tally(0);
            tally.otlp_records + tally.otlp_lost
        };
        let before = settled(&self.shared.counts);
        let all = records.len() + batch.as_ref().map_or(0, |batch| batch.records.len());
        let last = async {
            while batch.is_some() || !records.is_empty() {
                batch = self.send(batch.take(), &mut records).await;
                if batch.is_some() {
                    return;
                }
            }
            self.metrics().await;
        };
        let _ = timeout(FAREWELL, last).await;
        let left = (all as u64).saturating_sub(settled(&self.shared.counts) - before);
        if left > 0 {
            log(&format!(
                "OTLP: {left} log records were not sent at the end"
            ));
        }
    }

    /// Tries to send a batch, with what has come meanwhile; hands back what is to be tried again.
    async fn send(
        &mut self,
        batch: Option<Batch>,
        records: &mut mpsc::Receiver<Record>,
    ) -> Option<Batch> {
        let mut batch = batch.unwrap_or_else(|| Batch {
            records: Vec::new(),
            failures: 0,
            next: Instant::now(),
        });
        // One that failed is not made larger: how much is kept has a bound.
        while batch.failures == 0
            && batch.records.len() < BATCH
            && let Ok(record) = records.try_recv()
        {
            batch.records.push(record);
        }
        if batch.records.is_empty() {
            return None;
        }
        // A reload may have ended it.
        let Some(receiver) = self.shared.settings().otlp else {
            more(&self.shared.counts.otlp_lost, batch.records.len() as u64);
            return None;
        };
        let message = records::request(&batch.records, &receiver.resource);
        let sent = post(&receiver.client, "/v1/logs", message.encode_to_vec()).await;
        let count = batch.records.len() as u64;
        match sent {
            Ok(body) => {
                let answer = ExportLogsServiceResponse::decode(body).unwrap_or_default();
                let refused = answer.partial_success.unwrap_or_default();
                let lost = u64::try_from(refused.rejected_log_records).unwrap_or(0);
                let lost = lost.min(count);
                more(&self.shared.counts.otlp_records, count - lost);
                more(&self.shared.counts.otlp_lost, lost);
                if lost > 0 {
                    let why = shown(&refused.error_message);
                    log(&format!("OTLP: the receiver refused {lost} records: {why}"));
                }
                self.up();
                None
            }
            Err(Refusal::Never(why)) => {
                more(&self.shared.counts.otlp_lost, count);
                log(&format!("OTLP: {count} log records are lost: {why}"));
                None
            }
            Err(Refusal::Later(why, patience)) => {
                self.failed(&why);
                let pause = FIRST_RETRY.saturating_mul(1 << batch.failures.min(8));
                let pause = pause.min(LONGEST_RETRY).max(patience.unwrap_or_default());
                batch.failures += 1;
                batch.next = Instant::now() + spread(pause.min(MAX_RETRY_AFTER));
                Some(batch)
            }
        }
    }

    /// Sends the metrics as they are now. They are cumulative: what fails is made good by the next ones.
    async fn metrics(&mut self) {
        let Some(receiver) = self.shared.settings().otlp else {
            return;
        };
        // The next ones will do if the agent is busy.
        let Some(text) = self.shared.text(Question::Metrics).await else {
            return;
        };
        let span = metrics::Span {
            start_ns: self.start_ns,
            now_ns: now_ns(),
        };
        let message = metrics::request(&samples::parse(&text), &receiver.resource, span);
        match post(&receiver.client, "/v1/metrics", message.encode_to_vec()).await {
            Ok(body) => {
                let answer = ExportMetricsServiceResponse::decode(body).unwrap_or_default();
                let refused = answer.partial_success.unwrap_or_default();
                if refused.rejected_data_points > 0 {
                    let why = shown(&refused.error_message);
                    let count = refused.rejected_data_points;
                    log(&format!("OTLP: the receiver refused {count} values: {why}"));
                }
                more(&self.shared.counts.otlp_metrics, 1);
                self.up();
            }
            Err(Refusal::Later(why, _) | Refusal::Never(why)) => self.failed(&why),
        }
    }

    fn up(&mut self) {
        if std::mem::take(&mut self.down) {
            log("OTLP: the receiver is there again");
        }
    }

    fn failed(&mut self, why: &str) {
        more(&self.shared.counts.otlp_failures, 1);
        if !std::mem::replace(&mut self.down, true) {
            log(&format!("OTLP: not sent, and tried again: {why}"));
        }
    }
}

/// What may be tried again is what the specification of OTLP says.
async fn post(client: &Client, path: &str, message: Vec<u8>) -> Result<Bytes, Refusal> {
    let answer = client.post(path, PROTOBUF, Bytes::from(message)).await;
    let answer = answer.map_err(|error| Refusal::Later(format!("{error:#}"), None))?;
    let why = || format!("{}{path} answers {}", client.target(), answer.status);
    match answer.status {
        status if status.is_success() => Ok(answer.body),
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(Refusal::Later(why(), answer.retry_after)),
        _ => Err(Refusal::Never(why())),
    }
}

/// Between three quarters of a pause and all of it, so that many agents do not come at once.
fn spread(pause: Duration) -> Duration {
    let part = (crate::time::mono_ns() % 1_000) as u32;
    pause.saturating_sub(pause / 4 * part / 1_000)
}

/// What a receiver says, fit for a log.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

pub(super) fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_and_never_longer() {
        for pause in [FIRST_RETRY, LONGEST_RETRY, Duration::ZERO] {
            let spread = spread(pause);
            assert!(spread <= pause && spread >= pause * 3 / 4);
        }
    }

    #[test]
    fn what_the_configuration_says_of_the_resource_counts() {
        let config = Otlp {
            resource: [("service.name".into(), "mine".into())].into(),
            ..Otlp::default()
        };
        let about = agent(&config);
        let names: Vec<_> = about.0.iter().filter(|a| a.key == "service.name").collect();
        assert_eq!(names.len(), 1);
        assert!(format!("{names:?}").contains("mine"));
    }
}
