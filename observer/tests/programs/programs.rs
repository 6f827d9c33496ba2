//! Programs that run for a test, and one look at them.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    harness::{Skip, TempDir, output, poll},
    postgres::{Server, Session},
};

/// A process of a test's own; killed when dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Starts a program; skips the test where there is none.
    pub(crate) fn start(program: &Path, args: &[&str]) -> Result<Running, Skip> {
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Ok(Running(child)),
            Err(error) => Err(Skip(format!("{}: {error}", program.display()))),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it has at least so many threads, all of them asleep.
    pub(crate) fn settle(&self, threads: usize) {
        poll(&format!("{threads} threads asleep"), || {
            let states = states(self.pid());
            (states.len() >= threads && states.iter().all(|state| *state != 'R')).then_some(())
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The state of each thread of a process.
fn states(pid: u32) -> Vec<char> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok())
        .filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next())
        .collect()
}

/// A process and its children.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let children = children.split_ascii_whitespace();
    let children = children.map(|child| child.parse().unwrap());
    std::iter::once(pid).chain(children).collect()
}

/// One look of `observer dump` at every thread of some processes.
pub(crate) fn look(pids: &[u32], more: &[&str]) -> Value {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let mut args = vec!["dump", "--format", "json"];
    args.extend(pids.iter().map(String::as_str));
    args.extend(more);
    let output = output(&args);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The C compiler's work on one source; skips the test where there is none.
pub(crate) fn compile(source: &Path, target: &Path, flags: &[&str]) -> Result<(), Skip> {
    let compiler = Command::new("gcc")
        .args(flags)
        .arg("-pthread")
        .arg("-o")
        .args([target, source])
        .output()
        .map_err(|error| Skip(format!("gcc: {error}")))?;
    let said = String::from_utf8_lossy(&compiler.stderr);
    assert!(compiler.status.success(), "gcc {flags:?}: {said}");
    Ok(())
}

/// Redis with the threads of its own that it has for input and output.
pub(crate) fn redis(folder: &TempDir) -> Result<Running, Skip> {
    let socket = folder.path().join("redis");
    let socket = socket.to_str().unwrap();
    let options = ["--port", "0", "--save", "", "--io-threads", "4"];
    let args = [&options[..], &["--unixsocket", socket]].concat();
    let redis = Running::start(Path::new("redis-server"), &args)?;
    // Three for the background, three for input and output, the first one.
    redis.settle(7);
    Ok(redis)
}

/// Sessions of PostgreSQL, each of them blocked otherwise.
pub(crate) struct Sessions {
    // Closed before the server ends.
    _sessions: Vec<Session>,
    server: Server,
}

impl Sessions {
    pub(crate) fn start() -> Result<Sessions, Skip> {
        /// What each waits in, three times over: a client, a lock, a time, a function's own time, a sort's, and
        /// that of a worker of a parallel query.
        const WAITS: [&str; 6] = [
            "select 1;",
            "begin; lock table held; select 1;",
            "select pg_sleep(1000);",
            "select inner_one();",
            "select * from generate_series(1, 5) as g order by slow(g);",
            "select count(*), max(slow(a)) from many;",
        ];
        let server = Server::start(&[])?;
        let mut first = server.session();
        first.number(
            "create table held(a int);
             create table many as select generate_series(1, 1000) as a;
             create function inner_one() returns void language plpgsql as $$ begin perform pg_sleep(1000); end $$;
             create function slow(a int) returns int language plpgsql parallel safe
                 as $$ begin perform pg_sleep(1000); return a; end $$;
             begin; lock table held; select 1;",
        );
        let mut sessions = vec![first];
        for wait in WAITS.iter().cycle().take(3 * WAITS.len()) {
            let mut session = server.session();
            session.number(
                "set parallel_setup_cost = 0; set parallel_tuple_cost = 0;
                 set min_parallel_table_scan_size = 0; select 1;",
            );
            session.send(wait);
            sessions.push(session);
        }
        Ok(Sessions {
            _sessions: sessions,
            server,
        })
    }

    /// Every process of the server.
    pub(crate) fn processes(&self) -> Vec<u32> {
        // The children of the postmaster are all there are: backends, workers, and those that are always there.
        family(self.server.pid())
    }
}
