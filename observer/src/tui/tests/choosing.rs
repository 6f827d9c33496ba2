//! Which rows are shown, and in what order: sorting, filtering, folding, pausing.

use crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyModifiers};

use super::scenes::*;
use crate::{
    event::{Event, Kind},
    model::Model,
};

#[test]
fn sorting_by_each_column() {
    let model = busy();
    let mut driver = Driver::blocked(200, 24);
    driver.show(&model);
    for title in [
        "TID↑",
        "PID↑",
        "TASK↑",
        "PROCESS↑",
        "KIND↑",
        "LOCK↑",
        "HOLDER↑",
        "HOLDER DOES↑",
        "SYSCALL↑",
        "STATE↓",
        "CONTAINER↑",
        "CHAIN↑",
        "AGE↓",
    ] {
        driver.keys("s", &model);
        let screen = driver.frame(&model);
        assert!(screen.contains(title), "{title}\n{screen}");
    }
    driver.keys("o", &model);
    assert!(driver.frame(&model).contains("AGE↑"));
    assert!(driver.selected(&model).contains("reader"));
    driver.keys("SSS", &model);
    // Only one task is runnable; unknown comes last, both ways.
    assert!(driver.selected(&model).contains("reader"));
    driver.keys("o", &model);
    assert!(driver.selected(&model).contains("reader"));
}

#[test]
fn rows_that_sort_alike_keep_their_places() {
    let mut model = Model::default();
    model.apply(Event::from(meta()));
    for tid in 0..200 {
        let wait = blocked(START, 1000 + tid, "same", Kind::Lock, SECOND);
        model.apply(Event::from(wait));
    }
    let mut driver = Driver::blocked(80, 24);
    let first = driver.show(&model);
    for _ in 0..5 {
        assert_eq!(driver.show(&model), first);
    }
    assert!(driver.selected(&model).contains("same"));
}

#[test]
fn filtering_as_typed() {
    let model = busy();
    for (filter, found) in [
        ("TRANSFER", &["transfer-1", "transfer-2"][..]),
        ("4103", &["reader"]),
        ("account_a", &["transfer-1", "transfer-2"]),
        ("55d000001080", &["transfer-2"]),
        ("pool", &[]),
        ("pread", &["reader"]),
        ("nothing like it", &[]),
    ] {
        let mut driver = Driver::blocked(120, 24);
        driver.show(&model);
        driver.keys("/", &model);
        driver.keys(filter, &model);
        let screen = driver.frame(&model);
        assert!(screen.contains(&format!("/{filter}_")), "{screen}");
        assert!(
            screen.contains(&format!("filter {filter:?}: {} of 6", found.len()))
                || filter == "pool",
            "{screen}"
        );
        for name in ["transfer-1", "transfer-2", "reader", "pool-worker-0"] {
            assert_eq!(
                screen.contains(name),
                found.contains(&name),
                "{filter}: {name}"
            );
        }
        driver.press(KeyCode::Enter, &model);
        let screen = driver.frame(&model);
        assert!(!screen.contains(&format!("/{filter}_")) && screen.contains("filter"));
        driver.press(KeyCode::Esc, &model);
        assert!(driver.frame(&model).contains("3 blocked"));
    }
}

#[test]
fn a_filter_is_edited() {
    let model = busy();
    let mut driver = Driver::blocked(80, 24);
    driver.show(&model);
    driver.keys("/reax", &model);
    assert!(driver.frame(&model).contains("None of 6 rows matches"));
    driver.press(KeyCode::Backspace, &model);
    assert!(driver.selected(&model).contains("reader"));
    let erase = KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL);
    driver.ui.on_event(Input::Key(erase), &model);
    assert!(driver.frame(&model).contains("/_"));
    driver.keys(&"日本語".repeat(100), &model);
    assert!(driver.frame(&model).contains('…'));
    driver.press(KeyCode::Esc, &model);
    assert!(!driver.frame(&model).contains("filter \""));
}

#[test]
fn idle_waits_are_folded_and_said_to_be() {
    let model = busy();
    let mut driver = Driver::blocked(80, 24);
    let screen = driver.show(&model);
    assert!(
        screen.contains("3 blocked") && screen.contains("3 idle hidden"),
        "{screen}"
    );
    driver.keys("i", &model);
    let screen = driver.frame(&model);
    assert!(
        screen.contains("6 blocked") && screen.contains("accept-loop"),
        "{screen}"
    );
    assert!(!screen.contains("hidden"));
    driver.keys("i/loop", &model);
    let screen = driver.frame(&model);
    assert!(
        screen.contains("All 1 rows that match \"loop\" are idle"),
        "{screen}"
    );
}

#[test]
fn paused_rows_stand_still_and_can_be_worked_with() {
    let mut model = busy();
    let mut driver = Driver::blocked(100, 40);
    let rows = |screen: &str| {
        screen
            .lines()
            .skip(3)
            .take(10)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let before = rows(&driver.show(&model));
    driver.keys("p", &model);
    let now = model.now_ns();
    for (tid, secs) in [(4101, 52), (4102, 51), (4103, 14)] {
        model.apply(Event::from(wait(
            now + 11 * SECOND,
            tid,
            "t",
            secs * SECOND,
        )));
    }
    model.advance(now + 12 * SECOND);
    let screen = driver.show(&model);
    assert!(
        screen.contains("PAUSED 12s") && screen.contains("1m17s"),
        "{screen}"
    );
    assert_eq!(rows(&screen), before);
    // Sorting, filtering, moving and details work on the rows of that moment.
    driver.keys("s/transfer", &model);
    driver.press(KeyCode::Enter, &model);
    driver.keys("j", &model);
    assert!(driver.selected(&model).contains("transfer-2"));
    driver.press(KeyCode::Enter, &model);
    let screen = driver.frame(&model);
    assert!(
        screen.contains("40000000000 ns") && screen.contains("also waiting"),
        "{screen}"
    );
    driver.keys("5", &model);
    driver.press(KeyCode::Esc, &model);
    assert!(driver.frame(&model).contains("30 long waits"));
    driver.keys(" ", &model);
    let screen = driver.frame(&model);
    assert!(
        !screen.contains("PAUSED") && screen.contains("33 long waits"),
        "{screen}"
    );
}
