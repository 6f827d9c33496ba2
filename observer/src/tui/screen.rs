//! The terminal: taken over when the screen is entered, and given back whatever happens.

use std::{
    io::{self, BufWriter, Stdout, Write},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use crossterm::{
    cursor::{Hide, Show},
    event::{DisableMouseCapture, EnableMouseCapture},
    execute,
    terminal::{
        BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
        disable_raw_mode, enable_raw_mode,
    },
};
use ratatui::backend::CrosstermBackend;

use super::{Ui, sixteen::Sixteen};
use crate::model::Model;

/// Room for one frame of a large terminal, so that it is written at once.
const FRAME_BYTES: usize = 64 * 1024;

/// Is the terminal in our hands?
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, taken over: raw mode, alternate screen, cursor hidden, mouse reported.
/// Dropping it, or a panic anywhere, gives the terminal back.
#[derive(Debug)]
pub struct Screen {
    terminal: ratatui::Terminal<CrosstermBackend<BufWriter<Sixteen<Stdout>>>>,
}

/// Takes the terminal over.
///
/// # Errors
/// When standard input or output is not a terminal, or writing to it fails. The terminal is then as
/// it was.
pub fn enter() -> io::Result<Screen> {
    restore_on_panic();
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    let taken = execute!(io::stdout(), EnterAlternateScreen, Hide, EnableMouseCapture);
    let screen = taken.and_then(|()| {
        let output = BufWriter::with_capacity(FRAME_BYTES, Sixteen(io::stdout()));
        let mut terminal = ratatui::Terminal::new(CrosstermBackend::new(output))?;
        terminal.clear()?;
        Ok(Screen { terminal })
    });
    if screen.is_err() {
        restore();
    }
    screen
}

impl Screen {
    /// Draws a frame; only what changed is sent.
    ///
    /// # Errors
    /// When writing to the terminal fails.
    pub fn draw(&mut self, ui: &mut Ui, model: &Model) -> io::Result<()> {
        execute!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        self.terminal.draw(|frame| ui.draw(frame, model))?;
        execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)
    }

    /// Asks the terminal to put a text on the clipboard (OSC 52). Not every terminal does.
    ///
    /// # Errors
    /// When writing to the terminal fails.
    pub fn copy(&mut self, text: &str) -> io::Result<()> {
        let output = self.terminal.backend_mut();
        write!(output, "{}", clipboard(text))?;
        io::Write::flush(output)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back, once. There is nobody left to tell when this fails.
fn restore() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut output = io::stdout();
    let _ = execute!(
        output,
        EndSynchronizedUpdate,
        DisableMouseCapture,
        Show,
        LeaveAlternateScreen
    );
    let _ = output.flush();
    let _ = disable_raw_mode();
}

/// Has panics give the terminal back first: their message would vanish with the alternate screen.
fn restore_on_panic() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            report(info);
        }));
    });
}

/// What asks a terminal to put a text on the clipboard.
pub(super) fn clipboard(text: &str) -> String {
    format!("\x1b]52;c;{}\x1b\\", base64(text.as_bytes()))
}

/// Base64 with padding, RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for sign in 0..4 {
            text.push(if sign <= chunk.len() {
                char::from(SIGNS[(bits >> (18 - 6 * sign)) as usize & 63])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_any_length() {
        for (text, code) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), code);
        }
    }
}
