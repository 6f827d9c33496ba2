//! Containers and pods: which container a process runs in, and by which numbers it knows itself there.
//!
//! The container's identifier comes from the paths of the process's control groups ([`path`]), names from the files
//! that the runtime keeps of its containers. What was told of a process is kept when it has ended.

mod describe;
pub mod path;
pub mod pods;

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ahash::HashMap;
use anyhow::{Result, bail};

use self::pods::Pods;
use super::proc;
use crate::event::{ContainerRef, TaskRef};

/// Processes, threads and containers kept at most.
const PROCESSES: usize = 32_768;
const THREADS: usize = 32_768;
const CONTAINERS: usize = 8_192;
/// A process is asked again after this long: it may be moved, and its number may be another's.
const FRESH: Duration = Duration::from_secs(10);
/// A container without a name is asked again after this long: the runtime may not have told it yet.
const NAMELESS: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
struct Process {
    container: Option<Arc<ContainerRef>>,
    /// Is it in a namespace of process numbers other than observer's?
    own_pid: Option<u32>,
    read: Instant,
}

#[derive(Debug)]
struct Known {
    container: Arc<ContainerRef>,
    described: Instant,
    /// [`Pods::changes`] at that time.
    changes: u64,
}

/// What is known of processes and their containers.
#[derive(Debug, Default)]
pub struct Containers {
    processes: HashMap<u32, Process>,
    threads: HashMap<u32, (u32, Instant)>,
    known: HashMap<Arc<str>, Known>,
    /// observer's own namespace of process numbers.
    own_namespace: Option<PathBuf>,
    /// What the cluster says, if it is asked.
    pods: Option<Arc<Pods>>,
}

impl Containers {
    /// Completes containers with what the cluster says of their pods from now on.
    pub fn set_pods(&mut self, pods: Arc<Pods>) {
        self.pods = Some(pods);
    }

    /// The container of a process.
    pub fn of(&mut self, pid: u32) -> Option<Arc<ContainerRef>> {
        self.process(pid).0
    }

    /// Completes a task with its container, and with the numbers it has in its own namespace.
    pub fn complete(&mut self, task: &mut TaskRef) {
        let (container, own_pid) = self.process(task.pid);
        task.container = container;
        if own_pid.is_some() {
            task.ns_pid = own_pid;
            task.ns_tid = self.own_tid(task.pid, task.tid);
        }
    }

    fn process(&mut self, pid: u32) -> (Option<Arc<ContainerRef>>, Option<u32>) {
        let now = Instant::now();
        if let Some(known) = self.processes.get(&pid)
            && now.duration_since(known.read) < FRESH
        {
            return (known.container.clone(), known.own_pid);
        }
        let process = match proc::groups(pid) {
            Some(groups) => Process {
                container: self.container(&groups, pid),
                own_pid: self.own_pid(pid),
                read: now,
            },
            // It has ended: what was known of it stays.
            None => match self.processes.get(&pid) {
                Some(known) => Process {
                    read: now,
                    ..known.clone()
                },
                None => return (None, None),
            },
        };
        if self.processes.len() >= PROCESSES {
            self.processes
                .retain(|_, known| now.duration_since(known.read) < FRESH);
            if self.processes.len() >= PROCESSES {
                self.processes.clear();
            }
        }
        let told = (process.container.clone(), process.own_pid);
        self.processes.insert(pid, process);
        told
    }

    fn own_pid(&mut self, pid: u32) -> Option<u32> {
        let own = self
            .own_namespace
            .get_or_insert_with(|| fs::read_link("/proc/self/ns/pid").unwrap_or_default());
        match fs::read_link(format!("/proc/{pid}/ns/pid")) {
            Ok(namespace) if namespace == *own => None,
            // Without the permission to look, the status tells.
            _ => proc::own_number(pid, pid).filter(|number| *number != pid),
        }
    }

    fn own_tid(&mut self, pid: u32, tid: u32) -> Option<u32> {
        let now = Instant::now();
        if let Some((number, read)) = self.threads.get(&tid)
            && now.duration_since(*read) < FRESH
        {
            return Some(*number);
        }
        let number = proc::own_number(pid, tid)
            .or_else(|| self.threads.get(&tid).map(|(number, _)| *number))?;
        if self.threads.len() >= THREADS {
            self.threads.clear();
        }
        self.threads.insert(tid, (number, now));
        Some(number)
    }

