//! Paths of control groups → container, runtime and pod. Pure: text in, answer out.
//!
//! Runtimes put a container's identifier, 64 hexadecimal digits, into the last component of its group's path:
//! alone where they make the groups themselves (`/kubepods/burstable/podUID/ID`, `/docker/ID`), with a prefix and
//! a suffix where systemd does (`…-podUID.slice/cri-containerd-ID.scope`). What runs in the container may have made
//! groups below it, and a container may run containers: the innermost one counts.

use crate::event::ContainerRuntime;

/// Longest path that is looked at: the kernel's own limit.
const MAX_PATH: usize = 4_096;
/// Prefixes of the scopes that systemd makes, and who asks it to.
const SCOPES: [(&str, ContainerRuntime); 5] = [
    ("cri-containerd", ContainerRuntime::Containerd),
    ("nerdctl", ContainerRuntime::Containerd),
    ("crio", ContainerRuntime::Crio),
    ("docker", ContainerRuntime::Docker),
    ("libpod", ContainerRuntime::Podman),
];

/// What a path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Identifier of the container.
    pub id: &'a str,
    /// What runs it, where the path says so.
    pub runtime: Option<ContainerRuntime>,
    /// UID of the pod, its dashes restored.
    pub pod_uid: Option<String>,
    /// The path up to the container's own group.
    pub group: &'a str,
}

/// The container that a control group belongs to; `None`: to none, or to one that the path does not tell.
pub fn parse(path: &str) -> Option<Place<'_>> {
    if path.len() > MAX_PATH || !path.starts_with('/') {
        return None;
    }
    let mut end = path.len();
    loop {
        let start = path[..end].rfind('/')?;
        if let Some((id, runtime)) = container(&path[start + 1..end]) {
            let above = &path[..start];
            return Some(Place {
                id,
                runtime: runtime.or_else(|| runtime_above(above)),
                pod_uid: pod_uid(&path[..end]),
                group: &path[..end],
            });
        }
        end = start;
    }
}

/// The container named by one component.
fn container(component: &str) -> Option<(&str, Option<ContainerRuntime>)> {
    if is_id(component) {
        return Some((component, None));
    }
    // `slice:prefix:ID`: the form for systemd, taken by a runtime that makes the groups itself.
    let (prefix, id) = if let Some((before, id)) = component.rsplit_once(':') {
        (before.rsplit_once(':')?.1, id)
    } else {
        // `crio-conmon-ID` is the runtime's own process beside the container: no prefix that is known.
        let scope = component.strip_suffix(".scope").unwrap_or(component);
        scope.rsplit_once('-')?
    };
    let (_, runtime) = SCOPES.iter().find(|(known, _)| *known == prefix)?;
    is_id(id).then_some((id, Some(*runtime)))
}

fn runtime_above(path: &str) -> Option<ContainerRuntime> {
    match path.rsplit('/').next()? {
        "docker" => Some(ContainerRuntime::Docker),
        "libpod_parent" => Some(ContainerRuntime::Podman),
        _ => None,
    }
}

/// 64 hexadecimal digits in lower case: a SHA-256, which all runtimes use.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_hex)
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// The UID of the innermost pod in a path of the kubelet's.
fn pod_uid(path: &str) -> Option<String> {
    path.rsplit(['/', ':']).find_map(|component| {
        let component = component.strip_suffix(".slice").unwrap_or(component);
        // `pod…` of the kubelet's own groups, `kubepods-burstable-pod…` of systemd's.
        let at = component.rfind("pod")?;
        let ours = at == 0 || component[..at].ends_with('-');
        let uid = component[at + 3..].replace('_', "-");
        (ours && is_uid(&uid)).then_some(uid)
    })
}

/// A UUID, or the 32 digits of a static pod.
fn is_uid(text: &str) -> bool {
    let dashes = [8, 13, 18, 23];
    match text.len() {
        36 => text.bytes().enumerate().all(|(at, byte)| {
            if dashes.contains(&at) {
                byte == b'-'
            } else {
                is_hex(byte)
            }
        }),
        32 => text.bytes().all(is_hex),
        _ => false,
    }
}

/// The paths in a file `/proc/PID/cgroup`: that of version 2 first, then those of version 1.
pub fn groups(text: &str) -> impl Iterator<Item = &str> {
    let path = |line: &'_ str| -> Option<(bool, usize)> {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some((number == "0" && controllers.is_empty(), path.len()))
    };
    let of_version = move |two: bool| {
        text.lines().filter_map(move |line| {
            let (is_two, length) = path(line)?;
            (is_two == two).then(|| &line[line.len() - length..])
        })
    };
    of_version(true).chain(of_version(false))
}

/// `/NAMESPACE/ID`, as containerd makes them for others than Kubernetes and Docker: what such names mean is known
/// only when containerd has a container of this name.
pub fn plain(path: &str) -> Option<(&str, &str)> {
    let (namespace, id) = path.strip_prefix('/')?.split_once('/')?;
    let id = id.split('/').next()?;
    (is_name(namespace) && is_name(id)).then_some((namespace, id))
}

