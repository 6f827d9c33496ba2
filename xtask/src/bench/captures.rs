//! `cargo xtask captures`: the captures of the screen in docs/tui.md and README.md, from real runs.
//!
//! A line `<!-- screen SCENE COLUMNSxROWS: KEYS -->` in the page says what the block of text behind it shows: the
//! screen on a scene after these keys of tmux, each pressed when the one before has had its time.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::child::{self, Background};
use super::postgres::Cluster;
use super::room::{self, Room};
use crate::cmd::{self, say};
use crate::project;
use crate::tmux::Terminal;

const MARK: &str = "<!-- screen ";
const PAGES: [&str; 2] = ["docs/tui.md", "README.md"];
const SCENES: [&str; 3] = ["demo", "go", "postgres"];
/// A key has been answered after this long, and totals have come a few times before the first.
const ANSWERED: Duration = Duration::from_millis(1_500);
const SETTLED: Duration = Duration::from_secs(6);

/// Makes all captures anew. `debug`: of the debug build.
pub(crate) fn captures(debug: bool) -> Result<()> {
    let mut build = project::cargo();
    build.args(["build", "--package", "observer", "--bin", "observer"]);
    build.args(["--example", "demo"]);
    if !debug {
        build.arg("--release");
    }
    cmd::run(&mut build).context("cannot build observer and its demo program")?;
    child::catch_signals()?;
    for page in PAGES {
        remake(&project::root().join(page), debug)?;
    }
    Ok(())
}

/// Makes those of a page anew.
fn remake(path: &Path, debug: bool) -> Result<()> {
    let mut page =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let room = Room::new()?;
    for scene in SCENES {
        let captures: Vec<Capture> = page.lines().filter_map(Capture::parse).collect();
        let captures: Vec<_> = captures
            .into_iter()
            .filter(|one| one.scene == scene)
            .collect();
        if captures.is_empty() {
            continue;
        }
        say!("captures: {} of {scene}\n", captures.len());
        let running = Scene::start(scene, &room, debug)?;
        for (capture, text) in running.watch(&captures, debug)? {
            page = replace(&page, &capture.mark, &text)?;
        }
    }
    room::write(path, &page)?;
    say!("captures: wrote {}\n", path.display());
    Ok(())
}

/// What a mark asks for.
struct Capture {
    mark: String,
    scene: String,
    columns: u16,
    rows: u16,
    keys: Vec<String>,
}

impl Capture {
    fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix(MARK)?.strip_suffix(" -->")?;
        let (what, keys) = rest.split_once(':')?;
        let (scene, size) = what.split_once(' ')?;
        let (columns, rows) = size.split_once('x')?;
        Some(Self {
            mark: line.to_owned(),
            scene: scene.to_owned(),
            columns: columns.parse().ok()?,
            rows: rows.parse().ok()?,
            keys: keys.split_whitespace().map(str::to_owned).collect(),
        })
    }
}

/// The page with another text in the block behind a mark.
fn replace(page: &str, mark: &str, text: &str) -> Result<String> {
    let (before, rest) = page
        .split_once(&format!("{mark}\n"))
        .with_context(|| format!("{mark} is not in the page"))?;
    if rest.contains(&format!("{mark}\n")) {
        bail!("{mark} is in the page twice: press a key more in one of them");
    }
    let (_, after) = rest
        .strip_prefix("```text\n")
        .and_then(|block| block.split_once("\n```\n"))
        .with_context(|| format!("{mark} has no block of text behind it"))?;
    Ok(format!("{before}{mark}\n```text\n{text}\n```\n{after}"))
}

/// What is looked at, ended when this is dropped.
struct Scene {
    pid: u32,
    // In the order in which they end.
    clients: Option<Background>,
    _cluster: Option<Cluster>,
    program: Option<Background>,
    tell: Option<ChildStdin>,
}

