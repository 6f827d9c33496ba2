//! Export by OTLP, to a receiver that reads it with the OpenTelemetry project's own messages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    agent::{Agent, Daemon, TOKEN, free_port, needs},
    harness::{Skip, TempDir, Workload, alone, name, poll},
};

/// The receiver, and what it was sent.
struct Receiver {
    _daemon: Daemon,
    out: PathBuf,
}

impl Receiver {
    fn start(port: u16, folder: &Path, refuse: u32) -> Receiver {
        let out = folder.join("received");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("python3");
        command
            .arg(root.join("tests/agent/receiver.py"))
            .arg(port.to_string())
            .arg(&out)
            .arg(refuse.to_string())
            .env("PYTHONPATH", packages());
        let daemon = Daemon::start(&mut command, &folder.join("receiver.log"));
        Receiver {
            _daemon: daemon,
            out,
        }
    }

    /// The messages for one path.
    fn messages(&self, path: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.out).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["path"] == path)
            .collect()
    }

    /// Resource and record of each log.
    fn records(&self) -> Vec<(Value, Value)> {
        let mut all = Vec::new();
        for message in self.messages("/v1/logs") {
            for of_one in array(&message["message"]["resourceLogs"]) {
                for scope in array(&of_one["scopeLogs"]) {
                    let records = array(&scope["logRecords"]).iter();
                    all.extend(records.map(|one| (of_one["resource"].clone(), one.clone())));
                }
            }
        }
        all
    }
}

fn packages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/python")
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// An attribute of a resource, a record or a value.
fn attribute<'a>(of: &'a Value, key: &str) -> Option<&'a str> {
    let found = array(&of["attributes"])
        .iter()
        .find(|one| one["key"] == key)?;
    found["value"]["stringValue"]
        .as_str()
        .or_else(|| found["value"]["intValue"].as_str())
}

fn can_receive() -> Result<(), Skip> {
    needs("python3")?;
    let there = packages().join("opentelemetry/proto").is_dir();
    let reason = || Skip("no opentelemetry-proto: `cargo xtask test` fetches it".into());
    there.then_some(()).ok_or_else(reason)
}

fn metric(agent: &Agent, name: &str) -> u64 {
    let text = agent.open("/metrics").1;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
}

const LOST: &str = "observer_lost_total{cause=\"otlp\"}";

#[test]
fn nothing_is_lost_while_the_receiver_is_away() {
    alone(name!(), || {
        can_receive()?;
        let port = free_port();
        let agent = Agent::start(&format!(
            "[capture]\ninterval = \"200ms\"\nlong_wait = \"200ms\"\n[incidents]\ndir = \"{{DIR}}/incidents\"\n\
             [otlp]\nendpoint = \"http://127.0.0.1:{port}\"\ntoken_file = \"{{DIR}}/token\"\n\
             long_wait = \"200ms\"\ninterval = \"500ms\"\n[otlp.resource]\n\"deployment.environment.name\" = \"test\"\n"
        ))?;
        let mut workload = Workload::start(&["deadlock"])?;
        poll("the receiver is found to be away", || {
            agent.log().contains("OTLP: not sent").then_some(())
        });
        poll("the deadlock is found", || {
            let text = agent.open("/metrics").1;
            text.contains("observer_findings_total{rule=\"deadlock\"")
                .then_some(())
        });
        // It comes, but is not ready at once.
        let receiver = Receiver::start(port, agent.folder.path(), 2);
        let pid = workload.pid().to_string();
        // Others on this host may be in a deadlock too.
        let (resource, record) = poll("the finding is received", || {
            let is_deadlock = |(resource, one): &(Value, Value)| {
                attribute(one, "observer.rule") == Some("deadlock")
                    && attribute(resource, "process.pid") == Some(&*pid)
            };
            receiver.records().into_iter().find(is_deadlock)
        });
        assert_eq!(record["severityText"], "critical");
        assert_eq!(record["eventName"], "observer.finding");
        assert!(
            array(&record["attributes"])
                .iter()
                .any(|one| one["key"] == "observer.evidence")
        );
        assert_eq!(attribute(&resource, "service.name"), Some("observer"));
        assert!(attribute(&resource, "host.name").is_some());
        assert_eq!(
            attribute(&resource, "deployment.environment.name"),
            Some("test")
        );
        let wait = poll("a long wait of it is received", || {
            let of_it = |(resource, one): &(Value, Value)| {
                attribute(resource, "process.pid") == Some(&*pid)
                    && one["eventName"] == "observer.long_wait"
                    // The first ones may come before a look told what it is.
                    && attribute(one, "observer.wait.kind") == Some("lock")
            };
            receiver.records().into_iter().find(of_it)
        });
        assert!(attribute(&wait.1, "observer.lock.id").is_some());
        let messages = receiver.messages("/v1/logs");
        assert_eq!(messages[0]["token"], format!("Bearer {TOKEN}"));
        assert_eq!(metric(&agent, LOST), 0);
        metrics_are_there(&receiver);
        workload.finish();
        let log = agent.stop();
        assert!(log.contains("the receiver is there again"), "{log}");
        assert!(!log.contains(TOKEN), "{log}");
        Ok(())
    });
}

fn metrics_are_there(receiver: &Receiver) {
    poll("the metrics are received", || {
        let all = receiver.messages("/v1/metrics");
        let metrics = &all.last()?["message"]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
        let named = |name: &str| array(metrics).iter().find(|one| one["name"] == name);
        let sum = &named("observer_wait_seconds")?["sum"];
        assert_eq!(sum["isMonotonic"], true);
        assert_eq!(
            sum["aggregationTemporality"],
            "AGGREGATION_TEMPORALITY_CUMULATIVE"
        );
        let durations = &named("observer_wait_duration_seconds")?["histogram"]["dataPoints"][0];
        assert_eq!(
            array(&durations["bucketCounts"]).len(),
            array(&durations["explicitBounds"]).len() + 1
        );
        let counts = array(&durations["bucketCounts"]).iter();
        let counted: u64 = counts
            .map(|one| one.as_str().unwrap().parse::<u64>().unwrap())
            .sum();
        assert_eq!(durations["count"], counted.to_string());
        named("observer_deadlocks")?["gauge"]
            .is_object()
            .then_some(())
    });
}

#[test]
fn what_the_queue_has_no_room_for_is_counted() {
    alone(name!(), || {
        can_receive()?;
        let port = free_port();
        let agent = Agent::start(&format!(
            "[capture]\ninterval = \"200ms\"\nlong_wait = \"100ms\"\n[incidents]\ndir = \"{{DIR}}/incidents\"\n\
             [otlp]\nendpoint = \"http://127.0.0.1:{port}\"\nqueue = 1\nlong_wait = \"100ms\"\n"
        ))?;
        let mut workload = Workload::start(&["deadlock"])?;
        poll("what does not fit is counted", || {
            (metric(&agent, LOST) > 0).then_some(())
        });
        let folder = TempDir::new();
        let receiver = Receiver::start(port, folder.path(), 0);
        poll("what was kept is received", || {
            (!receiver.records().is_empty()).then_some(())
        });
        poll("it is counted", || {
            (metric(&agent, "observer_otlp_records_total ") > 0).then_some(())
        });
        workload.finish();
        agent.stop();
        Ok(())
    });
}
