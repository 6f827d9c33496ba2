//! Where goroutines leak, on the screen.

use std::cell::{Cell, RefCell};

use crate::{
    harness::{OBSERVER, Terminal, name, poll, together},
    program::{Form, with_each},
};

/// Two keys to what grows fastest, and one more to what it waits for.
#[test]
fn a_leak_is_three_keys_away() {
    together(name!(), || {
        let (first, opened) = (Cell::new(true), RefCell::new(Ok(())));
        with_each(name!(), &[Form::Stripped], |program| {
            // The screen is the same for each release of Go.
            if !first.replace(false) {
                return;
            }
            let mut scene = program.play(&["leak"]);
            let script = format!("{OBSERVER} top --interval 250ms -p {}", scene.pid());
            let terminal = match Terminal::open(&script) {
                Ok(terminal) => terminal,
                Err(skip) => {
                    *opened.borrow_mut() = Err(skip);
                    return;
                }
            };
            terminal.resize("160", "40");
            terminal.wait_for(&["[1", "Overview]"]);
            terminal.key("6");
            terminal.key("s");
            poll("a leak at the top", || {
                scene.tell("grow");
                let text = terminal.text();
                let first = text.lines().find(|line| line.starts_with('>'))?;
                (first.contains('+') && first.contains("main.leakOne")).then_some(())
            });
            terminal.key("Enter");
            terminal.wait_for(&["growth", "waits", "(send),"]);
        });
        opened.into_inner()
    });
}
