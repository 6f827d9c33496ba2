//! The screen, in a terminal: tmux.

use std::process::Command;

use crate::harness::{OBSERVER, Skip, TempDir, Terminal, Workload, name, together};

/// What the first screen shows of the deadlock, and what the blocked tasks do.
const FINDING: [&str; 4] = ["[1", "Overview]", "CRITICAL", "deadlock:"];
const THREADS: [&str; 5] = ["ab", "ba", "[2", "LOCK", "HOLDER"];

/// From the finding to its evidence, to one of its tasks with both stacks, and back.
fn evidence(terminal: &Terminal) {
    terminal.wait_for(&FINDING);
    // Its evidence, then one of its tasks: both stacks.
    terminal.key("Enter");
    terminal.wait_for(&["EVIDENCE", "WHAT", "(exact:"]);
    terminal.key("Enter");
    terminal.wait_for(&["chain", "circle,", "holder"]);
    terminal.resize("120", "50");
    terminal.wait_for(&["where", "holder", "waits", "stack", "ends:"]);
    terminal.key("Escape");
    terminal.wait_for(&["EVIDENCE"]);
    terminal.key("Escape");
    terminal.wait_for(&FINDING);
}

/// The recording on a screen of its own: to its end, back, and from finding to finding.
fn replayed(file: &std::path::Path) {
    let script = format!("{OBSERVER} replay {}; echo back $?", file.display());
    let terminal = Terminal::open(&script).unwrap_or_else(|Skip(why)| panic!("{why}"));
    terminal.wait_for(&["REPLAY", "playing", "[1", "Overview]"]);
    terminal.key("E");
    terminal.wait_for(&["REPLAY", "end", "CRITICAL", "deadlock:"]);
    terminal.key("f");
    terminal.wait_for(&["there", "is", "no", "later", "finding:"]);
    terminal.key("Left");
    terminal.key("Space");
    terminal.wait_for(&["REPLAY", "playing"]);
    terminal.key("+");
    terminal.wait_for(&["REPLAY", "x2"]);
    terminal.key("Space");
    terminal.wait_for(&["REPLAY", "paused"]);
    terminal.key("r");
    terminal.wait_for(&["this", "is", "a", "recording", "already"]);
    terminal.key("?");
    terminal.wait_for(&["help:", "plays"]);
    terminal.key("Escape");
    terminal.key("q");
    terminal.wait_for(&["back", "0"]);
}

/// The file in the folder whose name ends so.
fn written(folder: &TempDir, ending: &str) -> std::path::PathBuf {
    let files = std::fs::read_dir(folder.path()).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    let is_it = |path: &std::path::PathBuf| path.to_string_lossy().ends_with(ending);
    files
        .find(is_it)
        .unwrap_or_else(|| panic!("no file {ending}"))
}

/// Filter, pause, step back, export, record, and a command.
fn filter_pause_export(terminal: &Terminal, folder: &TempDir) {
    terminal.key("2");
    terminal.wait_for(&THREADS);
    for key in ["/", "b", "a", "Enter"] {
        terminal.key(key);
    }
    terminal.wait_for(&["filter", "\"ba\":"]);
    terminal.key("Escape");
    // What follows at once would be a key with Alt.
    terminal.wait_until_without("\"ba\":");
    terminal.key("p");
    terminal.wait_for(&["PAUSED"]);
    terminal.key("[");
    terminal.wait_for(&["PAUSED", "ago;", "kept,"]);
    terminal.key("p");
    for (form, ending, part) in [
        ("j", ".json", "\"view\": \"blocked\""),
        ("f", ".folded", ";"),
        ("t", ".txt", "HOLDER ba/"),
    ] {
        terminal.key("e");
        terminal.wait_for(&["JSON", "folded", "stacks"]);
        terminal.key(form);
        terminal.wait_for(&["written", "to", "current", "directory"]);
        let written = std::fs::read_to_string(written(folder, ending)).unwrap();
        assert!(written.contains(part), "{written}");
    }
    terminal.key("r");
    terminal.wait_for(&["REC", "recording"]);
    terminal.key("r");
    terminal.wait_for(&["recorded", "events"]);
    let report = Command::new(OBSERVER)
        .arg("report")
        .arg(written(folder, ".jsonl.zst"))
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(report.contains("deadlock"), "{report}");
    replayed(&written(folder, ".jsonl.zst"));
    for key in [":", "l", "o", "c", "k", "s", "Enter"] {
        terminal.key(key);
    }
    terminal.wait_for(&["[3", "Locks]"]);
    terminal.key("2");
}

