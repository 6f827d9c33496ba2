//! Go runtimes, processes and containers.

use std::{collections::BTreeMap, sync::Arc};

use crossterm::event::KeyCode;

use super::{scenes::*, trouble::*};
use crate::{
    event::{
        Addr, Confidence, Event, GoChannel, GoFrame, GoHolder, GoLock, GoOperation, GoState,
        GoWaitsFor, GoroutineGroup, Goroutines, LockClass, LockRef,
    },
    model::Model,
    tui::Host,
};

fn call(function: &str, line: u32) -> Arc<GoFrame> {
    Arc::new(GoFrame {
        function: function.into(),
        file: Some("shop.go".into()),
        line: Some(line),
        inlined: false,
        addr: Addr(u64::from(line)),
    })
}

fn go_lock(class: LockClass, addr: u64) -> LockRef {
    LockRef {
        id: format!("5000:{addr:#x}").into(),
        class,
        name: None,
        addr: Addr(addr),
        shared: false,
    }
}

fn group(count: u64, from: &str, reason: &str, goids: &[u64]) -> GoroutineGroup {
    GoroutineGroup {
        count,
        state: GoState::Waiting,
        wait_reason: Some(reason.into()),
        created_by: Some(call(from, 30)),
        stack: vec![
            call("runtime.gopark", 7),
            call(&format!("{from}.func1"), 41),
        ],
        stack_cut: false,
        system: false,
        oldest_ns: Some(90 * SECOND),
        longest_wait_ns: Some(80 * SECOND),
        growth: Some(0.0),
        goids: goids.to_vec(),
        waits_for: Vec::new(),
        waits_left_out: 0,
        labels: Vec::new(),
        tids: Vec::new(),
        locked_to_thread: 0,
        wakes_in_ns: None,
    }
}

#[expect(clippy::too_many_lines, reason = "one event, field by field")]
/// A shop whose requests pile up behind a channel that nobody reads, and three behind a mutex.
pub(super) fn shop(at_ns: u64, leaked: u64) -> Event {
    let (channel, mutex) = (
        go_lock(LockClass::GoChan, 0xc0_0001_0000),
        go_lock(LockClass::GoMutex, 0xc0_0002_0000),
    );
    let wants = |lock: &LockRef, count, operation| GoWaitsFor {
        count,
        lock: Some(lock.clone()),
        fd: None,
        file: None,
        socket: None,
        operation: Some(operation),
        select: false,
    };
    let mut requests = group(leaked, "main.serve", "chan send", &[101, 102]);
    requests.growth = Some(120.0);
    requests.waits_for = vec![wants(&channel, leaked, GoOperation::Send)];
    let mut stuck = group(3, "main.checkout", "sync.Mutex.Lock", &[201, 202, 203]);
    stuck.waits_for = vec![wants(&mutex, 3, GoOperation::Exclusive)];
    let mut own = group(5, "runtime.gcenable", "GC worker (idle)", &[2]);
    own.system = true;
    let holder = GoHolder {
        goid: 301,
        confidence: Confidence::Likely,
        evidence: "its address is on the stack of the goroutine".into(),
        doing: Some("running".into()),
    };
    Event::from(Goroutines {
        time: wall(at_ns),
        mono_ns: at_ns,
        pid: 5000,
        process: Some("shop".into()),
        container: None,
        release: "go1.24".into(),
        layout_of: None,
        untested: None,
        took_ns: MS,
        total: leaked + 4,
        by_state: BTreeMap::new(),
        groups: vec![
            requests,
            stuck,
            own,
            group(1, "main.main", "select", &[301]),
        ],
        scheduler: None,
        groups_left_out: 0,
        sites: Vec::new(),
        locks: vec![GoLock {
            lock: mutex,
            waiters_now: 3,
            mean_wait_ns: Some(2 * SECOND),
            locked: Some(true),
            starving: Some(true),
            readers: None,
            readers_pending: None,
            counter: None,
            holders: vec![holder],
        }],
        channels: vec![GoChannel {
            lock: channel,
            len: 0,
            cap: 0,
            closed: false,
            timer: false,
            receivers: 0,
            senders: leaked,
            mean_send_ns: Some(40 * SECOND),
            mean_receive_ns: None,
            on_stacks_of: vec![301],
        }],
        deadlocks: Vec::new(),
        starved_writers: Vec::new(),
        lost_channels: Vec::new(),
        torn: 0,
        left_out: 0,
        notes: Vec::new(),
    })
}

pub(super) fn with_goroutines() -> Model {
    let mut model = trouble();
    for look in 0..20 {
        model.apply(shop(NOW + look * SECOND, 10 + 2 * look));
    }
    model
}

