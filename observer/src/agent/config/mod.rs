//! The agent's configuration: TOML, every key optional, none unknown. docs/agent.md describes each.

mod check;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error};

pub use self::check::Wrong;
use super::privileges::Capability;
use crate::{capture, event::Severity, time::parse_duration};

const MIB: u64 = 1 << 20;

/// The whole file.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// File with the token that `/api` asks for; without one, `/api` is closed.
    pub token_file: Option<PathBuf>,
    /// Resident memory above which the flight recorder keeps less.
    #[serde(deserialize_with = "size")]
    pub max_memory: u64,
    /// Encryption of HTTP.
    pub tls: Tls,
    /// What is observed.
    pub capture: Capture,
    /// Goroutines.
    pub goroutines: Goroutines,
    /// Metrics.
    pub metrics: Metrics,
    /// The minutes that are kept in memory.
    pub recorder: Recorder,
    /// What is written to disk.
    pub incidents: Incidents,
    /// When.
    pub triggers: Triggers,
    /// Who is told of it.
    pub webhook: Webhook,
    /// Who is sent findings, long waits and metrics.
    pub otlp: Otlp,
    /// The cluster that this node is a part of.
    pub kubernetes: Kubernetes,
    /// What the agent may do after its start.
    pub privileges: Privileges,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464),
            token_file: None,
            max_memory: 128 * MIB,
            tls: Tls::default(),
            capture: Capture::default(),
            goroutines: Goroutines::default(),
            metrics: Metrics::default(),
            recorder: Recorder::default(),
            incidents: Incidents::default(),
            triggers: Triggers::default(),
            webhook: Webhook::default(),
            otlp: Otlp::default(),
            kubernetes: Kubernetes::default(),
            privileges: Privileges::default(),
        }
    }
}

/// Encryption of HTTP.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Certificates, PEM, the server's own first.
    pub cert_file: Option<PathBuf>,
    /// Its private key, PEM.
    pub key_file: Option<PathBuf>,
    /// Make a certificate at each start, which nobody has signed: encryption without proof of who answers.
    pub self_signed: bool,
}

impl Tls {
    /// Is HTTP encrypted?
    pub fn is_on(&self) -> bool {
        self.self_signed || self.cert_file.is_some()
    }
}

/// What is observed.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    /// Only tasks of these names.
    pub comms: Vec<String>,
    /// Only tasks in these control groups.
    pub cgroups: Vec<String>,
    /// Single waits from this length on.
    #[serde(deserialize_with = "duration")]
    pub min_wait: Duration,
    /// Waits in progress from this age on.
    #[serde(deserialize_with = "duration")]
    pub long_wait: Duration,
    /// Totals are read, and rules asked, this often.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Share of the host's CPU time that observing may use, in percent.
    pub max_overhead_percent: f64,
    /// Take stacks.
    pub stacks: bool,
    /// Locks that can be told apart.
    pub lock_slots: u32,
    /// Size of the ring buffer.
    pub ring_kib: u32,
}

impl Default for Capture {
    fn default() -> Self {
        Capture {
            comms: Vec::new(),
            cgroups: Vec::new(),
            min_wait: Duration::from_millis(1),
            long_wait: Duration::from_secs(1),
            interval: Duration::from_secs(5),
            max_overhead_percent: capture::MAX_OVERHEAD * 100.0,
            stacks: true,
            lock_slots: capture::LOCK_SLOTS,
            ring_kib: capture::RING_BYTES >> 10,
        }
    }
}

impl Capture {
    /// The same for the capture.
    pub fn options(&self) -> capture::Options {
        capture::Options {
            comms: self.comms.clone(),
            cgroups: self.cgroups.clone(),
            min_wait: self.min_wait,
            long_wait: self.long_wait,
            interval: self.interval,
            max_overhead: Some(self.max_overhead_percent / 100.0),
            stacks: self.stacks,
            lock_slots: self.lock_slots,
            ring_bytes: self.ring_kib << 10,
            ..capture::Options::default()
        }
    }
}

/// Goroutines.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Goroutines {
    /// Go processes that are looked at; 0: none.
    pub max_processes: usize,
}

impl Default for Goroutines {
    fn default() -> Self {
        Goroutines { max_processes: 8 }
    }
}

