//! What each view says of a service in trouble, at three sizes.

use crossterm::event::KeyCode;

use super::{scenes::*, trouble::*};
use crate::{
    event::{Attached, Event, Kind, Missing},
    model::Model,
};

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 60)];

/// The screen after some keys, at each size.
fn screens(model: &Model, keys: &str) -> Vec<String> {
    let show = |(columns, rows)| {
        let mut driver = Driver::new(columns, rows);
        driver.show(model);
        for key in keys.chars() {
            match key {
                '\n' => driver.press(KeyCode::Enter, model),
                key => driver.press(KeyCode::Char(key), model),
            };
            driver.frame(model);
        }
        let screen = driver.show(model);
        println!("{screen}");
        screen
    };
    SIZES.into_iter().map(show).collect()
}

/// The parts stand in this order, from top to bottom.
fn assert_order(screen: &str, parts: &[&str]) {
    let at = |part: &&str| {
        let found = screen.find(part);
        found.unwrap_or_else(|| panic!("{part:?} is not in:\n{screen}"))
    };
    let places: Vec<_> = parts.iter().map(at).collect();
    assert!(places.is_sorted(), "{parts:?}:\n{screen}");
}

#[test]
fn the_overview_says_what_is_wrong_first() {
    for screen in screens(&trouble(), "") {
        assert_has(
            &screen,
            &[
                "[1 Overview]",
                "findings: 1 critical, 1 warning, 1 info, 1 over",
            ],
        );
        assert_order(
            &screen,
            &[
                "> CRITICAL  deadlock: transfer-a/4301 ⇄ transfer-b/4302 (30s ago)",
                "WARNING   accounts held by writer/4009 in fsync (9s ago)",
                "info      something to know",
                "over      deadlock of the past",
                "LOAD",
                "blocked now",
                "run queue",
                "waits/s",
                "  lost  ",
                "HOTTEST LOCKS",
            ],
        );
        assert_has(
            line(&screen, "accounts of ledger"),
            &["30m05s", "2 waiting now, held by"],
        );
        assert_has(&screen, &["█ "]);
    }
    let large = &screens(&trouble(), "")[2];
    assert_has(
        large,
        &[
            "held by writer/4009 (exact), in fsync(/data/wal)",
            "LONGEST WAITS IN PROGRESS",
        ],
    );
}

#[test]
fn when_nothing_is_wrong_the_overview_says_so() {
    let mut model = Model::default();
    for screen in screens(&model, "") {
        assert_has(&screen, &["Nothing has been observed yet."]);
    }
    model.apply(Event::from(meta()));
    for screen in screens(&model, "") {
        assert_has(&screen, &["Nothing is wrong, as far as observer can tell"]);
        assert_has(
            &screen,
            &["No task has waited for a lock that somebody holds."],
        );
    }
}

#[test]
fn findings_without_room_are_counted_and_shown_on_demand() {
    let mut model = trouble();
    for n in 0..40 {
        let title = format!("finding number {n}");
        model.apply(found(
            NOW,
            crate::event::Severity::Warning,
            &title,
            &[4303],
            &[],
        ));
    }
    let mut driver = Driver::new(80, 24);
    let screen = driver.show(&model);
    assert_has(
        &screen,
        &["more: Enter shows them", "LOAD", "HOTTEST LOCKS"],
    );
    while !driver.selected(&model).contains("more: Enter") {
        driver.keys("j", &model);
    }
    driver.press(KeyCode::Enter, &model);
    driver.frame(&model);
    for _ in 0..60 {
        driver.keys("j", &model);
        driver.frame(&model);
    }
    assert_has(&driver.frame(&model), &["over      deadlock of the past"]);
}

#[test]
fn a_finding_opens_its_evidence_and_what_it_is_about() {
    for screen in screens(&trouble(), "\n") {
        assert_order(
            &screen,
            &[
                "critical: deadlock: transfer-a/4301",
                "EVIDENCE",
                "recorded in it",
                "WHAT TO DO",
                "Take the locks in one order.",
                "WHAT IT IS ABOUT",
                "> task ",
                "left",
            ],
        );
    }
    for screen in screens(&trouble(), "\n\n") {
        assert_has(&screen, &[" transfer", "tid 4301", "evidence"]);
    }
}

