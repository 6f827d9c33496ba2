//! Backends of PostgreSQL: what one waits for, and which other one has it.

use std::sync::Arc;

use super::{
    holders::{Activity, Found},
    memory::ProcessMemory,
    proc,
};
use crate::{
    event::{Addr, Holder, HolderState, Kind, LockClass, LockRef},
    runtimes::postgres::{self, Backend, LockWait},
};

/// Bytes of a title that are shown.
const MAX_TITLE: usize = 128;
/// Holders that the evidence lists.
const MAX_LISTED: usize = 8;

/// What a runtime told of a wait that the system sees as another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What it waits in.
    pub kind: Kind,
    /// For what.
    pub lock: LockRef,
    /// How it is wanted.
    pub mode: Option<Arc<str>>,
    /// Who has to act.
    pub holder: Option<Holder>,
}

/// What the backend `pid` waits for in the lock manager, read twice.
pub(super) fn lock(pid: u32, backend: Backend, activity: &mut Activity) -> Option<Told> {
    let memory = ProcessMemory::of(pid);
    let own = proc::own_number(pid, pid)?;
    let wait = backend.lock_wait(&memory, own)?;
    let stable = backend.lock_wait(&memory, own).as_ref() == Some(&wait);
    let (name, id, mode) = postgres::named(&wait)?;
    let server = proc::parent(pid)?;
    let found = if stable {
        holder(pid, server, &wait)
    } else {
        Found::unknown("it changes hands")
    };
    let mut holder = found.holder(activity);
    say(&mut holder, backend);
    Some(Told {
        kind: Kind::PostgresLock,
        lock: LockRef {
            id: format!("{server}:{id}").into(),
            class: LockClass::PostgresLock,
            name: name.map(Arc::from),
            addr: Addr::NONE,
            shared: true,
        },
        mode: mode.map(Arc::from),
        holder: Some(holder),
    })
}

/// What the backend `pid` waits for, which has told by a probe that it waits for the lock `id`.
pub(super) fn holder_of(
    pid: u32,
    backend: Backend,
    id: &str,
    activity: &mut Activity,
) -> Option<Holder> {
    let told = lock(pid, backend, activity)?;
    // It may wait for another one by now.
    (*told.lock.id == *id).then_some(told.holder)?
}

fn holder(pid: u32, server: u32, wait: &LockWait) -> Found {
    let Some(first) = wait.blockers.first() else {
        return Found::unknown("no backend holds it, or waits for it before this one");
    };
    let all: Option<Vec<u32>> = wait
        .blockers
        .iter()
        .map(|blocker| sibling(pid, server, &blocker.pids))
        .collect();
    let Some(all) = all else {
        return Found::unknown(if first.pids == [0] {
            "a prepared transaction holds it"
        } else {
            "the backend that holds it is not found among the server's processes"
        });
    };
    let Some(&one) = all.first() else {
        return Found::unknown("no backend holds it");
    };
    let evidence = match all.len() {
        1 if first.queued => {
            "first of those that wait before it, in PostgreSQL's lock table".into()
        }
        1 => "holder in PostgreSQL's lock table".into(),
        count => {
            let listed: Vec<String> = all.iter().take(MAX_LISTED).map(u32::to_string).collect();
            let more = if count > MAX_LISTED { ", …" } else { "" };
            format!(
                "one of {count} holders in PostgreSQL's lock table: {}{more}",
                listed.join(", ")
            )
        }
    };
    Found::exact(one, one, evidence)
}

/// The process of the same server that knows itself by one of these numbers, if exactly one does.
fn sibling(pid: u32, server: u32, own: &[u32]) -> Option<u32> {
    let is_sibling = |other: &u32| *other != pid && proc::parent(*other) == Some(server);
    let mut found: Vec<u32> = if proc::is_in_other_namespace(pid) {
        let knows = |other: &u32| {
            proc::own_number(*other, *other).is_some_and(|number| own.contains(&number))
        };
        let all = proc::processes().into_iter();
        all.filter(is_sibling).filter(knows).collect()
    } else {
        own.iter().copied().filter(is_sibling).collect()
    };
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Some(one),
        _ => None,
    }
}

/// Puts into a holder what its process shows in its title (user, database, client, and what it does), and what it waits
/// for where that is no lock. The processes of a server have their variables at the same addresses.
fn say(holder: &mut Holder, backend: Backend) {
    if let Some(pid) = holder.pid
        && let Some(title) = title(pid)
        && holder.state != Some(HolderState::Ended)
    {
        let doing = match holder.state {
            Some(HolderState::Waiting) | None => {
                match backend.event_type(&ProcessMemory::of(pid)) {
                    Some(event) => format!("{title} (wait event type {event})"),
                    None => title,
                }
            }
            Some(state) => format!("{title} ({})", state.name()),
        };
        holder.doing = Some(doing.into());
    }
}

/// `postgres: user database [local] idle in transaction` without its first word.
fn title(pid: u32) -> Option<String> {
    let text = proc::title(pid)?;
    let text = &text[..text.floor_char_boundary(MAX_TITLE)];
    let text = text.trim_end_matches(['\0', ' ']);
    text.strip_prefix("postgres: ").map(str::to_owned)
}

/// The light-weight lock that the backend `pid` waits for.
pub(super) fn lightweight(pid: u32, backend: Backend) -> Option<Told> {
    let wait = backend.lightweight(&ProcessMemory::of(pid))?;
    let name = match wait.name {
        Some(name) => name,
        None => format!("light-weight lock of tranche {}", wait.tranche),
    };
    let server = proc::parent(pid)?;
    Some(Told {
        kind: Kind::PostgresLock,
        lock: LockRef {
            id: format!("{server}:postgresql:lwlock:{}", wait.tranche).into(),
            class: LockClass::PostgresLwlock,
            name: Some(name.into()),
            addr: Addr::NONE,
            shared: true,
        },
        mode: None,
        holder: Some(
            Found::unknown("light-weight locks do not record it").holder(&mut Activity::default()),
        ),
    })
}