impl Scene {
    fn start(scene: &str, room: &Room, debug: bool) -> Result<Self> {
        match scene {
            "demo" => Self::program(&mut Command::new(built("examples/demo", debug)), room),
            "go" => {
                let program = room.path("shop");
                let mut build = Command::new("go");
                build
                    .current_dir(project::root().join("observer/tests/go/programs"))
                    .args(["build", "-trimpath", "-o"])
                    .arg(&program)
                    .arg(".");
                cmd::output(&mut build).context("cannot compile the program in Go")?;
                Self::program(Command::new(program).arg("leak"), room)
            }
            _ => {
                let cluster = Cluster::start(room, "pg", 1)?;
                let mut clients = cluster.update_forever();
                clients.stdout(Stdio::null()).stdin(Stdio::null());
                let clients = Background::start(&mut clients, &room.path("pgbench.log"))?;
                Ok(Self {
                    pid: 0,
                    clients: Some(clients),
                    _cluster: Some(cluster),
                    program: None,
                    tell: None,
                })
            }
        }
    }

    fn program(command: &mut Command, room: &Room) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut program = Background::start(command, &room.path("scene.log"))?;
        Ok(Self {
            pid: program.child.id(),
            tell: program.child.stdin.take(),
            program: Some(program),
            clients: None,
            _cluster: None,
        })
    }

    /// Lets a moment pass in which the scene goes on.
    fn go_on(&mut self, time: Duration) -> Result<()> {
        for running in self.program.iter_mut().chain(&mut self.clients) {
            running.must_run()?;
        }
        if let Some(tell) = &mut self.tell {
            // The program in Go starts ten more goroutines; the demo does not listen.
            let _ = tell.write_all(b"grow\n");
        }
        thread::sleep(time);
        Ok(())
    }

    fn watch(mut self, captures: &[Capture], debug: bool) -> Result<Vec<(&Capture, String)>> {
        let mut command = built("observer", debug).display().to_string();
        if self.pid == 0 {
            command.push_str(" top --comm postgres");
        } else {
            command = format!("{command} top -p {}", self.pid);
        }
        let terminal = Terminal::open(120, 40, &command)?;
        terminal.wait_for("[1 Overview]")?;
        for _ in 0..4 {
            self.go_on(SETTLED / 4)?;
        }
        let mut taken = Vec::new();
        for capture in captures {
            terminal.resize(capture.columns, capture.rows)?;
            for key in &capture.keys {
                terminal.key(key)?;
                self.go_on(ANSWERED)?;
            }
            let text = harmless(&terminal.text()?);
            if text.trim().is_empty() {
                bail!("the screen is empty for {}", capture.mark);
            }
            taken.push((capture, text));
        }
        Ok(taken)
    }
}

fn built(name: &str, debug: bool) -> std::path::PathBuf {
    let folder = if debug { "debug" } else { "release" };
    project::target().join(folder).join(name)
}

/// Without what is this machine's own; many empty lines are one.
fn harmless(screen: &str) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}"));
    let mut screen = screen.to_owned();
    if let (Ok(host), Ok(release)) = (read("hostname"), read("osrelease")) {
        let (host, release) = (host.trim(), release.trim());
        let version: Vec<&str> = release.split('.').take(2).collect();
        screen = screen.replace(release, &format!("{}.x", version.join(".")));
        screen = screen.replace(&format!("  {host}  "), "  host  ");
    }
    let lines: Vec<&str> = screen.lines().map(str::trim_end).collect();
    let mut kept: Vec<&str> = Vec::new();
    for line in lines {
        if !(line.is_empty() && kept.last().is_some_and(|last| last.is_empty())) {
            kept.push(line);
        }
    }
    kept.join("\n").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_say_what_is_captured_and_blocks_are_replaced() {
        let mark = "<!-- screen demo 80x24: 2 Enter -->";
        let capture = Capture::parse(mark).unwrap();
        assert_eq!((capture.columns, capture.rows), (80, 24));
        assert_eq!(capture.keys, ["2", "Enter"]);
        assert!(Capture::parse("<!-- screen demo -->").is_none());
        let page = format!("a\n{mark}\n```text\nold\nolder\n```\nb\n```text\nkept\n```\n");
        let new = replace(&page, mark, "new").unwrap();
        assert_eq!(
            new,
            format!("a\n{mark}\n```text\nnew\n```\nb\n```text\nkept\n```\n")
        );
        assert!(replace("a\n", mark, "new").is_err());
        assert!(replace(&format!("{page}{page}"), mark, "new").is_err());
        assert_eq!(harmless("a  \n\n\n\nb\n\n"), "a\n\nb");
    }
}
