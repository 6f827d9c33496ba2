//! What runtimes note of their containers in files of their own: names, image, pod. No socket of theirs is
//! needed, and so no right to start or stop anything.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::path::is_name;
use crate::{
    event::{ContainerRef, ContainerRuntime},
    inspect::proc,
};

/// Roots of the host's files: seen from a container that shares the host's process numbers, and on the host.
const ROOTS: [&str; 2] = ["/proc/1/root", "/"];
/// Where containerd keeps the specifications of what runs, by its namespaces: its own default, that of k3s and RKE2,
/// and that of MicroK8s. Elsewhere its process beside the container tells.
const CONTAINERD: [&str; 3] = [
    "run/containerd/io.containerd.runtime.v2.task",
    "run/k3s/containerd/io.containerd.runtime.v2.task",
    "var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task",
];
/// Parents of a process that are looked at for containerd's.
const MAX_PARENTS: usize = 16;
/// Namespaces of containerd that are looked into.
const MAX_NAMESPACES: usize = 64;
/// Where CRI-O and Podman keep theirs.
const STORAGE: [&str; 2] = [
    "run/containers/storage/overlay-containers",
    "var/lib/containers/storage/overlay-containers",
];
const DOCKER: &str = "var/lib/docker/containers";
/// A specification with the longest profile of system calls has some 50 kB.
const MAX_BYTES: u64 = 1 << 20;
/// Names are not longer than this (a domain name's limit, which Kubernetes takes).
const MAX_NAME: usize = 253;

/// Annotations of the specification, by who writes them.
const POD: [&str; 2] = ["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"];
const NAMESPACE: [&str; 2] = [
    "io.kubernetes.cri.sandbox-namespace",
    "io.kubernetes.pod.namespace",
];
const POD_UID: [&str; 2] = ["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"];
const NAME: [&str; 3] = [
    "io.kubernetes.cri.container-name",
    "io.kubernetes.container.name",
    "nerdctl/name",
];
const IMAGE: [&str; 3] = [
    "io.kubernetes.cri.image-name",
    "io.kubernetes.cri-o.ImageName",
    "nerdctl/image-ref",
];

/// The part of an OCI specification that is of use.
#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// The part of Docker's note that is of use.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Docker {
    name: String,
    config: DockerConfig,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerConfig {
    image: String,
    labels: HashMap<String, String>,
}

/// Adds what the runtimes' files say of the container that process `pid` is in.
pub(super) fn describe(container: &mut ContainerRef, pid: u32) {
    for root in ROOTS.map(Path::new) {
        if describe_from(root, container) {
            return;
        }
    }
    if let Some(folder) = folder_of_shim(pid)
        && is_name(&container.id)
    {
        describe_by_spec(&folder, "", container);
    }
}

/// The folder of specifications that containerd's process beside a container (its parent, or its parent's) works
/// in. It is outside of any container, or it is none: whatever runs in one may call itself anything.
fn folder_of_shim(pid: u32) -> Option<PathBuf> {
    let mut pid = pid;
    for _ in 0..MAX_PARENTS {
        pid = proc::parent_of(pid).filter(|parent| *parent > 1)?;
        let stat = proc::stat(pid, pid)?;
        if stat.comm.starts_with("containerd-shim") {
            let groups = proc::groups(pid)?;
            if super::of_groups(&groups).is_some() {
                return None;
            }
            let bundle = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
            let folder = bundle.parent()?.strip_prefix("/").ok()?;
            // As it sees its files: observer may be in a container itself.
            return Some(Path::new(&format!("/proc/{pid}/root")).join(folder));
        }
    }
    None
}

fn describe_from(root: &Path, container: &mut ContainerRef) -> bool {
    if !is_name(&container.id) {
        return false;
    }
    if let Some(path) = docker_note(root, &container.id)
        && let Some(note) = read::<Docker>(&path)
    {
        container.runtime = Some(ContainerRuntime::Docker);
        take_annotations(container, &note.config.labels);
        container.name = container
            .name
            .take()
            .or(name(note.name.trim_start_matches('/')));
        container.image = container.image.take().or(name(&note.config.image));
        return true;
    }
    let bundles = bundles(root).into_iter().map(|folder| (folder, ""));
    let storage = STORAGE.iter().map(|folder| (root.join(folder), "userdata"));
    bundles
        .chain(storage)
        .any(|(folder, below)| describe_by_spec(&folder, below, container))
}

/// Adds what the specification of a container says, if it is in this folder of specifications.
fn describe_by_spec(folder: &Path, below: &str, container: &mut ContainerRef) -> bool {
    let path = folder.join(&*container.id).join(below).join("config.json");
    let Some(spec) = read::<Spec>(&path) else {
        return false;
    };
    let crio = || {
        spec.annotations
            .keys()
            .any(|key| key.starts_with("io.kubernetes.cri-o."))
    };
    let of_storage = !below.is_empty();
    container.runtime = container.runtime.or(match of_storage {
        false if folder.ends_with("moby") => Some(ContainerRuntime::Docker),
        false => Some(ContainerRuntime::Containerd),
        true if crio() => Some(ContainerRuntime::Crio),
        true => Some(ContainerRuntime::Podman),
    });
    take_annotations(container, &spec.annotations);
    true
}

