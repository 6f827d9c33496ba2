//! What runtimes say of their waits, and where processes run: containers and pods.

use std::sync::Arc;

use crossterm::event::KeyCode;

use super::{rolled, scenes::*};
use crate::{
    event::{
        Addr, Blocked, Confidence, ContainerRef, ContainerRuntime, Event, Finding, Holder, Kind,
        LockClass, LockRef, LockTotals, RuntimeFound, RuntimeOf, Severity, Subject, TaskRef,
    },
    model::Model,
};

/// When the last look at the goroutines was.
const NOW: u64 = START + 84 * SECOND;

fn of(pid: u32, tid: u32, process: &str, comm: &str) -> TaskRef {
    TaskRef {
        comm: Some(comm.into()),
        process: Some(process.into()),
        ..TaskRef::new(pid, tid)
    }
}

fn lock_of(pid: u32, addr: u64, class: LockClass, name: &str) -> LockRef {
    LockRef {
        id: format!("{pid}:{addr:#x}").into(),
        class,
        name: Some(name.into()),
        addr: Addr(addr),
        shared: false,
    }
}

fn waits(task: TaskRef, kind: Kind, lock: &LockRef, by: Option<Holder>, age_ns: u64) -> Event {
    Event::from(Blocked {
        task: task.into(),
        lock: Some(lock.clone().into()),
        holder: by.map(Box::new),
        ..blocked(NOW, 0, "", kind, age_ns)
    })
}

fn runtime(pid: u32, process: &str, runtime: &str, detail: &str) -> Event {
    Event::from(RuntimeFound {
        time: wall(NOW),
        mono_ns: NOW,
        process: Some(process.into()),
        found: RuntimeOf {
            pid,
            runtime: runtime.to_owned(),
            detail: detail.to_owned(),
        },
    })
}

fn found(rule: &str, severity: Severity, title: &str, subjects: Vec<Subject>) -> Event {
    Event::from(Finding {
        time: wall(NOW),
        mono_ns: NOW,
        rule: rule.into(),
        severity,
        title: title.into(),
        evidence: Vec::new(),
        advice: String::new(),
        subjects,
    })
}

fn runs() -> Holder {
    Holder {
        pid: Some(6000),
        tid: Some(6001),
        comm: Some("worker-1".into()),
        confidence: Confidence::Exact,
        evidence: "the interpreter names it".into(),
        state: None,
        doing: Some("running".into()),
    }
}

/// A program in Python whose threads queue for the interpreter lock, and one of them for another.
fn python() -> Vec<Event> {
    let gil = lock_of(6000, 0x10, LockClass::PythonGil, "the interpreter lock");
    let cache = lock_of(
        6000,
        0x20,
        LockClass::PythonLock,
        "Cache.get\x1b[2J (cache.py:31)",
    );
    let queue = lock_of(
        6000,
        0x30,
        LockClass::PythonCondition,
        "Queue.get (queue.py:171)",
    );
    let task = |tid, comm| of(6000, tid, "api", comm);
    let totals = |lock: &LockRef, waits| {
        Event::from(LockTotals {
            lock: lock.clone().into(),
            pid: Some(6000),
            process: Some("api".into()),
            waiters_now: 0,
            ..totals(NOW, 0, None, waits)
        })
    };
    vec![
        runtime(6000, "api", "python", "3.12.4: its functions, locks"),
        totals(&gil, 9_000),
        waits(
            task(6002, "worker-2"),
            Kind::Lock,
            &gil,
            Some(runs()),
            5 * MS,
        ),
        waits(
            task(6003, "worker-3"),
            Kind::Lock,
            &gil,
            Some(runs()),
            3 * MS,
        ),
        waits(
            task(6004, "worker-4"),
            Kind::Lock,
            &cache,
            Some(runs()),
            2 * SECOND,
        ),
        waits(task(6005, "pool"), Kind::Condvar, &queue, None, 40 * SECOND),
        found(
            "gil_convoy",
            Severity::Warning,
            "process 6000 (api): 2.1 threads queue for Python's interpreter lock on average",
            vec![Subject::Process(6000), Subject::Lock(gil.into())],
        ),
    ]
}

/// Two sessions that wait for a third one, and one that is idle.
fn postgres() -> Vec<Event> {
    let relation = lock_of(
        7001,
        0,
        LockClass::PostgresLock,
        "relation 16384 of database 5",
    );
    let tranche = lock_of(7001, 0x40, LockClass::PostgresLwlock, "tranche 61");
    let session = |pid| of(pid, pid, "postgres", "postgres");
    let idle = Holder {
        pid: Some(7009),
        tid: Some(7009),
        comm: Some("postgres".into()),
        confidence: Confidence::Exact,
        evidence: "the server's lock table".into(),
        state: None,
        doing: Some("idle in transaction".into()),
    };
    let mut all: Vec<Event> = [7001, 7002, 7003, 7009]
        .map(|pid| runtime(pid, "postgres", "postgresql", "locks of the lock manager"))
        .into();
    all.extend([
        waits(
            session(7001),
            Kind::PostgresLock,
            &relation,
            Some(idle.clone()),
            30 * SECOND,
        ),
        waits(
            session(7002),
            Kind::PostgresLock,
            &relation,
            Some(idle),
            20 * SECOND,
        ),
        waits(session(7003), Kind::PostgresLock, &tranche, None, SECOND),
    ]);
    all
}

