//! Details and help.

use crossterm::event::KeyCode;

use super::scenes::*;
use crate::event::Event;

#[test]
fn details_are_whole() {
    let model = busy();
    let mut driver = Driver::blocked(80, 40);
    driver.show(&model);
    driver.press(KeyCode::Enter, &model);
    let screen = driver.frame(&model);
    println!("{screen}");
    assert_has(
        &screen,
        &[
            "transfer-1 (tid 4101)",
            "41000000000 ns",
            "4000:0x55d000001040",
        ],
    );
    assert_has(
        line(&screen, "also waiting"),
        &["40.0s", "transfer-2 (tid 4102)"],
    );
    driver.keys("3", &model);
    assert!(!driver.frame(&model).contains("also waiting"));
    driver.press(KeyCode::Enter, &model);
    let screen = driver.frame(&model);
    println!("{screen}");
    assert_has(
        &screen,
        &[
            "lock accounts_mu",
            "private to its process",
            "█████",
            "HOW LONG WAITS TOOK",
        ],
    );
    driver.keys("5", &model);
    driver.press(KeyCode::Enter, &model);
    assert_has(
        &driver.frame(&model),
        &["writer (tid 4009, pid 4000)", "woken"],
    );
}

#[test]
fn details_scroll_where_there_is_no_room() {
    let model = busy();
    let mut driver = Driver::blocked(80, 16);
    driver.show(&model);
    driver.press(KeyCode::Enter, &model);
    let screen = driver.frame(&model);
    assert_has(&screen, &["0 above", "below"]);
    driver.press(KeyCode::PageDown, &model);
    assert!(!driver.frame(&model).contains(" 0 above"));
    for _ in 0..10 {
        driver.press(KeyCode::PageDown, &model);
    }
    assert_has(&driver.frame(&model), &["RECENT WAITS", "0 below"]);
}

#[test]
fn help_is_about_this_view() {
    let model = busy();
    for (key, title) in [
        ("2", "help: Blocked"),
        ("3", "help: Locks"),
        ("5", "help: Waits"),
    ] {
        let mut driver = Driver::blocked(80, 24);
        driver.show(&model);
        driver.keys(key, &model);
        driver.keys("?", &model);
        let screen = driver.frame(&model);
        assert_has(
            &screen,
            &[
                title,
                "sort by the next column",
                "Ctrl-C",
                "lost 0",
                "Esc close",
            ],
        );
        driver.press(KeyCode::Esc, &model);
        assert!(!driver.frame(&model).contains("help:"));
    }
    let mut driver = Driver::blocked(40, 8);
    driver.show(&model);
    driver.keys("?", &model);
    driver.press(KeyCode::End, &model);
    assert_has(&driver.frame(&model), &[":export", "0 below"]);
}

#[test]
fn details_outlive_their_wait() {
    let mut model = busy();
    let mut driver = Driver::blocked(100, 30);
    driver.show(&model);
    driver.press(KeyCode::Enter, &model);
    let end = model.now_ns() + SECOND;
    model.apply(Event::from(wait(end, 4101, "transfer-1", 42 * SECOND)));
    let screen = driver.show(&model);
    assert!(
        screen.contains("transfer-1 (tid 4101): ENDED, as it was last seen"),
        "{screen}"
    );
    driver.keys("n", &model);
    assert!(driver.frame(&model).contains(" reader (tid 4103) "));
    driver.press(KeyCode::Esc, &model);
    assert!(!driver.frame(&model).contains("tid 4103"));
}
