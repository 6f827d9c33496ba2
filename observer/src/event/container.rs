//! The container that a process runs in.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

super::named! {
    /// What runs a container.
    ContainerRuntime {
        /// containerd, by itself or for Kubernetes.
        Containerd = "containerd",
        /// CRI-O.
        Crio = "cri-o",
        /// Docker.
        Docker = "docker",
        /// Podman.
        Podman = "podman",
    }
}

/// A container, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerRef {
    /// Its identifier, whole.
    #[serde(deserialize_with = "crate::de::text")]
    pub id: Arc<str>,
    /// What runs it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub runtime: Option<ContainerRuntime>,
    /// Its name; in a pod, the one that the pod's specification gives it.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub name: Option<Arc<str>>,
    /// The image, as the runtime was told it.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub image: Option<Arc<str>>,
    /// Name of the pod.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub pod: Option<Arc<str>>,
    /// The pod's namespace.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub namespace: Option<Arc<str>>,
    /// The pod's UID; of a static pod, the hash of its configuration.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub pod_uid: Option<Arc<str>>,
    /// What the pod is one of, as `Deployment/shop`; where the cluster was asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workload: Option<Arc<str>>,
}

impl ContainerRef {
    /// One of which only the identifier is known.
    pub fn new(id: &str) -> ContainerRef {
        ContainerRef {
            id: id.into(),
            runtime: None,
            name: None,
            image: None,
            pod: None,
            namespace: None,
            pod_uid: None,
            workload: None,
        }
    }

    /// The identifier as people write it: its first 12 characters.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// `namespace/pod/name`, or the name, or the short identifier.
impl fmt::Display for ContainerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or_else(|| self.short_id());
        match (&self.namespace, &self.pod) {
            (Some(namespace), Some(pod)) => write!(f, "{namespace}/{pod}/{name}"),
            (None, Some(pod)) => write!(f, "{pod}/{name}"),
            _ => f.write_str(name),
        }
    }
}
