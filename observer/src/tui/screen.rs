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
    execute,
    terminal::{
        BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
        disable_raw_mode, enable_raw_mode,
    },
};
use ratatui::backend::CrosstermBackend;

use super::Ui;
use crate::model::Model;

/// Room for one frame of a large terminal, so that it is written at once.
const FRAME_BYTES: usize = 64 * 1024;

/// Is the terminal in our hands?
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, taken over: raw mode, alternate screen, cursor hidden; the mouse is left alone.
/// Dropping it, or a panic anywhere, gives the terminal back.
#[derive(Debug)]
pub struct Screen {
    terminal: ratatui::Terminal<CrosstermBackend<BufWriter<Stdout>>>,
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
    let screen = execute!(io::stdout(), EnterAlternateScreen, Hide).and_then(|()| {
        let output = BufWriter::with_capacity(FRAME_BYTES, io::stdout());
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
    let _ = execute!(output, EndSynchronizedUpdate, Show, LeaveAlternateScreen);
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
