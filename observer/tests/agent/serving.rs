//! The process that serves HTTP: what it has, and what becomes of the agent without it. What it can do is tested where it
//! gives the rest up: `src/agent/serving/process.rs`.

use std::{
    fs, io,
    net::TcpListener,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use crate::{
    agent::{Agent, Status},
    harness::{OBSERVER, Workload, name, poll, signal, together},
};

const QUICK: &str = "[capture]\ninterval = \"200ms\"\nlong_wait = \"100ms\"\n[incidents]\ndir = \"{DIR}/incidents\"\n";

fn metric(agent: &Agent, name: &str) -> Option<u64> {
    let text = agent.open("/metrics").1;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

/// What a descriptor of a process leads to.
fn descriptors(pid: u32) -> Vec<String> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    all.filter_map(|one| Some(fs::read_link(one.path()).ok()?.display().to_string()))
        .collect()
}

#[test]
fn it_has_nothing_of_the_agents() {
    together(name!(), || {
        let agent = Agent::start(QUICK)?;
        let pid = agent.serving().unwrap();
        let process = format!("/proc/{pid}");
        let process = Path::new(&process);
        assert_eq!(
            fs::canonicalize(process.join("exe")).unwrap(),
            fs::canonicalize(OBSERVER).unwrap()
        );
        for task in fs::read_dir(process.join("task")).unwrap() {
            let status = Status::read(&task.unwrap().path());
            status.is_restricted(0);
            assert_eq!(status.capabilities("CapBnd"), 0);
        }
        let log = fs::canonicalize(agent.path("log")).unwrap();
        for to in descriptors(pid) {
            let known = ["socket:[", "anon_inode:[event"];
            assert!(
                known.iter().any(|one| to.starts_with(one)) || Path::new(&to) == log,
                "{to}"
            );
        }
        // It is the one that takes connections, and the agent has none.
        let limits = fs::read_to_string(process.join("limits")).unwrap();
        let limit = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name));
            let first = line.unwrap().split_whitespace().next();
            first.unwrap().parse::<u64>().unwrap()
        };
        assert_eq!(limit("Max core file size"), 0);
        assert!(limit("Max data size") <= 256 << 20 && limit("Max open files") <= 256);
        let environment = fs::read(process.join("environ")).unwrap();
        assert!(!environment.windows(5).any(|part| part == b"HOME="));
        agent.stop();
        poll("it ended with the agent", || {
            (!process.join("exe").exists()).then_some(())
        });
        Ok(())
    });
}

#[test]
fn the_agent_goes_on_without_it() {
    together(name!(), || {
        let mut agent = Agent::start(QUICK)?;
        let mut workload = Workload::start(&["deadlock"])?;
        poll("the deadlock is found", || {
            metric(&agent, "observer_deadlocks ").filter(|count| *count > 0)
        });
        let first = agent.serving().unwrap();
        poll("it is measured", || {
            metric(&agent, "observer_serving_resident_bytes ").filter(|bytes| *bytes > 1 << 20)
        });
        assert_eq!(metric(&agent, "observer_serving_restarts_total "), Some(0));
        // What ends the agent, or has it read its files, is not for this process.
        for number in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1] {
            signal(first, number);
        }
        assert_eq!(agent.open("/readyz").0, 200);
        assert_eq!(agent.serving(), Some(first));
        signal(first, libc::SIGKILL);
        poll("there is another one", || {
            metric(&agent, "observer_serving_restarts_total ").filter(|count| *count == 1)
        });
        let second = agent.serving().unwrap();
        assert_ne!(first, second);
        // The agent knows what it knew, and its token is asked for.
        assert!(metric(&agent, "observer_deadlocks ").unwrap() > 0);
        assert_eq!(agent.open("/api/v1/locks").0, 401);
        assert_eq!(agent.ask(&[], "/api/v1/locks").0, 200);
        assert!(agent.log().contains("is started again"), "{}", agent.log());
        // One that is killed takes it along.
        agent.kill();
        poll("it ended with the agent", || {
            (!Path::new(&format!("/proc/{second}/exe")).exists()).then_some(())
        });
        workload.finish();
        Ok(())
    });
}

#[test]
fn nobody_else_starts_it() {
    together(name!(), || {
        let out = std::process::Command::new(OBSERVER)
            .arg("serve-agent")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let error = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1));
        assert!(error.contains("`observer agent` starts this"), "{error}");
        Ok(())
    });
}

/// What a process's descriptor is, here.
fn descriptor(pid: u32, number: libc::c_int) -> TcpListener {
    // SAFETY: the calls take integers; what they give is nobody else's.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        assert!(process >= 0, "{}", io::Error::last_os_error());
        let process = OwnedFd::from_raw_fd(process as libc::c_int);
        let number = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0);
        assert!(number >= 0, "{}", io::Error::last_os_error());
        TcpListener::from_raw_fd(number as libc::c_int)
    }
}

#[test]
fn a_listener_that_is_shut_down_listens_again() {
    together(name!(), || {
        let agent = Agent::start(QUICK)?;
        let first = agent.serving().unwrap();
        let listener = descriptor(first, libc::STDOUT_FILENO);
        // SAFETY: the call takes integers.
        let done = unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
        assert_eq!(done, 0);
        poll("there is another one", || {
            (agent.open("/readyz").0 == 200).then_some(())
        });
        assert_ne!(agent.serving(), Some(first));
        let log = agent.log();
        assert!(log.contains("no connection can be taken any more"), "{log}");
        agent.stop();
        Ok(())
    });
}
