//! Time that stands still and is stepped through; and what is taken along from it.

use crossterm::event::KeyCode;

use super::{rolled::with_goroutines, scenes::*, trouble::*};
use crate::{
    event::{Event, Kind},
    model::Model,
    tui::{Action, Form, Options, Ui},
};

/// A queue that grows by one a second.
fn grow(driver: &mut Driver, model: &mut Model, seconds: std::ops::Range<u32>) {
    for second in seconds {
        let at_ns = START + u64::from(second) * SECOND;
        let wait = blocked(
            at_ns,
            100 + second,
            &format!("task-{second}"),
            Kind::Lock,
            MS,
        );
        model.apply(Event::from(wait));
        driver.show(model);
    }
}

#[test]
fn time_is_stepped_through() {
    let mut model = Model::default();
    model.apply(Event::from(meta()));
    let mut driver = Driver::blocked(80, 24);
    driver.press(KeyCode::Char('['), &model);
    assert_has(&driver.frame(&model), &["nothing older is kept"]);
    grow(&mut driver, &mut model, 1..21);
    assert_has(&driver.show(&model), &["20 blocked"]);
    driver.keys("[", &model);
    assert_has(
        &driver.show(&model),
        &["PAUSED 1s", "19 blocked", "1.00s ago; the last"],
    );
    driver.keys("{", &model);
    assert_has(&driver.show(&model), &["PAUSED 11s", "9 blocked"]);
    driver.press(KeyCode::Left, &model);
    assert_has(&driver.show(&model), &["PAUSED 12s", "8 blocked"]);
    driver.press(KeyCode::Right, &model);
    driver.keys("]", &model);
    assert_has(
        &driver.show(&model),
        &["PAUSED 10s", "10 blocked", "task-10"],
    );
    // It stands still while time goes on, and other views show the same moment.
    grow(&mut driver, &mut model, 21..31);
    assert_has(&driver.show(&model), &["PAUSED 20s", "10 blocked"]);
    driver.keys("7", &model);
    assert_has(line(&driver.show(&model), "ledger"), &[" 10 "]);
    driver.keys("2}}}", &model);
    assert_has(&driver.show(&model), &["this is the newest", "30 blocked"]);
    driver.keys("p", &model);
    let screen = driver.show(&model);
    assert!(
        screen.contains("30 blocked") && !screen.contains("PAUSED"),
        "{screen}"
    );
    // Without a pause the arrows lead to other views.
    driver.press(KeyCode::Right, &model);
    assert_has(&driver.show(&model), &["[3 Locks]"]);
}

