//! The agent is two processes. One observes: it reads other processes, and has capabilities. The other one serves HTTP,
//! sends what goes out, and has none: it parses what strangers send. Between them is a socket, and what goes over it
//! ([`messages`]) is little, bounded, and checked by whoever reads it.
//!
//! The second one is this program, started anew, so that it shares no memory with the first: `observer serve-agent`
//! ([`process`]). A thread of the agent that has given up all else starts it ([`keeper`]), and again when it ends. The
//! agent's end of the socket is [`link`], the other one [`asker`].

pub(super) mod asker;
mod frame;
pub(super) mod keeper;
pub(super) mod link;
pub(super) mod messages;
pub(super) mod process;
mod queue;
pub(super) mod tally;

use bytes::Bytes;
use serde::Serialize;

/// Bytes of what the process that serves HTTP says at once.
const MAX_TO_AGENT: usize = 4 << 10;
/// Bytes of what the agent says at once: the certificates of all that are sent to, at most.
const MAX_TO_SERVING: usize = 32 << 20;

/// A message as the bytes of a frame.
fn message(what: &impl Serialize) -> Option<Bytes> {
    let bytes = serde_json::to_vec(what).ok()?;
    (bytes.len() <= MAX_TO_SERVING).then(|| Bytes::from(bytes))
}
