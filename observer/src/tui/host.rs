//! Where a process runs; and what the screen asks of the host beside the model: which control group a process is in
//! that is in no container, and how a thread is scheduled. A recording has no host.

use std::{
    cmp::Ordering,
    collections::HashMap,
    fmt::Debug,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::rows::Filter;
use crate::{
    event::{ContainerRef, LockRef, TaskRef},
    model::Model,
};

/// Processes whose control groups are remembered.
const MAX_PROCESSES: usize = 20_000;
/// Processes that are asked for at once: each is a file to be read.
const AT_ONCE: usize = 200;

/// Answers about the live host.
pub trait Host: Debug {
    /// The path of a process's control group; `None`: it has ended, or may not be read.
    fn cgroup(&self, pid: u32) -> Option<String>;
    /// How a thread is scheduled and what its process has open, a label and a text each.
    fn facts(&self, pid: u32, tid: u32) -> Vec<(&'static str, String)>;
    /// What the memory of a lock of a process says, in words; `None`: it cannot be read, or not be told.
    fn lock_memory(&self, pid: u32, lock: &LockRef) -> Option<String>;
}

/// Where a process runs: a container, a pod, or else a control group.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Container(Arc<ContainerRef>),
    /// The pod that a container is in.
    Pod(Arc<ContainerRef>),
    Group(Arc<str>),
}

impl Place {
    /// The pod that it is in; itself, if it is in none.
    pub(super) fn pod(&self) -> Place {
        match self {
            Place::Container(one) if one.pod.is_some() => Place::Pod(Arc::clone(one)),
            _ => self.clone(),
        }
    }

    /// The container, or one of the pod's.
    pub(super) fn container(&self) -> Option<&ContainerRef> {
        match self {
            Place::Container(one) | Place::Pod(one) => Some(one),
            Place::Group(_) => None,
        }
    }

    /// What tells it from others, the sort of place before it.
    fn identity(&self) -> (u8, &str, &str) {
        match self {
            Place::Container(one) => (0, &one.id, ""),
            Place::Pod(one) => {
                let namespace = one.namespace.as_deref().unwrap_or("");
                (1, namespace, one.pod.as_deref().unwrap_or(""))
            }
            Place::Group(path) => (2, path, ""),
        }
    }

    /// A text that sorts by its name.
    pub(super) fn text(&self) -> &str {
        match self {
            Place::Container(one) => one.pod.as_ref().or(one.name.as_ref()).unwrap_or(&one.id),
            Place::Pod(_) => self.identity().2,
            Place::Group(path) => path,
        }
    }

    pub(super) fn is_found(&self, filter: &Filter) -> bool {
        let Some(one) = self.container() else {
            return filter.is_in(self.text());
        };
        let parts = [&one.name, &one.image, &one.pod, &one.namespace];
        filter.is_in(&one.id) || parts.iter().any(|part| filter.is_in_some(part.as_deref()))
    }

    /// What it is called: a container in a pod by namespace, pod and name, another one by its runtime and its name
    /// or the beginning of its number.
    pub(super) fn name(&self) -> String {
        match self {
            Place::Group(path) => name(path),
            Place::Pod(_) => match self.identity() {
                (_, "", pod) => pod.to_owned(),
                (_, namespace, pod) => format!("{namespace}/{pod}"),
            },
            Place::Container(one) => match one.runtime {
                Some(runtime) if one.pod.is_none() => format!("{} {one}", runtime.name()),
                _ => one.to_string(),
            },
        }
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Place {}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// Where processes run, as far as events tell or the host was asked.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) host: Option<Box<dyn Host>>,
    known: HashMap<u32, Option<Place>>,
    pods: bool,
}

impl Places {
    /// Takes over what events tell of the processes of a model, and asks for others that are not known yet.
    pub(super) fn learn(&mut self, model: &Model) {
        let task = |task: &TaskRef| (task.pid, task.container.clone());
        let blocked = model.blocked().map(|wait| task(&wait.event.task));
        let tasks = model.tasks().map(|totals| task(&totals.task));
        let looked_at = model
            .goroutines()
            .map(|look| (look.pid, look.container.clone()));
        let mut last = 0;
        let mut asked = 0;
        for (pid, container) in looked_at.chain(blocked).chain(tasks) {
            // Threads of a process often come one after the other.
            if pid == last || !self.is_news(pid, container.as_ref()) {
                continue;
            }
            last = pid;
            let place = match (container, &self.host) {
                (Some(container), _) => {
                    self.pods |= container.pod.is_some();
                    Some(Place::Container(container))
                }
                (None, Some(host)) if asked < AT_ONCE => {
                    asked += 1;
                    host.cgroup(pid).map(|path| Place::Group(path.into()))
                }
                (None, _) => continue,
            };
            if self.known.len() >= MAX_PROCESSES {
                self.known.clear();
            }
            self.known.insert(pid, place);
        }
    }

    /// Nothing is known of the process, or its container is not: it may come with a later event than the first.
    fn is_news(&self, pid: u32, container: Option<&Arc<ContainerRef>>) -> bool {
        match (self.known.get(&pid), container) {
            (Some(Some(Place::Container(old))), Some(new)) => !Arc::ptr_eq(old, new) && old != new,
            (Some(_), Some(_)) | (None, _) => true,
            (Some(_), None) => false,
        }
    }

    pub(super) fn of(&self, pid: u32) -> Option<&Place> {
        self.known.get(&pid)?.as_ref()
    }

    /// Is any of them in a pod?
    pub(super) fn has_pods(&self) -> bool {
        self.pods
    }
}

/// What a control group is called: a container by its engine and the beginning of its number, anything else by
/// its path.
fn name(path: &str) -> String {
    let last = path.rsplit('/').next().unwrap_or(path);
    let stem = last.strip_suffix(".scope").unwrap_or(last);
    let number = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (engine, id) = match stem.rsplit_once('-') {
        Some((engine, id)) => (engine, id),
        None if path.contains("/docker/") => ("docker", stem),
        None => ("container", stem),
    };
    if number(id) {
        format!("{engine} {}", &id[..12])
    } else {
        path.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_have_short_names() {
        let id = "0123456789abcdef".repeat(4);
        for (path, short) in [
            (
                format!("/system.slice/docker-{id}.scope"),
                "docker 0123456789ab",
            ),
            (format!("/docker/{id}"), "docker 0123456789ab"),
            (
                format!("/kubepods/pod1/cri-containerd-{id}.scope"),
                "cri-containerd 0123456789ab",
            ),
            (
                "/system.slice/ssh.service".to_owned(),
                "/system.slice/ssh.service",
            ),
            ("/".to_owned(), "/"),
            (String::new(), ""),
        ] {
            assert_eq!(name(&path), short);
        }
    }
}
