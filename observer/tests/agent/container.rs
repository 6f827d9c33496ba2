//! The image, run by containerd and runc with the documented capabilities and no more, observing another container.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
};

use observer::{
    event::{ContainerRuntime, Event},
    record::Reader,
};

use crate::{
    agent::{curl, free_port},
    containerd::{Containerd, workload},
    harness::{Mode, OBSERVER, Observer, alone, event::of, name, poll},
};

/// What docs/security.md says that the agent needs.
const CAPABILITIES: [&str; 4] = ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"];
/// What `ctr` gives unless told otherwise.
const DEFAULTS: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
const SUBJECT: &str = "3f4d1c0a9b8e7d6c5b4a392817065f4e3d2c1b0a99887766554433221100ffee";
const AGENT: &str = "aa4d1c0a9b8e7d6c5b4a392817065f4e3d2c1b0a99887766554433221100ffee";

const NAMESPACE: &str = "observer-test";
const NO_CRI: &str = "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";

/// A root file system with one program of this host, and its libraries.
fn root_with(containerd: &Containerd, program: &Path) -> PathBuf {
    let root = containerd.path("subject");
    for folder in ["proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy(program, root.join("program")).unwrap();
    let out = Command::new("ldd").arg(program).output().unwrap();
    for word in String::from_utf8(out.stdout).unwrap().split_whitespace() {
        if let Some(below) = word.strip_prefix('/') {
            let to = root.join(below);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(word, to).unwrap();
        }
    }
    root
}

fn start_subject(containerd: &Containerd) {
    let root = root_with(containerd, &workload()).display().to_string();
    containerd.must(&[
        "run",
        "--detach",
        "--annotation",
        "io.kubernetes.cri.container-name=web",
        "--annotation",
        "io.kubernetes.cri.sandbox-name=shop-7d9c4",
        "--annotation",
        "io.kubernetes.cri.sandbox-namespace=prod",
        "--rootfs",
        &root,
        SUBJECT,
        "/program",
        "deadlock",
    ]);
}

/// Runs it as the chart does.
fn start_agent(containerd: &Containerd, port: u16) {
    containerd.import(Path::new(OBSERVER), "observer:test");
    let incidents = containerd.path("incidents");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&incidents)
        .unwrap();
    fs::write(
        containerd.path("agent.toml"),
        format!("listen = \"127.0.0.1:{port}\"\n[capture]\ninterval = \"200ms\"\n[incidents]\nafter = \"500ms\"\nmin_gap = \"1s\"\n"),
    )
    .unwrap();
    let args = arguments(containerd, &incidents);
    containerd.must(&args.iter().map(String::as_str).collect::<Vec<_>>());
}

fn arguments(containerd: &Containerd, incidents: &Path) -> Vec<String> {
    let bind = |from: &Path, to: &str, how: &str| {
        format!(
            "type=bind,src={},dst={to},options=rbind:{how}",
            from.display()
        )
    };
    let own = std::process::id();
    let mut args: Vec<String> = [
        "run",
        "--detach",
        "--snapshotter",
        "native",
        "--read-only",
        "--seccomp",
    ]
    .map(str::to_owned)
    .to_vec();
    for (flag, capabilities) in [
        ("--cap-drop", &DEFAULTS[..]),
        ("--cap-add", &CAPABILITIES[..]),
    ] {
        for capability in capabilities {
            args.extend([flag.to_owned(), format!("CAP_{capability}")]);
        }
    }
    for namespace in ["pid", "network"] {
        let file = if namespace == "network" {
            "net"
        } else {
            namespace
        };
        args.extend([
            "--with-ns".into(),
            format!("{namespace}:/proc/{own}/ns/{file}"),
        ]);
    }
    args.extend([
        "--mount".into(),
        bind(incidents, "/var/lib/observer/incidents", "rw"),
        "--mount".into(),
        bind(
            &containerd.path("agent.toml"),
            "/etc/observer/agent.toml",
            "ro",
        ),
        "docker.io/library/observer:test".into(),
        AGENT.into(),
    ]);
    args.extend(
        [
            "/usr/bin/observer",
            "agent",
            "--config",
            "/etc/observer/agent.toml",
        ]
        .map(str::to_owned),
    );
    args
}

/// Is the deadlock of the container in a recording? Then its tasks are named as they should be. Others may be there:
/// the agent sees the whole host.
fn names_container(recording: &Path) -> bool {
    let mut reader = Reader::open(recording).unwrap();
    let mut found = false;
    while let Some(event) = reader.next_event().unwrap() {
        let Event::Deadlock(deadlock) = event else {
            continue;
        };
        for task in &deadlock.tasks {
            let container = task.task.container.as_ref();
            let Some(container) = container.filter(|container| &*container.id == SUBJECT) else {
                continue;
            };
            assert_eq!(container.to_string(), "prod/shop-7d9c4/web");
            assert_eq!(container.runtime, Some(ContainerRuntime::Containerd));
            assert_eq!(task.task.ns_pid, Some(1));
            assert!(task.task.ns_tid.is_some_and(|tid| tid > 1));
            found = true;
        }
    }
    found
}

#[test]
fn the_image_observes_another_container() {
    alone(name!(), || {
        let containerd = Containerd::start(NAMESPACE, NO_CRI)?;
        start_subject(&containerd);
        // From the host, by the pod's name: what was blocked before is seen.
        let observer = Observer::trace(
            Mode::Sched,
            &["--container", "prod/shop-7d9c4", "--long-wait", "100ms"],
        );
        observer.wait_until("both threads are blocked", |events| {
            let locked = |event: &&serde_json::Value| event["syscall"] == "futex";
            let all: HashSet<_> = of(events, "blocked")
                .filter(locked)
                .map(|e| e["task"]["tid"].as_u64())
                .collect();
            all.len() >= 2
        });
        let run = observer.stop();
        for event in of(&run.events, "blocked") {
            assert_eq!(event["task"]["container"]["id"], SUBJECT, "{event}");
            assert_eq!(event["task"]["ns_pid"], 1, "{event}");
        }

        let port = free_port();
        start_agent(&containerd, port);
        let metrics = format!("http://127.0.0.1:{port}/metrics");
        poll("the agent finds the deadlock", || {
            let text = curl(&[&metrics]).1;
            text.lines()
                .filter_map(|line| line.strip_prefix("observer_deadlocks "))
                .any(|count| count != "0")
                .then_some(())
        });
        let recording = poll("the incident is written", || {
            let entries = fs::read_dir(containerd.path("incidents")).unwrap();
            entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.join("incident.json").exists() && path.extension().is_none())
                .map(|path| path.join("recording.jsonl.zst"))
                .find(|recording| names_container(recording))
        });
        let out = Command::new(OBSERVER)
            .arg("report")
            .arg(&recording)
            .output()
            .unwrap();
        let report = String::from_utf8(out.stdout).unwrap();
        assert!(report.contains("critical (deadlock)"), "{report}");
        Ok(())
    });
}