fn others() -> Vec<Event> {
    let monitor = lock_of(8000, 0x50, LockClass::JvmMonitor, "com.shop.Cart");
    let worker = of(8100, 8101, "gateway", "tokio-runtime-w");
    vec![
        runtime(8000, "java", "jvm", "park and monitors of HotSpot"),
        // The C library is in every process and says nothing.
        runtime(8000, "java", "pthread", "glibc"),
        waits(
            of(8000, 8001, "java", "http-1"),
            Kind::JvmMonitor,
            &monitor,
            None,
            4 * SECOND,
        ),
        runtime(8200, "idle-jvm", "jvm", "park and monitors of HotSpot"),
        Event::from(Blocked {
            task: worker.clone().into(),
            ..blocked(NOW, 0, "", Kind::Sleep, SECOND)
        }),
        found(
            "blocked_async_worker",
            Severity::Warning,
            "worker tokio-runtime-w/8101 of tokio is blocked",
            vec![Subject::Task(worker.into())],
        ),
    ]
}

fn mixed() -> Model {
    let mut model = rolled::with_goroutines();
    for event in [python(), postgres(), others()].into_iter().flatten() {
        model.apply(event);
    }
    model
}

#[test]
fn what_runtimes_wait_for_at_three_sizes() {
    let model = mixed();
    for (columns, rows) in [(80, 24), (120, 40), (200, 60)] {
        let mut driver = Driver::new(columns, rows);
        driver.keys("6", &model);
        let screen = driver.show(&model);
        insta::assert_snapshot!(format!("runtimes_all_{columns}x{rows}"), screen);
    }
}

#[test]
fn every_runtime_has_its_words_its_holder_and_its_findings() {
    let model = mixed();
    let mut driver = Driver::new(240, 60);
    driver.keys("6", &model);
    let screen = driver.show(&model);
    println!("{screen}");
    assert_has(
        line(&screen, "interpreter lock"),
        &[
            "python",
            "api 6000",
            "  2 ",
            "worker-1/6001 exact",
            "running",
        ],
    );
    assert_has(
        line(&screen, "interpreter lock"),
        &["warning: process 6000 (api)"],
    );
    assert_has(
        line(&screen, "threading locks"),
        &["  1 ", "2.00s", "Cache.get␛[2J"],
    );
    assert_has(line(&screen, "conditions, queues"), &["  1 ", "40.0s"]);
    assert_has(
        line(&screen, "heavyweight locks"),
        &[
            "postgresql",
            "postgres (4)",
            "  2 ",
            "30.0s",
            "relation 16384",
            "idle in transaction",
        ],
    );
    assert_has(line(&screen, "lightweight locks"), &["tranche 61", "  1 "]);
    assert_has(line(&screen, "monitors"), &["java 8000", "com.shop.Cart"]);
    assert_has(line(&screen, "idle-jvm 8200"), &["nothing now"]);
    assert_has(line(&screen, "blocked workers"), &["tokio", "gateway 8100"]);
    assert_has(line(&screen, "goroutines"), &["go ", "shop 5000"]);
    assert!(!screen.contains("pthread"), "{screen}");
    // Trouble first.
    let finding = screen.find("warning:").unwrap();
    assert!(finding < screen.find("monitors").unwrap(), "{screen}");
}

#[test]
fn a_row_leads_to_its_tasks_and_back() {
    let model = mixed();
    let mut driver = Driver::new(200, 60);
    let open = |driver: &mut Driver, filter: &str| {
        driver.keys(&format!("6/{filter}"), &model);
        driver.press(KeyCode::Enter, &model);
        driver.press(KeyCode::Home, &model);
        driver.show(&model);
        driver.press(KeyCode::Enter, &model);
        driver.keys(":filter", &model);
        driver.press(KeyCode::Enter, &model);
        driver.show(&model)
    };
    let screen = open(&mut driver, "heavyweight");
    println!("{screen}");
    assert_has(
        &screen,
        &[
            "[2 Blocked]",
            "2 blocked",
            "only heavyweight locks of postgresql, postgres",
        ],
    );
    driver.press(KeyCode::Esc, &model);
    assert_has(
        &driver.show(&model),
        &["[6 Runtimes]", "what runtimes wait for"],
    );
    let screen = open(&mut driver, "interpreter");
    assert_has(&screen, &["2 blocked", "worker-2", "worker-3"]);
    assert!(!screen.contains("worker-4"), "{screen}");
    // A Go process leads to its goroutines, and back to all runtimes.
    let screen = open(&mut driver, "shop");
    assert_has(&screen, &["[6 Runtimes]", "52 goroutines of shop 5000"]);
    assert_has(line(&screen, "main.serve"), &["48", "+120"]);
    driver.press(KeyCode::Esc, &model);
    assert_has(&driver.show(&model), &["what runtimes wait for"]);
    // What blocks the worker is among the idle kinds.
    open(&mut driver, "tokio");
    driver.keys("i", &model);
    assert_has(&driver.show(&model), &["1 blocked", "tokio-runtime-w"]);
}

