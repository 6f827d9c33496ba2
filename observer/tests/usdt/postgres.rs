//! PostgreSQL: what its backends wait for, and who has it, by the probes of the distribution's build and by its
//! memory; held against what the server itself says.

use std::{collections::HashMap, fs, process::Stdio};

use serde_json::Value;

use crate::{
    harness::{
        Mode, Observer, alone,
        event::{number, of},
        name, output, poll, together,
    },
    inferior::Inferior,
    server::{Server, Session},
    shop::{totals, waits},
};

const PROBE: &str = "postgresql:lock__wait__start";
const LIGHT: &str = "postgresql:lwlock__wait__start";

#[test]
fn a_backend_waits_for_a_table_that_an_idle_transaction_locks() {
    alone(name!(), || {
        let server = Server::start(&[])?;
        let mut holder = server.session();
        let holding = holder.number("select pg_backend_pid();");
        let relation =
            holder.number("create table accounts(a int); select 'accounts'::regclass::oid;");
        let database =
            holder.number("select oid from pg_database where datname = current_database();");
        let args = ["--comm", "postgres", "--usdt", "postgresql"];
        let more = ["--long-wait", "200ms", "--interval", "100ms"];
        let observer = Observer::trace(Mode::Sched, &[&args[..], &more[..]].concat());
        holder.number("begin; lock table accounts; select 1;");
        // A backend that starts later than observer.
        let mut waiter = server.session();
        let pid = waiter.number("select pg_backend_pid();");
        waiter.send("select count(*) from accounts;");

        let blocked = observer.wait_for("the waiting backend", |events| {
            of(events, "blocked")
                .find(|event| event["probe"] == PROBE)
                .cloned()
        });
        assert_eq!(blocked["task"]["pid"], pid, "{blocked}");
        assert_eq!(blocked["kind"], "postgres_lock", "{blocked}");
        let name = format!("relation {relation} of database {database}");
        assert_eq!(blocked["lock"]["name"], *name, "{blocked}");
        assert_eq!(blocked["lock"]["class"], "postgres_lock", "{blocked}");
        assert_eq!(blocked["mode"], "AccessShareLock", "{blocked}");
        let has = &blocked["holder"];
        assert_eq!(has["pid"], holding, "{blocked}");
        assert_eq!(has["confidence"], "exact", "{blocked}");
        let doing = has["doing"].as_str().unwrap();
        assert!(doing.ends_with("[local] idle in transaction"), "{blocked}");
        // What the server itself says.
        let waiting = format!(
            "select count(*) from pg_locks where not granted and pid = {pid} and relation = {relation};"
        );
        assert_eq!(holder.number(&waiting), 1);

        holder.send("commit;");
        assert_eq!(waiter.answer(), 0);
        observer.wait_until("the wait's end and its totals", |events| {
            waits(events, PROBE).count() == 1
                && of(events, "lock").any(|lock| lock["lock"]["name"] == *name)
        });
        let run = observer.stop();
        let wait = waits(&run.events, PROBE).next().unwrap();
        assert!(number(wait, "dur_ns") >= 200_000_000, "{wait}");
        assert_eq!(wait["holder"]["pid"], holding, "{wait}");
        assert_eq!(totals(&run.events, &name)["waits"], 1);
        run.assert_complete();
        Ok(())
    });
}

/// Its program is attached to when it is started, if nobody ran it before.
#[test]
fn a_server_that_starts_later() {
    alone(name!(), || {
        let args = ["--comm", "postgres", "--usdt", "postgresql"];
        let observer = Observer::trace(Mode::Sched, &args);
        let server = Server::start(&[])?;
        observer.wait_until("its probes to be attached to", |events| {
            let later = of(events, "attached").map(|event| &event["attached"]);
            let mut hooks = later.chain([&events[0]["capture"]["attached"]]);
            hooks.any(|hooks| hooks.to_string().contains(PROBE))
        });
        let mut holder = server.session();
        holder.number("create table accounts(a int); begin; lock table accounts; select 1;");
        let mut waiter = server.session();
        let pid = waiter.number("set lock_timeout = '100ms'; select pg_backend_pid();");
        waiter.send("select count(*) from accounts;");
        let wait = observer.wait_for("the end of the wait", |events| {
            let mut own = waits(events, PROBE).filter(|wait| wait["task"]["pid"] == pid);
            own.next().cloned()
        });
        assert_eq!(wait["ended_by"], "postgresql:transaction__abort", "{wait}");
        observer.stop().assert_complete();
        Ok(())
    });
}