    /// The container that the control groups of a process tell of, with its names.
    fn container(&mut self, groups: &str, pid: u32) -> Option<Arc<ContainerRef>> {
        let found = of_groups(groups)?;
        let changes = self.pods.as_ref().map_or(0, |pods| pods.changes());
        if let Some(known) = self.known.get_mut(&found.id)
            && (known.container.name.is_some() || known.described.elapsed() < NAMELESS)
        {
            if known.changes != changes
                && let Some(pods) = &self.pods
            {
                known.changes = changes;
                let mut container = (*known.container).clone();
                if pods.complete(&mut container) {
                    known.container = Arc::new(container);
                }
            }
            return Some(Arc::clone(&known.container));
        }
        let mut container = found;
        describe::describe(&mut container, pid);
        if let Some(pods) = &self.pods {
            pods.complete(&mut container);
        }
        if self.known.len() >= CONTAINERS {
            // Those that no process is known to be in.
            self.known
                .retain(|_, known| Arc::strong_count(&known.container) > 1);
            if self.known.len() >= CONTAINERS {
                self.known.clear();
            }
        }
        let container = Arc::new(container);
        let known = Known {
            container: Arc::clone(&container),
            described: Instant::now(),
            changes,
        };
        self.known.insert(Arc::clone(&container.id), known);
        Some(container)
    }
}

/// The container by the paths of control groups, without names.
fn of_groups(groups: &str) -> Option<ContainerRef> {
    if let Some(place) = path::groups(groups).find_map(path::parse) {
        let mut container = ContainerRef::new(place.id);
        container.runtime = place.runtime;
        container.pod_uid = place.pod_uid.map(Arc::from);
        return Some(container);
    }
    let (_, id) = path::groups(groups)
        .filter_map(path::plain)
        .find(|(namespace, id)| describe::is_container(namespace, id))?;
    Some(ContainerRef::new(id))
}

/// What `--container` names: the processes in it now, and its control group, for those that it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Groups of version 2, of the containers that have one.
    pub cgroups: Vec<String>,
    /// Processes.
    pub pids: Vec<u32>,
    /// Has a container none?
    pub groupless: bool,
}

/// Finds running containers by identifier (or its beginning), name, pod, or `namespace/pod`.
///
/// # Errors
/// There is none.
pub fn select(names: &[String]) -> Result<Selected> {
    let mut containers = Containers::default();
    let mut selected = Selected::default();
    let mut matched = vec![false; names.len()];
    for pid in proc::processes() {
        let Some(groups) = proc::groups(pid) else {
            continue;
        };
        let Some(container) = containers.container(&groups, pid) else {
            continue;
        };
        let mut of_it = false;
        for (name, matched) in names.iter().zip(&mut matched) {
            if is_named(&container, name) {
                (*matched, of_it) = (true, true);
            }
        }
        if !of_it {
            continue;
        }
        match own_group(&groups, &container.id) {
            Some(group) if selected.cgroups.contains(&group) => {}
            Some(group) => selected.cgroups.push(group),
            None => selected.groupless = true,
        }
        selected.pids.push(pid);
    }
    if let Some((name, _)) = names.iter().zip(&matched).find(|(_, matched)| !**matched) {
        let mut others: Vec<String> = containers
            .known
            .values()
            .map(|known| format!("{} ({})", known.container.short_id(), known.container))
            .collect();
        others.sort();
        others.truncate(20);
        let there = if others.is_empty() {
            "no container is seen to run here: looking needs the host's /proc".to_owned()
        } else {
            format!("there are {}", others.join(", "))
        };
        bail!("--container {name}: no running container has this identifier, name or pod; {there}");
    }
    Ok(selected)
}

fn is_named(container: &ContainerRef, name: &str) -> bool {
    let is = |text: &Option<Arc<str>>| text.as_deref() == Some(name);
    let in_namespace = || {
        let (namespace, pod) = name.split_once('/')?;
        Some(container.namespace.as_deref()? == namespace && container.pod.as_deref()? == pod)
    };
    let id = name.len() >= 4 && container.id.starts_with(name);
    *container.id == *name
        || id
        || is(&container.name)
        || is(&container.pod)
        || in_namespace() == Some(true)
}

