//! Keys and what they mean; the help and the footer come from the same table.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    command::{Command, Mode, View},
    export::Form,
    list::Move,
    state::State,
};

/// Steps in time of a key that goes far.
const FAR: usize = 10;

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
        Mode::Filter | Mode::Command => typing(key.code, mode),
        Mode::Help => help(key.code),
        Mode::Export => Some(exporting(key.code)),
        Mode::Browse => browsing(key.code),
    }
}

fn control(code: KeyCode, mode: Mode) -> Option<Command> {
    match code {
        KeyCode::Char('c' | 'C') => Some(Command::Quit),
        KeyCode::Char('u') if is_typing(mode) => Some(Command::EraseAll),
        // What terminals without a Backspace of their own send.
        KeyCode::Char('h') if is_typing(mode) => Some(Command::Erase),
        KeyCode::Char('f') if !is_typing(mode) => Some(Command::Go(Move::PageDown)),
        KeyCode::Char('b') if !is_typing(mode) => Some(Command::Go(Move::PageUp)),
        _ => None,
    }
}

fn is_typing(mode: Mode) -> bool {
    matches!(mode, Mode::Filter | Mode::Command)
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
        KeyCode::Char('G') => Move::End,
        _ => return moving(code),
    };
    Some(Command::Go(step))
}

fn typing(code: KeyCode, mode: Mode) -> Option<Command> {
    match code {
        KeyCode::Char(c) if !c.is_control() => Some(Command::Type(c)),
        KeyCode::Backspace => Some(Command::Erase),
        KeyCode::Enter if mode == Mode::Command => Some(Command::Run),
        KeyCode::Enter => Some(Command::KeepFilter),
        KeyCode::Esc => Some(Command::DropFilter),
        KeyCode::Up | KeyCode::Down | KeyCode::PageUp | KeyCode::PageDown => moving(code),
        _ => None,
    }
}

fn exporting(code: KeyCode) -> Command {
    let form = match code {
        KeyCode::Char('j') | KeyCode::Enter => Form::Json,
        KeyCode::Char('f') => Form::Folded,
        KeyCode::Char('t') => Form::Text,
        _ => return Command::Close,
    };
    Command::ExportAs(form)
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
        KeyCode::Char(digit @ '1'..='9') => {
            Command::View(View::ALL[usize::from(digit as u8 - b'1')])
        }
        KeyCode::Tab => Command::Neighbour { forward: true },
        KeyCode::BackTab => Command::Neighbour { forward: false },
        KeyCode::Right => Command::Arrow { forward: true },
        KeyCode::Left => Command::Arrow { forward: false },
        KeyCode::Char(key @ ('[' | ']')) => Command::Time {
            forward: key == ']',
            steps: 1,
        },
        KeyCode::Char(key @ ('{' | '}')) => Command::Time {
            forward: key == '}',
            steps: FAR,
        },
        KeyCode::Char('r') => Command::Record,
        KeyCode::Char('s') => Command::Sort { forward: true },
        KeyCode::Char('S') => Command::Sort { forward: false },
        KeyCode::Char('o') => Command::Reverse,
        KeyCode::Char('p' | ' ') => Command::Pause,
        KeyCode::Char('i') => Command::Idle,
        KeyCode::Char('g') => Command::Group,
        KeyCode::Char('n') => Command::Step { forward: true },
        KeyCode::Char('N') => Command::Step { forward: false },
        KeyCode::Char('e') => Command::Export,
        KeyCode::Char('y') => Command::Copy,
        KeyCode::Char(':') => Command::Prompt,
        KeyCode::Char('/') => Command::EditFilter,
        KeyCode::Char('?') | KeyCode::F(1) => Command::Help,
        KeyCode::Enter => Command::Details,
        KeyCode::Esc | KeyCode::Backspace => Command::Close,
        _ => return moving_by_letter(code),
    })
}

/// Keys and what they do, for the help.
pub(super) const HELP: &[(&str, &str)] = &[
    (
        "1 to 9",
        "Overview, Blocked, Locks, Graph, Waits, Runtimes, Processes, Containers, Health",
    ),
    (
        "Tab Shift-Tab",
        "next view, previous view (also right, left)",
    ),
    ("j k, arrows", "next row, previous row; scrolls a text"),
    ("PgDn PgUp", "a page down, up (also Ctrl-F, Ctrl-B)"),
    ("Home", "to the top, and stay there"),
    ("G End", "to the last row"),
    (
        "Enter",
        "opens what is selected: its details, and in them the task or lock that is marked",
    ),
    ("Esc", "goes back; in a view, clears the filter"),
    ("n N", "details of the next row, the previous row"),
    (
        "g",
        "Blocked grouped by lock, process, stack, container, pod, and not at all; Containers by pod",
    ),
    ("s S", "sort by the next column, the previous one"),
    ("o", "reverse the order"),
    (
        "/",
        "filter as you type: task, process, pid, tid, lock, holder, kind, syscall",
    ),
    (
        "",
        "Enter keeps the filter, Esc clears it, Ctrl-U erases it",
    ),
    (
        "p Space",
        "pause: everything stands still, observing goes on",
    ),
    (
        "[ ] { }",
        "back in time and forward again: a second, ten; while paused also left and right",
    ),
    (
        "r",
        "starts and stops recording what is observed, to a new file in the current directory",
    ),
    (
        "i",
        "show waits that are most often no trouble: poll, sleep, child, condvar",
    ),
    (
        "e",
        "export this view to a new file in the current directory: then j JSON, f folded stacks, t text",
    ),
    ("y", "copy the selected row, or the page that is open"),
    (":", "a command"),
    (
        "mouse",
        "the wheel scrolls, a click selects a tab, a row, a column to sort by; Shift for the terminal's own",
    ),
    ("?", "this help"),
    ("q Ctrl-C", "quit"),
];

