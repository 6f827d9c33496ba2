//! The pods of this node: asked for once, and then watched.

use std::{collections::HashMap, fmt::Write, time::Duration};

use anyhow::{Context, Result, bail};
use hyper::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::sleep;

use super::{Cluster, FIRST_PAUSE, is_name};
use crate::{
    agent::{
        http::Shared,
        serving::{asker::PodsToAgent, messages::PodNote},
    },
    client::Client,
};

/// Metadata only, without specification and status.
const LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const ONE: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// Pods that are asked for at a time, and how often at most.
const PAGE: usize = 100;
const MAX_PAGES: usize = 50;
/// The server ends a watch after this long; nothing comes for a little longer at most.
const WATCH_SECONDS: u64 = 300;
const PATIENCE: Duration = Duration::from_secs(WATCH_SECONDS + 30);

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Object>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    r#continue: String,
}

#[derive(Deserialize)]
struct Object {
    metadata: Meta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    labels: HashMap<String, String>,
    annotations: HashMap<String, String>,
    owner_references: Vec<Owner>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Owner {
    kind: String,
    name: String,
    controller: bool,
}

#[derive(Deserialize)]
struct Change {
    r#type: String,
    object: serde_json::Value,
}

/// Asks for the pods, and follows their changes until the server ends that.
///
/// # Errors
/// The server cannot be reached, or does not allow it.
pub(super) async fn follow(cluster: &Cluster, pods: &PodsToAgent, shared: &Shared) -> Result<()> {
    let mut version = list(cluster, pods).await?;
    shared.note("kubernetes", None);
    while let Some(next) = watch(cluster, pods, &version).await? {
        version = next;
        sleep(FIRST_PAUSE).await;
    }
    Ok(())
}

async fn list(cluster: &Cluster, pods: &PodsToAgent) -> Result<String> {
    let mut all = Vec::new();
    let (mut version, mut next) = (String::new(), String::new());
    for _ in 0..MAX_PAGES {
        let mut path = format!("{}&limit={PAGE}", path(cluster));
        if !next.is_empty() {
            path += "&continue=";
            path += &escaped(&next);
        }
        let list: List = get(&cluster.client()?, &path).await?;
        all.extend(
            list.items
                .into_iter()
                .filter_map(|item| known(&item.metadata)),
        );
        version = list.metadata.resource_version;
        next = list.metadata.r#continue;
        if next.is_empty() {
            break;
        }
    }
    pods.replace(all).await;
    Ok(version)
}

async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T> {
    let answer = client.get(path, LIST).await?;
    if !answer.status.is_success() {
        bail!(refusal(answer.status));
    }
    serde_json::from_slice(&answer.body).context("the API server's answer is no list of pods")
}

fn refusal(status: StatusCode) -> String {
    let hint = match status {
        StatusCode::FORBIDDEN => ": the service account may not list and watch pods",
        StatusCode::UNAUTHORIZED => ": the token is not accepted",
        _ => "",
    };
    format!("the API server answers {status}{hint}")
}

/// Follows changes from a version on. The version to go on from, or `None`: all has to be asked for anew.
async fn watch(cluster: &Cluster, pods: &PodsToAgent, version: &str) -> Result<Option<String>> {
    let path = format!(
        "{}&watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
        path(cluster),
        escaped(version)
    );
    let mut lines = cluster.client()?.stream(&path, ONE).await?;
    if lines.status == StatusCode::GONE {
        return Ok(None);
    }
    if !lines.status.is_success() {
        bail!(refusal(lines.status));
    }
    let mut version = version.to_owned();
    while let Some(line) = lines.next(PATIENCE).await? {
        let change: Change = serde_json::from_slice(&line)
            .context("the API server's answer is no change of a pod")?;
        if change.r#type == "ERROR" {
            // The version is too old, most likely.
            return Ok(None);
        }
        let object: Object = serde_json::from_value(change.object)
            .context("the API server's answer is no change of a pod")?;
        if !object.metadata.resource_version.is_empty() {
            version.clone_from(&object.metadata.resource_version);
        }
        let Some(pod) = known(&object.metadata) else {
            continue;
        };
        match &*change.r#type {
            "ADDED" | "MODIFIED" => pods.insert(pod).await,
            "DELETED" => pods.remove(pod.uid).await,
            _ => {}
        }
    }
    Ok(Some(version))
}

fn path(cluster: &Cluster) -> String {
    format!(
        "/api/v1/pods?fieldSelector=spec.nodeName%3D{}",
        escaped(&cluster.node)
    )
}

