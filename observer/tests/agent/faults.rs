//! What goes wrong around the agent, and what others do to it: it says so, counts it, and goes on.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    agent::{Agent, TOKEN, curl},
    harness::{LIMIT, Skip, TempDir, Workload, alone, name, poll, together},
};

/// What other tests do at the same time is no reason for an incident.
const QUICK: &str = "[capture]\ninterval = \"200ms\"\n[incidents]\ndir = \"{DIR}/incidents\"\nafter = \"10s\"\n\
    [triggers]\nfinding = \"off\"\ngoroutines = 0\n";

fn metric(agent: &Agent, name: &str) -> u64 {
    let text = agent.open("/metrics").1;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
}

/// A small disk; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path) -> Result<Disk, Skip> {
        fs::create_dir_all(folder).unwrap();
        let disk = Disk(folder.to_owned());
        if disk.run("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs"]) {
            return Ok(disk);
        }
        Err(Skip("no file system can be mounted here".into()))
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(self.run("mount", &["-o", &options]));
    }

    fn run(&self, program: &str, args: &[&str]) -> bool {
        let status = Command::new(program).args(args).arg(&self.0).status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.run("umount", &["--lazy"]);
    }
}

#[test]
fn a_full_disk_costs_incidents_and_no_more() {
    together(name!(), || {
        let folder = TempDir::new();
        let disk = Disk::mount(&folder.path().join("disk"))?;
        let dir = disk.0.display().to_string();
        let agent = Agent::start(&QUICK.replace("{DIR}/incidents", &dir))?;
        let ask = || agent.ask(&["-X", "POST"], "/api/v1/incidents");
        let failed = "observer_incidents_total{outcome=\"failed\"}";
        let (status, body) = ask();
        assert_eq!(status, 500, "{body}");
        assert!(body.contains("full") && body.contains(&dir), "{body}");
        assert_eq!(metric(&agent, failed), 1);
        // There is room at the beginning, and none at the end.
        disk.resize("16m");
        assert_eq!(ask().0, 202);
        let mut rest = fs::File::create(disk.0.join("rest")).unwrap();
        while rest.write_all(&[7; 4_096]).is_ok() {}
        drop(rest);
        poll("the incident is given up", || {
            (metric(&agent, failed) == 2).then_some(())
        });
        assert!(
            agent.log().contains("an incident is lost"),
            "{}",
            agent.log()
        );
        let left = |end: &str| {
            let entries = fs::read_dir(&disk.0).unwrap().flatten();
            entries
                .filter(|entry| entry.path().to_string_lossy().ends_with(end))
                .count()
        };
        assert_eq!((left(".part"), left("rest")), (0, 1));
        // And there is room again.
        fs::remove_file(disk.0.join("rest")).unwrap();
        assert_eq!(ask().0, 202);
        poll("it is written", || {
            let all = agent.json("/api/v1/incidents");
            (!all["incidents"].as_array()?.is_empty()).then_some(())
        });
        assert_eq!(agent.open("/readyz").0, 200);
        agent.stop();
        Ok(())
    });
}

#[test]
fn too_much_memory_costs_the_flight_recorder() {
    together(name!(), || {
        // The ring buffer alone is larger: it is mapped as a whole, twice, and counts as resident.
        let config = QUICK.replace("[capture]\n", "[capture]\nring_kib = 32768\n");
        let agent = Agent::start(&format!(
            "max_memory = \"32MiB\"\n{config}[recorder]\nmemory = \"16MiB\"\n"
        ))?;
        assert_eq!(metric(&agent, "observer_memory_limit_bytes "), 32 << 20);
        let resident = poll("the agent says how large it is", || {
            Some(metric(&agent, "observer_resident_bytes ")).filter(|bytes| *bytes > 0)
        });
        assert!(resident > 32 << 20, "{resident}");
        let kept = poll("the flight recorder keeps less", || {
            Some(metric(&agent, "observer_recorder_limit_bytes ")).filter(|kept| *kept < 16 << 20)
        });
        assert!(kept >= 1 << 20, "{kept}");
        let log = agent.stop();
        assert!(log.contains("the flight recorder keeps"), "{log}");
        Ok(())
    });
}