#[test]
fn shows_a_deadlock() {
    together(name!(), || {
        let workload = Workload::start(&["deadlock"])?;
        let (pid, folder) = (workload.pid(), TempDir::new());
        let script = format!(
            "cd {}; echo before; {OBSERVER} top -p {pid}; echo back $?",
            folder.path().display()
        );
        let terminal = Terminal::open(&script)?;

        evidence(&terminal);
        terminal.key("2");
        let blocked = terminal.wait_for(&THREADS);
        // Each holds what the other waits for.
        for holder in ["ab/", "ba/", "exact"] {
            assert!(blocked.contains(holder), "no {holder}:\n{blocked}");
        }
        // Losses and observer's own cost are on every screen.
        for head in ["lost 0", "cpu", "KIND"] {
            assert!(blocked.contains(head), "no {head}:\n{blocked}");
        }
        for (key, words) in [
            ("3", &["[3", "Locks]", "P99", "NOW", "HOLDER"][..]),
            ("4", &["[4", "Graph]", "CIRCLE", "again:"]),
            ("5", &["[5", "Waits]", "DUR", "OUTCOME"]),
            ("6", &["[6", "Runtimes]", "runtimes"]),
            ("7", &["[7", "Processes]", "BLOCKED↓"]),
            ("8", &["[8", "Containers]", "PROCS"]),
            ("9", &["[9", "Health]", "ATTACHED", "hooks"]),
        ] {
            terminal.key(key);
            terminal.wait_for(words);
            terminal.wait_for(&["lost"]);
        }
        terminal.key("?");
        terminal.wait_for(&["help:", "Health", "lost"]);
        terminal.key("Escape");
        terminal.wait_for(&["[9", "ATTACHED"]);

        filter_pause_export(&terminal, &folder);

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
        terminal.wait_for(&FINDING);
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

/// How the screen was left is how it begins again; a damaged file is told of and does no harm.
#[test]
fn begins_as_it_was_left() {
    together(name!(), || {
        let workload = Workload::start(&["deadlock"])?;
        let (pid, folder) = (workload.pid(), TempDir::new());
        let home = folder.path().display();
        let run = format!("XDG_CONFIG_HOME={home} {OBSERVER} top -p {pid}");
        let first = Terminal::open(&format!("{run}; echo back $?"))?;
        first.wait_for(&FINDING);
        for key in ["3", "s", "/", "a", "b", "Enter", "q"] {
            first.key(key);
        }
        first.wait_for(&["back", "0"]);
        let file = folder.path().join("observer/screen.toml");
        let left = std::fs::read_to_string(&file).unwrap();
        assert!(
            left.contains("view = \"locks\"") && left.contains("filter = \"ab\""),
            "{left}"
        );
        let second = Terminal::open(&format!("{run}; echo back $?"))?;
        second.wait_for(&["[3", "Locks]", "\"ab\":", "P50↓"]);
        drop(second);
        std::fs::write(&file, "view = [").unwrap();
        let third = Terminal::open(&run)?;
        third.wait_for(&["[1", "Overview]", "is", "not", "used:"]);
        Ok(())
    });
}

/// Plain lines: the same words, nothing drawn over, and the terminal given back.
#[test]
fn plain_lines_for_a_screen_reader() {
    together(name!(), || {
        let workload = Workload::start(&["deadlock"])?;
        let pid = workload.pid();
        let terminal = Terminal::open(&format!(
            "echo before; {OBSERVER} top --plain -p {pid}; echo back $?"
        ))?;
        terminal.resize("160", "60");
        terminal.wait_for(&["CRITICAL", "deadlock:"]);
        terminal.key("2");
        terminal.wait_for(&["Blocked:", "HOLDER"]);
        terminal.key("q");
        terminal.wait_for(&["back", "0"]);
        let modes = terminal.tmux(&["display-message", "-p", "#{alternate_on}#{cursor_flag}"]);
        assert_eq!(modes.trim(), "01", "alternate screen off, cursor on");
        Ok(())
    });
}

/// Who holds the hottest lock, and what it does: on the first screen, and all about the lock in two keys.
#[test]
fn tells_who_holds_the_hottest_lock() {
    together(name!(), || {
        let workload = Workload::start(&["mutex", "--hold-ms", "400", "--threads", "3"])?;
        let pid = workload.pid();
        let terminal = Terminal::open(&format!("{OBSERVER} top -p {pid}; echo back $?"))?;
        terminal.resize("160", "50");
        terminal.wait_for(&["[1", "HOTTEST", "held", "by", "(exact),", "clock_nanosleep"]);
        terminal.key("3");
        terminal.wait_for(&["[3", "Locks]", "exact"]);
        terminal.key("Enter");
        terminal.wait_for(&["holder", "(exact),", "evidence", "owner", "median,"]);
        terminal.key("q");
        terminal.wait_for(&["back", "0"]);
        Ok(())
    });
}
