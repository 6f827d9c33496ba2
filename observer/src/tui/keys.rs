//! Keys and what they mean; the help and the footer come from the same table.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    list::Move,
    state::{Command, Mode, View},
};

/// The command that a key stands for.
pub(super) fn command(key: KeyEvent, mode: Mode) -> Option<Command> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return control(key.code, mode);
    }
    if key.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    match mode {
        Mode::Filter => typing(key.code),
        Mode::Help => help(key.code),
        Mode::Browse => browsing(key.code),
    }
}

fn control(code: KeyCode, mode: Mode) -> Option<Command> {
    match code {
        KeyCode::Char('c' | 'C') => Some(Command::Quit),
        KeyCode::Char('u') if mode == Mode::Filter => Some(Command::EraseAll),
        // What terminals without a Backspace of their own send.
        KeyCode::Char('h') if mode == Mode::Filter => Some(Command::Erase),
        KeyCode::Char('f') if mode != Mode::Filter => Some(Command::Go(Move::PageDown)),
        KeyCode::Char('b') if mode != Mode::Filter => Some(Command::Go(Move::PageUp)),
        _ => None,
    }
}

fn moving(code: KeyCode) -> Option<Command> {
    let step = match code {
        KeyCode::Up => Move::Up,
        KeyCode::Down => Move::Down,
        KeyCode::PageUp => Move::PageUp,
        KeyCode::PageDown => Move::PageDown,
        KeyCode::Home => Move::Home,
        KeyCode::End => Move::End,
        _ => return None,
    };
    Some(Command::Go(step))
}

/// Movements that are letters, which a filter being typed needs for itself.
fn moving_by_letter(code: KeyCode) -> Option<Command> {
    let step = match code {
        KeyCode::Char('k') => Move::Up,
        KeyCode::Char('j') => Move::Down,
        KeyCode::Char('g') => Move::Home,
        KeyCode::Char('G') => Move::End,
        _ => return moving(code),
    };
    Some(Command::Go(step))
}

fn typing(code: KeyCode) -> Option<Command> {
    match code {
        KeyCode::Char(c) if !c.is_control() => Some(Command::Type(c)),
        KeyCode::Backspace => Some(Command::Erase),
        KeyCode::Enter => Some(Command::KeepFilter),
        KeyCode::Esc => Some(Command::DropFilter),
        KeyCode::Up | KeyCode::Down | KeyCode::PageUp | KeyCode::PageDown => moving(code),
        _ => None,
    }
}

fn help(code: KeyCode) -> Option<Command> {
    match code {
        KeyCode::Char('q' | '?') | KeyCode::Esc | KeyCode::Enter | KeyCode::F(1) => {
            Some(Command::Close)
        }
        _ => moving_by_letter(code),
    }
}

fn browsing(code: KeyCode) -> Option<Command> {
    Some(match code {
        KeyCode::Char('q') => Command::Quit,
        KeyCode::Char('1') => Command::View(View::Blocked),
        KeyCode::Char('2') => Command::View(View::Locks),
        KeyCode::Char('3') => Command::View(View::Waits),
        KeyCode::Tab | KeyCode::Right => Command::Neighbour { forward: true },
        KeyCode::BackTab | KeyCode::Left => Command::Neighbour { forward: false },
        KeyCode::Char('s') => Command::Sort { forward: true },
        KeyCode::Char('S') => Command::Sort { forward: false },
        KeyCode::Char('o') => Command::Reverse,
        KeyCode::Char('p' | ' ') => Command::Pause,
        KeyCode::Char('i') => Command::Idle,
        KeyCode::Char('/') => Command::EditFilter,
        KeyCode::Char('?') | KeyCode::F(1) => Command::Help,
        KeyCode::Enter => Command::Details,
        KeyCode::Esc => Command::Close,
        _ => return moving_by_letter(code),
    })
}

/// Keys and what they do, for the help.
pub(super) const HELP: &[(&str, &str)] = &[
    ("1 2 3", "Blocked, Locks, Waits"),
    (
        "Tab Shift-Tab",
        "next view, previous view (also right, left)",
    ),
    ("j k, arrows", "next row, previous row"),
    (
        "PgDn PgUp",
        "a page down, up; scrolls the details when they are open",
    ),
    ("g Home", "to the top, and stay there"),
    ("G End", "to the last row"),
    ("Enter", "details of the selected row"),
    ("s S", "sort by the next column, the previous one"),
    ("o", "reverse the order"),
    (
        "/",
        "filter as you type: task, process, pid, tid, lock, kind, syscall",
    ),
    (
        "",
        "Enter keeps the filter, Esc clears it, Ctrl-U erases it",
    ),
    ("p Space", "pause: the rows stand still, observing goes on"),
    (
        "i",
        "show waits of idle kinds: poll, sleep, child; or fold them away",
    ),
    ("Esc", "close details or help, else clear the filter"),
    ("?", "this help"),
    ("q Ctrl-C", "quit"),
];

/// The most important keys, for the footer, most important first.
pub(super) fn footer(
    mode: Mode,
    details: bool,
    paused: bool,
) -> &'static [(&'static str, &'static str)] {
    match (mode, details, paused) {
        (Mode::Filter, ..) => &[("Enter", "keep"), ("Esc", "clear"), ("Ctrl-U", "erase")],
        (Mode::Help, ..) => &[("Esc", "close"), ("j k", "scroll"), ("Ctrl-C", "quit")],
        (Mode::Browse, true, _) => &[
            ("Esc", "close"),
            ("j k", "row"),
            ("PgDn", "scroll"),
            ("q", "quit"),
            ("?", "help"),
        ],
        (Mode::Browse, false, true) => &[
            ("q", "quit"),
            ("?", "help"),
            ("p", "go on"),
            ("/", "filter"),
            ("Enter", "details"),
            ("s", "sort"),
            ("o", "reverse"),
            ("i", "idle"),
            ("1-3", "view"),
        ],
        (Mode::Browse, false, false) => &[
            ("q", "quit"),
            ("?", "help"),
            ("/", "filter"),
            ("p", "pause"),
            ("Enter", "details"),
            ("s", "sort"),
            ("o", "reverse"),
            ("i", "idle"),
            ("1-3", "view"),
        ],
    }
}