/// Metrics.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Sets of the labels `process`, `container`, `pod` and `namespace` at most.
    pub max_series: usize,
    /// A set is forgotten when nothing of it was seen for this long.
    #[serde(deserialize_with = "duration")]
    pub forget_after: Duration,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            max_series: 1_000,
            forget_after: Duration::from_mins(10),
        }
    }
}

/// The minutes that are kept in memory.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Recorder {
    /// Time that is kept.
    #[serde(deserialize_with = "duration")]
    pub before: Duration,
    /// Compressed events that are kept at most.
    #[serde(deserialize_with = "size")]
    pub memory: u64,
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder {
            before: Duration::from_mins(2),
            memory: 16 * MIB,
        }
    }
}

/// What is written to disk.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Incidents {
    /// The folder; it is made if need be.
    pub dir: PathBuf,
    /// Events after the trigger are recorded for this long.
    #[serde(deserialize_with = "duration")]
    pub after: Duration,
    /// Incidents kept: the oldest go first.
    pub max_count: usize,
    /// Bytes of all of them.
    #[serde(deserialize_with = "size")]
    pub max_bytes: u64,
    /// They are removed at this age.
    #[serde(deserialize_with = "duration")]
    pub keep: Duration,
    /// Time between two of them at least; one that is asked for by a person does not wait.
    #[serde(deserialize_with = "duration")]
    pub min_gap: Duration,
    /// Incidents in an hour, those that were asked for included.
    pub max_per_hour: usize,
}

impl Default for Incidents {
    fn default() -> Self {
        Incidents {
            dir: "/var/lib/observer/incidents".into(),
            after: Duration::from_secs(10),
            max_count: 50,
            max_bytes: 512 * MIB,
            keep: Duration::from_hours(7 * 24),
            min_gap: Duration::from_mins(5),
            max_per_hour: 10,
        }
    }
}

/// From which finding on an incident is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FindingLevel {
    /// Never.
    Off,
    /// Any.
    Info,
    /// Warnings and critical ones.
    Warning,
    /// Critical ones.
    #[default]
    Critical,
}

impl FindingLevel {
    /// Is a finding of this severity a reason?
    pub fn includes(self, severity: Severity) -> bool {
        match self {
            FindingLevel::Off => false,
            FindingLevel::Info => true,
            FindingLevel::Warning => severity >= Severity::Warning,
            FindingLevel::Critical => severity >= Severity::Critical,
        }
    }
}

/// When an incident is written.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Triggers {
    /// A finding of this severity or a worse one.
    pub finding: FindingLevel,
    /// More tasks than this are blocked, those that are idle left out; 0: no reason.
    pub blocked: u64,
    /// For this long.
    #[serde(deserialize_with = "duration")]
    pub blocked_for: Duration,
    /// A process has more goroutines than this; 0: no reason.
    pub goroutines: u64,
    /// For this long.
    #[serde(deserialize_with = "duration")]
    pub goroutines_for: Duration,
    /// Thresholds of metrics.
    pub metric: Vec<Threshold>,
}

/// A metric that is not to be beyond a value for a time.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// Its name, as in `/metrics`.
    pub metric: String,
    /// Of its series those with these labels; their values are added.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Beyond is above this. Of a counter, what it grows by within the time.
    #[serde(default)]
    pub above: Option<f64>,
    /// Beyond is below this.
    #[serde(default)]
    pub below: Option<f64>,
    /// The time.
    #[serde(rename = "for", deserialize_with = "duration")]
    pub for_time: Duration,
}

impl Threshold {
    /// The name that the metric's type has: without what its samples have behind it.
    pub fn family(&self) -> &str {
        let name = self.metric.as_str();
        let name = name.strip_suffix("_total").unwrap_or(name);
        name.strip_suffix("_count").unwrap_or(name)
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.metric)?;
        for (at, (name, value)) in self.labels.iter().enumerate() {
            let before = if at == 0 { "{" } else { ", " };
            write!(f, "{before}{name}={value}")?;
        }
        if !self.labels.is_empty() {
            f.write_str("}")?;
        }
        match (self.above, self.below) {
            (Some(above), _) => write!(f, " > {above}"),
            (None, Some(below)) => write!(f, " < {below}"),
            (None, None) => Ok(()),
        }
    }
}