/// Has containerd a container of this name in this namespace?
pub(super) fn is_container(namespace: &str, id: &str) -> bool {
    ROOTS.iter().any(|root| {
        CONTAINERD.iter().any(|state| {
            let folder = Path::new(root).join(state).join(namespace).join(id);
            folder.join("config.json").exists()
        })
    })
}

fn docker_note(root: &Path, id: &str) -> Option<PathBuf> {
    let path = root.join(DOCKER).join(id).join("config.v2.json");
    path.exists().then_some(path)
}

fn bundles(root: &Path) -> Vec<PathBuf> {
    CONTAINERD
        .iter()
        .filter_map(|state| fs::read_dir(root.join(state)).ok())
        .flatten()
        .flatten()
        .take(MAX_NAMESPACES)
        .map(|entry| entry.path())
        .collect()
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn take_annotations(container: &mut ContainerRef, from: &HashMap<String, String>) {
    let one_of = |keys: &[&str]| keys.iter().find_map(|key| name(from.get(*key)?));
    container.pod = one_of(&POD);
    container.namespace = one_of(&NAMESPACE);
    container.pod_uid = container.pod_uid.take().or_else(|| one_of(&POD_UID));
    container.name = one_of(&NAME);
    container.image = one_of(&IMAGE);
}

/// A name, if it is one: whoever may start containers may write anything there.
fn name(text: &str) -> Option<std::sync::Arc<str>> {
    let good = !text.is_empty() && text.len() <= MAX_NAME && text.chars().all(|c| !c.is_control());
    good.then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4d1c0a9b8e7d6c5b4a392817065f4e3d2c1b0a99887766554433221100ffee";

    struct Root(PathBuf);

    impl Root {
        fn with(test: &str, path: &str, text: &str) -> Root {
            let root = std::env::temp_dir().join(format!("observer-{test}-{}", std::process::id()));
            let file = root.join(path.replace("{ID}", ID));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
            Root(root)
        }

        fn describe(&self) -> ContainerRef {
            let mut container = ContainerRef::new(ID);
            describe_from(&self.0, &mut container);
            container
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn containerd_for_kubernetes() {
        let root = Root::with(
            "containerd",
            "run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json",
            r#"{"ociVersion":"1.1","annotations":{"io.kubernetes.cri.container-type":"container",
            "io.kubernetes.cri.container-name":"web","io.kubernetes.cri.sandbox-name":"shop-7d9",
            "io.kubernetes.cri.sandbox-namespace":"prod","io.kubernetes.cri.image-name":"shop:1",
            "io.kubernetes.cri.sandbox-uid":"u"}}"#,
        );
        let found = root.describe();
        assert_eq!(found.to_string(), "prod/shop-7d9/web");
        assert_eq!(found.runtime, Some(ContainerRuntime::Containerd));
        assert_eq!(found.image.as_deref(), Some("shop:1"));
        assert_eq!(found.pod_uid.as_deref(), Some("u"));
    }

    #[test]
    fn crio() {
        let root = Root::with(
            "crio",
            "run/containers/storage/overlay-containers/{ID}/userdata/config.json",
            r#"{"annotations":{"io.kubernetes.container.name":"db","io.kubernetes.pod.name":"db-0",
            "io.kubernetes.pod.namespace":"prod","io.kubernetes.cri-o.ImageName":"db:2"}}"#,
        );
        let found = root.describe();
        assert_eq!(found.to_string(), "prod/db-0/db");
        assert_eq!(found.runtime, Some(ContainerRuntime::Crio));
    }

    #[test]
    fn docker() {
        let root = Root::with(
            "docker",
            "var/lib/docker/containers/{ID}/config.v2.json",
            r#"{"ID":"x","Name":"/shop","Config":{"Image":"shop:3","Env":["SECRET=1"],"Labels":{}}}"#,
        );
        let found = root.describe();
        assert_eq!(found.to_string(), "shop");
        assert_eq!(found.runtime, Some(ContainerRuntime::Docker));
        assert_eq!(found.image.as_deref(), Some("shop:3"));
    }

    #[test]
    fn files_that_are_not_as_they_should_be() {
        let path = "run/containerd/io.containerd.runtime.v2.task/a/{ID}/config.json";
        let long = format!(
            r#"{{"annotations":{{"io.kubernetes.pod.name":"{}"}}}}"#,
            "x".repeat(300)
        );
        for text in ["", "{", "[]", "null", r#"{"annotations":7}"#, &long] {
            let found = Root::with("bad", path, text).describe();
            assert_eq!((found.name, found.pod), (None, None), "{text}");
        }
        let escape = "{\"annotations\":{\"io.kubernetes.pod.name\":\"a\\u001b[31m\"}}";
        assert_eq!(Root::with("esc", path, escape).describe().pod, None);
        let mut outside = ContainerRef::new("../../etc");
        assert!(!describe_from(Path::new("/"), &mut outside));
    }
}