#[test]
fn blocked_tasks_have_holders() {
    for screen in screens(&trouble(), "2") {
        assert_has(&screen, &["HOLDER", "HOLDER DOES", "LOCK"]);
        assert_has(
            line(&screen, "client-1 "),
            &["3.20s", "lock", "accounts", "writer", "exact"],
        );
        assert_has(
            line(&screen, " transfer-b  "),
            &["40.2s", "left", "transfer-a likely"],
        );
    }
    assert_has(
        line(&screens(&trouble(), "2")[1], "client-1 "),
        &["in fsync(/data/wal)"],
    );
}

#[test]
fn blocked_tasks_in_groups() {
    let model = trouble();
    for screen in screens(&model, "2g") {
        assert_has(&screen, &["groups of blocked tasks, by lock"]);
        assert_has(line(&screen, " accounts "), &[" 2 ", "3.20s", "writer"]);
    }
    for screen in screens(&model, "2gg") {
        assert_has(line(&screen, "ledger 4000"), &[" 8 ", "42.2s", "several"]);
    }
    for screen in screens(&model, "2ggg") {
        assert_has(&screen, &["by stack", "ledger::transfer"]);
    }
    // A group opens into its tasks, and Esc leads back.
    let mut driver = Driver::new(120, 40);
    driver.show(&model);
    driver.keys("2g", &model);
    driver.frame(&model);
    driver.keys("/client-2", &model);
    driver.press(KeyCode::Enter, &model);
    driver.press(KeyCode::Enter, &model);
    let screen = driver.show(&model);
    assert_has(&screen, &["only lock 4000:0xa0", "client-2"]);
    assert!(!screen.contains("transfer-a"), "{screen}");
    driver.press(KeyCode::Esc, &model);
    assert_has(&driver.frame(&model), &["1 group of blocked tasks"]);
    driver.keys("gggg", &model);
    assert!(!driver.frame(&model).contains("group of"));
}

#[test]
fn locks_with_holders_and_all_about_one() {
    for screen in screens(&trouble(), "3") {
        assert_has(
            line(&screen, "accounts "),
            &["> ", "30m05s", "1.00ms", "30.0ms", "writer/4009 exact"],
        );
        assert_has(line(&screen, "left "), &["40.2s", "transfer-a likely"]);
    }
    let large = &screens(&trouble(), "3\n")[2];
    assert_order(
        large,
        &[
            "lock accounts",
            "pthread_mutex, private",
            "holder         writer/4009 (exact), in fsync(/data/wal)",
            "owner in the lock's memory",
            "median, p99",
            "client-1 (tid 4303)",
            "client-2 (tid 4304)",
            "held most      writer/4009 in 1 long wait",
            "waited most    transfer-a/4301 in 1 long wait",
            "released by    writer/4009 in 1 long wait",
            "HOW LONG WAITS TOOK",
            "█████",
            "CALLERS",
            "100%  ledger::post ← ledger::main",
            "where client-1/4303 waits for it",
            "ledger/main.rs:41",
        ],
    );
}

#[test]
fn the_graph_has_circles_first_and_then_who_holds_up_others() {
    for screen in screens(&trouble(), "4") {
        assert_order(
            &screen,
            &[
                "1 task holds up others, 1 circle",
                "> ↺ CIRCLE transfer-a/4301, waits 42.2s for lock right (exact)",
                "  └ in the circle: transfer-b/4302",
                "    └ ↺ transfer-a/4301 again: the circle closes",
                "  writer/4009, in fsync(/data/wal); holds up 3 tasks",
                "  └ client-1/4303, waits 3.20s for lock accounts (exact); holds up 1 task",
                "    └ client-3/4305",
                "  └ client-2/4304",
            ],
        );
    }
    let filtered = &screens(&trouble(), "4/client-3\n")[0];
    assert!(
        filtered.contains("writer/4009") && !filtered.contains("CIRCLE"),
        "{filtered}"
    );
    let mut calm = Model::default();
    calm.apply(Event::from(meta()));
    assert_has(
        &screens(&calm, "4")[0],
        &["No task waits for another one that is known"],
    );
}