/// The version 2 group of the container, if its processes are in one that is only its own.
fn own_group(groups: &str, id: &str) -> Option<String> {
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    if unified.starts_with("/..") {
        return None;
    }
    match path::parse(unified) {
        Some(place) if place.id == id => Some(place.group.to_owned()),
        Some(_) => None,
        None => {
            let (namespace, name) = path::plain(unified)?;
            (name == id).then(|| format!("/{namespace}/{name}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4d1c0a9b8e7d6c5b4a392817065f4e3d2c1b0a99887766554433221100ffee";

    #[test]
    fn this_process_and_those_that_ended() {
        let mut containers = Containers::default();
        let own = containers.of(std::process::id());
        assert_eq!(own, containers.of(std::process::id()));
        assert_eq!(containers.of(u32::MAX), None);
        let mut task = TaskRef::new(std::process::id(), std::process::id());
        containers.complete(&mut task);
        assert_eq!((task.ns_pid, task.ns_tid), (None, None));
    }

    #[test]
    fn what_was_told_of_a_process_stays() {
        let mut containers = Containers::default();
        let container = Arc::new(ContainerRef::new(ID));
        let Some(read) = Instant::now().checked_sub(FRESH * 2) else {
            return;
        };
        let process = Process {
            container: Some(container),
            own_pid: Some(7),
            read,
        };
        containers.processes.insert(u32::MAX, process);
        assert_eq!(
            containers.of(u32::MAX).map(|c| c.id.to_string()).as_deref(),
            Some(ID)
        );
    }

    #[test]
    fn caches_are_bounded() {
        let mut containers = Containers::default();
        for number in 0..CONTAINERS + 10 {
            let path = format!("0::/docker/{number:064x}\n");
            let _ = containers.container(&path, u32::MAX);
            assert!(containers.known.len() <= CONTAINERS);
        }
    }

    #[test]
    fn many_come_and_go_and_those_in_use_stay() {
        let mut containers = Containers::default();
        let mut of = |number: usize| {
            let path = format!("0::/kubepods/burstable/pod{number}/{number:064x}\n");
            let container = containers.container(&path, u32::MAX).unwrap();
            assert!(containers.known.len() <= CONTAINERS);
            container
        };
        let kept: Vec<_> = (0..100).map(&mut of).collect();
        // Three times five thousand, none of them for long.
        for number in 100..15_100 {
            assert_eq!(*of(number).id, format!("{number:064x}"));
        }
        for (number, container) in kept.iter().enumerate() {
            assert!(Arc::ptr_eq(container, &of(number)), "{number}");
        }
    }

    #[test]
    fn the_cluster_completes_what_is_known() {
        const UID: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
        let groups = format!("0::/kubepods/burstable/pod{UID}/{ID}\n");
        let (pods, mut containers) = (Arc::new(Pods::default()), Containers::default());
        containers.set_pods(Arc::clone(&pods));
        let mut of = || containers.container(&groups, u32::MAX).unwrap();
        assert_eq!(
            (of().pod.as_deref(), of().workload.as_deref()),
            (None, None)
        );
        let pod = pods::Pod {
            name: "shop-7d9-x".into(),
            namespace: "prod".into(),
            workload: Some("Deployment/shop".into()),
        };
        pods.insert(UID.into(), pod);
        let found = of();
        assert_eq!(found.to_string(), "prod/shop-7d9-x/3f4d1c0a9b8e");
        assert_eq!(found.workload.as_deref(), Some("Deployment/shop"));
        // Nothing new: the same.
        assert!(Arc::ptr_eq(&found, &of()));
        // What was told of it stays when the pod is gone.
        pods.remove(UID);
        assert!(pods.is_empty() && Arc::ptr_eq(&found, &of()));
    }

    #[test]
    fn names_that_select() {
        let mut container = ContainerRef::new(ID);
        container.name = Some("web".into());
        container.pod = Some("shop-7d9".into());
        container.namespace = Some("prod".into());
        for name in [
            ID,
            "3f4d1c0a9b8e",
            "3f4d",
            "web",
            "shop-7d9",
            "prod/shop-7d9",
        ] {
            assert!(is_named(&container, name), "{name}");
        }
        for name in ["", "3f", "we", "prod", "test/shop-7d9", "prod/"] {
            assert!(!is_named(&container, name), "{name}");
        }
    }

    #[test]
    fn groups_that_can_be_filtered_by() {
        let scope = format!("/system.slice/docker-{ID}.scope");
        let own = |text: String| own_group(&text, ID);
        assert_eq!(own(format!("0::{scope}/sub\n")), Some(scope.clone()));
        assert_eq!(own(format!("1:cpu:/docker/{ID}\n0::/\n")), None);
        assert_eq!(own(format!("0::/../docker-{ID}.scope\n")), None);
        let error = select(&["no-such-container".into()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("no-such-container"), "{error}");
    }
}