/// Two sessions, each of which has changed a row that the other one is about to change; and their processes.
fn crossed(server: &Server) -> ([Session; 2], [u64; 2]) {
    let mut sessions = [server.session(), server.session()];
    let pids = sessions
        .each_mut()
        .map(|session| session.number("select pg_backend_pid();"));
    sessions[0].number(
        "create table accounts(a int primary key, b int); insert into accounts values (1, 0), (2, 0); select 1;",
    );
    for (session, row) in sessions.iter_mut().zip([1, 2]) {
        session.number(&format!(
            "begin; update accounts set b = 1 where a = {row}; select 1;"
        ));
    }
    (sessions, pids)
}

fn cross(sessions: &mut [Session; 2]) {
    for (session, row) in sessions.iter_mut().zip([2, 1]) {
        session.send(&format!("update accounts set b = 2 where a = {row};"));
    }
}

#[test]
fn a_deadlock_that_the_server_found() {
    alone(name!(), || {
        let server = Server::start(&["deadlock_timeout=300ms"])?;
        let (mut sessions, pids) = crossed(&server);
        let args = ["--comm", "postgres", "--usdt", "postgresql"];
        let more = ["--long-wait", "100ms", "--interval", "100ms"];
        let observer = Observer::trace(Mode::Sched, &[&args[..], &more[..]].concat());
        cross(&mut sessions);
        let found = observer.wait_for("the finding", |events| {
            of(events, "finding")
                .find(|event| event["rule"] == "postgres_deadlock")
                .cloned()
        });
        let victim = found["subjects"][0]["task"]["pid"].as_u64().unwrap();
        assert!(pids.contains(&victim), "{found}");
        // The other one's wait ended as waits end: it got its lock.
        let run = observer.stop();
        let ends: HashMap<u64, &Value> = waits(&run.events, PROBE)
            .map(|wait| (number(&wait["task"], "pid"), &wait["ended_by"]))
            .collect();
        for pid in pids {
            let by = if pid == victim {
                Value::from("postgresql:deadlock__found")
            } else {
                Value::Null
            };
            assert_eq!(*ends[&pid], by, "{ends:?}");
        }
        let log = fs::read_to_string(server.path("log")).unwrap();
        assert_eq!(log.matches("ERROR:  deadlock detected").count(), 1, "{log}");
        assert!(
            log.contains(&format!("[{victim}] ERROR:  deadlock detected")),
            "{log}"
        );
        run.assert_complete();
        Ok(())
    });
}

#[test]
fn a_wait_that_fails_is_over() {
    alone(name!(), || {
        let server = Server::start(&[])?;
        let mut holder = server.session();
        holder.number("create table accounts(a int); begin; lock table accounts; select 1;");
        let mut waiter = server.session();
        let pid = waiter.number("set lock_timeout = '400ms'; select pg_backend_pid();");
        let args = ["--comm", "postgres", "--usdt", "postgresql"];
        let observer = Observer::trace(
            Mode::Sched,
            &[&args[..], &["--long-wait", "100ms"]].concat(),
        );
        waiter.send("select count(*) from accounts;");
        let wait = observer.wait_for("the end of the wait", |events| {
            waits(events, PROBE)
                .find(|wait| wait["task"]["pid"] == pid)
                .cloned()
        });
        assert_eq!(wait["ended_by"], "postgresql:transaction__abort", "{wait}");
        observer.stop().assert_complete();
        Ok(())
    });
}

#[test]
fn without_probes_the_servers_memory_tells_of_a_deadlock() {
    together(name!(), || {
        // The server does not look for it while the test lasts.
        let server = Server::start(&["deadlock_timeout=600s"])?;
        let (mut sessions, pids) = crossed(&server);
        let args = ["--comm", "postgres", "--long-wait", "100ms"];
        let observer = Observer::trace(Mode::Sched, &args);
        cross(&mut sessions);
        let deadlock = observer.wait_for("the deadlock", |events| {
            of(events, "deadlock").next().cloned()
        });
        assert_eq!(deadlock["confidence"], "exact", "{deadlock}");
        let tasks = deadlock["tasks"].as_array().unwrap();
        assert_eq!(tasks.len(), 2, "{deadlock}");
        for task in tasks {
            assert!(pids.contains(&number(&task["task"], "pid")), "{deadlock}");
            assert_eq!(task["lock"]["class"], "postgres_lock", "{deadlock}");
            let name = task["lock"]["name"].as_str().unwrap();
            assert!(name.starts_with("transaction "), "{deadlock}");
        }
        let text = pids.map(|pid| pid.to_string());
        let dumped = output(&["dump", &text[0], &text[1], "--format", "json"]);
        let dumped: Value = serde_json::from_slice(&dumped.stdout).unwrap();
        assert_eq!(dumped["deadlocks"].as_array().unwrap().len(), 1, "{dumped}");
        let runtimes = dumped["meta"]["capture"]["runtimes"].as_array().unwrap();
        assert_eq!(runtimes[0]["runtime"], "postgresql", "{runtimes:?}");
        for task in dumped["tasks"].as_array().unwrap() {
            assert_eq!(task["mode"], "ShareLock", "{task}");
            assert_eq!(task["kind"], "postgres_lock", "{task}");
        }
        observer.stop();
        Ok(())
    });
}

