//! What the two processes say to each other. Each reads it as written by somebody who may lie: lengths, counts and names
//! are checked here.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::tally::Tally;
use crate::agent::{
    incidents::Began,
    kubernetes::{self, ClusterMaterial},
    material::Material,
};

/// The number of the answer that nobody asked for: the metrics at the end.
pub(super) const LAST: u32 = u32::MAX;
/// Elements of a list that may be asked for.
pub(in crate::agent) const MAX_LIMIT: usize = 10_000;
/// Bytes of the reason given for an incident.
const MAX_WHY: usize = 200;

/// May this be a reason for an incident? It goes into the log.
pub(in crate::agent) fn is_reason(why: &str) -> bool {
    why.len() <= MAX_WHY && !why.chars().any(char::is_control)
}

/// What the agent's loop is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::agent) enum Question {
    /// The metrics, as OpenMetrics.
    Metrics,
    /// Waits in progress, the oldest first.
    Blocked(usize),
    /// Locks, those waited for longest first.
    Locks(usize),
    /// Findings and deadlocks.
    Findings(usize),
    /// Goroutines.
    Goroutines,
    /// The first line of a stream.
    Meta,
    /// The first lines of one that begins with what is known.
    Snapshot,
    /// An incident is asked for, with the reason given.
    Incident(String),
}

impl Question {
    /// May it be asked like this?
    pub(super) fn is_bounded(&self) -> bool {
        match self {
            Question::Blocked(limit) | Question::Locks(limit) | Question::Findings(limit) => {
                *limit <= MAX_LIMIT
            }
            Question::Incident(why) => is_reason(why),
            Question::Metrics | Question::Goroutines | Question::Meta | Question::Snapshot => true,
        }
    }
}

/// All that the process that serves HTTP has to know.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::agent) struct Start {
    pub(in crate::agent) material: Material,
    /// What may be read, if that is restricted.
    pub(in crate::agent) readable: Option<Vec<PathBuf>>,
    /// Since when metrics count, in nanoseconds since the Unix epoch.
    pub(in crate::agent) since_ns: u64,
    /// Log records that wait while the receiver of OTLP is away.
    pub(in crate::agent) records: usize,
    pub(in crate::agent) cluster: Option<ClusterMaterial>,
}

/// What the agent says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ToServing {
    /// First of all.
    Start(Box<Start>),
    /// The configuration was read anew.
    Material(Box<Material>),
    /// The loop came round.
    Beat { ready: bool },
    /// Lines of the stream that there was no room for.
    Missed { lines: u64 },
    /// What became of the incident that was asked for.
    Incident {
        id: u32,
        began: Result<Began, String>,
    },
    /// The question is not answered now.
    Busy { id: u32 },
}

/// What the process that serves HTTP says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::agent) enum ToAgent {
    /// First of all: it serves.
    Serving,
    /// Asks something; the answer has the same number.
    Ask { id: u32, question: Question },
    /// What it counted so far.
    Tally(Tally),
    /// All pods of the node follow, and then `PodsLast`.
    PodsFirst,
    /// A pod of the node.
    Pod(PodNote),
    /// What was not told of since `PodsFirst` is gone.
    PodsLast,
    /// A pod is gone.
    PodGone { uid: String },
}

/// What the cluster says of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::agent) struct PodNote {
    pub(in crate::agent) uid: String,
    pub(in crate::agent) name: String,
    pub(in crate::agent) namespace: String,
    pub(in crate::agent) workload: Option<String>,
}

impl PodNote {
    /// Are these names that may stand on a terminal?
    pub(in crate::agent) fn is_good(&self) -> bool {
        let workload = self.workload.as_deref().map(|one| one.split_once('/'));
        let workload = match workload {
            None => true,
            Some(Some((kind, name))) => kubernetes::is_name(kind) && kubernetes::is_name(name),
            Some(None) => false,
        };
        let names = [&self.uid, &self.name, &self.namespace];
        workload && names.into_iter().all(|name| kubernetes::is_name(name))
    }
}

impl ToAgent {
    /// Reads one.
    pub(in crate::agent) fn read(payload: &[u8]) -> Option<ToAgent> {
        let said: ToAgent = serde_json::from_slice(payload).ok()?;
        let good = match &said {
            ToAgent::Ask { question, .. } => question.is_bounded(),
            ToAgent::Pod(pod) => pod.is_good(),
            ToAgent::PodGone { uid } => kubernetes::is_name(uid),
            ToAgent::Serving | ToAgent::Tally(_) | ToAgent::PodsFirst | ToAgent::PodsLast => true,
        };
        good.then_some(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read() {
        let pod = PodNote {
            uid: "u".into(),
            name: "shop-1".into(),
            namespace: "prod".into(),
            workload: Some("Deployment/shop".into()),
        };
        for said in [
            ToAgent::Serving,
            ToAgent::Ask {
                id: 7,
                question: Question::Locks(MAX_LIMIT),
            },
            ToAgent::Tally(Tally::default()),
            ToAgent::Pod(pod),
            ToAgent::PodGone { uid: "u".into() },
        ] {
            let text = serde_json::to_vec(&said).unwrap();
            assert_eq!(ToAgent::read(&text), Some(said));
        }
    }

    #[test]
    fn what_may_not_be_said_is_refused() {
        let long = "w".repeat(MAX_WHY + 1);
        for text in [
            "",
            "null",
            "\"other\"",
            r#"{"ask":{"id":1,"question":"shell"}}"#,
            r#"{"ask":{"id":-1,"question":"meta"}}"#,
            r#"{"ask":{"id":1,"question":"meta","more":1}}"#,
            r#"{"ask":{"id":1,"question":{"blocked":10001}}}"#,
            r#"{"ask":{"id":1,"question":{"blocked":18446744073709551616}}}"#,
            &format!(r#"{{"ask":{{"id":1,"question":{{"incident":"{long}"}}}}}}"#),
            r#"{"ask":{"id":1,"question":{"incident":"\u001b[2J"}}}"#,
            r#"{"tally":{"streams":1}}"#,
            r#"{"pod_gone":{"uid":"a b"}}"#,
            r#"{"pod":{"uid":"u","name":"\u001b[2J","namespace":"n","workload":null}}"#,
            r#"{"pod":{"uid":"u","name":"p","namespace":"n","workload":"no kind"}}"#,
            r#"{"pod":{"uid":"../..","name":"p","namespace":"n","workload":null}}"#,
        ] {
            assert_eq!(ToAgent::read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(ToAgent::read("[".repeat(4_000).as_bytes()), None);
    }
}