fn connect(agent: &Agent) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", agent.port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// What comes of these bytes: what is answered until the connection ends.
fn send(agent: &Agent, bytes: &[u8]) -> String {
    let mut stream = connect(agent);
    // It may be closed before all is written.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn what_is_no_request_is_refused() {
    together(name!(), || {
        let agent = Agent::start(QUICK)?;
        let with_token = |line: &str, rest: &str| {
            format!("{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n{rest}")
        };
        let many: String = ["x-many: y\r\n"; 200].concat();
        let long = "a".repeat(20_000);
        let of_incidents = |rest: &str| with_token("POST /api/v1/incidents?why=x", rest);
        for bytes in [
            String::new(),
            "\r\n\r\n".into(),
            "\0\0\0\0\r\n\r\n".into(),
            "GET\r\n\r\n".into(),
            "GET /metrics HTTP/9.9\r\n\r\n".into(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}".into(),
            format!("GET /{long} HTTP/1.1\r\n\r\n"),
            format!("GET /metrics HTTP/1.1\r\nx: {long}\r\n\r\n"),
            format!("GET /metrics HTTP/1.1\r\n{many}\r\n"),
            "GET /metrics HTTP/1.1\r\nbad header\r\n\r\n".into(),
            with_token("GET /api/v1/locks?limit=%00", "\r\n"),
            with_token("GET /api/v1/locks?limit=1&limit=2", "\r\n"),
            with_token("GET /api/v1/events?snapshot=maybe", "\r\n"),
            with_token("GET /api/v1/incidents/%2e%2e%2f%2e%2e", "\r\n"),
            with_token("GET http://[::1/metrics", "\r\n"),
            of_incidents("content-length: -1\r\n\r\n"),
            of_incidents("content-length: 99999999999999999999\r\n\r\n"),
            of_incidents("content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
            "GET /api/v1/locks HTTP/1.1\r\nauthorization: Bearer \r\n\r\n".into(),
            "GET /api/v1/locks HTTP/1.1\r\nauthorization: Basic YTpi\r\n\r\n".into(),
            format!("GET /api/v1/locks HTTP/1.1\r\nauthorization: Bearer {TOKEN}x\r\n\r\n"),
            format!("GET /api/v1/locks HTTP/1.1\r\nauthorization: Bearer {long}\r\n\r\n"),
        ] {
            let answer = send(&agent, bytes.as_bytes());
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert!(
                answer.is_empty() || status.starts_with('4'),
                "{}: {answer}",
                bytes.chars().take(80).collect::<String>()
            );
            assert!(!answer.contains(TOKEN));
        }
        // Nobody was let in, and it is the same process that answers.
        assert_eq!(agent.open("/readyz").0, 200);
        assert_eq!(metric(&agent, "observer_serving_restarts_total "), 0);
        assert!(
            agent.json("/api/v1/incidents")["incidents"]
                .as_array()
                .unwrap()
                .is_empty()
        );
        let log = agent.stop();
        assert!(!log.contains("panicked") && !log.contains(TOKEN), "{log}");
        Ok(())
    });
}

#[test]
fn readers_that_take_nothing_keep_nobody_else_out() {
    alone(name!(), || {
        let agent = Agent::start(QUICK)?;
        // More than one address may have, so that some are closed; each asks for more than the kernel keeps for it.
        let held: Vec<_> = (0..56)
            .map(|_| {
                let mut stream = connect(&agent);
                let ask = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(400);
                let _ = stream.write_all(ask.as_bytes());
                stream
            })
            .collect();
        let from = |address: &str, path: &str| curl(&["--interface", address, &agent.url(path)]);
        poll("there is no place for one more from there", || {
            (from("127.0.0.1", "/healthz").0 == 0).then_some(())
        });
        assert_eq!(from("127.0.0.2", "/healthz").0, 200);
        assert_eq!(from("127.0.0.2", "/metrics").0, 200);
        drop(held);
        poll("they are gone", || {
            (agent.open("/healthz").0 == 200).then_some(())
        });
        agent.stop();
        Ok(())
    });
}

/// What it misses is counted when it is cut off: `src/agent/http/api.rs` has a test of that.
#[test]
fn a_reader_that_takes_nothing_holds_nobody_up() {
    alone(name!(), || {
        let agent = Agent::start(&QUICK.replace(
            "[capture]\n",
            "[capture]\nmin_wait = \"0\"\nmax_overhead_percent = 100\n",
        ))?;
        let mut idle = connect(&agent);
        let ask = format!(
            "GET /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
        );
        idle.write_all(ask.as_bytes()).unwrap();
        let mut workload = Workload::start(&["mutex", "--threads", "4", "--hold-ms", "1"])?;
        let events = || metric(&agent, "observer_events_total{type=\"wait\"}");
        let before = events();
        poll("events to come", || {
            (events() > before + 1_000).then_some(())
        });
        workload.finish();
        assert_eq!(agent.open("/readyz").0, 200);
        drop(idle);
        agent.stop();
        Ok(())
    });
}
