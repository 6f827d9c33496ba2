//! How a run ends.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::Stdio,
};

use crate::harness::{Mode, Observer, Workload, command, name, poll, signal, together};

#[test]
fn with_its_target() {
    together(name!(), || {
        let mut workload = Workload::start(&["mutex"])?;
        let observer = Observer::of(Mode::Sched, &workload, &[]);
        workload.finish();
        let run = observer.target_ended();
        assert_eq!(run.status.code(), Some(0));
        run.assert_complete();
        Ok(())
    });
}

#[test]
fn when_the_target_is_killed() {
    together(name!(), || {
        let workload = Workload::start(&["mutex"])?;
        let observer = Observer::of(Mode::Sched, &workload, &[]);
        signal(workload.pid(), libc::SIGKILL);
        observer.target_ended();
        Ok(())
    });
}

#[test]
fn after_the_duration() {
    together(name!(), || {
        let workload = Workload::start(&["mutex"])?;
        let observer = Observer::of(Mode::Sched, &workload, &["-d", "300ms"]);
        assert_eq!(observer.end().end()["reason"], "duration");
        Ok(())
    });
}

#[test]
fn by_a_signal() {
    together(name!(), || {
        let workload = Workload::start(&["mutex"])?;
        for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let observer = Observer::of(Mode::Sched, &workload, &[]);
            signal(observer.pid(), number);
            let run = observer.end();
            assert_eq!(run.end()["reason"], "stopped", "signal {number}");
            assert_eq!(run.status.code(), Some(0), "signal {number}");
        }
        Ok(())
    });
}

/// A second Ctrl-C ends at once, even when nobody reads what is written: `observer trace | less`.
#[test]
fn by_a_second_signal() {
    together(name!(), || {
        let workload = Workload::start(&["storm"])?;
        let pid = workload.pid().to_string();
        let args = ["trace", "-p", &pid, "--min-wait", "0", "--format", "jsonl"];
        let mut observer = command(Mode::Sched, &args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        poll("the pipe to be full", || {
            let call = std::fs::read_to_string(format!("/proc/{}/syscall", observer.id())).ok()?;
            // write(1, …)
            call.starts_with("1 0x1 ").then_some(())
        });
        signal(observer.id(), libc::SIGINT);
        // Two of a kind that wait to be delivered are one.
        poll("the first signal to be delivered", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", observer.id())).ok()?;
            let mut pending = status.lines().filter(|line| line.contains("Pnd:"));
            let none = |line: &str| line.ends_with("\t0000000000000000");
            pending.all(none).then_some(())
        });
        assert_eq!(
            observer.try_wait().unwrap(),
            None,
            "the reader is to be waited for"
        );
        signal(observer.id(), libc::SIGINT);
        let status = poll("the end", || observer.try_wait().unwrap());
        assert_eq!(status.signal(), Some(libc::SIGINT), "{status}");
        Ok(())
    });
}

#[test]
fn when_nobody_reads_any_more() {
    together(name!(), || {
        let workload = Workload::start(&["mutex"])?;
        let pid = workload.pid().to_string();
        let mut observer = command(Mode::Sched, &["trace", "-p", &pid, "--format", "jsonl"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(observer.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert!(line.starts_with("{\"type\":\"meta\""), "{line}");
        drop(stdout);
        let status = poll("the end", || observer.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{status}");
        let mut stderr = String::new();
        observer
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        assert_eq!(stderr, "");
        Ok(())
    });
}
