//! What HTTP answers, to whom, and what the agent may do.

use std::{fs, process::Command};

use observer::event::Event;
use serde_json::json;

use crate::{
    agent::{Agent, Status, curl},
    harness::{OBSERVER, TempDir, Workload, name, poll, signal, together},
};

const QUICK: &str = "[capture]\ninterval = \"200ms\"\nlong_wait = \"100ms\"\n[incidents]\ndir = \"{DIR}/incidents\"\n";

#[test]
fn who_may_ask_for_what() {
    together(name!(), || {
        let agent = Agent::start(QUICK)?;
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert_eq!(agent.open(path).0, 200, "{path}");
        }
        for path in [
            "/api/v1/blocked",
            "/api/v1/locks",
            "/api/v1/findings",
            "/api/v1/goroutines",
            "/api/v1/events",
            "/api/v1/incidents",
            "/api/v1/openapi.json",
            "/",
            "/nothing",
            "/metrics/",
            "//metrics",
            "/metrics/../api",
        ] {
            assert_eq!(agent.open(path).0, 401, "{path}");
            let wrong = curl(&[
                "-H",
                "Authorization: Bearer a-token-for-tests-onlY",
                &agent.url(path),
            ]);
            assert_eq!(wrong.0, 401, "{path}");
        }
        assert_eq!(agent.ask(&[], "/nothing").0, 404);
        for (path, status) in [
            ("/api/v1/blocked?limit=0", 200),
            ("/api/v1/blocked?limit=10001", 400),
            ("/api/v1/blocked?limit=-1", 400),
            ("/api/v1/locks?limit=99999999999999999999999", 400),
            ("/api/v1/findings?other=1", 400),
            ("/api/v1/incidents/..%2f..%2fetc", 404),
            ("/api/v1/incidents/none", 404),
        ] {
            assert_eq!(agent.ask(&[], path).0, status, "{path}");
        }
        let long = format!("/api/v1/blocked?{}", "x".repeat(60_000));
        assert!(agent.ask(&[], &long).0 >= 400);
        assert_eq!(agent.ask(&["-X", "DELETE"], "/api/v1/incidents").0, 405);
        let document = agent.json("/api/v1/openapi.json");
        assert_eq!(document["openapi"], "3.1.0");
        let refused = poll("refused requests are counted", || {
            let text = agent.open("/metrics").1;
            let line = text
                .lines()
                .find(|line| line.starts_with("observer_http_unauthorized_total "))?;
            line.rsplit_once(' ')?
                .1
                .parse::<u64>()
                .ok()
                .filter(|count| *count >= 24)
        });
        assert!(refused < 1_000);
        let log = agent.stop();
        assert!(!log.contains("a-token-for-tests-only"), "{log}");
        Ok(())
    });
}

/// They go into the log.
#[test]
fn reasons_are_short_and_plain() {
    together(name!(), || {
        let agent = Agent::start(QUICK)?;
        for why in ["a%0Ab", "%1B[2J", &"w".repeat(201)] {
            let path = format!("/api/v1/incidents?why={why}");
            let (status, body) = agent.ask(&["--globoff", "-X", "POST"], &path);
            assert_eq!(status, 400, "{why}: {body}");
        }
        let path = "/api/v1/incidents?why=as%20it%20is";
        assert_eq!(agent.ask(&["-X", "POST"], path).0, 202);
        agent.stop();
        Ok(())
    });
}

