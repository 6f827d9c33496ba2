//! The screen, in a terminal: tmux.

use std::{
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::harness::{OBSERVER, Skip, TempDir, Workload, name, poll, together};

/// A terminal of 80×24 of its own, without anybody's configuration; gone when dropped.
struct Terminal {
    server: String,
}

impl Terminal {
    /// Opens a terminal in which a shell runs `script`, and stays when that is over.
    fn open(script: &str) -> Result<Terminal, Skip> {
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
            .env_remove("TMUX")
            .output()
            .unwrap()
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn resize(&self, columns: &str, rows: &str) {
        self.tmux(&["resize-window", "-x", columns, "-y", rows]);
    }

    /// Waits until the screen shows all of these words, each as a word of its own.
    #[track_caller]
    fn wait_for(&self, words: &[&str]) -> String {
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

/// What the first screen shows of the deadlock.
const THREADS: [&str; 4] = ["ab", "ba", "[1", "LOCK"];

#[test]
fn shows_a_deadlock() {
    together(name!(), || {
        let workload = Workload::start(&["deadlock"])?;
        let pid = workload.pid();
        let script = format!("echo before; {OBSERVER} top -p {pid}; echo back $?");
        let terminal = Terminal::open(&script)?;

        let blocked = terminal.wait_for(&THREADS);
        for lock in ["first", "second"] {
            assert!(blocked.contains(workload.lock(lock)), "{blocked}");
        }
        // Losses and observer's own cost are on every screen.
        for head in ["lost 0", "cpu", "TID", "PID", "KIND"] {
            assert!(blocked.contains(head), "no {head}:\n{blocked}");
        }
        terminal.key("2");
        terminal.wait_for(&["[2", "Locks]", "WAITS", "P99", "NOW", "lost"]);
        terminal.key("3");
        terminal.wait_for(&["[3", "Waits]", "DUR", "OUTCOME", "WAKER", "lost"]);
        terminal.key("?");
        terminal.wait_for(&["help:", "Waits", "quit", "lost"]);
        terminal.key("Escape");
        terminal.wait_for(&["[3", "Waits]", "OUTCOME"]);
        terminal.key("1");
        terminal.wait_for(&THREADS);

        terminal.resize("200", "50");
        terminal.wait_for(&["SYSCALL", "STATE", "ab", "ba"]);
        terminal.resize("30", "5");
        terminal.wait_for(&["terminal", "too", "small:", "30x5,"]);
        terminal.resize("80", "24");
        terminal.wait_for(&THREADS);

        terminal.key("q");
        let after = terminal.wait_for(&["before", "back"]);
        let left: Vec<_> = after.split_whitespace().collect();
        assert_eq!(left, ["before", "back", "0"], "the shell's own screen");
        Ok(())
    });
}

/// A signal gives the terminal back as `q` does.
#[test]
fn gives_the_terminal_back_on_a_signal() {
    together(name!(), || {
        let workload = Workload::start(&["deadlock"])?;
        let (pid, folder) = (workload.pid(), TempDir::new());
        let file = folder.path().join("pid");
        let file = file.to_str().unwrap();
        // The shell that writes its number becomes observer.
        let script = format!(
            "echo before; sh -c 'echo $$ > {file}; exec {OBSERVER} top -p {pid}'; echo back $?"
        );
        let terminal = Terminal::open(&script)?;
        terminal.wait_for(&THREADS);
        let observer = std::fs::read_to_string(file).unwrap();
        let sent = Command::new("kill").arg(observer.trim()).status().unwrap();
        assert!(sent.success());
        let after = terminal.wait_for(&["before", "back"]);
        let left: Vec<_> = after.split_whitespace().collect();
        assert_eq!(left, ["before", "back", "0"], "the shell's own screen");
        let modes = terminal.tmux(&["display-message", "-p", "#{alternate_on}#{cursor_flag}"]);
        assert_eq!(modes.trim(), "01", "alternate screen off, cursor on");
        Ok(())
    });
}
