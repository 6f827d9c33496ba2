//! What the cluster says of the pods on this node, by their UIDs. Whoever may ask the cluster fills it; containers are
//! completed from it.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::event::ContainerRef;

/// Pods that are known at most: a node has some hundreds.
pub const MAX_PODS: usize = 4_096;

/// What is known of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// What it is one of, as `Deployment/shop`.
    pub workload: Option<Arc<str>>,
}

/// The pods.
#[derive(Debug, Default)]
pub struct Pods {
    by_uid: RwLock<HashMap<Arc<str>, Pod>>,
    /// How often they have changed.
    changes: AtomicU64,
}

impl Pods {
    /// Takes all of them: what is not among them is gone.
    pub fn replace(&self, pods: impl Iterator<Item = (Arc<str>, Pod)>) {
        *self.by_uid.write().unwrap_or_else(PoisonError::into_inner) =
            pods.take(MAX_PODS).collect();
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Takes one that is new or has changed.
    pub fn insert(&self, uid: Arc<str>, pod: Pod) {
        let mut pods = self.by_uid.write().unwrap_or_else(PoisonError::into_inner);
        if pods.get(&uid) != Some(&pod) && (pods.len() < MAX_PODS || pods.contains_key(&uid)) {
            pods.insert(uid, pod);
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// Forgets one that is gone.
    pub fn remove(&self, uid: &str) {
        let mut pods = self.by_uid.write().unwrap_or_else(PoisonError::into_inner);
        pods.remove(uid);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let pods = self.by_uid.read().unwrap_or_else(PoisonError::into_inner);
        pods.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Another number than before: something is known that was not.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Adds what is known of the container's pod. True: something was.
    pub(super) fn complete(&self, container: &mut ContainerRef) -> bool {
        let pods = self.by_uid.read().unwrap_or_else(PoisonError::into_inner);
        let uid = container.pod_uid.as_ref();
        let Some(pod) = uid.and_then(|uid| pods.get(uid)) else {
            return false;
        };
        let before = container.clone();
        container.pod.get_or_insert_with(|| Arc::clone(&pod.name));
        container
            .namespace
            .get_or_insert_with(|| Arc::clone(&pod.namespace));
        container.workload.clone_from(&pod.workload);
        *container != before
    }
}