#[test]
fn rows_are_exported_and_copied() {
    let model = mixed();
    let mut driver = Driver::new(120, 40);
    driver.keys("6", &model);
    driver.show(&model);
    driver.keys("e", &model);
    let crate::tui::Action::Save(export) = driver.press(KeyCode::Char('j'), &model) else {
        panic!("no file");
    };
    let all: serde_json::Value = serde_json::from_str(&export.text).unwrap();
    let rows = all["rows"].as_array().unwrap();
    let gil = rows
        .iter()
        .find(|row| row["waits_for"] == "interpreter lock");
    let gil = gil.unwrap();
    assert_eq!(gil["runtime"], "python");
    assert_eq!(gil["waiting_now"], 2);
    assert_eq!(gil["holder"]["tid"], 6001);
    let crate::tui::Action::Copy(text) = driver.press(KeyCode::Char('y'), &model) else {
        panic!("nothing copied");
    };
    assert_has(&text, &["RUNTIME: ", "WAITS FOR: "]);
}

fn in_pod(pid: u32, id: &str, name: &str, pod: Option<(&str, &str)>) -> Event {
    let container = ContainerRef {
        runtime: Some(ContainerRuntime::Containerd),
        name: Some(name.into()),
        pod: pod.map(|(_, pod)| pod.into()),
        namespace: pod.map(|(namespace, _)| namespace.into()),
        ..ContainerRef::new(&id.repeat(64))
    };
    let mut wait = blocked(NOW, pid, "worker", Kind::Io, SECOND);
    wait.task = TaskRef {
        container: Some(Arc::new(container)),
        ..of(pid, pid, name, "worker")
    }
    .into();
    Event::from(wait)
}

fn pods() -> Model {
    let mut model = Model::default();
    model.apply(Event::from(meta()));
    for event in [
        in_pod(9001, "a", "app", Some(("shop", "cart-7d9f"))),
        in_pod(9002, "b", "sidecar", Some(("shop", "cart-7d9f"))),
        in_pod(9003, "c", "app", Some(("shop", "order-1\x1b[2J"))),
        in_pod(9004, "d", "web", None),
    ] {
        model.apply(event);
    }
    model
}

#[test]
fn containers_have_their_pods_and_are_put_together_by_them() {
    // From events alone: there is no host to ask.
    let model = pods();
    let mut driver = Driver::new(240, 40);
    driver.keys("8", &model);
    let screen = driver.show(&model);
    println!("{screen}");
    assert_has(&screen, &["4 containers and groups", "POD", "NAMESPACE"]);
    assert_has(
        line(&screen, "shop/cart-7d9f/app"),
        &["cart-7d9f ", "shop ", "aaaaaaaaaaaa"],
    );
    assert_has(line(&screen, "containerd web"), &["dddddddddddd"]);
    assert_has(line(&screen, "order-1"), &["␛[2J"]);
    driver.keys("g", &model);
    let screen = driver.show(&model);
    println!("{screen}");
    assert_has(&screen, &["3 pods and other groups"]);
    assert_has(line(&screen, "shop/cart-7d9f"), &[" 2 "]);
    // Into a pod, and its tasks by pod.
    driver.keys("/cart", &model);
    driver.press(KeyCode::Enter, &model);
    driver.show(&model);
    driver.press(KeyCode::Enter, &model);
    let screen = driver.show(&model);
    assert_has(&screen, &["only shop/cart-7d9f", "2 blocked"]);
    driver.press(KeyCode::Esc, &model);
    assert_has(&driver.show(&model), &["[8 Containers]"]);
    driver.keys("2gggg", &model);
    assert_has(&driver.show(&model), &["by container"]);
    driver.keys("g", &model);
    assert_has(&driver.show(&model), &["by pod", "shop/cart-7d9f"]);
    driver.keys("g", &model);
    assert!(!driver.show(&model).contains("by pod"));
}

#[test]
fn without_pods_there_is_nothing_to_put_together() {
    let model = rolled::with_goroutines();
    let mut driver = Driver::new(120, 40);
    driver.keys("8g", &model);
    assert_has(&driver.frame(&model), &["no pod is known"]);
}