/// Keys of a replay, which takes them before the screen does.
pub(super) const REPLAY: &[(&str, &str)] = &[
    ("Space", "plays the recording, and pauses it"),
    ("right left", "ten seconds forward, back"),
    ("f E", "to the next finding; to the end"),
    ("+ -", "twice as fast, half as fast"),
];

type Hints = &'static [(&'static str, &'static str)];

/// The most important keys, for the footer, most important first.
pub(super) fn footer(state: &State) -> Hints {
    match state.mode {
        Mode::Filter => &[("Enter", "keep"), ("Esc", "clear"), ("Ctrl-U", "erase")],
        Mode::Command => &[("Enter", "do it"), ("Esc", "leave"), ("Ctrl-U", "erase")],
        Mode::Export => &[
            ("j", "JSON"),
            ("f", "folded stacks"),
            ("t", "text"),
            ("Esc", "leave"),
        ],
        Mode::Help => &[("Esc", "close"), ("j k", "scroll"), ("Ctrl-C", "quit")],
        Mode::Browse if state.replayed => replayed_footer(state),
        Mode::Browse if !state.details.is_empty() => &[
            ("Esc", "back"),
            ("Enter", "open"),
            ("j k", "scroll"),
            ("n N", "next row"),
            ("y", "copy"),
            ("e", "export"),
            ("?", "help"),
            ("q", "quit"),
        ],
        Mode::Browse => browsing_footer(state),
    }
}

/// With the keys that a replay has of its own, which work on pages and while the screen stands still too.
fn replayed_footer(state: &State) -> Hints {
    if !state.details.is_empty() {
        return &[
            ("Esc", "back"),
            ("Enter", "open"),
            ("Space", "play, pause"),
            ("f E", "next finding, end"),
            ("j k", "scroll"),
            ("n N", "next row"),
            ("y", "copy"),
            ("e", "export"),
            ("?", "help"),
            ("q", "quit"),
        ];
    }
    if state.frozen.is_some() {
        return &[
            ("p", "go on"),
            ("[ ]", "back, forward"),
            ("Space", "play, pause"),
            ("f E", "next finding, end"),
            ("q", "quit"),
            ("?", "help"),
            ("/", "filter"),
            ("Enter", "details"),
            ("s", "sort"),
            ("1-9", "view"),
        ];
    }
    &[
        ("q", "quit"),
        ("?", "help"),
        ("Space", "play, pause"),
        ("f E", "next finding, end"),
        ("left right", "10 s"),
        ("+ -", "speed"),
        ("Enter", "open"),
        ("1-9", "view"),
        ("/", "filter"),
        ("s", "sort"),
    ]
}

fn browsing_footer(state: &State) -> Hints {
    if state.frozen.is_some() {
        return &[
            ("p", "go on"),
            ("[ ]", "back, forward"),
            ("q", "quit"),
            ("?", "help"),
            ("/", "filter"),
            ("Enter", "details"),
            ("s", "sort"),
            ("e", "export"),
            ("1-9", "view"),
        ];
    }
    match state.view {
        View::Blocked => &[
            ("q", "quit"),
            ("?", "help"),
            ("/", "filter"),
            ("p", "pause"),
            ("Enter", "details"),
            ("g", "group"),
            ("s", "sort"),
            ("i", "idle"),
            ("e", "export"),
            ("1-9", "view"),
        ],
        View::Locks | View::Waits | View::Runtimes | View::Processes | View::Containers => &[
            ("q", "quit"),
            ("?", "help"),
            ("/", "filter"),
            ("p", "pause"),
            ("Enter", "details"),
            ("s", "sort"),
            ("o", "reverse"),
            ("e", "export"),
            ("1-9", "view"),
        ],
        View::Overview | View::Graph | View::Health => &[
            ("q", "quit"),
            ("?", "help"),
            ("Enter", "open"),
            ("1-9", "view"),
            ("/", "filter"),
            ("p", "pause"),
            (":", "command"),
            ("e", "export"),
        ],
    }
}