/// Has a session take a light-weight lock: nothing else holds one for long enough.
fn take_light_weight_lock(pid: u64, number: u64) {
    let session = Inferior::stop(pid);
    // sizeof(LWLockPadded): a line of the cache.
    let lock = session.read(session.symbol("MainLWLockArray")) + number * 128;
    let taken = session.call(session.symbol("LWLockAcquire"), [lock, 0]);
    assert_eq!(taken & 0xff, 1);
}

/// Beyond its title the holder's memory tells what sort of thing it waits for.
#[test]
fn without_probes_the_holders_memory_tells_what_it_waits_for() {
    together(name!(), || {
        let server = Server::start(&[])?;
        let (mut holder, mut waiter) = (server.session(), server.session());
        let pid = waiter.number("select pg_backend_pid();");
        holder.number("create table accounts(a int); begin; lock table accounts; select 1;");
        holder.send("select pg_sleep(600);");
        waiter.send("select count(*) from accounts;");
        let doing = poll("the holder", || {
            let dumped = output(&["dump", &pid.to_string(), "--format", "json"]);
            let dumped: Value = serde_json::from_slice(&dumped.stdout).unwrap();
            let doing = dumped["tasks"][0]["holder"]["doing"].as_str()?;
            doing.contains("wait event").then(|| doing.to_owned())
        });
        assert!(
            doing.ends_with("SELECT (wait event type Timeout)"),
            "{doing}"
        );
        Ok(())
    });
}

#[test]
fn without_probes_a_light_weight_lock_has_its_name() {
    together(name!(), || {
        let server = Server::start(&[])?;
        let mut holder = server.session();
        let holding = holder.number("select pg_backend_pid();");
        let mut waiter = server.session();
        let pid = waiter.number("select pg_backend_pid();");
        let mut monitor = server.session();
        monitor.number("select 1;");
        // OidGenLock (src/backend/storage/lmgr/lwlocknames.txt): new tables need it, and sessions that look do not.
        take_light_weight_lock(holding, 2);
        waiter.send("create table accounts(a int);");
        let waits = format!(
            "select count(*) from pg_stat_activity where pid = {pid} and wait_event_type = 'LWLock' \
                 and wait_event = 'OidGen';"
        );
        poll("the session to wait", || {
            (monitor.number(&waits) == 1).then_some(())
        });
        let dumped = output(&["dump", &pid.to_string(), "--format", "json"]);
        let dumped: Value = serde_json::from_slice(&dumped.stdout).unwrap();
        let task = &dumped["tasks"][0];
        assert_eq!(task["kind"], "postgres_lock", "{task}");
        assert_eq!(task["lock"]["class"], "postgres_lwlock", "{task}");
        assert_eq!(task["lock"]["name"], "OidGen", "{task}");
        assert_eq!(task["holder"]["confidence"], "unknown", "{task}");
        Ok(())
    });
}

/// What the server's log says of waits that it ended well: process, mode and lock, and for how long.
fn logged(log: &str) -> Vec<(u64, String, String, f64)> {
    log.lines()
        .filter_map(|line| {
            let (pid, rest) = line.split_once("process ")?.1.split_once(" acquired ")?;
            let (mode, rest) = rest.split_once(" on ")?;
            let (lock, ms) = rest.split_once(" after ")?;
            let lock = lock.replace(['(', ')'], "");
            let ms = ms.strip_suffix(" ms")?.parse().ok()?;
            Some((pid.parse().ok()?, mode.to_owned(), lock, ms))
        })
        .collect()
}

