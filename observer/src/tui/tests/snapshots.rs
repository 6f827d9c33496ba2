//! Every view as it stands, at three sizes: what changes in one of them is seen in a review.
//! `INSTA_UPDATE=always cargo test -p observer --lib snapshots` writes them anew.

use crossterm::event::KeyCode;

use super::{rolled::with_goroutines, scenes::*};
use crate::tui::Options;

const VIEWS: &[(&str, &str)] = &[
    ("overview", "1"),
    ("blocked", "2"),
    ("blocked_by_lock", "2g"),
    ("task", "2jj\n"),
    ("locks", "3"),
    ("lock", "3\n"),
    ("graph", "4"),
    ("waits", "5"),
    ("runtimes", "6"),
    ("goroutines", "6\n"),
    ("processes", "7"),
    ("containers", "8"),
    ("health", "9"),
    ("help", "2?"),
];

/// Further ones, at one size.
const MORE: &[(&str, &str)] = &[
    ("blocked_by_process", "2gg"),
    ("blocked_by_stack", "2ggg"),
    ("blocked_by_container", "2gggg"),
    ("finding", "1\n"),
];

fn screen(options: Options, columns: u16, rows: u16, keys: &str) -> String {
    let model = with_goroutines();
    let mut driver = Driver::with(options, columns, rows);
    driver.show(&model);
    for key in keys.chars() {
        match key {
            '\n' => driver.press(KeyCode::Enter, &model),
            key => driver.press(KeyCode::Char(key), &model),
        };
        driver.show(&model);
    }
    driver.show(&model)
}

#[test]
fn views_at_three_sizes() {
    for (name, keys) in VIEWS {
        for (columns, rows) in [(80, 24), (120, 40), (200, 60)] {
            let screen = screen(Options::default(), columns, rows, keys);
            insta::assert_snapshot!(format!("{name}_{columns}x{rows}"), screen);
        }
    }
    for (name, keys) in MORE {
        let screen = screen(Options::default(), 120, 40, keys);
        insta::assert_snapshot!(format!("{name}_120x40"), screen);
    }
}

#[test]
fn a_replay() {
    let model = with_goroutines();
    let mut driver = Driver::new(120, 40);
    driver.ui.set_replayed();
    let note = "REPLAY playing x2 at 1m05s";
    driver.ui.set_note(Some(note.to_owned()));
    insta::assert_snapshot!("replay_120x40", driver.show(&model));
}

#[test]
fn without_unicode_no_view_has_any() {
    let ascii = Options {
        color: false,
        unicode: false,
    };
    let unknown = |screen: &str| screen.matches('?').count();
    for (name, keys) in VIEWS.iter().chain(MORE) {
        let whole = screen(Options::default(), 120, 40, keys);
        let screen = screen(ascii, 120, 40, keys);
        assert!(screen.is_ascii(), "{name}:\n{screen}");
        // Each sign has a likeness.
        assert!(unknown(&screen) <= unknown(&whole), "{name}:\n{screen}");
    }
}
