//! The report as one JSON object; docs/report.schema.json is made of these types.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Serialize;

use crate::{
    dump,
    event::{Deadlock, Event, Finding, Goroutines, Loss, Meta, Wait},
    model::Forgotten,
    runtimes::sessions::Session,
};

/// What `report --format json` and `triage --format json` write.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Object<'a> {
    /// The sentences that the report opens with.
    pub(super) summary: Vec<String>,
    /// What was observed, and how; null, if the recording does not say.
    pub(super) meta: Option<&'a Meta>,
    /// Diagnoses, the gravest first.
    pub(super) findings: Vec<&'a Finding>,
    /// Tasks that wait for each other in a circle.
    pub(super) deadlocks: Vec<&'a Deadlock>,
    /// Locks, the costliest first.
    pub(super) locks: Vec<Lock<'a>>,
    /// Waits in progress at the end that are not idle, as `blocked` events.
    pub(super) blocked: Vec<Event>,
    /// The longest waits that ended.
    pub(super) waits: &'a [Wait],
    /// Of a report totals by task, as `task` events; of a triage every thread that was looked at.
    pub(super) tasks: Tasks<'a>,
    /// The latest look at the goroutines of each Go process.
    pub(super) goroutines: Vec<&'a Goroutines>,
    /// What was lost; null, if the recording does not say.
    pub(super) loss: Option<&'a Loss>,
    /// The end of the run; null, if the recording has none.
    pub(super) end: Option<&'a crate::event::End>,
    /// What was left out for want of room.
    pub(super) forgotten: Forgotten,
    /// What could not be read of the recording, a sentence each.
    pub(super) unread: Vec<String>,
    /// What only a triage has.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) scene: Option<Scene<'a>>,
}

/// What a triage looked at beside the watch.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Scene<'a> {
    /// Totals by task, as `task` events.
    pub(super) task_totals: Vec<Event>,
    /// Sessions of PostgreSQL.
    pub(super) sessions: &'a [Session],
    /// `meta` of the look at every thread.
    pub(super) dump_meta: &'a Meta,
    /// Threads that could not be looked at.
    pub(super) dump_loss: &'a Loss,
    /// What could not be seen, and why.
    pub(super) not_seen: Vec<String>,
}

/// A lock.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Lock<'a> {
    /// A `lock` event.
    Totals(Box<Event>),
    /// One that only the look at every thread knows.
    Looked(&'a dump::Lock),
}

/// Tasks of a report, or threads of a triage.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Tasks<'a> {
    /// `task` events.
    Totals(Vec<Event>),
    /// Threads.
    Looked(&'a [dump::Task]),
}

/// The JSON Schema of a report, as in docs/report.schema.json.
pub fn schema() -> schemars::Schema {
    // What is left out when it is not known is not required.
    let written = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = written
        .into_generator()
        .into_root_schema_for::<Object<'_>>();
    let title = "What observer report and observer triage write as JSON";
    schema.insert("title".into(), title.into());
    schema
}
