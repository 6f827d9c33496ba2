//! Tells a web server of an incident: one POST, tried a few times, from a bounded queue.

use std::time::Duration;

use hyper::body::Bytes;
use tokio::time::sleep;

use crate::client::Client;

/// Messages that wait.
pub const QUEUE: usize = 16;
const TRIES: u32 = 4;

/// A webhook that is ready.
#[derive(Clone)]
pub struct Webhook(Client);

impl Webhook {
    /// One that is asked like this.
    pub fn new(client: Client) -> Webhook {
        Webhook(client)
    }

    /// Posts a message; true when the server took it.
    pub async fn tell(&self, body: &Bytes) -> bool {
        for attempt in 0..TRIES {
            if attempt > 0 {
                sleep(Duration::from_secs(1 << attempt)).await;
            }
            let answer = self.0.post("", "application/json", body.clone()).await;
            match answer.map(|answer| answer.status) {
                Ok(status) if status.is_success() => return true,
                // It will not take it later either.
                Ok(status) if status.is_client_error() => return false,
                _ => {}
            }
        }
        false
    }
}