fn text(driver: &mut Driver, form: char, model: &Model) -> String {
    driver.keys("e", model);
    match driver.press(KeyCode::Char(form), model) {
        Action::Save(export) => {
            let expected = if form == 'f' {
                Form::Folded
            } else {
                Form::Text
            };
            assert_eq!(export.form, expected);
            export.text
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn views_are_exported_as_stacks_and_text() {
    let model = with_goroutines();
    let mut driver = Driver::new(80, 24);
    driver.keys("2", &model);
    driver.show(&model);
    let folded = text(&mut driver, 'f', &model);
    println!("{folded}");
    assert_has(
        &folded,
        &[
            "shop;main.serve.func1;runtime.gopark 48",
            "ledger::transfer_a;__lll_lock_wait",
        ],
    );
    for line in folded.lines() {
        let (stack, number) = line.rsplit_once(' ').unwrap();
        assert!(
            number.parse::<u64>().is_ok() && stack.contains(';'),
            "{line}"
        );
    }
    // All rows, and nothing of them cut.
    let rows = text(&mut driver, 't', &model);
    assert_has(
        line(&rows, "client-1"),
        &["HOLDER writer/4009 exact", "AGE"],
    );
    driver.keys("6", &model);
    driver.show(&model);
    assert_has(
        &text(&mut driver, 't', &model),
        &["STARTED BY main.serve (shop.go:30)"],
    );
    assert!(text(&mut driver, 'f', &model).starts_with("shop;main.checkout.func1;"));
    driver.keys("9", &model);
    driver.keys("e", &model);
    let none = Driver::new(80, 24).press(KeyCode::Char('z'), &Model::default());
    assert_eq!(none, Action::None);
    driver.press(KeyCode::Esc, &model);
    assert!(!driver.frame(&model).contains("folded stacks"));
    for (key, part) in [("1", "CRITICAL"), ("4", "CIRCLE"), ("9", "ATTACHED")] {
        driver.keys(key, &model);
        driver.show(&model);
        assert_has(&text(&mut driver, 't', &model), &[part]);
    }
}

#[test]
fn recording_is_asked_for_and_said() {
    let model = busy();
    let mut driver = Driver::new(120, 24);
    assert_eq!(driver.press(KeyCode::Char('r'), &model), Action::Record);
    let name = driver.ui.file_name(&model);
    assert!(name.starts_with("observer-recording-20261121T"), "{name}");
    driver.ui.set_recording(Some(name.clone()));
    assert_has(&driver.frame(&model), &["REC observer-recording-"]);
    driver.ui.set_recording(None);
    assert!(!driver.frame(&model).contains("REC "));
}

/// What is read out after a key.
fn plain_after(ui: &mut Ui, code: KeyCode, model: &Model) -> Vec<String> {
    let key = crossterm::event::KeyEvent::new(code, crossterm::event::KeyModifiers::NONE);
    ui.on_event(crossterm::event::Event::Key(key), model);
    ui.tick(model);
    ui.plain(model)
}

#[test]
fn plain_lines_are_words_without_unicode_too() {
    let model = with_goroutines();
    let options = Options {
        color: false,
        unicode: false,
    };
    let mut ui = Ui::new(options);
    let mut all = String::new();
    for key in "123456789".chars() {
        all += &plain_after(&mut ui, KeyCode::Char(key), &model).join("\n");
    }
    println!("{all}");
    assert_has(
        &all,
        &[
            "waits at least 1.00ms",
            "deadlock: transfer-a/4301 and transfer-b/4302",
            "AGE at least 1m20s",
        ],
    );
    assert!(all.is_ascii(), "{all}");
    for sign in [">=", "<>", "->", "<-"] {
        assert!(!all.contains(sign), "{sign} is in:\n{all}");
    }
    // The screen is what it was.
    let mut screen = Driver::with(options, 120, 40);
    screen.ui = ui;
    assert!(screen.show(&model).is_ascii());
}

#[test]
fn plain_lines_say_what_the_screen_says() {
    let mut model = with_goroutines();
    let mut wait = blocked(NOW, 77, "\x1b[2J\u{202e}x\n", Kind::Lock, SECOND);
    wait.lock = Some(mutex(0x77, Some("a\rb")));
    model.apply(Event::from(wait));
    let mut ui = Ui::new(Options::default());
    let press = |ui: &mut Ui, code| plain_after(ui, code, &model);
    let lines = press(&mut ui, KeyCode::Char('1'));
    assert_has(
        &lines.join("\n"),
        &[
            "view 1 of 9, Overview",
            "selected: CRITICAL deadlock: transfer-a/4301",
        ],
    );
    let lines = press(&mut ui, KeyCode::Char('2'));
    let all = lines.join("\n");
    println!("{all}");
    assert_has(
        line(&all, "client-1"),
        &["AGE 22.0s, ", "LOCK accounts", "HOLDER writer/4009 exact"],
    );
    assert_has(&all, &["␛[2J�x␊", "selected: "]);
    for line in lines {
        let drawn = |c: char| c.is_control() || matches!(c, '\u{2500}'..='\u{259f}' | '\u{202e}');
        assert!(!line.contains(drawn), "{line:?}");
    }
    assert_has(
        &press(&mut ui, KeyCode::Char('?')).join("\n"),
        &["Waits in progress: which"],
    );
    press(&mut ui, KeyCode::Esc);
    assert_has(&press(&mut ui, KeyCode::Char('/')).join("\n"), &["filter:"]);
    press(&mut ui, KeyCode::Esc);
    let lines = press(&mut ui, KeyCode::Enter).join("\n");
    assert_has(
        &lines,
        &[
            "goroutines: main.checkout",
            "selected: waits for go_mutex 0xc000020000",
        ],
    );
}

#[test]
fn a_replay_names_its_keys_wherever_they_work() {
    let model = busy();
    let mut driver = Driver::blocked(120, 24);
    driver.ui.set_replayed();
    let last = |driver: &mut Driver| driver.show(&model).lines().last().map(str::to_owned);
    let has_keys = |line: Option<String>| {
        let line = line.unwrap_or_default();
        assert_has(&line, &["Space play, pause", "f E next finding, end"]);
        line
    };
    assert_has(
        &has_keys(last(&mut driver)),
        &["left right 10 s", "+ - speed"],
    );
    driver.keys("p", &model);
    assert_has(&has_keys(last(&mut driver)), &["p go on"]);
    driver.press(KeyCode::Enter, &model);
    assert_has(&has_keys(last(&mut driver)), &["Esc back", "? help"]);
    let mut live = Driver::blocked(120, 24);
    assert!(!live.show(&model).contains("next finding"));
}

#[test]
fn a_key_that_is_not_the_screens_takes_back_what_was_said() {
    let model = busy();
    let mut driver = Driver::new(120, 24);
    driver.ui.notice("there is no later finding".to_owned());
    assert_has(&driver.show(&model), &["there is no later finding"]);
    assert_eq!(driver.ui.said(), Some("there is no later finding"));
    driver.ui.answered();
    assert_eq!(driver.ui.said(), None);
    assert!(!driver.show(&model).contains("no later finding"));
}