#[test]
fn goroutines_in_groups_down_to_one() {
    let model = with_goroutines();
    for (columns, rows) in [(80, 24), (120, 40), (200, 60)] {
        let mut driver = Driver::new(columns, rows);
        driver.keys("6", &model);
        let screen = driver.show(&model);
        println!("{screen}");
        assert_has(
            &screen,
            &["52 goroutines of shop 5000 in 3 groups", "1 idle hidden"],
        );
        assert_has(line(&screen, "main.serve"), &["> ", "48", "+120", "1m30s"]);
        assert!(!screen.contains("gcenable"), "{screen}");
    }
    let mut driver = Driver::new(120, 50);
    driver.keys("6", &model);
    driver.show(&model);
    driver.press(KeyCode::Enter, &model);
    let screen = driver.show(&model);
    println!("{screen}");
    assert_has(
        &screen,
        &[
            "48 of 52 in the process",
            "+120 a minute",
            "█]",
            "main.serve.func1 (shop.go:41)",
        ],
    );
    assert_has(
        line(&screen, "waits for"),
        &["0xc000010000", "(send)", "48 of them"],
    );
    // The channel, and then the one goroutine that knows of it.
    driver.press(KeyCode::Enter, &model);
    let screen = driver.show(&model);
    assert_has(
        &screen,
        &[
            "0 of 0 elements",
            "48, for 40.0s on average",
            "goroutine 301",
        ],
    );
    driver.press(KeyCode::Enter, &model);
    let screen = driver.show(&model);
    println!("{screen}");
    assert_has(
        &screen,
        &["goroutine 301", "its group", "holds", "for which 3 wait"],
    );
    for _ in 0..3 {
        driver.press(KeyCode::Esc, &model);
    }
    assert_has(&driver.show(&model), &["[6 Runtimes]"]);
}

#[test]
fn goroutines_stand_among_the_blocked_tasks() {
    let model = with_goroutines();
    let mut driver = Driver::blocked(200, 60);
    let screen = driver.show(&model);
    println!("{screen}");
    assert_has(
        line(&screen, "3 goroutines"),
        &[
            "≥1m20s",
            "sync.Mutex.Lock",
            "goroutine 301 likely",
            "running",
        ],
    );
    assert_has(line(&screen, "48 goroutines"), &["chan send", "shop"]);
    driver.keys("/48 gor", &model);
    driver.press(KeyCode::Enter, &model);
    driver.press(KeyCode::Enter, &model);
    assert_has(&driver.show(&model), &["48 of 52 in the process"]);
}

/// Two containers: the shop's, and that of everything else.
#[derive(Debug)]
struct Two;

impl Host for Two {
    fn cgroup(&self, pid: u32) -> Option<String> {
        let name = "0123456789abcdef".repeat(4);
        Some(match pid {
            5000 => format!("/system.slice/docker-{name}.scope"),
            _ => "/system.slice/ledger.service\x1b[2J".to_owned(),
        })
    }

    fn facts(&self, _: u32, tid: u32) -> Vec<(&'static str, String)> {
        vec![("scheduled as", format!("other, nice 5, tid {tid}"))]
    }

    fn lock_memory(&self, pid: u32, lock: &LockRef) -> Option<String> {
        Some(format!("the word of {} in {pid}\x1b[2J", lock.addr))
    }
}

#[test]
fn processes_and_containers_are_rolled_up() {
    let model = with_goroutines();
    let mut driver = Driver::new(200, 60);
    driver.ui.set_host(Box::new(Two));
    driver.keys("7", &model);
    let screen = driver.show(&model);
    println!("{screen}");
    assert_has(&screen, &["2 processes"]);
    assert_has(line(&screen, "ledger "), &["4000", " 8 ", "1m01s"]);
    assert_has(line(&screen, "shop "), &["5000", "52"]);
    driver.keys("8", &model);
    let screen = driver.show(&model);
    println!("{screen}");
    assert_has(&screen, &["2 containers and groups", "docker 0123456789ab"]);
    assert_has(line(&screen, "ledger.service"), &["␛[2J", " 8 "]);
    // Into one of them, and its tasks by container, and a filter for it.
    driver.press(KeyCode::Enter, &model);
    let screen = driver.show(&model);
    assert_has(
        &screen,
        &[
            "[2 Blocked]",
            "only /system.slice/ledger.service",
            "client-1",
        ],
    );
    assert!(!screen.contains("goroutines"), "{screen}");
    driver.press(KeyCode::Esc, &model);
    driver.keys(":group container", &model);
    driver.press(KeyCode::Enter, &model);
    assert_has(&driver.show(&model), &["by container", "ledger.service"]);
    driver.keys(":group none", &model);
    driver.press(KeyCode::Enter, &model);
    driver.keys("/docker-0123", &model);
    driver.press(KeyCode::Enter, &model);
    let screen = driver.show(&model);
    assert!(
        screen.contains("3 goroutines") && !screen.contains("client-1"),
        "{screen}"
    );
}

#[test]
fn a_task_has_what_the_host_says_of_it() {
    let model = trouble();
    let mut driver = Driver::new(120, 60);
    driver.ui.set_host(Box::new(Two));
    driver.keys("2", &model);
    driver.show(&model);
    driver.press(KeyCode::Enter, &model);
    assert_has(
        &driver.show(&model),
        &["scheduled as", "other, nice 5, tid 4301"],
    );
    let screen = driver.show(&model);
    assert_has(
        line(&screen, "in memory"),
        &["the word of 0x", " in 4000␛[2J"],
    );
    // Not of a moment that is over.
    driver.keys("p", &model);
    driver.show(&model);
    driver.press(KeyCode::Esc, &model);
    driver.press(KeyCode::Enter, &model);
    assert!(!driver.show(&model).contains("scheduled as"));
}
