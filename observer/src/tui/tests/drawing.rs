//! What the screen says, at sizes from none to large.

use std::sync::Arc;

use crossterm::event::KeyCode;

use super::scenes::*;
use crate::{
    event::{Event, Kind},
    model::{Limits, Model},
    tui::{Options, text::width},
};

#[test]
fn blocked_at_80_by_24() {
    let screen = Driver::blocked(80, 24).show(&busy());
    println!("{screen}");
    assert_has(
        &screen,
        &[
            "observer  db-7  6.8.0-45-generic  1m05s  lost 0  cpu 0.4% rss 21M bpf 12.0ms",
            "all tasks, waits ≥ 1.00ms",
            "[2 Blocked]",
            "3 blocked",
            "· 3 idle hidden, i shows them",
            "AGE↓",
        ],
    );
    assert!(
        !screen.contains("accept-loop"),
        "idle is not folded:\n{screen}"
    );
    assert_has(
        line(&screen, "transfer-2"),
        &["40.0s", "futex", "…00001080 (+2)"],
    );
    let ages = ["41.0s", "40.0s", "3.10s"].map(|age| screen.find(age).unwrap());
    assert!(ages.is_sorted(), "{screen}");
}

#[test]
fn blocked_at_200_by_50_shows_every_column() {
    let screen = Driver::blocked(200, 50).show(&busy());
    println!("{screen}");
    let titles = line(&screen, "AGE");
    assert_has(
        titles,
        &[
            "TID", "PID", "TASK", "PROCESS", "KIND", "LOCK", "SYSCALL", "STATE",
        ],
    );
    assert_has(
        line(&screen, "transfer-2"),
        &["0x55d000001080 (+2)", "futex", "blocked"],
    );
    assert_has(line(&screen, "reader"), &["pread64", "runnable 3.10ms"]);
}

#[test]
fn locks_and_waits() {
    let model = busy();
    for (columns, rows) in [(80, 24), (120, 40), (200, 50)] {
        let mut driver = Driver::blocked(columns, rows);
        driver.show(&model);
        driver.keys("3", &model);
        let screen = driver.frame(&model);
        println!("{screen}");
        assert_has(&screen, &["[3 Locks]", "3 locks", "TOTAL↓"]);
        assert_has(
            line(&screen, "accounts_mu"),
            &["> ", "190", "24.8s", "30.0ms"],
        );
        driver.keys("5", &model);
        let screen = driver.frame(&model);
        println!("{screen}");
        assert_has(
            &screen,
            &[
                "[5 Waits]",
                "30 long waits",
                "TIME UTC↓",
                "accounts_mu",
                "writer",
            ],
        );
        // 1 795 251 496 s + 1 064.9 s.
        assert_has(line(&screen, "> "), &["09:16:00.900", "31.0ms", "woken"]);
    }
}

#[test]
fn no_size_is_too_small_to_survive() {
    let model = busy();
    let mut driver = Driver::blocked(0, 0);
    for step in ["", "2", "3", "?", "?", "/", "x"] {
        driver.keys(step, &model);
        for columns in (0..60).chain([300]) {
            for rows in 0..16 {
                driver.resize(columns, rows);
                driver.show(&model);
            }
        }
    }
    driver.press(KeyCode::Esc, &model);
    driver.resize(80, 24);
    driver.show(&model);
    driver.press(KeyCode::Enter, &model);
    for (columns, rows) in [(0, 0), (1, 1), (40, 8), (41, 9), (300, 100), (40, 8)] {
        driver.resize(columns, rows);
        driver.show(&model);
    }
}

#[test]
fn a_small_terminal_is_told_so() {
    let model = busy();
    let mut driver = Driver::blocked(39, 8);
    assert_has(
        &driver.show(&model),
        &["terminal too small: 39x8, need 40x8"],
    );
    driver.resize(20, 5);
    assert_has(
        &driver.show(&model),
        &["terminal too small:", "20x5, need 40x8"],
    );
    driver.resize(40, 8);
    let screen = driver.show(&model);
    println!("{screen}");
    assert_has(
        &screen,
        &["lost 0", "[2 Blocked]", "AGE↓", "transfer-1", "q quit"],
    );
}

