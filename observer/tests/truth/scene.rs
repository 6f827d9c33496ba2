//! Scenes: what is played, and what observer is expected to be able to tell of it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
};

use serde_json::Value;

use crate::{
    harness::{LIMIT, Skip},
    programs::Build,
};

/// What can be told about a holder from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The lock's memory names it.
    Exact,
    /// Only other evidence does.
    Likely,
    /// Nothing does: to say so is the right answer.
    Unknown,
}

impl Told {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Told::Exact => "exact",
            Told::Likely => "likely",
            Told::Unknown => "unknown",
        }
    }
}

/// One scene in one build.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) build: Build,
    pub(crate) told: Told,
    /// Rules that have to find something.
    pub(crate) found: &'static [&'static str],
    /// Rules that may, depending on how busy the machine is.
    pub(crate) allowed: &'static [&'static str],
    /// Does it come about only when it is watched?
    pub(crate) later: bool,
}

impl Scene {
    pub(crate) fn new(build: Build, name: &'static str) -> Scene {
        Scene {
            name,
            build,
            told: Told::Exact,
            found: &[],
            allowed: &[],
            later: false,
        }
    }

    pub(crate) fn likely(self) -> Scene {
        Scene {
            told: Told::Likely,
            ..self
        }
    }

    pub(crate) fn unknown(self) -> Scene {
        Scene {
            told: Told::Unknown,
            ..self
        }
    }

    pub(crate) fn finds(self, found: &'static [&'static str]) -> Scene {
        Scene { found, ..self }
    }

    pub(crate) fn may_find(self, allowed: &'static [&'static str]) -> Scene {
        Scene { allowed, ..self }
    }

    pub(crate) fn later(self) -> Scene {
        Scene {
            later: true,
            ..self
        }
    }

    /// Starts the program.
    pub(crate) fn start(self) -> Result<Stage, Skip> {
        let path = self.build.path()?;
        let mut command = Command::new(&path);
        command.arg(self.name);
        if self.later {
            command.arg("later");
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                let build = "cargo build -p observer --example truth";
                panic!(
                    "{}: {error}; Rust's is built with `{build}`",
                    path.display()
                )
            });
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, line) = mpsc::channel();
        std::thread::spawn(move || {
            if let Some(Ok(line)) = stdout.lines().next() {
                // Nobody listens any more if the test is over.
                let _ = send.send(line);
            }
        });
        Ok(Stage {
            stdin: child.stdin.take(),
            child,
            line,
            scene: self,
            truth: Value::Null,
        })
    }
}

/// A scene that is played; killed when dropped.
pub(crate) struct Stage {
    pub(crate) scene: Scene,
    child: Child,
    stdin: Option<ChildStdin>,
    line: Receiver<String>,
    /// What the program says is true.
    pub(crate) truth: Value,
}

impl Stage {
    /// Waits until the scene stands.
    pub(crate) fn stand(&mut self) {
        let line = self.line.recv_timeout(LIMIT).unwrap_or_else(|error| {
            panic!("{} ({}): {error}", self.scene.name, self.scene.build.name())
        });
        self.truth = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }

    /// Lets a scene that comes about later begin.
    pub(crate) fn go(&mut self) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin.write_all(b"go\n").unwrap();
    }

    pub(crate) fn pid(&self) -> u64 {
        u64::from(self.child.id())
    }

    /// The program, and what it forked.
    pub(crate) fn processes(&self) -> impl Iterator<Item = u64> {
        let more = self.truth["processes"].as_array().into_iter().flatten();
        std::iter::once(self.pid()).chain(more.map(|pid| pid.as_u64().unwrap()))
    }

    /// Threads that wait, with what is true of them.
    pub(crate) fn waits(&self) -> &[Value] {
        self.truth["waits"].as_array().unwrap()
    }

    /// Idle threads.
    pub(crate) fn idle(&self) -> &[Value] {
        self.truth["idle"].as_array().unwrap()
    }

    /// Circles of threads.
    pub(crate) fn circles(&self) -> impl Iterator<Item = Vec<u64>> {
        let circles = self.truth["circles"].as_array().unwrap().iter();
        circles.map(|circle| {
            let members = circle.as_array().unwrap().iter();
            members.map(|tid| tid.as_u64().unwrap()).collect()
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // It ends when its standard input does; killed, it cannot hang. Children of its own end with it.
        self.stdin = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
