//! PostgreSQL's sessions, by the titles that its processes give themselves: `postgres: USER DB HOST COMMAND`, with
//! ` waiting` at the end while the session waits for a lock of the lock manager.

use schemars::JsonSchema;
use serde::Serialize;

use crate::inspect::proc;

/// Sessions that are told.
const MAX_SESSIONS: usize = 10_000;

/// What a session's title says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Session {
    /// The process that serves it.
    pub pid: u32,
    /// User, database, client and command, as the title has them.
    pub title: String,
    /// It waits for a lock of the lock manager.
    pub waiting: bool,
    /// It has begun a transaction and does nothing: what it has locked stays locked.
    pub idle_in_transaction: bool,
}

impl Session {
    /// `None`: a title that is not a session's.
    fn parse(pid: u32, title: &str) -> Option<Session> {
        // A cluster may have a name, which stands before the rest.
        let rest = title.strip_prefix("postgres: ")?;
        let rest = rest.trim_end_matches(['\0', ' ']);
        // `checkpointer`, `walwriter`: a session has user, database and client at least.
        if rest.split(' ').count() < 4 {
            return None;
        }
        let (rest, waiting) = match rest.strip_suffix(" waiting") {
            Some(before) => (before, true),
            None => (rest, false),
        };
        let idle_in_transaction = rest.ends_with("idle in transaction")
            || rest.ends_with("idle in transaction (aborted)");
        Some(Session {
            pid,
            title: rest.to_owned(),
            waiting,
            idle_in_transaction,
        })
    }
}

/// Is this process PostgreSQL's?
pub fn is_postgres(pid: u32) -> bool {
    proc::stat(pid, pid).is_some_and(|stat| stat.comm == "postgres")
}

/// The sessions among these processes.
pub fn sessions(pids: impl IntoIterator<Item = u32>) -> Vec<Session> {
    pids.into_iter()
        .filter(|&pid| is_postgres(pid))
        .filter_map(|pid| Session::parse(pid, &proc::title(pid)?))
        .take(MAX_SESSIONS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_read() {
        let of = |title| Session::parse(7, title);
        let waits = of("postgres: shop orders [local] SELECT waiting").unwrap();
        assert!(waits.waiting && !waits.idle_in_transaction);
        assert_eq!(waits.title, "shop orders [local] SELECT");
        let idle = of("postgres: 15/main: shop orders 10.0.0.1(5) idle in transaction").unwrap();
        assert!(idle.idle_in_transaction && !idle.waiting);
        assert!(
            of("postgres: a b c idle in transaction (aborted)")
                .unwrap()
                .idle_in_transaction
        );
        for title in [
            "postgres: checkpointer ",
            "postgres: 15/main: walwriter",
            "postgres",
            "",
        ] {
            assert_eq!(of(title), None, "{title}");
        }
        assert!(!is_postgres(std::process::id()));
        assert_eq!(sessions([std::process::id()]), []);
    }
}