/// For an address: what is not plain as `%XX`.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// What is of use of a pod, under the UID that its control groups have.
fn known(meta: &Meta) -> Option<PodNote> {
    let workload = workload(meta);
    // Of a static pod the groups have the hash of its file.
    let hash = meta.annotations.get("kubernetes.io/config.hash");
    let uid = hash.unwrap_or(&meta.uid);
    let note = PodNote {
        uid: uid.clone(),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        workload,
    };
    // The agent takes no other, and would end this process for it.
    note.is_good().then_some(note)
}

/// What a pod is one of. A Deployment makes ReplicaSets that are named after it and the hash of their template: so no
/// right to read ReplicaSets is needed.
fn workload(meta: &Meta) -> Option<String> {
    let owner = meta
        .owner_references
        .iter()
        .find(|owner| owner.controller)?;
    if !is_name(&owner.kind) || !is_name(&owner.name) || owner.kind == "Node" {
        return None;
    }
    let hash = meta.labels.get("pod-template-hash");
    let deployment = hash
        .and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'))
        .filter(|name| is_name(name));
    match (&*owner.kind, deployment) {
        ("ReplicaSet", Some(name)) => Some(format!("Deployment/{name}")),
        (kind, _) => Some(format!("{kind}/{}", owner.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::serving::messages::ToAgent;

    fn of(json: &str) -> Option<PodNote> {
        let note = known(&serde_json::from_str::<Object>(json).unwrap().metadata)?;
        // Whatever comes of it, the agent takes it.
        for said in [
            ToAgent::Pod(note.clone()),
            ToAgent::PodGone {
                uid: note.uid.clone(),
            },
        ] {
            let text = serde_json::to_vec(&said).unwrap();
            assert_eq!(ToAgent::read(&text), Some(said), "{json}");
        }
        Some(note)
    }

    #[test]
    fn owners() {
        for (labels, owner, expected) in [
            (
                r#"{"pod-template-hash":"7d9"}"#,
                r#"{"kind":"ReplicaSet","name":"shop-7d9","controller":true}"#,
                Some("Deployment/shop"),
            ),
            (
                "{}",
                r#"{"kind":"ReplicaSet","name":"shop-7d9","controller":true}"#,
                Some("ReplicaSet/shop-7d9"),
            ),
            (
                r#"{"pod-template-hash":"7d9"}"#,
                r#"{"kind":"ReplicaSet","name":"7d9","controller":true}"#,
                Some("ReplicaSet/7d9"),
            ),
            (
                r#"{"pod-template-hash":"abc"}"#,
                r#"{"kind":"ReplicaSet","name":"-abc","controller":true}"#,
                Some("ReplicaSet/-abc"),
            ),
            (
                r#"{"pod-template-hash":""}"#,
                r#"{"kind":"ReplicaSet","name":"-","controller":true}"#,
                Some("ReplicaSet/-"),
            ),
            (
                "{}",
                r#"{"kind":"StatefulSet","name":"db","controller":true}"#,
                Some("StatefulSet/db"),
            ),
            (
                "{}",
                r#"{"kind":"Node","name":"n","controller":true}"#,
                None,
            ),
            ("{}", r#"{"kind":"StatefulSet","name":"db"}"#, None),
            (
                "{}",
                r#"{"kind":"StatefulSet","name":"a\u001b[2J","controller":true}"#,
                None,
            ),
        ] {
            let json = format!(
                r#"{{"metadata":{{"name":"p","namespace":"n","uid":"u","labels":{labels},"ownerReferences":[{owner}]}}}}"#
            );
            let pod = of(&json).unwrap();
            assert_eq!(
                (&*pod.uid, pod.workload.as_deref()),
                ("u", expected),
                "{owner}"
            );
        }
    }

    #[test]
    fn static_pods_and_what_is_none() {
        let json = r#"{"metadata":{"name":"p","namespace":"n","uid":"u","annotations":{"kubernetes.io/config.hash":"h"}}}"#;
        assert_eq!(of(json).unwrap().uid, "h");
        for json in [
            r#"{"metadata":{}}"#,
            r#"{"metadata":{"name":"a b","namespace":"n","uid":"u"}}"#,
            r#"{"metadata":{"name":"p","namespace":"","uid":"u"}}"#,
        ] {
            assert_eq!(of(json), None, "{json}");
        }
    }

    #[test]
    fn addresses_are_escaped() {
        assert_eq!(escaped("a-1.b_c~"), "a-1.b_c~");
        assert_eq!(escaped("a=b&c d/é"), "a%3Db%26c%20d%2F%C3%A9");
    }
}
