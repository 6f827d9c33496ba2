//! The cluster's API server, in as far as the agent asks it: the test holds what is asked to what the service account
//! may, and the agent to what is answered.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use crate::{
    agent::{Agent, TOKEN, free_port},
    harness::{Skip, Workload, alone, name, poll, together},
};

const UID: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
const ID: &str = "3f4d1c0a9b8e7d6c5b4a392817065f4e3d2c1b0a99887766554433221100ffee";

/// What was asked.
#[derive(Clone, Debug)]
struct Request {
    /// Method and path.
    line: String,
    /// In lower case.
    head: String,
    body: Value,
}

/// A server with one pod, which is told of by the watch only.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<Request>>>,
    forbids: Arc<AtomicBool>,
}

impl Server {
    fn start() -> Server {
        Server::start_at(0)
    }

    fn start_at(port: u16) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let forbids = Arc::new(AtomicBool::new(false));
        let (all, no) = (Arc::clone(&asked), Arc::clone(&forbids));
        // Both end with the test.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (all, no) = (Arc::clone(&all), Arc::clone(&no));
                thread::spawn(move || serve(stream, &all, &no));
            }
        });
        Server {
            address,
            asked,
            forbids,
        }
    }

    fn find(&self, beginning: &str) -> Option<Request> {
        let asked = self.asked.lock().unwrap();
        let found = asked.iter().find(|one| one.line.starts_with(beginning));
        found.cloned()
    }
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let (mut text, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        text.extend_from_slice(&buffer[..count]);
        let shown = String::from_utf8_lossy(&text);
        let Some((head, body)) = shown.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() < length.map_or(0, |length| length.parse().unwrap()) {
            continue;
        }
        return Some(Request {
            line: shown.lines().next().unwrap().to_owned(),
            head,
            body: serde_json::from_str(body).unwrap_or_default(),
        });
    }
}

fn serve(mut stream: TcpStream, all: &Mutex<Vec<Request>>, no: &AtomicBool) {
    let Some(request) = read(&mut stream) else {
        return;
    };
    let line = request.line.clone();
    all.lock().unwrap().push(request);
    let mut answer = |status: &str, body: &Value| {
        let body = format!("{body}\n");
        // Whoever asked may have gone.
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n{body}"
        );
    };
    if no.load(Ordering::Relaxed) {
        answer("403 Forbidden", &json!({"kind": "Status", "code": 403}));
    } else if line.starts_with("POST") {
        answer("201 Created", &json!({"kind": "Event"}));
    } else if line.contains("watch=true") {
        let pod = json!({"type": "ADDED", "object": {"metadata": {
            "name": "shop-7d9-x2", "namespace": "prod", "uid": UID, "resourceVersion": "6",
            "labels": {"pod-template-hash": "7d9"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "shop-7d9", "controller": true}],
        }}});
        answer("200 OK", &pod);
        // It goes on until the agent ends it.
        let _ = stream.read(&mut [0; 1]);
    } else {
        answer(
            "200 OK",
            &json!({"metadata": {"resourceVersion": "5"}, "items": []}),
        );
    }
}

/// A control group as the kubelet makes it; removed when dropped.
struct Group(PathBuf);

impl Group {
    fn new() -> Result<Group, Skip> {
        let roots = [
            "/sys/fs/cgroup/systemd",
            "/sys/fs/cgroup/pids",
            "/sys/fs/cgroup",
        ];
        for root in roots {
            let top = PathBuf::from(root).join(format!("observer-test-{}", std::process::id()));
            let group = top.join(format!("pod{UID}/{ID}"));
            if fs::create_dir_all(&group).is_ok() && group.join("cgroup.procs").is_file() {
                return Ok(Group(group));
            }
        }
        Err(Skip("no control group can be made here".into()))
    }

    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for group in self.0.ancestors().take(3) {
            let _ = fs::remove_dir(group);
        }
    }
}

fn config(address: &str) -> String {
    format!(
        "[capture]\ninterval = \"200ms\"\nlong_wait = \"100ms\"\n\
         [incidents]\ndir = \"{{DIR}}/incidents\"\nafter = \"100ms\"\n\
         [kubernetes]\nworkloads = true\nevents = true\napi = \"http://{address}\"\nnode = \"worker-1\"\n\
         token_file = \"{{DIR}}/token\"\n"
    )
}

/// The Event is about the node, and names the incident.
fn told_of(agent: &Agent, body: &Value) {
    assert_eq!(body["involvedObject"]["kind"], "Node");
    assert_eq!(body["involvedObject"]["name"], "worker-1");
    assert_eq!(
        (&body["type"], &body["metadata"]["namespace"]),
        (&json!("Warning"), &json!("default"))
    );
    let id = agent.json("/api/v1/incidents")["incidents"][0]["id"].clone();
    let message = body["message"].as_str().unwrap();
    assert!(
        message.contains("deadlock") && message.contains(id.as_str().unwrap()),
        "{message}"
    );
}

