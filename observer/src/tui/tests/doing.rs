//! What the screen does beside showing: commands, export, copy, the mouse.

use crossterm::event::{
    Event as Input, KeyCode, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use super::{scenes::*, trouble::trouble};
use crate::{model::Model, tui::Action};

fn command(driver: &mut Driver, text: &str) -> Action {
    let model = trouble();
    driver.keys(&format!(":{text}"), &model);
    driver.press(KeyCode::Enter, &model)
}

#[test]
fn commands_do_what_keys_do() {
    let model = trouble();
    let mut driver = Driver::new(120, 40);
    driver.show(&model);
    driver.keys(":lo", &model);
    assert_has(&driver.frame(&model), &[":lo_", "Enter do it"]);
    driver.press(KeyCode::Enter, &model);
    assert_has(&driver.frame(&model), &["[3 Locks]"]);
    command(&mut driver, "sort max");
    assert_has(&driver.frame(&model), &["MAX↓"]);
    command(&mut driver, "sort max");
    assert_has(&driver.frame(&model), &["MAX↑"]);
    command(&mut driver, "sort age");
    assert_has(&driver.frame(&model), &["Locks has no column \"age\""]);
    command(&mut driver, "filter accounts_mu");
    assert_has(&driver.frame(&model), &["filter \"accounts_mu\": 1 of"]);
    command(&mut driver, "filter");
    assert!(!driver.frame(&model).contains("filter \""));
    command(&mut driver, "group lock");
    assert_has(&driver.frame(&model), &["groups of blocked tasks, by lock"]);
    command(&mut driver, "nonsense");
    assert_has(&driver.frame(&model), &["no command \"nonsense\""]);
    driver.keys("j", &model);
    assert!(!driver.frame(&model).contains("no command"));
    command(&mut driver, "help");
    assert_has(&driver.frame(&model), &["help: Blocked", ":filter TEXT"]);
    driver.press(KeyCode::Esc, &model);
    driver.keys(":q", &model);
    driver.press(KeyCode::Esc, &model);
    assert!(!driver.frame(&model).contains(":q_"));
    assert_eq!(command(&mut driver, "quit"), Action::Quit);
}

/// `e` asks for the form.
fn exported(driver: &mut Driver, form: char, model: &Model) -> Action {
    assert_eq!(driver.press(KeyCode::Char('e'), model), Action::Redraw);
    assert_has(&driver.frame(model), &["f folded stacks"]);
    driver.press(KeyCode::Char(form), model)
}

#[test]
fn views_are_exported_as_json() {
    let model = trouble();
    let mut driver = Driver::new(120, 40);
    driver.show(&model);
    for (key, view, rows) in [
        ("1", "overview", 4),
        ("2", "blocked", 8),
        ("3", "locks", 7),
        ("4", "graph", 7),
        ("5", "waits", 31),
        ("6", "runtimes", 0),
        ("7", "processes", 1),
        ("8", "containers", 1),
        ("9", "health", 1),
    ] {
        driver.keys(key, &model);
        driver.show(&model);
        let Action::Save(export) = exported(&mut driver, 'j', &model) else {
            panic!("nothing to save in {view}");
        };
        let json: serde_json::Value = serde_json::from_str(&export.text).unwrap();
        assert_eq!(json["view"], view);
        assert_eq!(json["rows"].as_array().unwrap().len(), rows, "{view}");
        assert!(
            export
                .name
                .starts_with(&format!("observer-{view}-20261121T")),
            "{}",
            export.name
        );
        assert!(
            export
                .name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        );
    }
    // What the filter leaves, in the order on the screen, and one thing in full.
    driver.keys("2/client", &model);
    driver.press(KeyCode::Enter, &model);
    let Action::Save(export) = exported(&mut driver, 'j', &model) else {
        panic!("nothing to save");
    };
    let json: serde_json::Value = serde_json::from_str(&export.text).unwrap();
    let names = json["rows"].as_array().unwrap().iter();
    let names: Vec<_> = names
        .map(|row| row["task"]["comm"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["client-1", "client-2", "client-3"]);
    assert_eq!(json["filter"], "client");
    driver.press(KeyCode::Enter, &model);
    driver.frame(&model);
    let Action::Save(export) = exported(&mut driver, 'j', &model) else {
        panic!("nothing to save");
    };
    assert!(export.name.starts_with("observer-detail"));
    driver.ui.notice("written to x".into());
    assert_has(&driver.frame(&model), &["written to x"]);
}

#[test]
fn rows_and_pages_are_copied_as_harmless_text() {
    let mut model = trouble();
    let mut wait = blocked(
        model.now_ns(),
        1,
        "\x1b[31mred\n",
        crate::event::Kind::Lock,
        99 * SECOND,
    );
    wait.lock = Some(mutex(0xb0, Some("\x1b]0;x\x07")));
    model.apply(crate::event::Event::from(wait));
    let mut driver = Driver::new(80, 24);
    driver.show(&model);
    let copied = |driver: &mut Driver| match driver.press(KeyCode::Char('y'), &model) {
        Action::Copy(text) => text,
        other => panic!("{other:?}"),
    };
    assert_has(&copied(&mut driver), &["CRITICAL  deadlock: transfer-a"]);
    driver.keys("2", &model);
    let text = copied(&mut driver);
    assert_has(&text, &["TASK: ␛[31mred␊\n", "LOCK: ␛]0;x␇"]);
    assert!(!text.contains('\x1b'));
    driver.press(KeyCode::Enter, &model);
    driver.frame(&model);
    let text = copied(&mut driver);
    assert_has(&text, &["␛[31mred␊ (tid 1)", "RECENT WAITS"]);
    assert!(!text.contains('\x1b') && !text.contains('\x07'));
}

fn mouse(driver: &mut Driver, kind: MouseEventKind, column: usize, row: usize) {
    let model = trouble();
    let event = MouseEvent {
        kind,
        column: column as u16,
        row: row as u16,
        modifiers: KeyModifiers::NONE,
    };
    driver.ui.on_event(Input::Mouse(event), &model);
    driver.frame(&model);
}

/// Column and line of a part of the screen.
fn place(screen: &str, part: &str) -> (usize, usize) {
    let (y, line) = screen
        .lines()
        .enumerate()
        .find(|(_, line)| line.contains(part))
        .unwrap();
    (line[..line.find(part).unwrap()].chars().count(), y)
}

#[test]
fn the_mouse_selects_opens_sorts_and_scrolls() {
    let model = trouble();
    let click = MouseEventKind::Down(MouseButton::Left);
    let mut driver = Driver::new(120, 24);
    let screen = driver.show(&model);
    let (x, y) = place(&screen, "2 Blocked");
    mouse(&mut driver, click, x, y);
    let screen = driver.show(&model);
    assert_has(&screen, &["[2 Blocked]"]);
    let (x, y) = place(&screen, "client-2");
    mouse(&mut driver, click, x, y);
    assert!(driver.selected(&model).contains("client-2"));
    mouse(&mut driver, click, x, y);
    assert_has(&driver.frame(&model), &["client-2 (tid 4304)"]);
    driver.press(KeyCode::Esc, &model);
    let screen = driver.frame(&model);
    let (x, y) = place(&screen, "TASK");
    mouse(&mut driver, click, x, y);
    assert_has(&driver.frame(&model), &["TASK↑"]);
    driver.press(KeyCode::Home, &model);
    mouse(&mut driver, MouseEventKind::ScrollDown, 5, 10);
    assert_has(&driver.frame(&model), &["4/8"]);
    mouse(&mut driver, MouseEventKind::ScrollUp, 5, 10);
    assert_has(&driver.frame(&model), &["1/8"]);
    // In a text: the task that is named is selected, then opened.
    driver.keys("4", &model);
    let screen = driver.show(&model);
    let (x, y) = place(&screen, "writer/4009");
    mouse(&mut driver, click, x, y);
    mouse(&mut driver, click, x, y);
    assert_has(
        &driver.frame(&model),
        &["tid 4009", "not blocked now", "holds up"],
    );
}
