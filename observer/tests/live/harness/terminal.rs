//! A terminal to look at the screen with: tmux.

use std::{
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{Skip, poll};

/// A terminal of 80×24 of its own, without anybody's configuration; gone when dropped.
pub(crate) struct Terminal {
    server: String,
}

impl Terminal {
    /// Opens a terminal in which a shell runs `script`, and stays when that is over.
    pub(crate) fn open(script: &str) -> Result<Terminal, Skip> {
        if Command::new("tmux").arg("-V").output().is_err() {
            return Err(Skip("tmux is not installed".into()));
        }
        let terminal = Terminal {
            server: server_name(),
        };
        let script = format!("{script}; exec sleep 1000");
        terminal.tmux(&["new-session", "-d", "-x", "80", "-y", "24", &script]);
        Ok(terminal)
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new("tmux")
            .args(["-u", "-f", "/dev/null", "-L", &self.server])
            .args(args)
            .env("LC_ALL", "C.UTF-8")
            .env("XDG_CONFIG_HOME", "/dev/null")
            .env_remove("TMUX")
            .output()
            .unwrap()
    }

    pub(crate) fn tmux(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    pub(crate) fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    pub(crate) fn resize(&self, columns: &str, rows: &str) {
        self.tmux(&["resize-window", "-x", columns, "-y", rows]);
    }

    /// Waits until the screen shows all of these words, each as a word of its own.
    #[track_caller]
    pub(crate) fn wait_for(&self, words: &[&str]) -> String {
        let mut text = String::new();
        let found = || {
            text = self.text();
            let shown: Vec<_> = text.split_whitespace().collect();
            let all = words.iter().all(|word| shown.contains(word));
            all.then(|| text.clone())
        };
        let what = format!("{words:?} on the screen");
        poll(&what, found)
    }

    /// Waits until a text is no longer on the screen.
    #[track_caller]
    pub(crate) fn wait_until_without(&self, part: &str) {
        let what = format!("a screen without {part:?}");
        poll(&what, || (!self.text().contains(part)).then_some(()));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

/// A name that no other server has.
fn server_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("observer-test-{}-{count}", std::process::id())
}
