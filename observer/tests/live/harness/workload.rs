//! A program that waits in a known way.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
};

use serde_json::Value;

use super::{LIMIT, Skip, host::OBSERVER};

/// The exit code by which a workload says that this kernel has not what it needs.
const UNSUPPORTED: i32 = 77;

/// A running workload; killed when dropped.
pub(crate) struct Workload {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    ready: Value,
}

impl Workload {
    /// Starts a workload and waits until it is ready.
    pub(crate) fn start(args: &[&str]) -> Result<Workload, Skip> {
        let path = path();
        let mut child = Command::new(&path)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                let build = "cargo build -p observer --example workload";
                panic!("{}: {error}; build it with `{build}`", path.display())
            });
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Nobody listens any more when the test is over.
                let _ = send.send(line);
            }
        });
        let mut workload = Workload {
            child,
            stdin,
            lines,
            ready: Value::Null,
        };
        let line = workload.line();
        if let Some(what) = line.strip_prefix("unsupported ") {
            let status = workload.child.wait().unwrap();
            assert_eq!(status.code(), Some(UNSUPPORTED));
            return Err(Skip(format!("this kernel has no {what}")));
        }
        workload.ready = object(&line, "ready");
        Ok(workload)
    }

    fn line(&self) -> String {
        self.lines
            .recv_timeout(LIMIT)
            .unwrap_or_else(|error| panic!("workload {}: no line: {error}", self.child.id()))
    }

    /// Lets a workload that was started with `--wait-go` begin.
    pub(crate) fn go(&mut self) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin.write_all(b"go\n").unwrap();
    }

    /// The next line, which has to begin with this word.
    pub(crate) fn next(&mut self, word: &str) -> Value {
        object(&self.line(), word)
    }

    /// Ends the workload and reads what it measured.
    pub(crate) fn finish(&mut self) -> Value {
        self.stdin = None;
        self.truth()
    }

    /// Reads what a workload measured that ends by itself.
    pub(crate) fn truth(&mut self) -> Value {
        let truth = object(&self.line(), "truth");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the workload ended with {status}");
        truth
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the workload said when it was ready.
    pub(crate) fn ready(&self) -> &Value {
        &self.ready
    }

    /// The thread of this name.
    pub(crate) fn tid(&self, name: &str) -> u64 {
        self.ready["tids"][name]
            .as_u64()
            .unwrap_or_else(|| panic!("no thread {name} in {}", self.ready))
    }

    /// The address of the lock of this name.
    pub(crate) fn lock(&self, name: &str) -> &str {
        self.ready["locks"][name]
            .as_str()
            .unwrap_or_else(|| panic!("no lock {name} in {}", self.ready))
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn path() -> PathBuf {
    let folder = Path::new(OBSERVER).parent().unwrap();
    folder.join("examples").join("workload")
}

fn object(line: &str, word: &str) -> Value {
    line.strip_prefix(word)
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_else(|| panic!("expected `{word} {{…}}`, got {line:?}"))
}