#[test]
fn one_hot_row_under_pgbench() {
    alone(name!(), || {
        // The server logs each wait that lasts longer than this.
        let server = Server::start(&["log_lock_waits=on", "deadlock_timeout=1ms"])?;
        let mut session = server.session();
        session.number("create table hot(a int, b int); insert into hot values (1, 0); select 1;");
        let script = server.path("hot.sql");
        fs::write(
            &script,
            "begin;\nupdate hot set b = b + 1 where a = 1;\nselect pg_sleep(0.01);\nend;\n",
        )
        .unwrap();
        let args = ["--comm", "postgres", "--usdt", "postgresql"];
        let observer = Observer::trace(Mode::Sched, &args);
        let status = server
            .command("pgbench")
            .args(["-n", "-c", "4", "-t", "25", "-d", "postgres", "-h"])
            .arg(server.path(""))
            .arg("-f")
            .arg(&script)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        assert_eq!(session.number("select b from hot;"), 100);
        let run = observer.stop();
        run.assert_complete();

        let said = logged(&fs::read_to_string(server.path("log")).unwrap());
        assert!(said.len() >= 50, "the server logged {} waits", said.len());
        let mut seen: HashMap<(u64, String, String), Vec<u64>> = HashMap::new();
        for wait in waits(&run.events, PROBE) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let lock = text(&wait["lock"]["name"]);
            let key = (number(&wait["task"], "pid"), text(&wait["mode"]), lock);
            seen.entry(key).or_default().push(number(wait, "dur_ns"));
        }
        // Each wait that the server tells of was seen, with the same lock and mode.
        for (pid, mode, lock, ms) in &said {
            let waits = seen.get_mut(&(*pid, mode.clone(), lock.clone()));
            let waits =
                waits.unwrap_or_else(|| panic!("{pid} {mode} {lock} for {ms} ms: not seen"));
            assert!(
                waits.pop().is_some(),
                "{pid} {mode} {lock}: seen too seldom"
            );
        }
        // The server does not tell of a wait whose backend had no CPU when it was to look for a deadlock.
        let left = seen
            .values()
            .flatten()
            .filter(|dur_ns| **dur_ns > 5_000_000);
        let left = left.count();
        assert!(left <= said.len() / 4, "{left} of {}", said.len());
        // Light-weight locks have their tranche and mode.
        for wait in waits(&run.events, LIGHT) {
            assert_eq!(wait["lock"]["class"], "postgres_lwlock", "{wait}");
            assert!(wait["mode"].as_str().unwrap().starts_with("LW_"), "{wait}");
        }
        Ok(())
    });
}

/// The first sentence of a triage names who waits, for what, and who may hold it: for a session that began to wait
/// while observer watched by the probes, for one that waited before by its title.
#[test]
fn a_triage_tells_of_sessions_that_wait() {
    alone(name!(), || {
        let server = Server::start(&[])?;
        let mut holder = server.session();
        let relation =
            holder.number("create table accounts(a int); select 'accounts'::regclass::oid;");
        let idle = holder.number("select pg_backend_pid();");
        holder.number("begin; lock table accounts; select 1;");
        let mut monitor = server.session();
        let mut waiter = server.session();
        let pid = waiter.number("select pg_backend_pid();");
        waiter.send("select count(*) from accounts;");
        let waiting = format!("select count(*) from pg_locks where not granted and pid = {pid};");
        poll("the session to wait", || {
            (monitor.number(&waiting) == 1).then_some(())
        });
        let first = |args: &[&str]| {
            let run = output(&[&["triage", "--comm", "postgres"], args].concat());
            assert!(run.status.success(), "{run:?}");
            let text = String::from_utf8(run.stdout).unwrap();
            assert!(!text.contains("No thread was held up"), "{text}");
            text.lines().next().unwrap_or_default().to_owned()
        };
        let before = first(&["-d", "1s"]);
        for part in [
            "One session of PostgreSQL waits for a lock",
            &format!("{pid}: "),
            "SELECT",
            &format!("may hold it ({idle}: "),
        ] {
            assert!(before.contains(part), "{part}: {before}");
        }

        // One more, which begins to wait while observer watches: when there is a bundle, the probes are attached.
        let mut later = server.session();
        let late = later.number("select pg_backend_pid();");
        let bundle = server.path("incident");
        let place = bundle.clone();
        let starter = std::thread::spawn(move || {
            poll("the bundle", || place.is_dir().then_some(()));
            later.send("select count(*) from accounts;");
            later
        });
        let during = first(&["-d", "4s", "-o", bundle.to_str().unwrap()]);
        drop(starter.join().unwrap());
        for part in [
            "2 sessions of PostgreSQL wait for locks",
            &format!("{pid}: "),
            &format!("{late}: "),
            &format!("relation {relation} of database"),
        ] {
            assert!(during.contains(part), "{part}: {during}");
        }
        Ok(())
    });
}
