//! A terminal of its own to look at observer's screen with: tmux, without anybody's configuration.

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The terminal, gone when this is dropped.
pub(crate) struct Terminal {
    server: String,
}

impl Terminal {
    /// Opens a terminal of a size in which a shell runs a script.
    pub(crate) fn open(columns: u16, rows: u16, script: &str) -> Result<Self> {
        let terminal = Self {
            server: format!("observer-xtask-{}", std::process::id()),
        };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        terminal.tmux(&["new-session", "-d", "-x", &columns, "-y", &rows, script])?;
        Ok(terminal)
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        Command::new("tmux")
            .args(["-u", "-f", "/dev/null", "-L", &self.server])
            .args(args)
            // The screen is not to begin as somebody left it.
            .env("XDG_CONFIG_HOME", "/dev/null")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .output()
            .context("cannot start tmux: is it installed?")
    }

    fn tmux(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("`tmux {}` failed: {}", args.join(" "), why.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What is on it.
    pub(crate) fn text(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    pub(crate) fn key(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows])
            .map(drop)
    }

    /// Waits until a text is on it.
    pub(crate) fn wait_for(&self, part: &str) -> Result<()> {
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_mins(1) {
            if self.text()?.contains(part) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("{part:?} did not appear on the screen:\n{}", self.text()?)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.run(&["kill-server"]);
    }
}
