//! The cluster, asked through its API server with the service account's token: what the pods of this node are parts
//! of, and an Event for each incident. Off unless it is asked for, and outside of a cluster.
//!
//! It runs in the process that serves HTTP, without any capability. Of pods only metadata is asked for: no specification, so no
//! environment and no secret ever comes here.

mod pods;
mod report;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{config, http::Shared, incidents::About, material::Peer, serving::asker::PodsToAgent};
use crate::client::{Client, read_token};

/// Names of Kubernetes are not longer than this.
const MAX_NAME: usize = 253;
/// Time until the pods are asked for again after a failure; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(2);
/// An Event is tried so often.
const TRIES: u32 = 4;

/// The cluster that this node is a part of.
#[derive(Clone)]
pub(super) struct Cluster {
    client: Client,
    node: String,
    token_file: PathBuf,
    pub(super) workloads: bool,
    pub(super) events: bool,
}

/// What it is made of.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterMaterial {
    peer: Peer,
    node: String,
    token_file: PathBuf,
    pub(super) workloads: bool,
    pub(super) events: bool,
}

impl ClusterMaterial {
    /// Of the one that the configuration names, or the pod's environment; `None`: it is not to be asked.
    ///
    /// # Errors
    /// It is to be asked, and node or certificates are not known.
    pub(super) fn read(config: &config::Kubernetes) -> Result<Option<ClusterMaterial>> {
        if !config.workloads && !config.events {
            return Ok(None);
        }
        let Some(url) = config.api.clone().or_else(of_environment) else {
            super::log(
                "kubernetes: this is not a pod of a cluster, and kubernetes.api is not set: nobody is asked",
            );
            return Ok(None);
        };
        let node = config.node.clone();
        let Some(node) = node.or_else(|| std::env::var("OBSERVER_NODE_NAME").ok()) else {
            bail!("kubernetes: which node this is is not known: set kubernetes.node");
        };
        if !is_name(&node) {
            bail!("kubernetes.node: `{node}` is no name of a node");
        }
        Ok(Some(ClusterMaterial {
            peer: Peer::read(&url, None, Some(&config.ca_file)).context("kubernetes.api")?,
            node,
            token_file: config.token_file.clone(),
            workloads: config.workloads,
            events: config.events,
        }))
    }
}

impl Cluster {
    /// The one of these.
    ///
    /// # Errors
    /// The certificates are none.
    pub(super) fn open(material: &ClusterMaterial) -> Result<Cluster> {
        Ok(Cluster {
            client: material.peer.client().context("kubernetes.api")?,
            node: material.node.clone(),
            token_file: material.token_file.clone(),
            workloads: material.workloads,
            events: material.events,
        })
    }

    /// A client with the token of now: it is another one every hour.
    fn client(&self) -> Result<Client> {
        Ok(self.client.with_token(read_token(&self.token_file)?))
    }

    /// Knows the pods of this node from now on, and says in `shared` when it does not.
    pub(super) async fn follow(self, shared: Arc<Shared>) {
        let pods = PodsToAgent(Arc::clone(&shared));
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self::pods::follow(&self, &pods, &shared).await {
                // The server ends a watch now and then.
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    sleep(pause).await;
                    continue;
                }
                Err(error) => error,
            };
            let note = format!("workloads of pods are not known: {error:#}");
            if shared.note("kubernetes", Some(&note)) {
                super::log(&format!("kubernetes: {note}"));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Tells of an incident by an Event of the node; true when the server took it.
    pub(super) async fn tell(&self, about: &About) -> bool {
        let body = report::event(about, &self.node);
        for attempt in 0..TRIES {
            if attempt > 0 {
                sleep(Duration::from_secs(1 << attempt)).await;
            }
            let posted = async {
                let client = self.client()?;
                client
                    .post(report::PATH, "application/json", body.clone())
                    .await
            };
            let why = match posted.await {
                Ok(answer) if answer.status.is_success() => return true,
                Ok(answer) => {
                    let why = format!("the API server answers {}", answer.status);
                    if answer.status.is_client_error() {
                        super::log(&format!(
                            "kubernetes: no Event of incident {}: {why}",
                            about.id
                        ));
                        return false;
                    }
                    why
                }
                Err(error) => format!("{error:#}"),
            };
            if attempt + 1 == TRIES {
                super::log(&format!(
                    "kubernetes: no Event of incident {}: {why}",
                    about.id
                ));
            }
        }
        false
    }
}

/// Where a pod finds its API server.
fn of_environment() -> Option<String> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok()?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok()?;
    // An address of version 6 goes into brackets.
    if host.contains(':') {
        Some(format!("https://[{host}]:{port}"))
    } else {
        Some(format!("https://{host}:{port}"))
    }
}

/// A name that may stand in an address and on a terminal.
pub(super) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte))
}