#[test]
fn a_task_with_its_chain_and_both_stacks() {
    let all = screens(&trouble(), "2\n");
    assert_has(&all[0], &["transfer-a (tid 4301)", "42.2s", "0 above"]);
    assert_order(
        &all[2],
        &[
            "transfer-a (tid 4301)",
            "state          blocked",
            "lock           right at 0xb8",
            "holder         transfer-b/4302 (exact), waiting for",
            "evidence       owner in the lock's memory",
            "chain          transfer-a/4301 waits for right, held by transfer-b/4302 (exact), which waits for left, \
             held by transfer-a/4301 (likely): a circle, none of them can go on",
            "holds up       ",
            "where transfer-a/4301 waits",
            "RECENT WAITS",
            "60s ago",
            "10.0s  futex accounts, woken by writer/4009",
        ],
    );
    // Side by side where there is room, one below the other elsewhere.
    for screen in &all[1..] {
        assert_has(
            line(screen, "where transfer-a"),
            &["where its holder transfer-b/4302 waits"],
        );
        assert_has(
            line(screen, "ledger::transfer_a"),
            &["ledger/main.rs:41", "ledger::transfer_b"],
        );
        assert_has(
            screen,
            &[
                "the stack ends: at the thread's first function",
                "inside the kernel: futex_wait_queue",
            ],
        );
    }
    let mut driver = Driver::new(80, 60);
    driver.show(&trouble());
    driver.keys("2", &trouble());
    driver.press(KeyCode::Enter, &trouble());
    let screen = driver.show(&trouble());
    assert!(
        !line(&screen, "where transfer-a").contains("holder"),
        "{screen}"
    );
    assert_order(&screen, &["where transfer-a", "where its holder"]);
}

#[test]
fn health_says_what_can_be_relied_on() {
    let mut model = trouble();
    let mut meta = meta();
    meta.capture.missing = missing(1);
    meta.capture.futex = "sched".into();
    meta.capture.attached = vec!["tp_btf/sched_switch".into()];
    let time = meta.time;
    model.apply(Event::from(meta));
    model.apply(Event::from(Attached {
        time,
        mono_ns: NOW,
        attached: vec!["usdt/shop:wait__start".into()],
        missing: vec![Missing {
            feature: "usdt/shop:strange".into(),
            why: "not known".into(),
        }],
    }));
    model.apply(Event::from(loss(
        NOW,
        &[("ring_full", 12), ("slots_full", 0)],
    )));
    for screen in screens(&model, "9") {
        assert_order(
            &screen,
            &[
                "LOST 12, 2 missing",
                "12             ring_full",
                "0              slots_full",
                "WHAT OBSERVING COSTS",
                "21 MiB resident",
                "MISSING",
                "lock:contention_begin: the kernel is older than 5.19",
                "usdt/shop:strange: not known",
                "ATTACHED",
                "tp_btf/sched_switch",
                "usdt/shop:wait__start",
            ],
        );
    }
}

/// Who holds the hottest lock and what is it doing; is anything deadlocked: on the first screen, and all that
/// is known of it at most three keys away.
#[test]
fn important_answers_are_near() {
    for screen in screens(&trouble(), "") {
        assert_has(&screen, &["CRITICAL  deadlock", "held by"]);
    }
    for screen in screens(&trouble(), "3\n") {
        assert_has(&screen, &["writer/4009 (exact), in fsync(/data/wal)"]);
    }
    for screen in screens(&trouble(), "4\n") {
        assert_has(&screen, &["a circle, none of them can go on"]);
    }
}

#[test]
fn who_waits_for_whom_stands_behind_a_wide_row() {
    let mut driver = Driver::blocked(260, 40);
    let screen = driver.show(&trouble());
    println!("{screen}");
    assert_has(line(&screen, "AGE"), &["CHAIN"]);
    // Whom the holder of what client-3 wants waits for.
    assert_has(line(&screen, "client-3"), &["client-1/4303 → writer/4009"]);
    assert_has(
        line(&screen, "  transfer-a  "),
        &["transfer-b/4302 → transfer-a/4301: circle"],
    );
    assert!(!line(&screen, "client-1  ").contains('→'), "{screen}");
    // Longer than there is room for.
    let mut model = Model::default();
    model.apply(Event::from(meta()));
    for tid in 1..9 {
        let mut wait = blocked(START, tid, "w", Kind::Lock, SECOND);
        wait.holder = Some(Box::new(holder(tid + 1, "w", "waiting")));
        model.apply(Event::from(wait));
    }
    let screen = driver.show(&model);
    assert_has(&screen, &["w/2 → w/3 → w/4 → w/5 → …"]);
}
