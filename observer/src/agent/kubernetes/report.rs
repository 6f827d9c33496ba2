//! An incident as an Event of the node, which `kubectl describe node` shows.

use hyper::body::Bytes;
use serde_json::json;

use crate::agent::incidents::About;

/// Events about what is in no namespace belong there.
pub(super) const PATH: &str = "/api/v1/namespaces/default/events";
/// Bytes of a message that the API server takes.
const MAX_MESSAGE: usize = 1_024;

pub(super) fn event(about: &About, node: &str) -> Bytes {
    let why = about.triggers.first();
    let why = why.map_or("", |trigger| trigger.why.as_str());
    let end = format!(" (incident {})", about.id);
    let room = MAX_MESSAGE.saturating_sub(end.len());
    let cut = (0..=room.min(why.len()))
        .rev()
        .find(|at| why.is_char_boundary(*at));
    let message = format!("{}{end}", &why[..cut.unwrap_or(0)]);
    let body = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "generateName": "observer-", "namespace": "default" },
        // The kubelet's own Events name the node like this.
        "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": node, "uid": node },
        "type": "Warning",
        "reason": "ObserverIncident",
        "message": message,
        "source": { "component": "observer", "host": node },
        "firstTimestamp": about.time,
        "lastTimestamp": about.time,
        "count": 1,
    });
    Bytes::from(body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::incidents::Trigger, time::WallTime};

    #[test]
    fn a_message_is_cut() {
        let about = About {
            id: "i-1".into(),
            host: "h".into(),
            time: WallTime(1_000_000_000),
            triggers: vec![Trigger::new("finding", "é".repeat(2_000))],
            events: 1,
            bytes: 1,
        };
        let event: serde_json::Value = serde_json::from_slice(&event(&about, "n")).unwrap();
        let message = event["message"].as_str().unwrap();
        assert!(message.len() <= MAX_MESSAGE && message.ends_with("é (incident i-1)"));
        assert_eq!(event["firstTimestamp"], "1970-01-01T00:00:01.000000000Z");
    }
}