#[test]
fn what_is_known_has_the_form_of_events() {
    together(name!(), || {
        let agent = Agent::start(QUICK)?;
        let mut workload = Workload::start(&["deadlock"])?;
        let pid = workload.pid();
        let blocked = poll("the deadlock is blocked", || {
            let all = agent.json("/api/v1/blocked?limit=10000");
            let of_it: Vec<_> = all["blocked"]
                .as_array()?
                .iter()
                .filter(|wait| wait["task"]["pid"] == pid)
                .cloned()
                .collect();
            (of_it.len() >= 2).then_some(of_it)
        });
        for mut wait in blocked {
            wait["type"] = json!("blocked");
            let event: Event = serde_json::from_value(wait).unwrap();
            assert!(matches!(event, Event::Blocked(_)));
        }
        poll("the deadlock is found", || {
            let found = agent.json("/api/v1/findings");
            let of_it =
                |value: &serde_json::Value| value.to_string().contains(&format!("\"pid\":{pid}"));
            let finding = found["findings"]
                .as_array()?
                .iter()
                .any(|f| f["rule"] == "deadlock" && of_it(f));
            (finding && found["deadlocks"].as_array()?.iter().any(of_it)).then_some(())
        });
        assert!(
            agent.json("/api/v1/locks?limit=5")["locks"]
                .as_array()
                .unwrap()
                .len()
                <= 5
        );
        assert!(agent.json("/api/v1/goroutines")["goroutines"].is_array());
        // The stream begins with `meta`, and goes on.
        let (_, stream) = agent.ask(&["--no-buffer", "--max-time", "2"], "/api/v1/events");
        let events: Vec<Event> = stream
            .lines()
            .filter(|line| line.ends_with('}'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(matches!(events.first(), Some(Event::Meta(_))), "{stream}");
        assert!(events.len() > 1, "{stream}");
        workload.finish();
        agent.stop();
        Ok(())
    });
}

#[test]
fn encrypted_and_without_powers() {
    together(name!(), || {
        let agent =
            Agent::start("[tls]\nself_signed = true\n[incidents]\ndir = \"{DIR}/incidents\"\n")?;
        assert_eq!(agent.open("/healthz"), (200, "ok\n".into()));
        let plain = format!("http://127.0.0.1:{}/healthz", agent.port);
        assert_eq!(curl(&[&plain]).0, 0);
        // BPF, PERFMON, SYS_PTRACE, DAC_READ_SEARCH, and not one more.
        let needed: u64 = 1 << 39 | 1 << 38 | 1 << 19 | 1 << 2;
        let mut threads = 0;
        for task in fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap() {
            let status = Status::read(&task.unwrap().path());
            // What starts the process that serves HTTP has none.
            let keeps = status.field("Name") == "observer-keeper";
            threads += u32::from(keeps);
            status.is_restricted(if keeps { 0 } else { needed });
        }
        assert_eq!(threads, 1);
        agent.stop();
        Ok(())
    });
}

#[test]
fn a_reload_that_is_wrong_changes_nothing() {
    together(name!(), || {
        let agent = Agent::start(QUICK)?;
        let file = agent.path("agent.toml");
        let good = fs::read_to_string(&file).unwrap();
        fs::write(&file, good.clone() + "\n[recorder]\nbefor = \"1m\"\n").unwrap();
        signal(agent.pid(), libc::SIGHUP);
        poll("the reload is refused", || {
            agent.log().contains("befor").then_some(())
        });
        assert!(agent.log().contains("stays as it was"), "{}", agent.log());
        assert_eq!(agent.ask(&[], "/api/v1/locks").0, 200);
        fs::write(agent.path("token"), "another-token-for-tests").unwrap();
        fs::write(&file, good).unwrap();
        signal(agent.pid(), libc::SIGHUP);
        poll("the new token is in force", || {
            (agent.ask(&[], "/api/v1/locks").0 == 401).then_some(())
        });
        agent.stop();
        Ok(())
    });
}

#[test]
fn what_cannot_be_followed_is_said() {
    together(name!(), || {
        let folder = TempDir::new();
        let file = folder.path().join("agent.toml");
        let check = |text: &str, args: &[&str]| {
            fs::write(&file, text).unwrap();
            let out = Command::new(OBSERVER)
                .args(["agent", "--check-config", "--config"])
                .arg(&file)
                .args(args)
                .output()
                .unwrap();
            (out.status.code(), String::from_utf8(out.stderr).unwrap())
        };
        assert_eq!(check("", &[]).0, Some(0));
        for (text, args, words) in [
            (
                "[triggers]\nblokced = 5\n",
                &[][..],
                &["line 2", "blokced"][..],
            ),
            ("listen = 5\n", &[], &["line 1", "listen"]),
            (
                "",
                &["--listen", "0.0.0.0:9464"],
                &["0.0.0.0:9464", "encryption"],
            ),
            ("token_file = \"/none\"\n", &[], &["/none", "token"]),
            (
                "[tls]\ncert_file = \"/none\"\nkey_file = \"/none\"\n",
                &[],
                &["tls.cert_file", "/none"],
            ),
        ] {
            let (code, error) = check(text, args);
            assert_eq!(code, Some(1), "{text}: {error}");
            for word in words {
                assert!(error.contains(word), "{text}: {error}");
            }
        }
        // A short token is none, and is not shown.
        let token = folder.path().join("token");
        fs::write(&token, "hunter2").unwrap();
        let (code, error) = check(&format!("token_file = \"{}\"", token.display()), &[]);
        assert!(code == Some(1) && !error.contains("hunter2"), "{error}");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let out = Command::new(OBSERVER)
            .args(["agent", "--listen", &address])
            .output()
            .unwrap();
        let error = String::from_utf8(out.stderr).unwrap();
        assert!(
            error.contains(&address) && error.contains("in use"),
            "{error}"
        );
        Ok(())
    });
}
