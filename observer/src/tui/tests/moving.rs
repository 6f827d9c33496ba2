//! Keys: moving, sorting, filtering, pausing, folding.

use crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyModifiers};

use super::scenes::*;
use crate::{
    event::{Event, Kind},
    model::Model,
    tui::Action,
};

/// A host with `n` tasks blocked, of which the one with the least tid waits longest.
fn queue(n: u32) -> Model {
    let mut model = Model::default();
    model.apply(Event::from(meta()));
    for tid in 0..n {
        let age = u64::from(n - tid) * MS + SECOND;
        let wait = blocked(
            START + SECOND,
            10_000 + tid,
            &format!("t{tid}"),
            Kind::Lock,
            age,
        );
        model.apply(Event::from(wait));
    }
    model
}

#[test]
fn keys_quit_or_redraw() {
    let model = busy();
    let mut driver = Driver::blocked(80, 24);
    let control = |c| Input::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
    for keys in ["", "?", "/abc"] {
        driver.keys(keys, &model);
        assert_eq!(
            driver.ui.on_event(control('c'), &model),
            Action::Quit,
            "{keys}"
        );
        driver.press(KeyCode::Esc, &model);
    }
    assert_eq!(driver.press(KeyCode::Char('q'), &model), Action::Quit);
    assert_eq!(driver.press(KeyCode::Char('x'), &model), Action::None);
    assert_eq!(driver.press(KeyCode::Char('j'), &model), Action::Redraw);
    assert_eq!(
        driver.ui.on_event(Input::Resize(10, 10), &model),
        Action::Redraw
    );
    let mut released = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
    released.kind = crossterm::event::KeyEventKind::Release;
    assert_eq!(
        driver.ui.on_event(Input::Key(released), &model),
        Action::None
    );
    // In a filter, q is a letter.
    driver.keys("/", &model);
    assert_eq!(driver.press(KeyCode::Char('q'), &model), Action::Redraw);
}

#[test]
fn views_by_number_and_in_turn() {
    let model = busy();
    let mut driver = Driver::blocked(80, 24);
    for (key, view) in [
        (KeyCode::Char('5'), "[5 Waits]"),
        (KeyCode::Tab, "[6 Runt.]"),
        (KeyCode::Char('9'), "[9 Health]"),
        (KeyCode::Tab, "[1 Overview]"),
        (KeyCode::Tab, "[2 Blocked]"),
        (KeyCode::BackTab, "[1 Overview]"),
        (KeyCode::BackTab, "[9 Health]"),
        (KeyCode::Char('4'), "[4 Graph]"),
        (KeyCode::Right, "[5 Waits]"),
        (KeyCode::Left, "[4 Graph]"),
    ] {
        driver.press(key, &model);
        assert!(driver.frame(&model).contains(view), "{key:?}");
    }
}

#[test]
fn the_selection_moves_and_the_page_follows() {
    let model = queue(100);
    let mut driver = Driver::blocked(80, 24);
    driver.show(&model);
    // 24 lines less header, tabs, status, titles and footer.
    let page = 18;
    for (key, selected) in [
        (KeyCode::Char('j'), 1),
        (KeyCode::Down, 2),
        (KeyCode::Char('k'), 1),
        (KeyCode::PageDown, 1 + page),
        (KeyCode::PageDown, 1 + 2 * page),
        (KeyCode::Up, 2 * page),
        (KeyCode::PageUp, page),
        (KeyCode::Char('G'), 99),
        (KeyCode::Down, 99),
        (KeyCode::PageUp, 99 - page),
        (KeyCode::Home, 0),
        (KeyCode::Up, 0),
        (KeyCode::End, 99),
        (KeyCode::Home, 0),
    ] {
        driver.press(key, &model);
        let line = driver.selected(&model);
        assert!(line.contains(&format!(" t{selected} ")), "{key:?}: {line}");
        assert!(
            driver
                .frame(&model)
                .contains(&format!("{}/100", selected + 1))
        );
    }
}

#[test]
fn the_selection_holds_on_to_its_row() {
    let mut model = queue(100);
    let mut driver = Driver::blocked(80, 24);
    driver.show(&model);
    driver.keys("jjjjj", &model);
    assert!(driver.selected(&model).contains(" t5 "));
    // Others leave, others come: the row stays selected.
    for tid in 0..3 {
        model.apply(Event::from(wait(
            START + 2 * SECOND,
            10_000 + tid,
            "t",
            1_500 * MS,
        )));
    }
    let line = driver.selected(&model);
    assert!(line.contains(" t5 "), "{line}");
    driver.keys("oS", &model);
    assert!(driver.selected(&model).contains(" t5 "));
    driver.keys("s", &model);
    // When it leaves itself, the row that takes its place is selected, and held on to.
    model.apply(Event::from(wait(
        START + 2 * SECOND,
        10_005,
        "t",
        1_500 * MS,
    )));
    assert!(driver.selected(&model).contains(" t6 "));
    model.apply(Event::from(wait(
        START + 2 * SECOND,
        10_004,
        "t",
        1_500 * MS,
    )));
    assert!(driver.selected(&model).contains(" t6 "));
}

#[test]
fn the_newest_wait_is_followed_until_one_is_selected() {
    let mut model = busy();
    let mut driver = Driver::blocked(120, 24);
    driver.show(&model);
    driver.keys("5", &model);
    let arrive = |model: &mut Model, tid| {
        let end = model.now_ns() + MS;
        model.apply(Event::from(wait(end, tid, "late", 5 * MS)));
    };
    arrive(&mut model, 1);
    assert!(driver.selected(&model).contains("late"));
    driver.keys("j", &model);
    let line = driver.selected(&model);
    let before = driver.frame(&model);
    (2..40).for_each(|tid| arrive(&mut model, tid));
    assert_eq!(driver.selected(&model), line);
    let rows = |screen: &str| {
        screen
            .lines()
            .skip(5)
            .take(18)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let selected_row = |screen: &str| screen.lines().position(|line| line.starts_with("> "));
    let after = driver.frame(&model);
    assert_eq!(selected_row(&before), selected_row(&after));
    assert_ne!(rows(&before), "");
    driver.press(KeyCode::Home, &model);
    assert!(driver.selected(&model).contains("late"));
}
