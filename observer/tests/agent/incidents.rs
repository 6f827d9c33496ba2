//! Incidents: written when something goes wrong, read by `observer report`, told to a web server.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::mpsc,
};

use serde_json::Value;

use crate::{
    agent::Agent,
    harness::{LIMIT, OBSERVER, Workload, alone, name, poll, signal, together},
};

/// Takes one request, and hands back its body.
fn receive_one(listener: TcpListener) -> mpsc::Receiver<(String, Value)> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = Vec::new();
        let mut buffer = [0; 4_096];
        loop {
            let count = stream.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..count]);
            let shown = String::from_utf8_lossy(&text);
            if let Some((head, body)) = shown.split_once("\r\n\r\n")
                && let Ok(body) = serde_json::from_str(body)
            {
                stream
                    .write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
                    .unwrap();
                send.send((head.to_owned(), body)).unwrap();
                return;
            }
            assert!(count > 0, "{shown}");
        }
    });
    receive
}

#[test]
fn a_deadlock_is_kept() {
    alone(name!(), || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hook = format!("http://{}/hook", listener.local_addr().unwrap());
        let told = receive_one(listener);
        let agent = Agent::start(&format!(
            "[capture]\ninterval = \"200ms\"\n[incidents]\ndir = \"{{DIR}}/incidents\"\nafter = \"500ms\"\n\
             [webhook]\nurl = \"{hook}\"\ntoken_file = \"{{DIR}}/token\"\n"
        ))?;
        let mut workload = Workload::start(&["deadlock"])?;
        let incident = poll("the incident is written", || {
            let list = agent.json("/api/v1/incidents");
            list["incidents"].as_array()?.first().cloned()
        });
        assert_eq!(incident["triggers"][0]["kind"], "finding");
        assert!(
            incident["triggers"][0]["why"]
                .as_str()
                .unwrap()
                .starts_with("deadlock: "),
            "{incident}"
        );
        let (head, body) = told.recv_timeout(LIMIT).unwrap();
        assert!(head.starts_with("POST /hook HTTP/1.1"), "{head}");
        assert!(
            head.to_lowercase()
                .contains("authorization: bearer a-token"),
            "{head}"
        );
        assert_eq!(body["id"], incident["id"]);

        let id = incident["id"].as_str().unwrap();
        let recording = agent.path("incidents").join(id).join("recording.jsonl.zst");
        assert_eq!(
            fs::metadata(&recording).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let out = Command::new(OBSERVER)
            .arg("report")
            .arg(&recording)
            .output()
            .unwrap();
        let report = String::from_utf8(out.stdout).unwrap();
        assert!(
            out.status.success() && report.contains("critical (deadlock)"),
            "{report}"
        );
        // The same over HTTP.
        let copy = agent.path("copy.jsonl.zst");
        let args = ["--output", copy.to_str().unwrap()];
        assert_eq!(agent.ask(&args, &format!("/api/v1/incidents/{id}")).0, 200);
        assert_eq!(fs::read(copy).unwrap(), fs::read(recording).unwrap());

        asked_for(&agent);
        workload.finish();
        agent.stop();
        Ok(())
    });
}

/// Incidents that are asked for do not wait for the gap.
fn asked_for(agent: &Agent) {
    for (kind, ask) in [("signal", true), ("request", false)] {
        if ask {
            signal(agent.pid(), libc::SIGUSR1);
        } else {
            let (status, body) = agent.ask(&["-X", "POST"], "/api/v1/incidents?why=a%20look");
            assert_eq!(status, 202, "{body}");
        }
        poll("it is written", || {
            let list = agent.json("/api/v1/incidents");
            let all = list["incidents"].as_array()?;
            all.iter()
                .any(|one| one["triggers"][0]["kind"] == kind)
                .then_some(())
        });
    }
}

#[test]
fn a_metric_beyond_its_threshold_is_a_reason() {
    together(name!(), || {
        let agent = Agent::start(
            "[capture]\ninterval = \"200ms\"\nlong_wait = \"100ms\"\n\
             [incidents]\ndir = \"{DIR}/incidents\"\nafter = \"100ms\"\n[triggers]\nfinding = \"off\"\n\
             [[triggers.metric]]\nmetric = \"observer_blocked_tasks\"\nlabels = { kind = \"lock\" }\n\
             above = 1.0\nfor = \"1s\"\n",
        )?;
        let mut workload = Workload::start(&["deadlock"])?;
        let incident = poll("the incident is written", || {
            let list = agent.json("/api/v1/incidents");
            list["incidents"].as_array()?.first().cloned()
        });
        assert_eq!(incident["triggers"][0]["kind"], "metric");
        let why = incident["triggers"][0]["why"].as_str().unwrap();
        assert!(
            why.starts_with("observer_blocked_tasks{kind=lock} > 1: "),
            "{why}"
        );
        workload.finish();
        agent.stop();
        Ok(())
    });
}
