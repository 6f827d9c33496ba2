//! A pod that containerd runs as the kubelet has it run one, through the runtime's socket (CRI). Only this test speaks to
//! that socket: observer knows from the runtime's files all that the socket would tell it.

use std::{fs, process::Command};

use crate::{
    agent::needs,
    containerd::{Containerd, workload},
    harness::{Mode, Observer, Skip, alone, event::of, name, poll},
};

/// The namespace of the kubelet's.
const NAMESPACE: &str = "k8s.io";
const UID: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
/// Namespaces of a pod that are the host's (`NamespaceMode`).
const NODE: u64 = 2;
const CONFIG: &str = "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"docker.io/library/pause:test\"\n\
    restrict_oom_score_adj = true\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n";

/// Numbers as protocol buffers have them.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn message(field: u64, value: &[u8]) -> Vec<u8> {
    let length = varint(value.len() as u64);
    [&varint(field << 3 | 2), &length, value].concat()
}

fn text(field: u64, value: &str) -> Vec<u8> {
    message(field, value.as_bytes())
}

fn read_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

/// The text or message that stands at the end of a path of fields.
fn at(mut bytes: &[u8], path: &[u64]) -> Option<Vec<u8>> {
    let Some((wanted, path)) = path.split_first() else {
        return Some(bytes.to_vec());
    };
    while !bytes.is_empty() {
        let key = read_varint(&mut bytes);
        match key & 7 {
            0 => drop(read_varint(&mut bytes)),
            2 => {
                let length = read_varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                if key >> 3 == *wanted {
                    return at(value, path);
                }
            }
            other => panic!("a field of sort {other}"),
        }
    }
    None
}

fn text_at(bytes: &[u8], path: &[u64]) -> String {
    String::from_utf8(at(bytes, path).unwrap()).unwrap()
}

#[track_caller]
fn call(containerd: &Containerd, method: &str, asked: &[u8]) -> Vec<u8> {
    ask(containerd, method, asked).unwrap_or_else(|said| panic!("{method}: {said}"))
}

/// Asks the runtime; curl speaks its HTTP. What it says when it does not answer.
fn ask(containerd: &Containerd, method: &str, asked: &[u8]) -> Result<Vec<u8>, String> {
    let (request, answer) = (containerd.path("request"), containerd.path("answer"));
    let length = u32::try_from(asked.len()).unwrap().to_be_bytes();
    fs::write(&request, [&[0], &length[..], asked].concat()).unwrap();
    let out = Command::new("curl")
        .args(["--silent", "--show-error", "--http2-prior-knowledge"])
        .args(["--max-time", "60", "--dump-header", "-", "--unix-socket"])
        .arg(containerd.path("socket"))
        .args(["--header", "content-type: application/grpc"])
        .args(["--header", "te: trailers", "--data-binary"])
        .arg(format!("@{}", request.display()))
        .arg("--output")
        .arg(&answer)
        .arg(format!(
            "http://localhost/runtime.v1.RuntimeService/{method}"
        ))
        .output()
        .unwrap();
    let answered = fs::read(&answer).unwrap_or_default();
    // An answer without content is not written, and that of before must not be taken for it.
    let _ = fs::remove_file(&answer);
    match answered.get(5..) {
        Some(message) if out.status.success() => Ok(message.to_vec()),
        _ => Err(String::from_utf8_lossy(&out.stdout).into_owned()),
    }
}

/// The program that every pod begins with.
fn make_pause(containerd: &Containerd) -> Result<(), Skip> {
    needs("gcc")?;
    let (source, program) = (containerd.path("pause.c"), containerd.path("pause"));
    let text = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n";
    fs::write(&source, text).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-static", "-o"]).args([&program, &source]);
    assert!(gcc.status().unwrap().success());
    containerd.import(&program, "pause:test");
    Ok(())
}

/// Runs a pod with one container; their identifiers.
fn run_pod(containerd: &Containerd) -> (String, String) {
    let metadata = [
        text(1, "shop-7d9c4"),
        text(2, UID),
        text(3, "prod"),
        number(4, 0),
    ];
    // No network of its own: that takes programs which containerd does not bring.
    let namespaces = [number(1, NODE), number(3, NODE)].concat();
    let linux = [
        text(1, &format!("/{NAMESPACE}/pod{UID}")),
        message(2, &message(1, &namespaces)),
    ];
    let logs = containerd.path("logs").display().to_string();
    let pod = [
        message(1, &metadata.concat()),
        text(3, &logs),
        message(8, &linux.concat()),
    ]
    .concat();
    let sandbox = text_at(&call(containerd, "RunPodSandbox", &message(1, &pod)), &[1]);
    let container = [
        message(1, &text(1, "web")),
        message(2, &text(1, "docker.io/library/workload:test")),
        text(3, "/usr/bin/observer"),
        // Its standard input is closed, which would be its end.
        text(4, "deadlock"),
        text(4, "--for"),
        text(4, "3600"),
        text(11, "web.log"),
    ];
    let asked = [
        text(1, &sandbox),
        message(2, &container.concat()),
        message(3, &pod),
    ];
    let answer = call(containerd, "CreateContainer", &asked.concat());
    let id = text_at(&answer, &[1]);
    call(containerd, "StartContainer", &text(1, &id));
    (sandbox, id)
}

#[test]
fn files_tell_what_the_runtimes_socket_would() {
    alone(name!(), || {
        let containerd = Containerd::start(NAMESPACE, CONFIG)?;
        // It answers others before it is ready for the kubelet.
        poll("the runtime is ready", || {
            ask(&containerd, "Status", &[]).ok()
        });
        make_pause(&containerd)?;
        containerd.import(&workload(), "workload:test");
        let (sandbox, id) = run_pod(&containerd);
        let observer = Observer::trace(
            Mode::Sched,
            &["--container", "prod/shop-7d9c4", "--long-wait", "100ms"],
        );
        observer.wait_until("both threads are blocked", |events| {
            let locked = of(events, "blocked").filter(|event| event["syscall"] == "futex");
            locked.count() >= 2
        });
        let run = observer.stop();
        let container = call(&containerd, "ContainerStatus", &text(1, &id));
        let pod = call(&containerd, "PodSandboxStatus", &text(1, &sandbox));
        let told = |name: &str| match name {
            "id" => text_at(&container, &[1, 1]),
            "name" => text_at(&container, &[1, 2, 1]),
            "image" => text_at(&container, &[1, 8, 1]),
            "pod" => text_at(&pod, &[1, 2, 1]),
            "pod_uid" => text_at(&pod, &[1, 2, 2]),
            _ => text_at(&pod, &[1, 2, 3]),
        };
        let blocked: Vec<_> = of(&run.events, "blocked")
            .filter(|event| event["task"]["container"]["id"] == *id)
            .collect();
        assert!(blocked.len() >= 2);
        for event in blocked {
            let container = &event["task"]["container"];
            for name in ["id", "name", "image", "pod", "pod_uid", "namespace"] {
                assert_eq!(container[name], told(name), "{name}: {container}");
            }
            assert_eq!(container["runtime"], "containerd");
        }
        call(&containerd, "StopPodSandbox", &text(1, &sandbox));
        call(&containerd, "RemovePodSandbox", &text(1, &sandbox));
        Ok(())
    });
}