impl Default for Triggers {
    fn default() -> Self {
        Triggers {
            finding: FindingLevel::Critical,
            blocked: 0,
            blocked_for: Duration::from_secs(30),
            goroutines: 5_000,
            goroutines_for: Duration::from_secs(30),
            metric: Vec::new(),
        }
    }
}

/// Who is told of an incident.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Webhook {
    /// `http://` or `https://`; what incident.json holds is posted there.
    pub url: Option<String>,
    /// File with a bearer token for it.
    pub token_file: Option<PathBuf>,
    /// Certificates that an `https://` server is believed by, PEM.
    pub ca_file: Option<PathBuf>,
}

/// What the cluster is asked and told.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Kubernetes {
    /// Ask what the pods of this node are parts of.
    pub workloads: bool,
    /// An Event of the node for each incident.
    pub events: bool,
    /// The API server; absent: the one that the pod's environment names.
    pub api: Option<String>,
    /// This node; absent: the environment's `OBSERVER_NODE_NAME`.
    pub node: Option<String>,
    /// The service account's token.
    pub token_file: PathBuf,
    /// Certificates that the API server is believed by.
    pub ca_file: PathBuf,
}

impl Default for Kubernetes {
    fn default() -> Self {
        let account = |file: &str| format!("/var/run/secrets/kubernetes.io/serviceaccount/{file}");
        Kubernetes {
            workloads: false,
            events: false,
            api: None,
            node: None,
            token_file: account("token").into(),
            ca_file: account("ca.crt").into(),
        }
    }
}

/// A receiver of OTLP.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Otlp {
    /// `http://` or `https://`, without `/v1/logs`; absent: nothing is exported.
    pub endpoint: Option<String>,
    /// File with a bearer token for it.
    pub token_file: Option<PathBuf>,
    /// Certificates that an `https://` receiver is believed by, PEM.
    pub ca_file: Option<PathBuf>,
    /// Metrics are sent this often.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Waits from this length on are sent, but those of idle tasks.
    #[serde(deserialize_with = "duration")]
    pub long_wait: Duration,
    /// Log records that wait while the receiver is away.
    pub queue: usize,
    /// Attributes of the resource that are added to, or take the place of, those that are found.
    pub resource: BTreeMap<String, String>,
}

impl Default for Otlp {
    fn default() -> Self {
        Otlp {
            endpoint: None,
            token_file: None,
            ca_file: None,
            interval: Duration::from_secs(30),
            long_wait: Duration::from_secs(1),
            queue: 4_096,
            resource: BTreeMap::new(),
        }
    }
}

/// What the agent may do after its start.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Privileges {
    /// Capabilities that are kept beside those that are needed.
    pub keep: Vec<Capability>,
    /// Give up system calls and files too.
    pub sandbox: bool,
}

impl Default for Privileges {
    fn default() -> Self {
        Privileges {
            keep: Vec::new(),
            sandbox: true,
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_size(&text).map_err(D::Error::custom)
}

/// A whole number with a unit.
fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no size; write it like 16MiB or 2GiB");
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let factor = match text[at..].trim() {
        "KiB" => 1 << 10,
        "MiB" => MIB,
        "GiB" => 1 << 30,
        _ => return Err(bad()),
    };
    let number: u64 = text[..at].parse().map_err(|_| bad())?;
    number.checked_mul(factor).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_a_configuration() {
        assert_eq!(Config::parse("", None).unwrap(), Config::default());
        assert_eq!(Config::default().listen.to_string(), "127.0.0.1:9464");
        Config::default().check().unwrap();
    }

    #[test]
    fn the_documented_file_is_the_default() {
        let page = include_str!("../../../../docs/agent.md");
        let toml = page
            .split("```toml")
            .nth(1)
            .unwrap()
            .split("```")
            .next()
            .unwrap();
        assert_eq!(Config::parse(toml, None).unwrap(), Config::default());
        // Keys whose default is absent stand there as comments.
        for key in [
            "token_file",
            "cert_file",
            "key_file",
            "ca_file",
            "url",
            "endpoint",
            "api",
            "node",
        ] {
            assert!(toml.contains(&format!("# {key} = ")), "{key}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("16MiB"), Ok(16 << 20));
        for text in ["", "16", "MiB", "-1MiB", "99999999999999GiB", "1 parsec"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