#[test]
fn hostile_names_stay_harmless() {
    let mut model = Model::default();
    let mut meta = meta();
    meta.host = "\x1b[31mhost\n".into();
    model.apply(Event::from(meta));
    for (tid, name) in [
        "\x1b[2J\x1b[H",
        "a\nb\r\tc",
        "abc\u{202e}fed",
        "日本語日本語日本語日本語日本語",
        "e\u{301}\u{301}\u{301}\u{301}\u{301}",
        "\u{9b}31m\u{7f}",
        "x\u{200b}\u{200d}y",
    ]
    .into_iter()
    .enumerate()
    {
        let mut wait = blocked(START, 100 + tid as u32, name, Kind::Lock, SECOND);
        Arc::make_mut(&mut wait.task).process = Some(name.into());
        wait.lock = Some(lock(0x1000, Some(name)));
        wait.syscall = Some(name.to_owned().into());
        model.apply(Event::from(wait));
    }
    for columns in 40..210 {
        let mut driver = Driver::blocked(columns, 30);
        driver.show(&model);
        driver.press(KeyCode::Enter, &model);
        driver.keys("j", &model);
        for c in driver.show(&model).chars().filter(|c| *c != '\n') {
            assert!(!c.is_control(), "{c:?} at {columns}");
            assert!(
                !matches!(c, '\u{202e}' | '\u{200b}' | '\u{200d}' | '\u{9b}'),
                "{c:?}"
            );
        }
    }
    let screen = Driver::blocked(200, 30).show(&model);
    assert_has(&screen, &["␛[31mhost␊", "␛[2J␛[H", "a␊b␍␉c", "abc�fed"]);
    let wide = line(&screen, "日 本 語");
    // The test's terminal shows a blank behind each wide character.
    let blanks = wide.chars().filter(|c| width(&c.to_string()) == 2).count();
    assert!(width(wide) <= 200 + blanks && wide.contains('…'), "{wide}");
}

#[test]
fn what_is_wrong_is_said_in_words() {
    let mut model = busy();
    let mut meta = meta();
    meta.capture.missing = missing(2);
    meta.filters.pids = vec![1, 2, 3, 4, 5, 6];
    meta.filters.comms = vec!["ledger".into()];
    model.apply(Event::from(meta));
    let lost = loss(
        START + 65 * SECOND,
        &[("other", 3), ("ring_full", 120), ("slots_full", 0)],
    );
    model.apply(Event::from(lost));
    for options in [(true, true), (false, false)] {
        let (color, unicode) = options;
        let mut driver = Driver::with(Options { color, unicode }, 80, 24);
        let screen = driver.show(&model);
        println!("{screen}");
        assert_has(
            &screen,
            &[
                "LOST 123 (ring_full 120, other 3)",
                "2 missing: 9 Health says what",
                "only pid 1,2,3,4 +2 comm ledger",
            ],
        );
        assert_eq!(driver.is_colored(), color);
        assert_eq!(screen.is_ascii(), !unicode);
    }
}

#[test]
fn without_unicode_the_screen_is_ascii() {
    let model = busy();
    let options = Options {
        color: false,
        unicode: false,
    };
    let mut driver = Driver::with(options, 80, 24);
    driver.show(&model);
    for key in ["1", "2", "3", "?", "?"] {
        driver.keys(key, &model);
        let screen = driver.frame(&model);
        assert!(screen.is_ascii(), "{screen}");
    }
    driver.press(KeyCode::Enter, &model);
    assert!(driver.frame(&model).is_ascii());
    assert!(!driver.is_colored());
}

#[test]
fn forgetting_is_said() {
    let limits = Limits {
        locks: 8,
        waits: 10,
        ..Limits::default()
    };
    let mut model = Model::new(limits);
    model.apply(Event::from(meta()));
    for n in 0..20 {
        model.apply(Event::from(totals(START + n, 0x1000 + n, None, 5)));
        model.apply(Event::from(wait(START + SECOND + n, 1, "w", MS)));
    }
    let mut driver = Driver::blocked(100, 24);
    let screen = driver.show(&model);
    assert_has(&screen, &["forgotten: 12 locks", "lost 0"]);
    driver.keys("5", &model);
    assert_has(
        &driver.frame(&model),
        &["10 long waits, of the newest 10 of 20"],
    );
}

#[test]
fn empty_tables_say_what_it_means() {
    let mut model = Model::default();
    let mut driver = Driver::blocked(80, 24);
    assert_has(
        &driver.show(&model),
        &["Nothing has been observed yet.", "lost ?", "cpu ?"],
    );
    model.apply(Event::from(meta()));
    model.advance(START + 5 * SECOND);
    assert_has(
        &driver.show(&model),
        &["No task is blocked for longer than 100ms at this moment."],
    );
    driver.keys("3", &model);
    assert_has(
        &driver.frame(&model),
        &["No task has waited for a lock since the start, 5s ago."],
    );
    driver.keys("5", &model);
    assert_has(
        &driver.frame(&model),
        &["No wait of 1.00ms or longer has ended"],
    );
    driver.keys("6", &model);
    let screen = driver.frame(&model);
    assert_has(&screen, &["No runtime is known of any process"]);
    let mut named = meta();
    named.filters.pids = vec![4000];
    model.apply(Event::from(named));
    let screen = driver.show(&model);
    assert_has(
        &screen,
        &[
            "No runtime that observer knows",
            "of C are in 3 Locks; a runtime",
        ],
    );
    let idle = blocked(START, 1, "loop", Kind::Poll, SECOND);
    model.apply(Event::from(idle));
    driver.keys("2", &model);
    assert_has(
        &driver.frame(&model),
        &["All 1 rows are idle", "1 idle hidden, i shows them"],
    );
}