#[test]
fn workloads_are_known_and_incidents_are_told() {
    alone(name!(), || {
        let (server, group) = (Server::start(), Group::new()?);
        let agent = Agent::start(&config(&server.address))?;
        let mut workload = Workload::start(&["deadlock"])?;
        group.take(workload.pid());
        let container = poll("the workload has a name", || {
            let all = agent.json("/api/v1/blocked?limit=10000");
            let of_it = |wait: &&Value| wait["task"]["pid"] == workload.pid();
            let wait = all["blocked"].as_array()?.iter().find(of_it)?;
            let container = &wait["task"]["container"];
            container["workload"].is_string().then(|| container.clone())
        });
        assert_eq!(container["workload"], "Deployment/shop");
        assert_eq!(container["pod"], "shop-7d9-x2");
        assert_eq!(
            (&container["id"], &container["pod_uid"]),
            (&json!(ID), &json!(UID))
        );

        // No more is asked for than metadata of this node's pods.
        let list = server.find("GET /api/v1/pods?").unwrap();
        let mine = "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dworker-1&";
        assert!(list.line.starts_with(mine), "{}", list.line);
        assert!(
            list.head
                .contains("accept: application/json;as=partialobjectmetadatalist")
        );
        let watch = server.find(&format!("{mine}watch=true")).unwrap();
        assert!(watch.line.contains("resourceVersion=5"), "{}", watch.line);
        let event = poll("the incident is told", || {
            server.find("POST /api/v1/namespaces/default/events HTTP")
        });
        for request in server.asked.lock().unwrap().iter() {
            let bearer = format!("authorization: bearer {TOKEN}");
            assert!(request.head.contains(&bearer), "{request:?}");
            assert!(
                request.line.starts_with(mine) || request.line == event.line,
                "{request:?}"
            );
        }
        told_of(&agent, &event.body);
        poll("it is counted", || {
            agent
                .open("/metrics")
                .1
                .contains("observer_kubernetes_events_total 1")
                .then_some(())
        });
        assert_eq!(agent.open("/readyz"), (200, "observing\n".into()));
        workload.finish();
        agent.stop();
        Ok(())
    });
}

#[test]
fn what_is_not_allowed_is_said() {
    together(name!(), || {
        let server = Server::start();
        server.forbids.store(true, Ordering::Relaxed);
        let agent = Agent::start(&config(&server.address))?;
        let note = poll("it is said", || {
            let (status, text) = agent.open("/readyz");
            assert_eq!(status, 200);
            text.lines().nth(1).map(str::to_owned)
        });
        assert!(
            note.contains("403") && note.contains("may not list"),
            "{note}"
        );
        let (status, _) = agent.ask(&["-X", "POST"], "/api/v1/incidents");
        assert_eq!(status, 202);
        poll("the Event that was refused is counted", || {
            let text = agent.open("/metrics").1;
            text.contains("observer_lost_total{cause=\"kubernetes_event\"} 1")
                .then_some(())
        });
        server.forbids.store(false, Ordering::Relaxed);
        poll("it is no longer said", || {
            (agent.open("/readyz").1 == "observing\n").then_some(())
        });
        let log = agent.stop();
        assert!(!log.contains(TOKEN), "{log}");
        Ok(())
    });
}

#[test]
fn a_server_that_is_gone_is_found_again() {
    together(name!(), || {
        let port = free_port();
        let agent = Agent::start(&config(&format!("127.0.0.1:{port}")))?;
        poll("it is said", || {
            let (status, text) = agent.open("/readyz");
            assert_eq!(status, 200);
            text.contains("workloads of pods are not known")
                .then_some(())
        });
        let server = Server::start_at(port);
        poll("it is asked", || {
            server.find("GET /api/v1/pods?fieldSelector").map(drop)
        });
        poll("it is no longer said", || {
            (agent.open("/readyz").1 == "observing\n").then_some(())
        });
        agent.stop();
        Ok(())
    });
}

#[test]
fn outside_of_a_cluster_nobody_is_asked() {
    together(name!(), || {
        let agent = Agent::start(
            "[kubernetes]\nworkloads = true\nevents = true\n[incidents]\ndir = \"{DIR}/i\"\n",
        )?;
        assert!(
            agent.log().contains("this is not a pod of a cluster"),
            "{}",
            agent.log()
        );
        agent.stop();
        Ok(())
    });
}
