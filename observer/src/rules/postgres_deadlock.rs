//! PostgreSQL found a deadlock and ended one of its waits.

use super::{Diagnosis, Rule, Thresholds};
use crate::{
    event::{Severity, Subject, Wait},
    model::Model,
    time::human,
};

/// The probe that fires when the server finds one.
const FOUND: &str = "postgresql:deadlock__found";
/// What is older has been told.
const RECENT_NS: u64 = 60_000_000_000;

/// Tells which backend's query failed, and who held what it waited for.
pub(super) struct PostgresDeadlock;

fn evidence(wait: &Wait) -> Vec<String> {
    let mut evidence = vec!["the server's own deadlock check says so, by a probe".to_owned()];
    if let Some(mode) = &wait.mode {
        evidence.push(format!("it wanted {mode}"));
    }
    if let Some(holder) = &wait.holder
        && let Some(tid) = holder.tid
    {
        evidence.push(format!(
            "{}/{tid} held it: {} ({}), {}",
            holder.comm.as_deref().unwrap_or("?"),
            holder.confidence.name(),
            holder.evidence,
            holder
                .doing
                .as_deref()
                .unwrap_or("doing something not known")
        ));
    }
    evidence
}

impl Rule for PostgresDeadlock {
    fn name(&self) -> &'static str {
        "postgres_deadlock"
    }

    fn advice(&self) -> &'static str {
        "The query failed, and its transaction was rolled back: the client has to try it again. Change rows and lock \
         tables in one order in all transactions; the server's log names the queries."
    }

    fn check(&mut self, model: &Model, _: &Thresholds) -> Vec<Diagnosis> {
        model
            .waits()
            .rev()
            .take_while(|wait| model.now_ns().saturating_sub(wait.mono_ns) < RECENT_NS)
            .filter(|wait| wait.ended_by.as_deref() == Some(FOUND))
            .filter_map(|wait| {
                let lock = wait.lock.as_ref()?;
                Some(Diagnosis {
                    key: format!("{} {}", wait.task.tid, wait.mono_ns),
                    severity: Severity::Critical,
                    title: format!(
                        "PostgreSQL found a deadlock: it ended the wait of {} for {lock} after {}",
                        wait.task,
                        human(wait.dur_ns)
                    ),
                    evidence: evidence(wait),
                    subjects: vec![
                        Subject::Task(wait.task.clone()),
                        Subject::Lock(lock.clone()),
                    ],
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn only_the_end_by_that_probe() {
        for (end, expected) in [
            (Some(FOUND), 1),
            (Some("postgresql:transaction__abort"), 0),
            (None, 0),
        ] {
            let model = model(&[waiter(10).held_by(20, "idle in transaction").ended_by(end)]);
            let found = PostgresDeadlock.check(&model, &Thresholds::default());
            assert_eq!(found.len(), expected, "{end:?}");
            for one in found {
                assert_eq!(
                    one.title,
                    "PostgreSQL found a deadlock: it ended the wait of t10/10 for lock_1 after 1.00s"
                );
                assert!(one.evidence[1].contains("t20/20 held it: exact"), "{one:?}");
            }
        }
    }
}
