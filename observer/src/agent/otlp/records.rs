//! Findings and long waits as log records, each with the process that it is about as its resource.

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
};

use prost::Message;

use super::values::{Attributes, SCHEMA, scope, text};
use crate::{
    event::{
        ContainerRuntime, Event, Finding, Frame, Holder, Kind, LockRef, Severity, Stack, Subject,
        TaskRef,
    },
    time::{WallTime, human},
};

/// Frames and lines of evidence that a record has at most.
const MAX_FRAMES: usize = 64;
const MAX_LINES: usize = 64;
/// Bytes of one text.
const MAX_TEXT: usize = 4 << 10;

/// A log record, and what it is about.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::agent) struct Record {
    about: Attributes,
    record: LogRecord,
}

impl Record {
    /// As bytes, for the process that sends it.
    pub(in crate::agent) fn encode(&self) -> Vec<u8> {
        let message = ResourceLogs {
            resource: Some(self.about.clone().resource()),
            scope_logs: vec![ScopeLogs {
                log_records: vec![self.record.clone()],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        };
        message.encode_to_vec()
    }

    /// From those bytes.
    pub(in crate::agent) fn decode(bytes: &[u8]) -> Option<Record> {
        let mut message = ResourceLogs::decode(bytes).ok()?;
        Some(Record {
            about: Attributes(message.resource.take()?.attributes),
            record: message.scope_logs.pop()?.log_records.pop()?,
        })
    }
}

/// A wait, of which the long ones are told.
struct LongWait<'a> {
    time: WallTime,
    task: &'a TaskRef,
    kind: Kind,
    ns: u64,
    over: bool,
    lock: Option<&'a LockRef>,
    holder: Option<&'a Holder>,
    stack: Option<&'a Stack>,
}

/// What of an event is told: findings, and waits of `long_ns` and more that are not those of an idle task.
pub(in crate::agent) fn record(event: &Event, long_ns: u64) -> Option<Record> {
    let wait = match event {
        Event::Finding(finding) => return Some(of_finding(finding)),
        Event::Blocked(wait) => LongWait {
            time: wait.time,
            task: &wait.task,
            kind: wait.kind,
            ns: wait.age_ns,
            over: false,
            lock: wait.lock.as_deref(),
            holder: wait.holder.as_deref(),
            stack: wait.stack.as_ref(),
        },
        Event::Wait(wait) => LongWait {
            time: wait.time,
            task: &wait.task,
            kind: wait.kind,
            ns: wait.dur_ns,
            over: true,
            lock: wait.lock.as_deref(),
            holder: wait.holder.as_deref(),
            stack: wait.stack.as_deref(),
        },
        _ => return None,
    };
    (wait.ns >= long_ns && !wait.kind.is_mostly_idle()).then(|| of_wait(&wait))
}

fn of_finding(finding: &Finding) -> Record {
    let mut attributes = Attributes::default();
    attributes.text("observer.rule", &*finding.rule);
    attributes.texts(
        "observer.evidence",
        finding
            .evidence
            .iter()
            .take(MAX_LINES)
            .map(|line| cut(line)),
    );
    attributes.text("observer.advice", cut(&finding.advice));
    let subjects = finding.subjects.iter().take(MAX_LINES);
    attributes.texts(
        "observer.subjects",
        subjects.map(|subject| match subject {
            Subject::Task(task) => task.to_string(),
            Subject::Lock(lock) => lock.to_string(),
            Subject::Process(pid) => format!("process {pid}"),
        }),
    );
    let number = match finding.severity {
        Severity::Info => SeverityNumber::Info,
        Severity::Warning => SeverityNumber::Warn,
        Severity::Critical => SeverityNumber::Error,
    };
    Record {
        about: subject(finding),
        record: LogRecord {
            time_unix_nano: finding.time.0,
            observed_time_unix_nano: finding.time.0,
            severity_number: number as i32,
            severity_text: finding.severity.name().to_owned(),
            body: Some(text(cut(&finding.title))),
            event_name: "observer.finding".to_owned(),
            attributes: attributes.0,
            ..LogRecord::default()
        },
    }
}

/// The process that a finding is about, if it is one.
fn subject(finding: &Finding) -> Attributes {
    let mut tasks = finding.subjects.iter().filter_map(|subject| match subject {
        Subject::Task(task) => Some(task),
        _ => None,
    });
    let Some(first) = tasks.next() else {
        return Attributes::default();
    };
    if tasks.all(|task| task.pid == first.pid) {
        process(first)
    } else {
        Attributes::default()
    }
}

fn of_wait(wait: &LongWait<'_>) -> Record {
    let mut attributes = Attributes::default();
    attributes.number("thread.id", u64::from(wait.task.tid));
    attributes.optional("thread.name", wait.task.comm.as_deref());
    attributes.text("observer.wait.kind", wait.kind.name());
    attributes.number("observer.wait.duration_ns", wait.ns);
    attributes.text(
        "observer.wait.state",
        if wait.over { "ended" } else { "in progress" },
    );
    if let Some(lock) = wait.lock {
        attributes.text("observer.lock.id", &*lock.id);
        attributes.text("observer.lock.class", lock.class.name());
        attributes.optional("observer.lock.name", lock.name.as_deref());
    }
    let mut holder = String::new();
    if let Some(found) = wait.holder {
        if let Some(tid) = found.tid {
            attributes.number("observer.holder.thread.id", u64::from(tid));
            holder = format!(", held by {}/{tid}", found.comm.as_deref().unwrap_or("?"));
        }
        attributes.text("observer.holder.confidence", found.confidence.name());
        attributes.text("observer.holder.evidence", cut(&found.evidence));
    }
    if let Some(stack) = wait.stack {
        attributes.text("code.stacktrace", stacktrace(stack));
    }
    let lock = wait.lock.map_or_else(
        || wait.kind.name().to_owned(),
        |lock| format!("{lock} ({})", wait.kind.name()),
    );
    let verb = if wait.over { "waited" } else { "has waited" };
    let body = format!("{} {verb} {} for {lock}{holder}", wait.task, human(wait.ns));
    Record {
        about: process(wait.task),
        record: LogRecord {
            time_unix_nano: wait.time.0,
            observed_time_unix_nano: wait.time.0,
            severity_number: SeverityNumber::Info as i32,
            severity_text: "info".to_owned(),
            body: Some(text(cut(&body))),
            event_name: "observer.long_wait".to_owned(),
            attributes: attributes.0,
            ..LogRecord::default()
        },
    }
}

/// One line a frame, innermost first; kernel code before user code.
fn stacktrace(stack: &Stack) -> String {
    let line = |frame: &Frame| match (&frame.name, frame.line) {
        (Some(name), Some(line)) => {
            format!("{name} ({}:{line})", frame.file.as_deref().unwrap_or("?"))
        }
        (Some(name), None) => name.to_string(),
        (None, _) => frame.addr.to_string(),
    };
    let frames = stack.kernel.iter().chain(stack.user.iter());
    let lines: Vec<_> = frames.take(MAX_FRAMES).map(line).collect();
    cut(&lines.join("\n"))
}

/// A process, its container and its pod, by the semantic conventions.
fn process(task: &TaskRef) -> Attributes {
    let mut about = Attributes::default();
    about.number("process.pid", u64::from(task.pid));
    about.optional("process.executable.name", task.process.as_deref());
    let Some(container) = &task.container else {
        return about;
    };
    about.text("container.id", &*container.id);
    about.optional(
        "container.runtime.name",
        container.runtime.map(ContainerRuntime::name),
    );
    about.optional("container.image.name", container.image.as_deref());
    let name = if container.pod.is_some() {
        "k8s.container.name"
    } else {
        "container.name"
    };
    about.optional(name, container.name.as_deref());
    about.optional("k8s.pod.name", container.pod.as_deref());
    about.optional("k8s.pod.uid", container.pod_uid.as_deref());
    about.optional("k8s.namespace.name", container.namespace.as_deref());
    let workload = container.workload.as_deref();
    if let Some((kind, name)) = workload.and_then(|workload| workload.split_once('/')) {
        let key = match kind {
            "Deployment" => "k8s.deployment.name",
            "StatefulSet" => "k8s.statefulset.name",
            "DaemonSet" => "k8s.daemonset.name",
            "ReplicaSet" => "k8s.replicaset.name",
            "Job" => "k8s.job.name",
            _ => "observer.workload",
        };
        about.text(key, name);
    }
    about
}

fn cut(text: &str) -> String {
    let end = (0..=MAX_TEXT.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

/// A message with all of `records`: those about the same process together. `agent` says who tells.
pub(super) fn request(records: &[Record], agent: &Attributes) -> ExportLogsServiceRequest {
    let mut of_one: Vec<(&Attributes, Vec<LogRecord>)> = Vec::new();
    for Record { about, record } in records {
        match of_one.iter_mut().find(|(known, _)| *known == about) {
            Some((_, all)) => all.push(record.clone()),
            None => of_one.push((about, vec![record.clone()])),
        }
    }
    let resource_logs = of_one
        .into_iter()
        .map(|(about, log_records)| {
            let mut resource = agent.clone();
            // What is told of the process takes the place of what is told of the agent.
            resource
                .0
                .retain(|own| about.0.iter().all(|other| other.key != own.key));
            resource.0.extend(about.0.iter().cloned());
            ResourceLogs {
                resource: Some(resource.resource()),
                scope_logs: vec![ScopeLogs {
                    scope: Some(scope()),
                    log_records,
                    schema_url: SCHEMA.to_owned(),
                }],
                schema_url: SCHEMA.to_owned(),
            }
        })
        .collect();
    ExportLogsServiceRequest { resource_logs }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        event::{ContainerRef, LockClass},
        rules::testing::{SECOND, waiter},
    };

    fn keys(attributes: &Attributes) -> Vec<&str> {
        attributes.0.iter().map(|one| &*one.key).collect()
    }

    #[test]
    fn long_waits_and_no_idle_ones() {
        let event = |waiter: crate::rules::testing::Waiter| Event::from(waiter.0);
        let long = record(&event(waiter(5).long(2).held_by(7, "running")), SECOND).unwrap();
        let said = format!("{:?}", long.record.body);
        assert!(
            said.contains("t5/5 has waited 2.00s for lock_1 (lock), held by t7/7"),
            "{said}"
        );
        assert_eq!(Record::decode(&long.encode()), Some(long));
        assert_eq!(Record::decode(b"no record"), None);
        assert_eq!(record(&event(waiter(5).long(2)), 3 * SECOND), None);
        let idle = waiter(5).long(2).class(LockClass::PthreadCond);
        assert_eq!(record(&event(idle), SECOND), None);
    }

    #[test]
    fn records_of_one_process_are_together() {
        let mut blocked = waiter(5).long(2).0;
        let mut container = ContainerRef::new("abc");
        container.pod = Some("p".into());
        container.name = Some("web".into());
        container.workload = Some("Deployment/shop".into());
        Arc::make_mut(&mut blocked.task).container = Some(Arc::new(container));
        let first = record(&Event::from(blocked.clone()), SECOND).unwrap();
        assert_eq!(
            keys(&first.about),
            [
                "process.pid",
                "container.id",
                "k8s.container.name",
                "k8s.pod.name",
                "k8s.deployment.name"
            ]
        );
        Arc::make_mut(&mut blocked.task).pid = 9;
        let other = record(&Event::from(blocked), SECOND).unwrap();
        let mut agent = Attributes::default();
        agent.text("service.name", "observer");
        agent.text("k8s.pod.name", "the agent's");
        let request = request(&[first.clone(), other, first], &agent);
        let counts: Vec<_> = request
            .resource_logs
            .iter()
            .map(|one| one.scope_logs[0].log_records.len())
            .collect();
        assert_eq!(counts, [2, 1]);
        let resource = request.resource_logs[0].resource.clone().unwrap();
        let names: Vec<_> = resource.attributes.iter().map(|a| &*a.key).collect();
        assert_eq!(names[0], "service.name");
        // The agent's own pod is not the pod of what it tells of.
        assert_eq!(
            names.iter().filter(|name| **name == "k8s.pod.name").count(),
            1
        );
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let long = "é".repeat(MAX_TEXT);
        assert_eq!(cut(&long).len(), MAX_TEXT);
        assert_eq!(cut(&format!("x{long}")).len(), MAX_TEXT - 1);
        assert_eq!(cut("short"), "short");
    }
}