/// A name that containerd allows, and that leads nowhere else when it is part of a path.
pub(super) fn is_name(text: &str) -> bool {
    (1..=76).contains(&text.len())
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use ContainerRuntime::{Containerd, Crio, Docker, Podman};

    use super::*;

    const ID: &str = "3f4d1c0a9b8e7d6c5b4a392817065f4e3d2c1b0a99887766554433221100ffee";
    const OTHER: &str = "aa4d1c0a9b8e7d6c5b4a392817065f4e3d2c1b0a99887766554433221100ffee";
    const UID: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
    const FLAT: &str = "0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9";
    const STATIC: &str = "9f86d081884c7d659a2feaa0c55ad015";

    #[test]
    fn the_forms_that_runtimes_use() {
        let pod = Some(UID);
        #[rustfmt::skip]
        let table = [
            // The kubelet with its own groups, by quality of service.
            ("/kubepods/burstable/pod{UID}/{ID}", None, pod),
            ("/kubepods/besteffort/pod{UID}/{ID}", None, pod),
            ("/kubepods/pod{UID}/{ID}", None, pod),
            ("/kubepods/burstable/pod{UID}/crio-{ID}", Some(Crio), pod),
            // The kubelet with systemd.
            ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{FLAT}.slice/cri-containerd-{ID}.scope", Some(Containerd), pod),
            ("/kubepods.slice/kubepods-pod{FLAT}.slice/cri-containerd-{ID}.scope", Some(Containerd), pod),
            ("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{FLAT}.slice/crio-{ID}.scope", Some(Crio), pod),
            ("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{FLAT}.slice/docker-{ID}.scope", Some(Docker), pod),
            // containerd told of systemd by the kubelet only.
            ("/system.slice/containerd.service/kubepods-burstable-pod{FLAT}.slice:cri-containerd:{ID}", Some(Containerd), pod),
            // A static pod.
            ("/kubepods/burstable/pod{STATIC}/{ID}", None, Some(STATIC)),
            // Seen from another group's namespace.
            ("/../../kubepods-burstable-pod{FLAT}.slice/cri-containerd-{ID}.scope", Some(Containerd), pod),
            ("/../{ID}", None, None),
            // A cluster in a container.
            ("/docker/{OTHER}/kubelet/kubepods/burstable/pod{UID}/{ID}", None, pod),
            ("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{FLAT}.slice/cri-containerd-{ID}.scope", Some(Containerd), pod),
            // Groups that the container made.
            ("/kubepods/burstable/pod{UID}/{ID}/init.scope", None, pod),
            ("/system.slice/docker-{ID}.scope/system.slice/nginx.service", Some(Docker), None),
            // Without Kubernetes.
            ("/docker/{ID}", Some(Docker), None),
            ("/system.slice/docker-{ID}.scope", Some(Docker), None),
            ("/system.slice/nerdctl-{ID}.scope", Some(Containerd), None),
            ("/default/{ID}", None, None),
            ("/machine.slice/libpod-{ID}.scope", Some(Podman), None),
            ("/machine.slice/libpod-{ID}.scope/container", Some(Podman), None),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container", Some(Podman), None),
            ("/libpod_parent/{ID}", Some(Podman), None),
            ("/ecs/task-id/{ID}", None, None),
        ];
        for (form, runtime, uid) in table {
            let path = form
                .replace("{ID}", ID)
                .replace("{OTHER}", OTHER)
                .replace("{UID}", UID)
                .replace("{FLAT}", FLAT)
                .replace("{STATIC}", STATIC);
            let place = parse(&path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(place.id, ID, "{path}");
            assert_eq!(place.runtime, runtime, "{path}");
            assert_eq!(place.pod_uid.as_deref(), uid, "{path}");
            assert!(path.starts_with(place.group) && place.group.contains(ID));
        }
    }

    #[test]
    fn what_is_no_container() {
        let long = format!("/{}/{ID}", "x".repeat(MAX_PATH));
        let pod = format!("/kubepods.slice/kubepods-pod{FLAT}.slice");
        let monitor = format!("/machine.slice/libpod-conmon-{ID}.scope");
        let crio = format!("/machine.slice/crio-conmon-{ID}.scope");
        let unknown = format!("/a.slice/other-{ID}.scope");
        let upper = format!("/docker/{}", ID.to_uppercase());
        for path in [
            "",
            "/",
            "docker/x",
            "/user.slice/user-1000.slice/session-3.scope",
            "/system.slice/sshd.service",
            "/api/b679374fe2558399a97076b59a833671",
            &pod,
            &monitor,
            &crio,
            &unknown,
            &upper,
            &long,
            "/é-ü/…",
            "/::",
            "/a:b",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn uids_are_not_guessed() {
        for component in [
            "podx",
            "tripod0a1b",
            "pod",
            "myapppod12345678901234567890123456789012",
        ] {
            let path = format!("/{component}/{ID}");
            assert_eq!(parse(&path).unwrap().pod_uid, None, "{path}");
        }
    }

    #[test]
    fn version_2_comes_first() {
        let text = "9:name=systemd:/a\n3:cpu,cpuacct:/b:c\n0::/d\nnonsense\n1:x\n";
        assert_eq!(groups(text).collect::<Vec<_>>(), ["/d", "/a", "/b:c"]);
        assert_eq!(groups("").count(), 0);
    }

    #[test]
    fn plain_names_lead_nowhere_else() {
        assert_eq!(plain("/default/web"), Some(("default", "web")));
        assert_eq!(plain("/default/web/sub"), Some(("default", "web")));
        for path in ["/default", "/../etc", "/a/..", "/a/", "//", "/a b/c", "x/y"] {
            assert_eq!(plain(path), None, "{path}");
        }
    }
}
