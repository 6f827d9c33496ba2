//! A program that a test watches: it says `ready`, and is killed when it is dropped.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use crate::harness::{Skip, output};

pub(crate) struct Program {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Program {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(command: &mut Command) -> Result<Program, Skip> {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Skip(format!("{}: {error}", command.get_program().display())))?;
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut program = Program { child, lines };
        assert_eq!(program.line(), "ready");
        Ok(program)
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A dump of it.
    pub(crate) fn dump(&self, more: &[&str]) -> Value {
        let pid = self.pid().to_string();
        let output = output(&[&["dump", &pid, "--format", "json"], more].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The first dump of it of which something is true.
    pub(crate) fn dump_until(
        &self,
        what: &str,
        more: &[&str],
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        for _ in 0..200 {
            let dump = self.dump(more);
            if holds(&dump) {
                return dump;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("no dump with {what}: {}", self.dump(more));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The elements of a list in an event.
pub(crate) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// Names of the functions on a task's stack.
pub(crate) fn functions(task: &Value) -> Vec<String> {
    list(&task["stack"], "user")
        .iter()
        .filter_map(|frame| Some(frame["name"].as_str()?.to_owned()))
        .collect()
}
